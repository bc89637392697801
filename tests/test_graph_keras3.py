"""Keras 3 models: their tf_keras twins compute the same and can be exported."""

from __future__ import annotations

import os
import subprocess
import sys

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

layers3 = keras3.layers
ops = keras3.ops


def randomize(model, rng):
    """Gives batch norms plausible statistics, as after training."""
    for layer in model.layers:
        if isinstance(layer, layers3.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, size))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, size))
            layer.beta.assign(rng.normal(0, 0.3, size))
    return model


def difference(model, twin, x):
    expected = np.asarray(model(x, training=False))
    return np.abs(np.asarray(twin(x, training=False)) - expected).max()


# Functions of a tensor of shape [batch, 8, 8, 4].
CASES = {
    "conv": layers3.Conv2D(5, 3, strides=2, padding="same", activation="relu"),
    "conv_relu6": layers3.Conv2D(5, 3, activation="relu6"),
    "conv_silu": layers3.Conv2D(5, 3, activation="silu"),
    "conv_hard_silu": layers3.Conv2D(5, 3, activation="hard_silu"),
    "conv_hard_sigmoid": layers3.Conv2D(5, 3, activation="hard_sigmoid"),
    "conv_leaky_relu": layers3.Conv2D(5, 3, activation="leaky_relu"),
    "regularized": layers3.Conv2D(5, 3, kernel_regularizer=keras3.regularizers.L2(0.1)),
    "depthwise": layers3.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": layers3.SeparableConv2D(5, 3, activation="tanh"),
    "transposed": layers3.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "batch_norm": layers3.BatchNormalization(epsilon=1e-4),
    "rescaling": layers3.Rescaling(0.3, 0.1),
    "normalization": layers3.Normalization(
        mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4]
    ),
    "leaky_relu": layers3.LeakyReLU(0.1),
    "prelu": layers3.PReLU("uniform", shared_axes=[1, 2]),
    "relu_6": layers3.ReLU(6.0),
    "hard_sigmoid": layers3.Activation("hard_sigmoid"),
    "pooling": layers3.AveragePooling2D(3, 2, "same"),
    "up_sampling": layers3.UpSampling2D(interpolation="bilinear"),
    "cropping": layers3.Cropping2D(1),
    "padding": layers3.ZeroPadding2D(((1, 0), (2, 1))),
    "permute": layers3.Permute((2, 3, 1)),
    "random_flip": layers3.RandomFlip(),
    "add": lambda x: x + 3.0,
    "arithmetic": lambda x: (1.0 - x) * 0.5 / 0.25 + x * x - (-x),
    "concatenate": lambda x: ops.concatenate([x, x * 2.0], axis=-1),
    "maximum": lambda x: ops.maximum(x, x * 0.5),
    "mean": lambda x: x * ops.mean(x, axis=[1, 2], keepdims=True),
    "max": lambda x: x + ops.max(x, axis=-1, keepdims=True),
    "reshape": lambda x: ops.reshape(x, (-1, 4, 16, 4)),
    "transpose": lambda x: ops.transpose(x, (0, 2, 3, 1)),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
    "getitem": lambda x: x[:, 1:, ::2, 2:],
    "resize": lambda x: ops.image.resize(x, (5, 12)),
    "resize_nearest": lambda x: ops.image.resize(x, (16, 16), interpolation="nearest"),
    "split": lambda x: ops.split(x, 2, axis=-1)[1],
    "expand": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "relu": lambda x: ops.relu(x),
    "relu6": lambda x: ops.relu6(x),
    "sigmoid": lambda x: ops.sigmoid(x),
    "tanh": lambda x: ops.tanh(x),
    "silu": lambda x: ops.silu(x),
    "hard_sigmoid_op": lambda x: ops.hard_sigmoid(x),
    "hard_silu_op": lambda x: ops.hard_silu(x),
    "leaky_relu_op": lambda x: ops.leaky_relu(x, 0.3),
    "softmax": lambda x: ops.softmax(x),
    "clip": lambda x: ops.clip(x, 0.0, 6.0),
}


@pytest.mark.parametrize("case", CASES)
def test_twins_compute_the_same_and_can_be_quantized(case, rng, tmp_path):
    function = CASES[case]
    if isinstance(function, layers3.Layer):  # Gives each model its own layer.
        config = {**function.get_config(), "name": "tested"}
        function = type(function).from_config(config)
    inputs = keras3.Input((8, 8, 4))
    x = layers3.Conv2D(4, 3, padding="same")(inputs)
    x = layers3.Flatten()(function(x))
    model = randomize(keras3.Model(inputs, layers3.Dense(3)(x)), rng)
    twin = tf_lsq.from_keras3(model)
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    assert difference(model, twin, x) < 1e-5
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    tflite_export.verify_tflite(path, student, x, verbose=False)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0"])
def test_keras_applications_are_copied_exactly(name, rng):
    build = getattr(keras3.applications, name)
    model = randomize(build(weights=None, input_shape=(32, 32, 3), classes=10), rng)
    twin = tf_lsq.from_keras3(model)
    x = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    assert difference(model, twin, x) < 1e-5


