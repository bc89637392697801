"""Where quantization points are placed, their bits, and what is refused."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.keras3 import LSQModel
from tf_lsq.layers import LSQWrapper
from tf_lsq.training import quantization_points, wrapped_layers

layers = keras.layers
quantize_annotate_layer = tfmot.quantization.keras.quantize_annotate_layer
quantize_annotate_model = tfmot.quantization.keras.quantize_annotate_model
quantize_apply = tfmot.quantization.keras.quantize_apply


def points(student):
    return {
        p.name: (p.num_bits, p.quantizer.signed) for p in quantization_points(student)
    }


def kernel_bits(student):
    return {w.layer.name: w.quantizer.num_bits for w in wrapped_layers(student)}


def chain():
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="a")(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="b")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(4, name="c")(x)
    return keras.Model(inputs, layers.Dense(3, name="d")(x))


def test_bits_follow_the_consumers():
    student = tf_lsq.quantize_model(chain(), weight_bits=3, activation_bits=2)
    assert kernel_bits(student) == {"a": 8, "b": 3, "c": 3, "d": 8}
    assert points(student) == {
        "quantize_image": (8, None),
        "quantize_a": (2, False),
        "quantize_b": (2, False),
        "quantize_c": (8, True),
        "quantize_d": (8, True),
    }


def test_a_residual_tensor_has_eight_bits_and_an_extra_point(rng):
    student = tf_lsq.quantize_model(tiny.residual())
    found = points(student)
    assert found["re_lu"] == (8, False)
    assert found["quantize_re_lu_to_4_bits"] == (4, False)
    assert found["re_lu_1"] == (4, False)
    assert found["quantize_batch_normalization_2"] == (8, True)


def test_pre_activation_batch_norms_stand_alone():
    student = tf_lsq.quantize_model(tiny.pre_activation())
    found = points(student)
    assert found["quantize_conv2d"] == (8, True)
    assert found["re_lu"] == (4, False)


def test_a_concatenation_shares_one_step():
    inputs = layers.Input((4, 4, 2))
    parts = [layers.Conv2D(2, 1, activation="relu")(inputs) for _ in range(8)]
    x = layers.Concatenate(name="join")(parts)
    x = layers.Conv2D(2, 1)(x)
    student = tf_lsq.quantize_model(
        keras.Model(inputs, layers.Conv2D(2, 1)(x)), first_last_bits=8
    )
    assert points(student)["quantize_join"] == (4, False)
    point = student.get_layer("quantize_join")
    assert len(point.inbound_nodes) == 8


def test_overrides_set_bits_or_float():
    student = tf_lsq.quantize_model(
        chain(), overrides={"[bc]": 2, "c": 5, "d": "float"}
    )
    assert kernel_bits(student) == {"a": 8, "b": 2, "c": 5}
    assert type(student.get_layer("d")) is layers.Dense


def test_overrides_set_bits_of_kernel_and_input(tmp_path):
    student = tf_lsq.quantize_model(
        chain(), overrides={"a": (3, 8), "[bc]": (2, 6), "c": [8, 5]}
    )
    assert kernel_bits(student) == {"a": 3, "b": 2, "c": 8, "d": 8}
    found = points(student)
    bits = [found[f"quantize_{name}"][0] for name in ("image", "a", "b", "c", "d")]
    assert bits == [8, 6, 5, 8, 8]
    x = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert kernel_bits(loaded) == kernel_bits(student)
    np.testing.assert_array_equal(loaded(x), student(x))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((4,), r"pair \(weight_bits, activation_bits\), or 'float'. Received"),
        ((4, 17), r"overrides\['a'\]\[1\]` must be an integer from 2 to 16"),
        ((9, 4), r"overrides\['a'\]\[0\]` must be an integer from 2 to 8"),
        ("four", r"overrides\['a'\]` must be an integer from 2 to 16"),
    ],
)
def test_wrong_overrides_are_named(value, expected):
    with pytest.raises(ValueError, match=expected):
        tf_lsq.quantize_model(chain(), overrides={"a": value})


def test_patterns_that_match_nothing_are_all_named():
    with pytest.raises(ValueError, match=r"'x' matches no layer.*'pool' matches no"):
        tf_lsq.quantize_model(chain(), overrides={"x": 4, "pool": 3, "a": 4})


@pytest.mark.parametrize(
    "option", ["weight_bits", "activation_bits", "first_last_bits"]
)
def test_wrong_bits_are_named(option):
    with pytest.raises(ValueError, match=f"`{option}` must be an integer from 2 to 8"):
        tf_lsq.quantize_model(chain(), **{option: 9})
    with pytest.raises(ValueError, match="overrides"):
        tf_lsq.quantize_model(chain(), overrides={"a": 1})
    with pytest.raises(ValueError, match="`target` must be one of"):
        tf_lsq.quantize_model(chain(), target="toaster")


def test_models_without_a_graph_are_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional or sequential"):
        tf_lsq.quantize_model(Subclassed())
    with pytest.raises(ValueError, match=r"model\.build"):
        tf_lsq.quantize_model(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TypeError, match="Received: int"):
        tf_lsq.quantize_model(3)
    with pytest.raises(OSError, match=r"missing\.h5"):
        tf_lsq.quantize_model("missing.h5")
    student = tf_lsq.quantize_model(chain())
    with pytest.raises(ValueError, match="already quantized"):
        tf_lsq.quantize_model(student)


def test_negative_gamma_is_flipped_without_changing_the_output(rng):
    inputs = layers.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(name="norm2")(x)
    model = tiny.randomize(keras.Model(inputs, x), rng)
    model.get_layer("norm").gamma.assign([1, -1, 0, -0.5, 2])
    student = tf_lsq.quantize_model(model)
    assert (student.get_layer("norm").gamma.numpy() >= 0).all()
    assert (student.get_layer("norm2").gamma.numpy() >= 0).all()
    x = rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    y = x
    for name in ("conv", "norm", "depthwise", "norm2"):
        layer = student.get_layer(name if "norm" in name else f"{name}")
        y = getattr(layer, "layer", layer)(y)
    np.testing.assert_allclose(y, model(x), rtol=1e-4, atol=1e-5)


def test_a_batch_norm_called_in_inference_mode_stays_in_it():
    inputs = layers.Input((4,))
    x = layers.BatchNormalization(name="norm")(layers.Dense(4)(inputs), training=False)
    student = tf_lsq.quantize_model(keras.Model(inputs, x))
    x = np.random.default_rng(0).normal(5, 1, (64, 4)).astype(np.float32)
    student(x, training=True)
    assert (student.get_layer("norm").moving_mean.numpy() == 0).all()


# --- TF-MOT's own API ----------------------------------------------------------


@pytest.mark.parametrize("build", [tiny.residual, tiny.pre_activation])
def test_quantize_apply_equals_quantize_model(build, rng):
    model = tiny.randomize(build(), rng)
    options = {"weight_bits": 3, "activation_bits": 4, "per_channel": True}
    one = tf_lsq.quantize_model(model, **options)
    other = quantize_apply(
        quantize_annotate_model(model), tf_lsq.LSQQuantizeScheme(**options)
    )
    assert type(other) is tf_lsq.LSQModel
    assert [layer.name for layer in one.layers] == [la.name for la in other.layers]
    assert [v.name for v in one.weights] == [v.name for v in other.weights]
    for student in (one, other):
        tf_lsq.calibrate(student, np.linspace(0, 1, 8 * 192).reshape(8, 8, 8, 3))
    x = rng.normal(size=(8, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(one(x), other(x))


def test_annotated_layers_may_set_their_own_bits():
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(6, name="a"),
            quantize_annotate_layer(layers.Dense(5, name="b")),
            quantize_annotate_layer(
                layers.Dense(4, name="c"),
                tf_lsq.LSQQuantizeConfig(weight_bits=2, activation_bits=3),
            ),
            quantize_annotate_layer(layers.Dense(3, name="d")),
        ]
    )
    student = quantize_apply(model, tf_lsq.LSQQuantizeScheme())
    assert type(student.get_layer("a")) is layers.Dense
    assert kernel_bits(student) == {"b": 4, "c": 2, "d": 8}


def test_configs_of_other_schemes_are_refused_by_name():
    class Other(tf_lsq.LSQQuantizeConfig.__mro__[1]):
        def get_weights_and_quantizers(self, layer):
            return []

        get_activations_and_quantizers = get_weights_and_quantizers
        get_output_quantizers = get_weights_and_quantizers

        def set_quantize_weights(self, layer, weights):
            pass

        set_quantize_activations = set_quantize_weights

        def get_config(self):
            return {}

    with pytest.raises(ValueError, match=r"LSQQuantizeConfig.*'a': 'Other'"):
        tf_lsq.LSQQuantizeScheme().get_layout_transformer().apply(
            chain(), {"a": {"quantize_config": Other()}}
        )


@pytest.mark.parametrize("layer", ["conv", "dense"])
def test_a_relu_layer_does_not_remove_the_weight_quantizer(layer):
    if layer == "conv":
        model = keras.Sequential(
            [layers.Input((8, 8, 3)), layers.Conv2D(4, 3, name="x"), layers.ReLU()]
        )
    else:
        model = keras.Sequential(
            [layers.Input((8,)), layers.Dense(4, name="x"), layers.ReLU()]
        )
    student = quantize_apply(quantize_annotate_model(model), tf_lsq.LSQQuantizeScheme())
    wrapper = student.get_layer("x")
    assert isinstance(wrapper, LSQWrapper)
    codes = wrapper.codes().numpy()
    np.testing.assert_array_equal(codes, np.rint(codes))


def test_a_config_trains_under_tfmots_default_scheme(rng):
    model = keras.Sequential(
        [
            layers.Input((8,)),
            quantize_annotate_layer(
                layers.Dense(16, activation="relu"), tf_lsq.LSQQuantizeConfig()
            ),
            quantize_annotate_layer(layers.Dense(2), tf_lsq.LSQQuantizeConfig()),
        ]
    )
    student = quantize_apply(model)
    x = rng.normal(size=(256, 8)).astype(np.float32)
    student.compile(keras.optimizers.SGD(0.05), "mse")
    losses = student.fit(x, x[:, :2], epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    steps = [v for v in student.trainable_variables if v.name.endswith("_step:0")]
    assert len(steps) == 4
    assert all(float(v) != 1.0 for v in steps)
    values = student.layers[2].quantize_config
    assert values.get_config()["weight_bits"] == 4
    assert tf.reduce_all(student(x) < np.inf)


def test_networks_may_be_deeper_than_python_recurses(rng, tmp_path):
    """Keras calls itself once per layer, and points double the number of layers."""
    inputs = x = layers.Input((2,))
    for _ in range(70):
        x = layers.Dense(2, kernel_initializer="identity")(x)
    model, limit = keras.Model(inputs, x), sys.getrecursionlimit()
    data = rng.normal(size=(8, 2)).astype(np.float32)
    sys.setrecursionlimit(len(inspect.stack()) + 130)
    try:
        student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
        tf_lsq.calibrate(student, data)
        student.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        plain = tf_lsq.to_float(loaded)
        view = LSQModel(loaded)
    finally:
        sys.setrecursionlimit(limit)
    np.testing.assert_allclose(plain(data), student(data), atol=1e-5)
    np.testing.assert_array_equal(view(data), student(data))
