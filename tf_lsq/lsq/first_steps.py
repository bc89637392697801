"""Computes the steps that training starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .plain import codes_of, shared_axes
from .ranges import IntegerRange

STEP_INITS = ("mse", "lsq", "max", "wide")
_WIDE = 1.5
_MSE_CANDIDATES = 80
# With many values the error is a smooth function of the step: every few candidates are
# tried, then those next to the best.
_MSE_STRIDE = 4
_MANY_VALUES = 1 << 12
_MSE_SAMPLE = 1 << 16


def initial_step(
    x: tf.Tensor,
    integer_range: IntegerRange,
    *,
    step_shape: Sequence[int | None] = (),
    method: str = "mse",
) -> tf.Tensor:
    """Returns the step that training starts from, always positive.

    Args:
        x: Weights, or the first batch of an activation. If the range has no
            negative integers, negative values count as 0.
        integer_range: Integers that may be used.
        step_shape: Shape of the step: `()`, or the rank of `x` with size 1 on
            every axis along which values share a step.
        method: "mse" is the step with the smallest mean squared error among 80
            fractions of "max", "max" is the smallest step that clips nothing, "lsq"
            is the paper's ``2 * mean(|x|) / sqrt(q_max)``, "wide" is 1.5 times "max":
            for more bits than values need, so that later values are not clipped.

    Returns:
        Shape `step_shape`, dtype float32, unit of `x`. All-zero values
        get the mean step of the other channels, or ``1 / q_max``.

    Raises:
        ValueError: If `method` is unknown.

    References:
        Esser et al., Section 2.1 ("lsq").
    """
    check_step_init(method)
    x = tf.cast(x, tf.float32)
    q_max = tf.cast(integer_range.q_max, tf.float32)
    x = tf.where(tf.cast(integer_range.q_min, tf.float32) < 0.0, x, tf.nn.relu(x))
    if method == "lsq":
        step = 2.0 * _mean_like(tf.abs(x), step_shape) / tf.sqrt(q_max)
    elif method in ("max", "wide"):
        step = _max_step(x, integer_range, step_shape)
        step = step * _WIDE if method == "wide" else step
    else:
        step = _mse_step(x, integer_range, step_shape)
    positive = step > 0.0
    count = tf.reduce_sum(tf.cast(positive, tf.float32))
    typical = tf.reduce_sum(tf.where(positive, step, 0.0)) / tf.maximum(count, 1.0)
    return tf.where(positive, step, tf.where(count > 0.0, typical, 1.0 / q_max))


def check_step_init(method: str) -> str:
    """Returns `method` if `initial_step` knows it, else raises ValueError."""
    if method not in STEP_INITS:
        raise ValueError(
            f"`step_init` must be one of {list(STEP_INITS)}. "
            f"Received: step_init={method!r}."
        )
    return method


def _mean_like(values: tf.Tensor, step_shape: Sequence[int | None]) -> tf.Tensor:
    """Averages `values` over the axes along which they share a step."""
    if not step_shape:
        return tf.reduce_mean(values)
    return tf.reduce_mean(values, axis=shared_axes(step_shape), keepdims=True)


def _max_step(
    x: tf.Tensor, integer_range: IntegerRange, step_shape: Sequence[int | None]
) -> tf.Tensor:
    """Returns the smallest step for which no value is clipped."""
    q_max = tf.cast(integer_range.q_max, tf.float32)
    q_min = tf.cast(integer_range.q_min, tf.float32)
    needed = tf.maximum(x / q_max, tf.math.divide_no_nan(x, q_min))
    if not step_shape:
        return tf.reduce_max(needed)
    return tf.reduce_max(needed, axis=shared_axes(step_shape), keepdims=True)


def _mse_step(
    x: tf.Tensor, integer_range: IntegerRange, step_shape: Sequence[int | None]
) -> tf.Tensor:
    """Returns the candidate step with the smallest mean squared error."""
    if not step_shape:
        x = sampled(x, _MSE_SAMPLE)  # Enough to rank candidates.
    largest = _max_step(x, integer_range, step_shape)
    unit = tf.maximum(largest, 1e-30) / _MSE_CANDIDATES

    def best_of(counts: tf.Tensor) -> tf.Tensor:
        """Returns, for every step, the best of some multiples of the unit."""
        errors = _squared_errors(x, unit * counts, integer_range)
        chosen = tf.one_hot(tf.argmin(errors, axis=0), counts.shape[0], axis=0)
        return tf.reduce_sum(chosen * counts, axis=0)

    values = (x.shape.num_elements() or _MSE_SAMPLE) // math.prod(
        size or 1 for size in step_shape
    )
    stride = _MSE_STRIDE if values >= _MANY_VALUES else 1
    shape = [-1] + [1] * len(step_shape)
    apart = tf.range(stride, _MSE_CANDIDATES + 1, stride)
    best = best_of(tf.reshape(tf.cast(apart, tf.float32), shape))
    near = tf.reshape(tf.range(1.0 - stride, stride), shape)
    best = best_of(tf.minimum(best + near, _MSE_CANDIDATES))
    return tf.where(largest > 0.0, unit * best, 0.0)


def sampled(x: tf.Tensor, count: int) -> tf.Tensor:
    """Returns a sample of a large tensor, always from the same places.

    The places are random: a regular sample may lie in only a few of the channels.

    Args:
        x: Any shape.
        count: How many values.

    Returns:
        Shape `[count]`, or all values if there are no more than `count`.
    """
    x = tf.reshape(x, [-1])
    size = tf.size(x)
    taken = tf.minimum(size, count)
    places = tf.random.stateless_uniform(
        [taken], (0, 0), 0, tf.maximum(size, 1), tf.int32, alg="philox"
    )
    return tf.gather(x, tf.where(size > count, places, tf.range(taken)))


def _squared_errors(
    x: tf.Tensor, steps: tf.Tensor, integer_range: IntegerRange
) -> tf.Tensor:
    """Returns the mean squared error of every candidate, shape of `steps`.

    Args:
        x: Values.
        steps: Candidates; the first axis numbers them, the others are a step's axes.
        integer_range: Integers that may be used.
    """
    shape: Any = steps.shape.as_list()
    count, *step_shape = shape
    # As many candidates at a time as fit into a few million numbers.
    size = x.shape.num_elements() or _MSE_SAMPLE
    at_once = min(max((1 << 23) // size, 1), count)
    errors = []
    for start in range(0, count, at_once):
        some = steps[start : start + at_once]
        step = some if step_shape else tf.reshape(some, [-1] + [1] * len(x.shape))
        difference = codes_of(x / step, integer_range) * step - x
        mean = _mean_like(tf.square(difference), (0, *(step_shape or (1,))))
        errors.append(tf.reshape(mean, tf.shape(some)))
    return tf.concat(errors, axis=0)
