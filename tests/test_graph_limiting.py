"""Clips and ReLUs with any largest value are exact, and need no operator."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze

layers = keras.layers


def limited(function):
    """A model that limits the output of a convolution."""
    inputs = layers.Input((8, 8, 3))
    x = function(layers.Conv2D(6, 3, name="first")(inputs))
    x = layers.Conv2D(4, 1, name="second")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def clip(x):
    return tf.clip_by_value(x, -0.4, 0.6)


def exported(model, rng, tmp_path, **options):
    student, x = tiny.student_of(tiny.randomize(model, rng), rng, **options)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not [point.name for point in found.points if point.twin_differences]
    return student, x, report


@pytest.mark.parametrize(
    ("function", "operators"),
    [
        (layers.ReLU(20.0), {"CONV_2D": 2}),
        (layers.ReLU(0.5), {"CONV_2D": 2}),
        (clip, {"CONV_2D": 2, "QUANTIZE": 1}),
        (lambda x: tf.minimum(tf.maximum(x, 0.0), 6.0), {"CONV_2D": 2}),
    ],
)
def test_limits_end_the_grid_of_a_point(function, operators, rng, tmp_path):
    _, _, report = exported(limited(function), rng, tmp_path)
    assert report.operators == operators | {"RESHAPE": 1, "FULLY_CONNECTED": 1}


def test_a_minimum_of_a_maximum_is_a_relu6():
    model = limited(lambda x: tf.minimum(tf.maximum(x, 0.0), 6.0))
    [node] = [node for node in analyze(model).nodes if node.activation]
    assert node.activation == "relu6" and "limits" not in node.options


def test_limits_without_a_value_between_them_stay_two_operators():
    model = limited(lambda x: tf.maximum(tf.minimum(x, 0.0), 0.0))
    kinds = [node.kind for node in analyze(model).nodes]
    assert kinds == ["input", "conv", "relu", "conv", "reshape", "dense"]


@pytest.mark.parametrize("bits", [8, 2])
@pytest.mark.parametrize("options", [{"target": "symmetric"}, {"target": "edgetpu"}])
@pytest.mark.parametrize("low", [-0.4, -1e-3])
def test_other_targets_limit_exactly(low, options, bits, rng, tmp_path):
    def function(x):
        return tf.clip_by_value(x, low, 0.6)

    bits = {"weight_bits": bits, "activation_bits": bits}
    exported(limited(function), rng, tmp_path, **options, **bits)


def test_learned_zero_points_limit_exactly(rng, tmp_path):
    exported(limited(clip), rng, tmp_path, asymmetric_activations=True)


@pytest.mark.parametrize(
    ("function", "operators"),
    [
        (clip, {"MAXIMUM": 1, "MINIMUM": 1}),
        (layers.ReLU(0.5), {"MINIMUM": 1}),
        (lambda x: clip(layers.MaxPooling2D()(x)), {"MAXIMUM": 1, "MINIMUM": 1}),
    ],
)
def test_limits_of_layers_left_in_float_are_operators(
    function, operators, rng, tmp_path
):
    model = limited(function)
    floats = "first|max_pool.*|re_lu.*|tf.clip.*"
    bits = {"weight_bits": 8, "activation_bits": 8, "overrides": {floats: "float"}}
    student, x, report = exported(model, rng, tmp_path, **bits)
    found = {code: report.operators.get(code) for code in ("MAXIMUM", "MINIMUM")}
    assert found == {"MAXIMUM": None, "MINIMUM": None} | operators
    expected = model.predict_on_batch(x)
    error = np.abs(student.predict_on_batch(x) - expected).max()
    assert error < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_saved_student_keeps_its_limits(ending, rng, tmp_path):
    student, x = tiny.student_of(limited(clip), rng)
    student.save(tmp_path / f"student.{ending}")
    loaded = keras.models.load_model(tmp_path / f"student.{ending}")
    np.testing.assert_array_equal(
        loaded.predict_on_batch(x), student.predict_on_batch(x)
    )


def test_a_relu_that_returns_only_0_is_refused():
    with pytest.raises(ValueError, match=r"max_value must be positive, received 0"):
        tf_lsq.quantize_model(limited(layers.ReLU(0.0, name="nothing")))
