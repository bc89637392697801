"""Nested models, layers used twice, custom layers, errors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze, expansions
from tf_lsq.training import quantization_points, wrapped_layers

layers = keras.layers


def verified(model, x, path, **options):
    """Quantizes, calibrates, exports and verifies; returns student and report."""
    student = tf_lsq.quantize_model(model, **options)
    tf_lsq.calibrate(student, x)
    tflite_export.export_model(student, path)
    report = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert report.equal_codes == report.weight_codes > 0
    return student, report


def close(model, student, x):
    """Whether an 8-bit student computes what the float model computes."""
    expected = model.predict_on_batch(x)
    error = np.abs(student.predict_on_batch(x) - expected).mean()
    return error < 0.05 * np.abs(expected).max()


def backbone(name="backbone"):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    return keras.Model(inputs, x, name=name)


EIGHT = {"weight_bits": 8, "activation_bits": 8}


def test_a_nested_model_is_flattened(rng, tmp_path):
    inner = tiny.randomize(backbone(), rng)
    inputs = layers.Input((8, 8, 3))
    x = inner(inputs, training=False)
    x = keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.ReLU(), layers.Flatten()], name="head"
    )(x)
    model = keras.Model(inputs, layers.Dense(3, name="scores")(x))
    x = rng.normal(size=(32, 8, 8, 3)).astype(np.float32)
    student, _ = verified(model, x, tmp_path / "model.tflite", **EIGHT)
    assert close(model, student, x)
    names = {w.layer.name for w in wrapped_layers(student)}
    assert names == {"conv", "head_conv", "scores"}
    norm = student.get_layer("norm")
    before = norm.moving_mean.numpy()
    student(x, training=True)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


def test_overrides_reach_layers_of_inner_models():
    inputs = layers.Input((8, 8, 3))
    x = backbone("one")(inputs)
    y = backbone("two")(inputs)
    x = layers.Dense(3)(layers.Flatten()(layers.Add()([x, y])))
    student = tf_lsq.quantize_model(
        keras.Model(inputs, x), overrides={"one/conv": 2, "two/.*": 3}
    )
    bits = {w.layer.name: w.quantizer.num_bits for w in wrapped_layers(student)}
    assert [bits[name] for name in ("conv", "two_conv")] == [2, 3]


def test_a_model_used_twice_shares_its_weights(rng, tmp_path):
    """Siamese networks: one backbone, two images."""
    inner = tiny.randomize(backbone(), rng)
    a, b = layers.Input((8, 8, 3), name="a"), layers.Input((8, 8, 3), name="b")
    x = layers.Subtract()([inner(a), inner(b)])
    model = keras.Model([a, b], layers.Dense(3)(layers.Flatten()(x)))
    x = [rng.normal(size=(32, 8, 8, 3)).astype(np.float32) for _ in range(2)]
    student = tf_lsq.quantize_model(model, **EIGHT)
    tf_lsq.calibrate(student, {"a": x[0], "b": x[1]})
    assert close(model, student, x)
    assert len(wrapped_layers(student)) == 2
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    data = {"a": x[0], "b": x[1]}
    report = tflite_export.verify_tflite(path, student, data, verbose=False)
    assert report.equal_codes == report.weight_codes


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_a_layer_used_twice_has_one_kernel(activation, rng, tmp_path):
    shared = layers.Conv2D(4, 3, padding="same", activation=activation, name="shared")
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    x = shared(shared(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    x = rng.normal(size=(32, 8, 8, 4)).astype(np.float32)
    student, report = verified(model, x, tmp_path / "model.tflite")
    assert len(wrapped_layers(student)) == 3
    assert "shared_use2" in {p.name.split("/")[0] for p in report.points}
    student.compile("sgd", "mse")
    student.fit(x, np.zeros((32, 3)), verbose=0)


def test_a_batch_norm_used_by_two_convolutions_is_not_flipped(rng, tmp_path):
    norm = layers.BatchNormalization(name="norm")
    inputs = layers.Input((8, 8, 4))
    a = norm(layers.Conv2D(4, 3, name="a")(inputs))
    b = norm(layers.Conv2D(4, 3, name="b")(inputs))
    x = layers.ReLU()(layers.Add()([a, b]))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    tiny.randomize(model, rng)
    norm.gamma.assign([1.0, -1.0, 0.5, -2.0])
    x = rng.normal(size=(32, 8, 8, 4)).astype(np.float32)
    student, _ = verified(model, x, tmp_path / "model.tflite", **EIGHT)
    assert close(model, student, x)
    np.testing.assert_array_equal(student.get_layer("norm").gamma, [1.0, -1.0, 0.5, -2])


def test_a_model_with_branches_and_two_outputs_is_exported(rng, tmp_path):
    inputs = layers.Input((8, 8, 4))
    low, high = tf.split(layers.Conv2D(8, 3, padding="same")(inputs), 2, axis=-1)
    a = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1, name="a")(low))
    b = layers.Dense(2, name="b", activation="sigmoid")(layers.Flatten()(high))
    model = keras.Model(inputs, {"mean": a, "probability": b})
    x = rng.normal(size=(32, 8, 8, 4)).astype(np.float32)
    student, report = verified(model, x, tmp_path / "model.tflite", **EIGHT)
    assert len(report.outputs) == 2
    expected, found = model.predict_on_batch(x), student.predict_on_batch(x)
    for name in expected:
        assert np.abs(found[name] - expected[name]).mean() < 0.05


# --- Custom layers ------------------------------------------------------------


@keras.utils.register_keras_serializable(package="test")
class SqueezeExcite(layers.Layer):
    """Scales each channel by a gate computed from the means of all channels."""

    def build(self, shape):
        channels = shape[-1]
        self.squeeze = layers.Dense(
            2, activation="relu", bias_initializer="ones", name="squeeze"
        )
        self.excite = layers.Dense(channels, activation="sigmoid", name="excite")
        self.squeeze.build((None, channels))
        self.excite.build((None, 2))
        super().build(shape)

    def call(self, x):
        means = tf.reduce_mean(x, [1, 2], keepdims=True)
        return x * self.excite(self.squeeze(means))


@pytest.fixture
def _known():
    @tf_lsq.register_layer(SqueezeExcite)
    def expand(layer):
        x = layers.Input((None, None, layer.squeeze.kernel.shape[0]))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layer.excite(layer.squeeze(gate))
        return keras.Model(x, layers.Multiply()([x, gate]))

    yield
    del expansions.EXPANSIONS[SqueezeExcite]


def own_layer_model():
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    x = SqueezeExcite(name="se")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.usefixtures("_known")
def test_a_registered_layer_is_quantized_part_by_part(rng, tmp_path):
    model = own_layer_model()
    x = rng.normal(size=(32, 8, 8, 4)).astype(np.float32)
    student, _ = verified(model, x, tmp_path / "model.tflite", **EIGHT)
    assert close(model, student, x)
    names = [w.layer.name for w in wrapped_layers(student)]
    assert {"squeeze", "excite"} <= set(names)


def test_an_unknown_layer_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"`se` \(SqueezeExcite\).*register_layer"):
        tf_lsq.quantize_model(own_layer_model())


def test_only_custom_layers_can_be_registered():
    with pytest.raises(TypeError, match="must be a subclass"):
        tf_lsq.register_layer(int)
    with pytest.raises(ValueError, match="already supported"):
        tf_lsq.register_layer(layers.Conv2D)


# --- Preprocessing --------------------------------------------------------------


def test_raw_pixels_keep_their_codes(rng, tmp_path):
    """An image with values 0..255 enters the file as unchanged bytes."""
    inputs = layers.Input((8, 8, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    x = rng.integers(0, 256, (32, 8, 8, 3)).astype(np.float32)
    student, _ = verified(model, x, tmp_path / "model.tflite", **EIGHT)
    point = quantization_points(student)[0]
    assert float(point.step) == 1.0
    assert close(model, student, x)


def test_a_factor_on_the_input_is_folded_into_the_kernel(rng, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    x = rng.integers(0, 256, (32, 8, 8, 3)).astype(np.float32)
    student, _ = verified(model, x, tmp_path / "model.tflite", **EIGHT)
    assert close(model, student, x)
    tf_lsq.round_biases(student)
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert set(report.operators) == {"CONV_2D", "RESHAPE", "FULLY_CONNECTED"}
    found = tflite_export.verify_tflite(tmp_path / "model.tflite", student, x)
    assert found.off_by_one < 1e-4


def test_consecutive_constant_scalings_are_merged():
    inputs = layers.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.04, 0.01, 0.09])(x)
    model = keras.Model(inputs, layers.Conv2D(4, 3)(x))
    kinds = [node.kind for node in analyze(model).nodes]
    assert kinds == ["input", "affine", "conv"]


# --- Left in float ----------------------------------------------------------------


def test_layers_without_an_integer_form_can_stay_in_float(rng, tmp_path):
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(inputs)
    x = layers.Reshape((9, 6))(x)
    x = layers.Softmax(axis=1, name="norm")(x)
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.Add()([x, y])
    x = layers.Dense(8, activation="gelu", name="mlp")(x)
    x = layers.Dense(4, name="low_bit")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="left in float with `overrides`") as error:
        tf_lsq.quantize_model(model)
    assert "`norm`" in str(error.value)
    x = rng.normal(size=(32, 8, 8, 4)).astype(np.float32)
    overrides = {"norm|attention|mlp": "float"}
    path = tmp_path / "model.tflite"
    student, _ = verified(model, x, path, overrides=overrides, **EIGHT)
    assert close(model, student, x)
    student.compile("sgd", "mse")
    student.fit(x, np.zeros((32, 3)), verbose=0)
    report = tflite_export.export_model(student, path)
    assert set(report.float_layers) >= {"norm", "attention_softmax", "mlp"}
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded(x), student(x))


def test_a_layer_that_tflite_cannot_hold_is_named_before_training():
    inputs = layers.Input((8, 4))
    x = layers.LSTM(3, name="recurrent")(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match=r"`recurrent` \(LSTM\).*`unroll=True`"):
        tf_lsq.quantize_model(model, overrides={"recurrent": "float"})


# --- Errors -----------------------------------------------------------------------


def test_models_with_uint8_inputs_can_be_trained_and_exported(rng, tmp_path):
    inputs = layers.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    student = tf_lsq.quantize_model(model)
    pixels = rng.integers(0, 256, (32, 8, 8, 3), np.uint8)
    student.compile(keras.optimizers.SGD(1e-6), "mse")
    student.fit(pixels, np.zeros((32, 3), np.float32), verbose=0)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(
        student, path, input_type="uint8", output_type="float32", data=pixels
    )
    assert not report.float_layers
    error = np.abs(
        model.predict(pixels, verbose=0) - student.predict(pixels, verbose=0)
    )
    assert error.max() < 0.05


def test_deep_models_are_analysed():
    x = inputs = layers.Input((4,))
    for _ in range(300):
        x = layers.ReLU()(layers.Dense(4)(x))
    assert len(analyze(keras.Model(inputs, x)).nodes) == 301


def test_ten_unsupported_things_are_all_named():
    inputs = layers.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, activation=tf.cumsum, name="summed")(inputs)
    x = layers.Softmax(axis=1, name="norm")(x)
    x = layers.Lambda(lambda t, training=None: t * 2, name="own")(x)
    x = layers.ReLU(max_value=0, name="no_relu")(x)
    x = layers.BatchNormalization(axis=1, name="wrong_axis")(x)
    x = layers.Conv2D(4, 3, activation=tf.math.cumprod, name="wave")(x)
    x = layers.PReLU(name="many_slopes")(x)
    x = tf.cumsum(x, 1)
    x = layers.Reshape((-1, 4))(x)
    x = layers.AdditiveAttention(name="attention")([x, x])
    x = layers.LSTM(3, name="recurrent")(x)
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(keras.Model(inputs, x))
    found = str(error.value)
    for name in (
        "summed/tf.math.cumsum",
        "norm",
        "own",
        "no_relu",
        "wrong_axis",
        "wave/tf.math.cumprod",
        "attention",
        "many_slopes",
        "tf.math.cumsum",
        "recurrent",
    ):
        assert f"`{name}`" in found
    assert "shared_axes=[1, 2]" in found


def test_activity_regularizers_are_refused_unless_they_are_layers():
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, activity_regularizer="l2", name="conv")(inputs)
    x = layers.ReLU(activity_regularizer="l1", name="relu")(x)
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(keras.Model(inputs, x))
    for name in ("conv", "relu"):
        assert f"`{name}`" in str(error.value)
    assert str(error.value).count("`keras.layers.ActivityRegularization` after") == 2
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ActivityRegularization(l2=0.1)(x)
    model = keras.Model(inputs, x)
    student = tf_lsq.quantize_model(model, first_last_bits=8)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    tf_lsq.calibrate(student, images)
    losses = []
    for one in (model, student):
        one(images)
        losses += one.losses
    assert float(losses[1]) == pytest.approx(float(losses[0]), rel=0.02)


def test_unused_inputs_and_duplicate_outputs_are_named():
    used, unused = layers.Input((4,)), layers.Input((4,), name="unused")
    x = layers.Dense(2, name="twice")(used)
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(keras.Model([used, unused], [x, x]))
    assert "`unused`: no output depends on this input" in str(error.value)
    assert "`twice`: it is listed as an output twice" in str(error.value)
