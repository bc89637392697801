"""The plain form of the operator, compared with float64, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lsq import lsq

RANGES = [lsq.weight_range(bits) for bits in range(2, 9)]
RANGES += [lsq.activation_range(bits, signed=False) for bits in range(2, 9)]
RANGES += [lsq.activation_range(bits, signed=True) for bits in range(2, 9)]


def forward_and_gradients(x, step, integer_range, upstream, scale=1.0):
    x, step = tf.constant(x), tf.constant(step)
    with tf.GradientTape() as tape:
        tape.watch([x, step])
        y = lsq.fake_quantize(x, step, integer_range, gradient_scale=scale)
    dx, dstep = tape.gradient(y, [x, step], output_gradients=tf.constant(upstream))
    return y.numpy(), dx.numpy(), dstep.numpy()


def values(rng, integer_range, step, shape):
    """Values inside, outside, on the bounds and on ties."""
    low, high = integer_range.q_min - 3, integer_range.q_max + 3
    x = rng.uniform(low, high, shape).astype(np.float32) * step
    flat = x.reshape(-1)
    special = [integer_range.q_min, integer_range.q_max, 0.0, 0.5, 1.5, -0.5, -1.5]
    flat[: len(special)] = np.float32(special) * np.float32(np.ravel(step)[0])
    return x


@pytest.mark.parametrize("integer_range", RANGES, ids=str)
@pytest.mark.parametrize("step", [0.25, 0.1037])
def test_the_plain_form_matches_float64_per_tensor(integer_range, step, rng):
    x = values(rng, integer_range, np.float32(step), (64, 33))
    upstream = rng.normal(size=x.shape).astype(np.float32)
    y, dx, dstep = forward_and_gradients(
        x, np.float32(step), integer_range, upstream, scale=0.125
    )
    codes, inside, per_value = reference.lsq(
        x, step, integer_range.q_min, integer_range.q_max
    )
    np.testing.assert_array_equal(np.rint(y / np.float32(step)), codes)
    np.testing.assert_array_equal(dx, upstream * inside)
    expected = 0.125 * np.sum(upstream.astype(np.float64) * per_value)
    scale = 0.125 * np.sum(np.abs(upstream * per_value))
    np.testing.assert_allclose(dstep, expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("integer_range", RANGES[:7], ids=str)
def test_the_plain_form_matches_float64_per_channel(integer_range, rng):
    step = rng.uniform(0.05, 0.5, (1, 1, 1, 6)).astype(np.float32)
    x = values(rng, integer_range, step, (3, 3, 5, 6))
    x[..., 2] = 0.0  # A channel of zeros.
    upstream = rng.normal(size=x.shape).astype(np.float32)
    y, dx, dstep = forward_and_gradients(x, step, integer_range, upstream)
    codes, inside, per_value = reference.lsq(
        x, step, integer_range.q_min, integer_range.q_max
    )
    np.testing.assert_array_equal(np.rint(y / step), codes)
    np.testing.assert_array_equal(dx, upstream * inside)
    terms = upstream.astype(np.float64) * per_value
    expected = terms.sum(axis=(0, 1, 2), keepdims=True)
    assert dstep.shape == step.shape
    scale = np.abs(terms).sum(axis=(0, 1, 2), keepdims=True).max()
    np.testing.assert_allclose(dstep, expected, rtol=1e-5, atol=1e-6 * scale)
    assert dstep[..., 2] == 0.0


def test_a_tie_rounds_to_even():
    x = tf.constant([0.5, 1.5, 2.5, -0.5, -1.5]) * 0.25
    codes = lsq.quantize(x, tf.constant(0.25), lsq.weight_range(4))
    np.testing.assert_array_equal(codes, [0, 2, 2, 0, -2])


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
    st.floats(2.0**-10, 10.0, width=32),
    st.sampled_from(RANGES),
)
def test_the_plain_form_keeps_the_properties_of_lsq(numbers, step, integer_range):
    x, step = tf.constant(numbers, tf.float32), tf.constant(step, tf.float32)
    y = lsq.fake_quantize(x, step, integer_range)
    codes = lsq.quantize(x, step, integer_range).numpy()
    # Every output is the step times an integer of the range.
    np.testing.assert_array_equal(y, codes * step.numpy())
    np.testing.assert_array_equal(codes, np.rint(codes))
    assert codes.min() >= integer_range.q_min and codes.max() <= integer_range.q_max
    # Quantizing twice changes nothing.
    np.testing.assert_array_equal(lsq.quantize(y, step, integer_range), codes)
    # Monotone.
    order = np.argsort(x.numpy(), kind="stable")
    assert (np.diff(codes[order]) >= 0).all()
    # Equivariant under exact scaling.
    np.testing.assert_array_equal(
        lsq.fake_quantize(4 * x, 4 * step, integer_range), 4 * y
    )


def test_step_gradient_beyond_the_bounds_is_a_finite_difference():
    integer_range = lsq.activation_range(4, signed=False)
    x = tf.constant([40.0, 99.0])

    def total(step):
        return float(tf.reduce_sum(lsq.fake_quantize(x, step, integer_range)))

    step, delta = 0.5, 2.0**-6
    difference = (total(step + delta) - total(step - delta)) / (2 * delta)
    _, _, gradient = forward_and_gradients(
        x.numpy(), np.float32(step), integer_range, np.ones(2, np.float32)
    )
    assert gradient == difference == 30.0


def test_gradient_scale_counts_the_values_of_a_conv_and_a_dense_kernel():
    assert lsq.step_gradient_scale(3 * 3 * 16 * 32, 7) == (4608 * 7) ** -0.5
    assert lsq.step_gradient_scale(64 * 10, 127) == (640 * 127) ** -0.5


def test_sixteen_bit_values_are_computed_with_a_float32_step():
    x = tf.constant([0.3, 1.7, -0.2], tf.float16)
    y = lsq.fake_quantize(x, tf.constant(0.5), lsq.weight_range(4))
    assert y.dtype == tf.float16
    np.testing.assert_array_equal(y, np.float16([0.5, 1.5, 0.0]))


def test_the_papers_initial_step_matches_a_hand_calculation():
    x = tf.constant([[1.0, -2.0], [3.0, -4.0]])
    step = lsq.initial_step(x, lsq.weight_range(4), method="lsq")
    np.testing.assert_allclose(step, 2 * 2.5 / np.sqrt(7), rtol=1e-6)
    step = lsq.initial_step(x, lsq.weight_range(4), step_shape=(1, 2), method="lsq")
    np.testing.assert_allclose(step, [[4 / np.sqrt(7), 6 / np.sqrt(7)]], rtol=1e-6)


def test_max_initial_step_clips_nothing():
    x = tf.constant([-4.0, 1.0, 3.0])
    step = float(lsq.initial_step(x, lsq.weight_range(4), method="max"))
    assert step == 0.5  # -8 * 0.5 = -4; 7 * 0.5 = 3.5


@pytest.mark.parametrize("step_shape", [(), (1, 8)])
def test_mse_initial_step_is_the_best_candidate(step_shape, rng):
    x = rng.normal(size=(200, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    integer_range = lsq.weight_range(3)
    found = lsq.initial_step(
        tf.constant(x), integer_range, step_shape=step_shape, method="mse"
    ).numpy()
    axis = None if step_shape == () else 0

    def error(step):
        codes = np.rint(np.clip(x / step, -4, 3))
        return np.square(codes * step - x).mean(axis=axis)

    largest = lsq.initial_step(
        tf.constant(x), integer_range, step_shape=step_shape, method="max"
    ).numpy()
    best = np.min([error(largest * k / 80) for k in range(1, 81)], axis=0)
    np.testing.assert_allclose(error(found), best, rtol=1e-4)


@pytest.mark.parametrize("method", ["lsq", "max", "mse"])
@pytest.mark.parametrize("bits", [2, 8])
def test_initial_step_of_zeros_is_positive(method, bits):
    integer_range = lsq.weight_range(bits)
    zeros = tf.zeros([4, 3])
    assert lsq.initial_step(zeros, integer_range, method=method) > 0
    x = tf.constant([[0.0, 1.0], [0.0, -1.0]])
    step = lsq.initial_step(x, integer_range, step_shape=(1, 2), method=method).numpy()
    assert step[0, 0] == step[0, 1] > 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_steps_of_many_values_are_also_the_best_candidates(bits, rng):
    """Large tensors are searched in strides."""
    x = rng.normal(size=(40, 1000)).astype(np.float32)
    integer_range = lsq.weight_range(bits)
    found = lsq.initial_step(tf.constant(x), integer_range).numpy()
    largest = lsq.initial_step(tf.constant(x), integer_range, method="max").numpy()
    low, high = integer_range.q_min, integer_range.q_max
    errors = []
    for step in largest * np.arange(1, 81) / 80:
        codes = np.rint(np.clip(x / step, low, high))
        errors.append(np.square(codes * step - x, dtype=np.float64).mean())
    assert found == pytest.approx(largest * (np.argmin(errors) + 1) / 80, rel=1e-5)


def test_steps_of_large_tensors_account_for_all_channels(rng):
    """The tensors have more values than the sample that is searched."""
    scales = np.geomspace(0.01, 4, 32).astype(np.float32)
    x = np.maximum(rng.normal(size=(64, 16, 16, 32)), 0).astype(np.float32)
    integer_range = lsq.activation_range(4, signed=False)

    def error(step, x):
        codes = np.rint(np.clip(x / step, 0, integer_range.q_max))
        return np.square(codes * step - x, dtype=np.float64).mean()

    for order in (scales, scales[::-1], np.roll(scales, 16)):
        scaled = x * order
        found = lsq.initial_step(tf.constant(scaled), integer_range).numpy()
        candidates = scaled.max() / integer_range.q_max * np.arange(1, 161) / 160
        best = min(error(step, scaled) for step in candidates)
        assert error(found, scaled) < 1.03 * best


def test_a_sample_is_the_same_in_every_mode_and_may_be_the_whole_tensor(rng):
    x = tf.constant(rng.normal(size=(30, 50)).astype(np.float32))
    np.testing.assert_array_equal(lsq.sampled(x, 1500), tf.reshape(x, [-1]))
    assert lsq.sampled(tf.zeros([0, 3]), 10).shape == [0]
    found = lsq.sampled(x, 400)
    assert found.shape == [400] and np.isin(found, x).all()
    dynamic = tf.TensorSpec([None, 50])
    for options in ({}, {"jit_compile": True}, {"input_signature": [dynamic]}):
        again = tf.function(lambda x: lsq.sampled(x, 400), **options)(x)
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("bits", [1, 9, 4.0, True, "4"])
def test_bits_outside_two_to_eight_are_refused(bits):
    with pytest.raises(ValueError, match=r"`num_bits` must be an integer from 2 to 8"):
        lsq.weight_range(bits)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`q_min` <= 0"):
        lsq.IntegerRange(1, 3)
    with pytest.raises(ValueError, match="num_values=0"):
        lsq.step_gradient_scale(0, 7)
    with pytest.raises(ValueError, match="`step_init` must be one of"):
        lsq.initial_step(tf.ones([2]), lsq.weight_range(4), method="best")


def test_learned_step_moves_under_sgd_as_if_it_were_the_variable():
    unit = 0.02
    factor, momentum, plain, velocity = 1.0, 0.0, unit, 0.0
    for gradient in (0.3, -0.1, 0.5):
        variable = tf.constant(factor)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            step = lsq.learned_step(variable, tf.constant(unit))
        found = float(tape.gradient(step, variable, tf.constant(gradient)))
        momentum = 0.9 * momentum - 0.001 * found
        factor += momentum
        velocity = 0.9 * velocity - 0.001 * gradient
        plain += velocity
        assert unit * factor == pytest.approx(plain, rel=1e-5)


def test_learned_step_stays_positive_and_can_come_back():
    variable = tf.constant(-5.0)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        step = lsq.learned_step(variable, tf.constant(0.5))
    assert step == 0.5 * lsq.MIN_STEP_FACTOR
    assert tape.gradient(step, variable) == 2.0
