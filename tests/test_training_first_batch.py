"""Initial steps of grids that several tensors share."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.training import quantization_points

# The networks here join a small tensor with a wide one.
pytestmark = pytest.mark.filterwarnings("ignore:These tensors use:UserWarning")
layers = keras.layers
JOINS = (layers.Concatenate, layers.Maximum)


def network(join, first):
    """Joins a small non-negative tensor and a wide signed one."""
    keras.utils.set_random_seed(3)
    inputs = layers.Input((6, 6, 3), name="image")
    kernel = keras.initializers.RandomUniform
    small = layers.Conv2D(4, 3, kernel_initializer=kernel(-0.05, 0.05), name="small")
    wide = layers.Conv2D(4, 3, kernel_initializer=kernel(-2, 2), name="wide")
    branches = {"small": layers.ReLU()(small(inputs)), "wide": wide(inputs)}
    order = [first, *(branches.keys() - {first})]
    x = join(name="join")([branches[name] for name in order])
    x = layers.BatchNormalization(name="norm")(layers.DepthwiseConv2D(3, name="dw")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3, name="scores")(x))


def calibrated(student, x):
    tf_lsq.calibrate(student, x)


def fitted(student, x):
    student.compile(keras.optimizers.SGD(0.0), "mse")
    student.fit(x, np.zeros((len(x), 3), np.float32), batch_size=len(x), verbose=0)


def called(student, x):
    student(x, training=True)


def traced(student, x):
    function = tf.function(lambda x: student(x, training=True))
    function(x)
    first = tf_lsq.steps(student)
    function(2 * x)  # No longer the first batch.
    assert tf_lsq.steps(student) == first


WAYS = (calibrated, fitted, called, traced)


@pytest.fixture
def x(rng):
    return rng.normal(size=(8, 6, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("join", JOINS)
def test_initial_steps_account_for_all_tensors(join, way, x):
    for first in ("small", "wide"):
        student = tf_lsq.quantize_model(network(join, first), first_last_bits=4)
        way(student, x)
        shared = {p.name: p for p in quantization_points(student)}["quantize_join"]
        assert int(shared.integer_range.q_min) == -8
        names = ("small", "wide")
        inside = [student.get_layer(name).output for name in names]
        small, wide = keras.Model(student.inputs, inside)(x)
        values = tf.concat([tf.nn.relu(small), wide], axis=-1)
        expected = lsq.initial_step(values, lsq.activation_range(4, signed=True))
        assert float(shared.step) == pytest.approx(float(expected), rel=0.05)
        assert tf_lsq.training.is_calibrated(student)
        norm = student.get_layer("norm")
        moved = float(tf.reduce_max(tf.abs(norm.moving_mean)))
        assert (moved > 0) == (way is not calibrated)


@pytest.mark.parametrize("first", ["small", "wide"])
def test_initial_offsets_account_for_all_tensors(first, x):
    student = tf_lsq.quantize_model(
        network(layers.Concatenate, first), asymmetric_activations=True
    )
    tf_lsq.calibrate(student, x)
    shared = {p.name: p for p in quantization_points(student)}["quantize_join"]
    wide = student.get_layer("wide").output
    smallest = float(tf.reduce_min(keras.Model(student.inputs, wide)(x)))
    assert 1.5 * smallest < float(shared.step * shared.integer_range.q_min)
    assert float(shared.step * shared.integer_range.q_min) < 0.5 * smallest


def test_batch_norms_see_the_first_batch_once(x):
    found = []
    for way in (called, traced):
        student = tf_lsq.quantize_model(network(layers.Concatenate, "small"))
        reference = tf_lsq.quantize_model(network(layers.Concatenate, "small"))
        way(student, x)
        tf_lsq.calibrate(reference, x)
        for batch in (x,) if way is called else (x, 2 * x):
            reference(batch, training=True)
        found.append((student, reference))
    for student, reference in found:
        np.testing.assert_allclose(
            student.get_layer("norm").moving_mean,
            reference.get_layer("norm").moving_mean,
            rtol=0.1,
            atol=1e-3,
        )


def test_points_that_receive_non_finite_values_are_named(x):
    student = tf_lsq.quantize_model(network(layers.Concatenate, "small"))
    wide = student.get_layer("wide").layer
    wide.bias.assign([np.inf] * 4)
    with pytest.raises(ValueError, match=r"NaN or infinite values at: .*`wide`"):
        tf_lsq.calibrate(student, x)


def test_diagnostics_count_the_values_of_all_tensors(x):
    student = tf_lsq.quantize_model(network(layers.Concatenate, "small"))
    student.compile("sgd", "mse")
    diagnostics = tf_lsq.Diagnostics(data=x, batch_size=len(x))
    labels = np.zeros((len(x), 3), np.float32)
    student.fit(x, labels, verbose=0, callbacks=[diagnostics])
    counts = diagnostics.history["counts"]["quantize_join"][-1]
    assert counts.sum() == len(x) * 4 * 4 * 8  # Both tensors have 4 channels.
    assert counts[:8].sum() > 100  # Only one has negative values.
