"""`fit` ends with biases that files can hold, and continues from unrounded ones."""

from __future__ import annotations

import numpy as np
import pytest
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training.biases import restore_biases


def test_fit_ends_with_biases_that_the_file_can_hold(data, rng, tmp_path):
    import tflite_export

    student = tf_lsq.quantize_model(
        tiny.randomize(tiny.pre_activation(), rng), weight_bits=2, activation_bits=2
    )
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    before = tflite_export.verify_tflite(path, student, data[0], verbose=False)
    old = student.predict(data[0], verbose=0)
    student.compile(keras.optimizers.SGD(0.0), "mse")
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 1.0  # Only the rounding may change anything.
    student.fit(data[0], old, verbose=0)
    tflite_export.export_model(student, path)
    after = tflite_export.verify_tflite(path, student, data[0], verbose=False)
    assert after.off_by_one < 0.1 * before.off_by_one
    assert after.max_code_difference <= before.max_code_difference


def test_rounding_biases_moves_them_by_half_a_unit_at_most(model, data):
    from tf_lsq.graph import folding, fusing

    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, data)

    def biases():
        nodes = fusing.analyze(student).nodes
        return {
            node.name: (folding.affine_part(node)[1], folding.bias_unit(node))
            for node in nodes
            if node.properties.matmul
        }

    before = biases()
    tf_lsq.round_biases(student)
    for name, (bias, unit) in biases().items():
        assert np.abs(bias - before[name][0]).max() <= 0.5001 * unit.max()
        codes = bias / unit
        np.testing.assert_allclose(codes, np.rint(codes), atol=0.02)


def trained_biases(student, data, fits, epochs):
    """The biases after calls of `fit`, at a rate too low to recover from rounding."""
    keras.utils.set_random_seed(5)
    student.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "mse")
    tf_lsq.calibrate(student, data[0])
    student.range_watch = None
    target = student.predict(data[0], verbose=0) + 0.1
    for _ in range(fits):
        student.fit(data[0], target, epochs=epochs, shuffle=False, verbose=0)
    return np.concatenate(
        [
            np.ravel(v)
            for v in student.trainable_variables
            if "bias" in v.name or "beta" in v.name
        ]
    )


def test_repeated_calls_of_fit_train_like_a_single_one(model, data):
    students = [tf_lsq.quantize_model(model, weight_bits=2) for _ in range(3)]
    students[2].rounds_biases = False
    loop, once, unrounded = (
        trained_biases(student, data, fits, epochs)
        for student, (fits, epochs) in zip(
            students, [(6, 1), (1, 6), (1, 6)], strict=True
        )
    )
    np.testing.assert_array_equal(loop, once)
    assert (once != unrounded).any()


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_a_loaded_model_keeps_its_unrounded_biases(kind, model, data, tmp_path):
    student = tf_lsq.quantize_model(model, weight_bits=2)
    trained_biases(student, data, 1, 1)
    student.save(tmp_path / f"model{kind}")
    loaded = keras.models.load_model(tmp_path / f"model{kind}")
    found = []
    for one in (student, loaded):
        rounded = one.get_weights()
        restore_biases(one)
        found.append(one.get_weights())
        assert any((a != b).any() for a, b in zip(rounded, found[-1], strict=True))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_biases_that_were_changed_after_rounding_are_left_alone(model, data):
    student = tf_lsq.quantize_model(model, weight_bits=2)
    trained_biases(student, data, 1, 1)
    student.set_weights([w + 1 for w in student.get_weights()])
    before = student.get_weights()
    restore_biases(student)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
