"""Convolutions with groups train without XLA, with the gradients of one per group."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from test_conformance import CASES

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.layers import grouped

layers = keras.layers
GROUPED = [name for name in CASES if "groups" in name and "1d_groups" not in name]


def refuse_xla(monkeypatch):
    """Makes the function that Keras compiles an error; float models call it."""

    def refused(*_):
        raise AssertionError("compiled with XLA")

    for layer in (layers.Conv1D, layers.Conv2D):
        monkeypatch.setattr(layer, "_jit_compiled_convolution_op", refused)


def gradients(student, x, target):
    """Output, loss, and gradients of all variables."""
    with tf.GradientTape() as tape:
        y = student(x, training=True)
        loss = tf.reduce_sum(y * target)
    return y, tape.gradient(loss, student.trainable_variables)


@pytest.mark.parametrize("case", GROUPED)
def test_one_kernel_and_one_per_group_have_the_same_gradients(case, rng, monkeypatch):
    model = tiny.randomize(CASES[case][1](), rng)
    student = tf_lsq.quantize_model(model, weight_bits=4, activation_bits=4)
    x = rng.normal(0, 1, (16, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    refuse_xla(monkeypatch)
    target = rng.normal(0, 1, student(x).shape).astype(np.float32)
    found = []
    for whole in (True, False):
        if whole and not grouped.has_gradients("float32"):
            pytest.skip("This TensorFlow has no gradients of grouped convolutions.")
        monkeypatch.setattr(grouped, "has_gradients", lambda _, whole=whole: whole)
        found.append(gradients(student, x, target))
    (one, first), (other, second) = found
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6)


@pytest.mark.parametrize("has_gradients", [True, False])
def test_a_student_is_trained_without_xla(has_gradients, rng, monkeypatch):
    if has_gradients and not grouped.has_gradients("float32"):
        pytest.skip("This TensorFlow has no gradients of grouped convolutions.")
    monkeypatch.setattr(grouped, "has_gradients", lambda _: has_gradients)
    student = tf_lsq.quantize_model(CASES["conv_two_groups"][1]())
    x = rng.normal(0, 1, (16, 8, 8, 4)).astype(np.float32)
    refuse_xla(monkeypatch)
    tiny.compiled(student).fit(x, rng.integers(0, 3, 16), verbose=0)
    for variable in student.trainable_variables:
        assert np.isfinite(variable.numpy()).all()


def test_the_gradients_of_float64_and_others_are_asked_of_tensorflow():
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        x, kernel = tf.ones((1, 5, 5, 4), dtype), tf.ones((3, 3, 2, 4), dtype)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.nn.conv2d(x, kernel, 1, "SAME")
        try:
            found = tape.gradient(y, kernel) is not None
        except tf.errors.OpError:
            found = False
        assert grouped.has_gradients(dtype) == found


def test_layers_without_groups_keep_their_attributes():
    for layer in (layers.Conv2D(4, 3), layers.Dense(3), layers.PReLU()):
        assert grouped.own_kernels(layer) == {}


def test_the_layer_is_as_before(rng):
    model = CASES["conv1d_two_groups"][1]()
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, rng.normal(0, 1, (2, 16, 4)).astype(np.float32))
    [layer] = {
        one.layer
        for one in student.layers
        if getattr(getattr(one, "layer", None), "groups", 1) > 1
    }
    assert layer.groups == 2 and "convolution_op" not in vars(layer)


def test_mixed_float16_trains(rng):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        student = tf_lsq.quantize_model(CASES["conv_two_groups"][1]())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    x = rng.normal(0, 1, (16, 8, 8, 4)).astype(np.float32)
    history = tiny.compiled(student).fit(x, rng.integers(0, 3, 16), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
