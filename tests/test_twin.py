"""The integer twin as a Keras model, and kernel arithmetic compared with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.freezing.grids import Grid
from tflite_export.operators.base import quantized
from tflite_export.runtimes import arithmetic, fixed_point

layers = keras.layers


@pytest.mark.parametrize("scale", [0.0078, 0.013, 1 / 3])
def test_inputs_are_divided_by_their_scale_in_graphs_as_well(scale):
    grid = Grid(float(np.float32(scale)), 0)
    ties = (np.arange(-127, 127) + np.float32(0.5)) * np.float32(scale)
    ties = ties.astype(np.float32)
    near = [np.nextafter(ties, np.float32(end)) for end in (-1e3, 1e3)]
    x = np.concatenate([ties, *near])
    expected = np.clip(np.rint(x / np.float32(scale)), -128, 127)
    compute = quantized(grid)
    for function in (compute, tf.function(compute)):
        np.testing.assert_array_equal(function([tf.constant(x)]), expected)


@pytest.fixture
def trained(rng):
    model = tiny.randomize(tiny.residual(), rng)
    student = tf_lsq.quantize_model(model, weight_bits=4, activation_bits=4)
    x = rng.uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student, x


def test_the_twin_evaluates_like_the_file(trained, rng, tmp_path):
    student, x = trained
    y = rng.integers(0, 5, 64)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, (x, y), verbose=False)
    assert found.twin_differences == 0
    model = tflite_export.integer_twin(student)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    _, accuracy = model.evaluate(x, y, verbose=0)
    assert accuracy == pytest.approx(found.tflite_accuracy)
    assert not model.trainable_weights
    with pytest.raises(NotImplementedError, match="integer_twin"):
        model.get_layer("re_lu").get_config()


def test_the_twin_takes_and_returns_dictionaries(rng):
    inputs = {"a": layers.Input((4,), name="a"), "b": layers.Input((4,), name="b")}
    x = layers.Dense(6, activation="relu")(layers.Add()([inputs["a"], inputs["b"]]))
    outputs = {"low": layers.Dense(3)(x), "high": layers.Dense(2)(x)}
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    data = {name: rng.normal(size=(32, 4)).astype(np.float32) for name in "ba"}
    tf_lsq.calibrate(student, data)
    found = tflite_export.integer_twin(student).predict(data, verbose=0)
    expected = student.predict(data, verbose=0)
    for name in ("low", "high"):
        step = np.ptp(expected[name]) / 100
        assert np.abs(found[name] - expected[name]).max() < step


def test_the_twin_keeps_layers_left_in_float(rng, tmp_path):
    inputs = layers.Input((8,), name="x")
    x = layers.Dense(6, activation="relu")(inputs)
    x = layers.Dense(6, activation="relu", name="middle")(x)
    model = keras.Model(inputs, layers.Dense(3, name="scores")(x))
    student = tf_lsq.quantize_model(model, overrides={"middle": "float"})
    x = rng.normal(size=(64, 8)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.twin_differences <= 2  # Of 192: the order of float sums is undefined.


@pytest.mark.filterwarnings("ignore:These tensors use less")
def test_the_twin_is_exact_for_sums_too_large_for_float32(rng, tmp_path):
    inputs = layers.Input((4096,), name="x")
    model = keras.Model(inputs, layers.Dense(3, name="scores")(inputs))
    model.get_layer("scores").kernel.assign(rng.uniform(0.5, 1, (4096, 3)))
    student = tf_lsq.quantize_model(model)
    x = rng.uniform(0, 1, (16, 4096)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    weight = tiny.built(student).frozen.by_name()["scores"].weight
    assert np.abs(weight.codes.codes).sum(axis=0).min() * 255 > 2**24
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.twin_differences == 0


def test_the_twin_refuses_invalid_options(trained):
    with pytest.raises(ValueError, match="`kernels` must be one of"):
        tflite_export.integer_twin(trained[0], kernels="gpu")
    with pytest.raises(ValueError, match="`storage` must be one of"):
        tflite_export.integer_twin(trained[0], storage="int3")
    with pytest.raises(ValueError, match="must be quantized"):
        tflite_export.integer_twin(tiny.residual())


# --- Arithmetic --------------------------------------------------------------------

INT32 = st.integers(-(2**31) + 1, 2**31 - 1)
RATIO = st.floats(1e-6, 0.99)


@settings(max_examples=300, deadline=None)
@given(acc=INT32, ratio=RATIO)
def test_fixed_point_is_the_ratio_rounded_twice(acc, ratio):
    multiplier, exponent = (int(part) for part in fixed_point(ratio))
    assert multiplier / 2.0**31 * 2.0**exponent == pytest.approx(ratio, rel=2**-30)
    up, away = (
        int(
            arithmetic.fixed_requantize(
                tf.constant(acc, tf.int64), multiplier, exponent, half_up=half_up
            )
        )
        for half_up in (True, False)
    )
    exact = acc * multiplier * 2.0 ** (exponent - 31)
    # Half a unit for the shift, and half a unit for the product before it.
    assert abs(up - exact) <= 1.0 and abs(away - exact) <= 1.0
    assert up in (away, away + 1)


@settings(max_examples=300, deadline=None)
@given(total=st.integers(-(2**20), 2**20), count=st.integers(1, 600))
def test_averages_round_ties_away_from_zero(total, count):
    found = int(arithmetic.rounded_average(tf.constant(total, tf.int64), count))
    expected = np.sign(total) * ((abs(total) + count // 2) // count)
    assert found == expected
