"""TensorFlow functions on Keras tensors: each row of the table, exact in the file."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import tensor_functions

layers = keras.layers

# Functions of x and y, both of shape [batch, 8, 8, 6].
CASES = {
    "elu": lambda x, y: tf.nn.elu(x) + y,
    "abs": lambda x, y: tf.abs(x) - y,
    "add": lambda x, y: x + y,
    "add_constant": lambda x, y: 0.5 + x,
    "add_channels": lambda x, y: x + np.float32([1, 2, 3, -1, -2, -3]),
    "subtract": lambda x, y: x - y,
    "subtract_constant": lambda x, y: 1.0 - x,
    "multiply": lambda x, y: x * y,
    "multiply_constant": lambda x, y: x * -0.3,
    "divide": lambda x, y: x / 6.0,
    "negative": lambda x, y: -x,
    "maximum": lambda x, y: tf.maximum(x, y),
    "maximum_zero": lambda x, y: tf.maximum(x, 0.0),
    "minimum": lambda x, y: tf.minimum(x, y),
    "clip": lambda x, y: tf.clip_by_value(x, 0.0, 6.0),
    "add_n": lambda x, y: tf.add_n([x, y, x]),
    "relu": lambda x, y: tf.nn.relu(x),
    "relu6": lambda x, y: tf.nn.relu6(x),
    "leaky_relu": lambda x, y: tf.nn.leaky_relu(x, 0.1),
    "sigmoid": lambda x, y: tf.sigmoid(x) * y,
    "tanh": lambda x, y: tf.tanh(x),
    "silu": lambda x, y: tf.nn.silu(x),
    "softmax": lambda x, y: tf.nn.softmax(x),
    "hard_swish": lambda x, y: x * tf.nn.relu6(x + 3.0) / 6.0,
    "hard_sigmoid": lambda x, y: x * (tf.nn.relu6(x + 3.0) * (1 / 6)),
    "cast": lambda x, y: tf.cast(x, tf.float32) + tf.identity(y),
    "reshape": lambda x, y: tf.reshape(x, [-1, 4, 16, 6]),
    "reshape_by_shape": lambda x, y: tf.reshape(x, [tf.shape(x)[0], 4, 16, 6]),
    "squeeze": lambda x, y: tf.squeeze(tf.expand_dims(x, 1), 1),
    "transpose": lambda x, y: tf.transpose(x, [0, 3, 1, 2]),
    "concat": lambda x, y: tf.concat([x, y], axis=-1),
    "pad": lambda x, y: tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
    # Not directly before a convolution: with oneDNN, TensorFlow fuses the two and loses
    # the channels.
    "pad_channels": lambda x, y: tf.nn.relu(
        tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 3]])
    ),
    "reduce_mean": lambda x, y: x * tf.reduce_mean(y, [1, 2], keepdims=True),
    "reduce_max": lambda x, y: x + tf.reduce_max(y, axis=-1, keepdims=True),
    "slice": lambda x, y: x[:, 1:-1:2, :7],
    "slice_ellipsis": lambda x, y: x[..., 2:5],
    "index": lambda x, y: x[:, 3][:, tf.newaxis],
    "split": lambda x, y: tf.add(*tf.split(x, 2, axis=-1)),
    "split_sizes": lambda x, y: tf.split(x, [1, 3, -1], axis=2)[1],
    "resize": lambda x, y: tf.image.resize(x, (12, 5), "nearest"),
    "resize_bilinear": lambda x, y: tf.image.resize(x, (16, 16)),
    "max_pool2d": lambda x, y: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "avg_pool2d": lambda x, y: tf.nn.avg_pool2d(x, 3, [2, 1], "SAME"),
}


def model_of(function):
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, padding="same")(inputs)
    y = layers.Conv2D(6, 3, padding="same")(inputs)
    z = function(x, y)
    z = layers.Conv2D(4, 1)(z) if len(z.shape) == 4 else z
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(z)))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("case", CASES)
def test_files_of_functions_compute_the_trained_integers(case, bits, rng, tmp_path):
    model = tiny.randomize(model_of(CASES[case]), rng)
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
    x = rng.normal(0, 1, (32, 8, 8, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    if bits == 8:
        expected = model.predict_on_batch(x)
        error = np.abs(student.predict_on_batch(x) - expected).mean()
        assert error < 0.05 * np.abs(expected).max()
    path = tmp_path / "model.tflite"
    assert not tflite_export.export_model(student, path).float_layers
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    differences = {p.name: (p.kind, p.twin_differences) for p in found.points}
    assert not [item for item in differences.items() if item[1][1]]


def test_every_function_has_a_case():
    used = set()
    for function in CASES.values():
        for layer in model_of(function).layers:
            used.add(getattr(layer, "symbol", None))
    rows = {symbols: set(symbols) & used for symbols in tensor_functions._ROWS}
    assert not [symbols for symbols, found in rows.items() if not found]


def test_a_written_out_hard_sigmoid_is_one_operator(rng, tmp_path):
    student = tf_lsq.quantize_model(model_of(CASES["hard_sigmoid"]))
    tf_lsq.calibrate(student, rng.normal(size=(8, 8, 8, 4)))
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert report.operators["DEPTHWISE_CONV_2D"] == 1
    assert "ADD" not in report.operators and "RELU6" not in report.operators


REFUSED = {
    "tf.math.sin": lambda x, y: tf.sin(x),
    "division by a tensor": lambda x, y: x / (y * y + 1.0),
    "one number or one per channel": lambda x, y: x + np.ones((8, 8, 6), np.float32),
    "maximum(x, 0)": lambda x, y: tf.maximum(x, 0.5),
    "limits must be 0 and 6": lambda x, y: tf.clip_by_value(x, -1.0, 1.0),
    "axis must be -1": lambda x, y: tf.nn.softmax(x, axis=1),
    "batch axis must stay first": lambda x, y: tf.transpose(
        tf.transpose(x, [1, 0, 2, 3]), [1, 0, 2, 3]
    ),
    "padding must use zeros": lambda x, y: tf.pad(
        x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=1.0
    ),
    "excluding the batch": lambda x, y: tf.reduce_mean(x) + y,
    "method must be": lambda x, y: tf.image.resize(x, (4, 4), "area"),
    "non-empty and forward": lambda x, y: x[:, ::-1],
}


@pytest.mark.parametrize("message", REFUSED)
def test_functions_without_an_integer_form_are_named(message):
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(model_of(REFUSED[message]))
    assert message in str(error.value)
    assert "`tf." in str(error.value)
