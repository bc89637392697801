"""Python functions, in `Lambda` layers and as activations, are read."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze

layers = keras.layers
EIGHT = {"weight_bits": 8, "activation_bits": 8}
ACTIVATIONS = {
    "hard_swish": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "partial": functools.partial(tf.nn.leaky_relu, alpha=0.1),
    "of_keras": lambda x: keras.activations.relu(x, max_value=2.0),
    "layer": layers.ELU(),
}


def between(layer):
    inputs = layers.Input((8, 8, 4))
    x = layer(layers.Conv2D(4, 3, padding="same", name="conv")(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def proved(model, x, path, **options):
    """Compares the student with the float model, and the file with the student."""
    student = tf_lsq.quantize_model(model, **EIGHT, **options)
    tf_lsq.calibrate(student, x)
    found, expected = student.predict(x, verbose=0), model.predict(x, verbose=0)
    assert tiny.largest_difference(found, expected) < 0.05
    report = tflite_export.export_model(student, path, data=x, verbose=False)
    assert all(one.max_difference <= 1 for one in report.verification.points)
    return student, report


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("layer", ["conv", "activation", "lambda", "einsum"])
def test_functions_are_read(name, layer, rng, tmp_path):
    function = ACTIVATIONS[name]
    made = {
        "conv": lambda: layers.Conv2D(4, 1, activation=function, name="own"),
        "activation": lambda: layers.Activation(function, name="own"),
        "lambda": lambda: layers.Lambda(function, name="own"),
        "einsum": lambda: layers.EinsumDense(
            "abcd,de->abce", (8, 8, 4), function, "e", name="own"
        ),
    }[layer]()
    model = between(made)
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    student, report = proved(model, x, tmp_path / "m.tflite")
    assert not report.float_layers
    path = tmp_path / "student.keras"
    student.save(path)  # No Python function is left in it.
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(x), student(x))


def test_parts_of_functions_have_the_same_names_every_time():
    model = between(
        layers.Lambda(lambda x: tf.cumsum(x, 1) + tf.cumsum(2 * x, 1), name="own")
    )
    for _ in range(2):
        problems = [text for _, text in analyze(model).problems]
        assert [text.split("`")[1] for text in problems] == [
            "own/tf.math.cumsum",
            "own/tf.math.cumsum_1",
        ]


@pytest.mark.parametrize("pattern", ["own", "own/tf.math.sin", r".*sin"])
def test_parts_of_functions_stay_in_float(pattern, rng, tmp_path):
    model = between(layers.Lambda(lambda x: tf.sin(x) * 2, name="own"))
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    _, report = proved(model, x, tmp_path / "m.tflite", overrides={pattern: "float"})
    assert "tf.math.sin" in report.float_layers


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + tf.random.normal((4,)),
        lambda x, training=None: x * 2,
    ],
)
def test_functions_that_cannot_be_read_are_named(function):
    model = between(layers.Lambda(function, name="own"))
    with pytest.raises(ValueError, match=r"`own` \(Lambda\): its function cannot"):
        tf_lsq.quantize_model(model)


def test_a_function_whose_numbers_change_is_not_frozen():
    model = between(layers.Lambda(lambda x: x + tf.random.normal((4,)), name="own"))
    with pytest.raises(ValueError, match=r"`own`.*something else than Keras"):
        tf_lsq.quantize_model(model, overrides={"own": "float"})
