"""Layers that stay in float: any of them, converted together, tried early."""

from __future__ import annotations

import ast

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

layers = keras.layers
EIGHT = {"weight_bits": 8, "activation_bits": 8}


@keras.utils.register_keras_serializable("float_part")
class SinAndCos(layers.Layer):
    """A layer with two outputs and a trained weight."""

    def build(self, input_shape):
        self.rate = self.add_weight(name="rate", shape=(), initializer="ones")

    def call(self, inputs):
        return tf.sin(self.rate * inputs), tf.cos(inputs)


class Waves(layers.Layer):
    """A steep layer."""

    def call(self, inputs):
        return tf.sin(8 * inputs)


class Noisy(layers.Layer):
    """A layer that computes something else in every call."""

    def call(self, inputs):
        return inputs + tf.random.uniform(tf.shape(inputs))


class WithoutConfig(layers.Layer):
    """A layer that Keras cannot copy."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return tf.sin(inputs)


def between(function, units=6):
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(units, 3, padding="same", name="first")(inputs)
    x = layers.Conv2D(4, 1, name="last")(function(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


FLOAT = {
    "function": (lambda x: tf.sin(x), "tf.math.sin"),
    "v1_function": (lambda x: tf.math.sqrt(tf.abs(x) + 0.1), "tf.math.sqrt"),
    "two_functions": (
        lambda x: tf.sin(tf.cos(x)) + tf.floor(x),
        r"tf.math.(sin|cos|floor)",
    ),
    "values_for_all_examples": (
        lambda x: x * tf.cast(tf.reduce_prod(tf.shape(x)) / tf.shape(x)[0], tf.float32),
        r"tf\..*",
    ),
    "two_outputs": (lambda x: layers.Add()(SinAndCos(name="own")(x)), "own"),
    "one_of_two_outputs": (lambda x: SinAndCos(name="own")(x)[0], "own"),
    "used_twice": (lambda x: (own := SinAndCos(name="own"))(own(x)[1])[0], "own"),
    "identity": (
        lambda x: tf.sin(layers.Dropout(0.1, name="drop")(x)),
        "drop|tf.math.sin",
    ),
    "trains_by_default": (lambda x: layers.RandomCrop(6, 6, name="crop")(x), "crop"),
    "number_of_axes": (
        lambda x: x * tf.cast(tf.rank(x), tf.float32),
        r"tf\..*",
    ),
    "spectrogram": (
        lambda x: tf.abs(tf.signal.stft(layers.Reshape((6, 64))(x), 64, 8)),
        r"tf\..*",
    ),
    "space_to_batch": (
        lambda x: tf.nn.atrous_conv2d(x, np.ones((3, 3, 6, 4), np.float32), 2, "SAME"),
        r"tf\..*",
    ),
    "batch_last": (
        lambda x: tf.transpose(tf.nn.relu(tf.transpose(x, [3, 1, 2, 0])), [3, 1, 2, 0]),
        r"tf\..*",
    ),
    "none_among_outputs": (
        lambda x: x * tf.nn.sufficient_statistics(x, [1, 2], keepdims=True)[1],
        r"tf\..*",
    ),
    "nan": (
        lambda x: tf.where(tf.math.is_nan(x), np.float32(np.nan), tf.sin(x)),
        r"tf\..*",
    ),
    "part_of_model": (
        lambda x: keras.Sequential([layers.Conv2D(6, 1), layers.ReLU()], name="own")(x),
        "own",
    ),
}


@pytest.mark.parametrize("case", FLOAT)
def test_anything_can_stay_in_float(case, rng, tmp_path):
    keras.backend.clear_session()
    function, pattern = FLOAT[case]
    model = between(function)
    overrides = {pattern: "float"}
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    student = tf_lsq.quantize_model(model, **EIGHT, overrides=overrides)
    assert len(student.trainable_weights) > len(model.trainable_weights)
    tf_lsq.calibrate(student, x)
    found, expected = student.predict(x, verbose=0), model.predict(x, verbose=0)
    assert tiny.largest_difference(found, expected) < 0.1
    path = tmp_path / "m.tflite"
    report = tflite_export.export_model(student, path, data=x, verbose=False)
    assert report.float_layers
    tflite_export.verify_tflite(path, student, x, verbose=False)
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    found, expected = (model(x, training=False) for model in (loaded, student))
    np.testing.assert_array_equal(found, expected)


def test_a_model_without_anything_to_quantize_is_refused():
    inputs = layers.Input((4,), dtype="int32")
    model = keras.Model(inputs, tf.math.floordiv(inputs, 3))
    with pytest.raises(ValueError, match=r"must have layers to quantize.*`tf\..*div`"):
        tf_lsq.quantize_model(model)


class Same(layers.Layer):
    """A layer of which TFLite keeps nothing."""

    def call(self, inputs):
        return tf.identity(inputs)


def test_a_layer_that_computes_nothing_can_stay_in_float(rng, tmp_path):
    model = between(Same(name="same"))
    student, x = tiny.student_of(model, rng, (8, 8, 8, 4), overrides={"same": "float"})
    path = tmp_path / "m.tflite"
    tflite_export.export_model(student, path, verbose=False)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not any(point.twin_differences for point in found.points)


def test_an_activation_function_used_twice_can_stay_in_float(rng, tmp_path):
    def gelu(x):
        return tf.nn.gelu(x)

    x = inputs = layers.Input((8,))
    for number in range(2):
        x = layers.Activation(gelu, name=f"gelu_{number}")(layers.Dense(8)(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    overrides = {"gelu_0/tf.nn.gelu": "float", "gelu_1/tf.nn.gelu": "float"}
    student, x = tiny.student_of(model, rng, (8, 8), overrides=overrides)
    path = tmp_path / "m.tflite"
    report = tflite_export.export_model(student, path, verbose=False)
    assert len(report.float_layers) == 2
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_float_layers_are_converted_once(rng, tmp_path, monkeypatch):
    converted = []
    plain = tf.lite.TFLiteConverter.from_keras_model

    def counted(model):
        converted.append(model)
        return plain(model)

    model = between(lambda x: tf.sin(layers.Conv2D(6, 1)(tf.sin(x))))
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_keras_model", counted)
    student = tf_lsq.quantize_model(model, overrides={"tf.math.sin.*": "float"})
    assert len(converted) == 1
    tf_lsq.calibrate(student, rng.normal(size=(8, 8, 8, 4)))
    tflite_export.export_model(student, tmp_path / "m.tflite", verbose=False)
    assert len(converted) == 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.LSTM(3, name="own"), r"`own` \(LSTM\).*`unroll=True`"),
        (lambda: layers.GRU(3, name="own"), r"`own` \(GRU\).*`unroll=True`"),
        (
            lambda: layers.Lambda(tf.linalg.expm, name="own"),
            r"`own/tf.linalg.expm` .*no form of tf\.\w+.*before or after the file",
        ),
        (lambda: Noisy(name="own"), r"`own` \(Noisy\): TFLite computes something else"),
        (lambda: WithoutConfig(object(), name="own"), r"`own`.*`get_config`"),
    ],
)
def test_what_tflite_cannot_hold_is_named_in_one_line(layer, message):
    inputs = layers.Input((8, 8))
    x = layer()(layers.Dense(8)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match=message) as error:
        tf_lsq.quantize_model(model, overrides={"own": "float"})
    assert len(str(error.value)) < 500


def test_only_layers_that_differ_on_the_same_numbers_are_refused():
    def chaotic(x):
        x = layers.LayerNormalization(name="norm")(x)
        for number in range(12):  # Multiplies a rounding error by up to 8 each time.
            x = Waves(name=f"waves_{number}")(x)
        return x

    overrides = {"waves.*": "float", "norm": "float"}
    tf_lsq.quantize_model(between(chaotic), overrides=overrides)
    model = between(lambda x: Noisy(name="own")(chaotic(x)))
    overrides["own"] = "float"
    with pytest.raises(ValueError, match=r"Received:\n  `own` \(Noisy\)[^\n]*$"):
        tf_lsq.quantize_model(model, overrides=overrides)


@pytest.mark.parametrize("target", ["phone", "edgetpu"])
def test_unrolled_recurrent_layers_stay_in_float(target, rng, tmp_path):
    inputs = layers.Input((4, 3))
    x = layers.GRU(4, unroll=True, name="rnn")(layers.Conv1D(4, 1)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = rng.normal(size=(16, 4, 3)).astype(np.float32)
    student = tf_lsq.quantize_model(
        model, **EIGHT, overrides={"rnn": "float"}, target=target
    )
    tf_lsq.calibrate(student, x)
    difference = student.predict(x, verbose=0) - model.predict(x, verbose=0)
    assert np.abs(difference).max() < 0.1
    report = tflite_export.export_model(
        student, tmp_path / "m.tflite", data=x, verbose=False
    )
    assert report.float_layers == ["rnn"]


def test_the_error_shows_how_to_leave_layers_in_float():
    keras.backend.clear_session()
    model = between(lambda x: tf.cumsum(layers.Softmax(axis=1, name="norm")(x), 1))
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(model)
    overrides = {"norm": "float", "tf.math.cumsum": "float"}
    assert str(error.value).endswith(f"in float: overrides={overrides}")
    tf_lsq.quantize_model(model, overrides=overrides)


def test_a_variable_of_a_function_is_not_frozen():
    scale = tf.Variable([2.0] * 6, name="scale")
    student = tf_lsq.quantize_model(
        between(lambda x: tf.sin(x * scale)), overrides={"tf.*": "float"}
    )
    assert any("scale" in weight.name for weight in student.trainable_weights)
    model = between(lambda x: tf.math.atan2(x, scale))
    with pytest.raises(ValueError, match="trainable variable 'scale:0'"):
        tf_lsq.quantize_model(model, overrides={"tf.*": "float"})


def test_a_divisor_that_is_rounded_to_zero_is_explained(rng):
    model = between(lambda x: tf.math.reciprocal(x))
    student = tf_lsq.quantize_model(model, **EIGHT, overrides={r"tf\..*": "float"})
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    assert np.isfinite(model(x)).all()
    with pytest.raises(ValueError, match=r"divides by a small value") as error:
        tf_lsq.calibrate(student, x)
    message = str(error.value)
    assert "at: `tf.math.reciprocal` (and at " in message
    overrides = {r"tf\..*": "float", **ast.literal_eval(message.rpartition("=")[2])}
    student = tf_lsq.quantize_model(model, **EIGHT, overrides=overrides)
    tf_lsq.calibrate(student, x)
    assert np.isfinite(student(x)).all()