def test_nested_models_keep_their_names_and_mode(rng):
    inner = keras3.Sequential(
        [layers3.Input((4,)), layers3.Dense(4), layers3.BatchNormalization()],
        name="inner",
    )
    inner.trainable = False
    inputs = keras3.Input((4,))
    outputs = [layers3.Dense(2)(inner(inner(inputs), training=False)), inputs * 2.0]
    model = randomize(keras3.Model(inputs, outputs), rng)
    twin = tf_lsq.from_keras3(model)
    assert twin.get_layer("inner").trainable is False
    assert len(twin.get_layer("inner").inbound_nodes) >= 2
    x = rng.normal(size=(8, 4)).astype(np.float32)
    for found, expected in zip(twin(x), model(x, training=False), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_regularizers_are_copied():
    model = keras3.Sequential(
        [keras3.Input((4,)), layers3.Dense(2, kernel_regularizer="l2")]
    )
    twin = tf_lsq.from_keras3(model)
    assert isinstance(twin.layers[-1].kernel_regularizer, keras.regularizers.L2)


def test_a_name_and_a_remedy_is_given_for_what_only_keras_3_has():
    class Own(layers3.Layer):
        def call(self, x):
            return x

    inputs = keras3.Input((8, 8, 4))
    x = Own(name="own")(inputs)
    x = layers3.AdaptiveAveragePooling2D(4, name="pool")(x)
    x = ops.sort(x)
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(keras3.Model(inputs, x))
    for name in ("`own`", "`pool`", "`sort`"):
        assert name in str(error.value)


def test_models_other_than_functional_keras_3_ones_are_refused():
    with pytest.raises(TypeError, match="must be a Keras 3 model"):
        tf_lsq.from_keras3(keras.Sequential([keras.layers.Dense(2)]))

    class Subclassed(keras3.Model):
        def call(self, x):
            return x

    class Overridden(keras3.Model):
        def call(self, x):
            return x

    inputs = keras3.Input((4,))
    for model in (Subclassed(), Overridden(inputs, inputs * 2.0), keras3.Sequential()):
        with pytest.raises(ValueError, match="subclassed or not built"):
            tf_lsq.quantize_model(model)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("writer", ["keras 3", "tf_keras"])
def test_files_saved_by_either_keras_can_be_quantized(writer, suffix, rng, tmp_path):
    one = keras3 if writer == "keras 3" else keras
    model = one.Sequential([one.Input((4,)), one.layers.Dense(2)])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    student = tf_lsq.quantize_model(path)
    x = rng.normal(size=(32, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    np.testing.assert_allclose(student(x), model(x), atol=0.1)


def test_a_file_that_keras_3_cannot_load_is_refused_in_one_line(tmp_path):
    class Unknown(layers3.Layer):
        def call(self, x):
            return x

    path = tmp_path / "model.h5"
    keras3.Sequential([keras3.Input((4,)), Unknown()]).save(path)
    with pytest.raises(ValueError, match=r"cannot load .*custom_objects") as error:
        tf_lsq.quantize_model(path)
    assert "\n" not in str(error.value)


def test_names_of_inputs_and_outputs_are_those_of_the_model():
    image, ids = keras3.Input((4,), name="image"), keras3.Input((3,), name="ids")
    inner = keras3.Sequential([keras3.Input((4,)), layers3.Dense(2)], name="inner")
    outputs = {
        "one": layers3.Dense(2, activation="hard_silu", name="silu")(image),
        "two": ops.abs(inner(image)),
        "three": inner(layers3.Dense(4)(ids)),
    }
    model = keras3.Model({"image": image, "ids": ids}, outputs)
    twin = tf_lsq.from_keras3(model)
    assert twin.input_names == [tensor.name for tensor in model.inputs]
    assert twin.output_names == model.output_names
    assert set(twin.output) == set(outputs)


@pytest.mark.parametrize("legacy", ["", "1"])
def test_importing_does_not_change_which_keras_is_used(legacy):
    """`tf.keras` and the environment stay as the user configured them."""
    code = (
        "import os, tensorflow as tf; before = dict(os.environ); import tf_lsq; "
        "assert before == dict(os.environ); "
        "print(tf.keras.layers.Dense.__module__.split('.')[0])"
    )
    env = {**os.environ, "TF_USE_LEGACY_KERAS": legacy}
    if not legacy:
        del env["TF_USE_LEGACY_KERAS"]
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    assert found.stdout.split() == ["tf_keras" if legacy else "keras"], found.stderr


def test_keras_3_models_train_alongside_quantized_ones(rng):
    x = rng.normal(size=(32, 4)).astype(np.float32)
    model = keras3.Sequential([keras3.Input((4,)), layers3.Dense(2)])
    student = tf_lsq.quantize_model(model)
    for one in (model, student):
        one.compile("sgd", "mse")
        one.fit(x, x[:, :2], verbose=0)
    assert tf.keras.layers.Dense is layers3.Dense


def test_outputs_of_a_shared_layer_have_names_of_their_own(rng, tmp_path):
    encoder = keras3.Sequential([keras3.Input((4,)), layers3.Dense(3)], name="encoder")
    inputs = [keras3.Input((4,), name=name) for name in ("anchor", "positive")]
    model = keras3.Model(inputs, [encoder(x) for x in inputs])
    student = tf_lsq.quantize_model(model)
    assert student.output_names == ["encoder", "encoder_1"]
    x = [rng.normal(size=(8, 4)).astype(np.float32) for _ in inputs]
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    tflite_export.verify_tflite(path, student, x, verbose=False)
