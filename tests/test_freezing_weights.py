"""Weights as integers: signs of gamma, constant channels, multipliers, biases."""

from __future__ import annotations

import numpy as np
import pytest
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

layers = keras.layers


def gamma_model(rng, gamma):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(4, 3)(x)
    x = layers.MaxPooling2D()(x)
    x = layers.ReLU()(layers.BatchNormalization(name="alone")(x))
    model = tiny.randomize(
        keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))), rng
    )
    student = tf_lsq.quantize_model(model, first_last_bits=4)
    # Set after quantize_model, as training might: no channel is flipped any longer.
    student.get_layer("norm").gamma.assign(gamma)
    student.get_layer("alone").gamma.assign(gamma)
    x = rng.uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student, x


def test_negative_gamma_flips_the_sign_of_the_weights(rng, tmp_path):
    student, x = gamma_model(rng, [1.0, -1.0, -0.3, 0.7])
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes
    frozen = tiny.built(student).frozen.by_name()
    np.testing.assert_array_equal(frozen["relu"].weight.sign, [1, -1, -1, 1])


def test_zero_gamma_makes_a_channel_constant(rng, tmp_path):
    student, x = gamma_model(rng, [1.0, 0.0, 1e-30, -0.5])
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert [layer.constant_channels for layer in report.layers] == [2, 0, 2, 0]
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_the_multiplier_uses_the_full_range_of_int8(rng):
    for bits, multiplier in ((8, 1), (4, 15), (3, 30), (2, 60)):
        keras.backend.clear_session()
        student, _ = tiny.student_of(tiny.residual(), rng, weight_bits=bits)
        weight = tiny.built(student).frozen.by_name()["re_lu_1"].weight
        assert weight.multiplier == multiplier
        assert np.abs(weight.codes.codes).max() <= 127


def tiny_kernel(size):
    """A dense layer whose kernel is small compared with its bias."""
    inputs = layers.Input((64,), name="x")
    outputs = layers.Dense(3, name="dense")(inputs)
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    wrapper = student.get_layer("dense")
    wrapper.kernel.assign(size * np.ones((64, 3)))
    wrapper.layer.bias.assign([1.0, 0.0, -1.0])
    wrapper.initialise()
    return student


@pytest.mark.parametrize("size", [1e-9, 1e-7])
def test_a_kernel_too_small_to_matter_becomes_constant(size, rng, tmp_path):
    student = tiny_kernel(size)
    x = rng.uniform(-1, 1, size=(32, 64)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    [layer] = tflite_export.export_model(student, path).layers
    assert layer.constant_channels == 3
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_a_bias_that_does_not_fit_is_named(rng, tmp_path):
    inputs = layers.Input((20_000,), name="x")
    outputs = layers.Dense(2, name="dense")(inputs)
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    wrapper = student.get_layer("dense")
    wrapper.kernel.assign(1e-7 * np.ones((20_000, 2)))
    wrapper.layer.bias.assign([0.0, 0.1])
    wrapper.initialise()
    x = rng.uniform(-1, 1, size=(32, 20_000)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    with pytest.raises(ValueError, match=r"`dense`.*32 bits.*\[1\]"):
        tflite_export.export_model(student, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []
