"""LSQ+: activations that learn where their integer range begins, not only a step.

Swish, hard swish and linear bottlenecks output a few small negative values and many
positive ones. A signed range wastes half of its integers on the negative ones. LSQ+
adds an offset: the value of the smallest integer, learned together with the step.

Here the offset is rounded to the grid in every forward pass: the range of ``2^b``
integers begins at ``q_min = round(offset / step)``, and always contains 0. So values
are ``step * integer``, as everywhere in this library, zero padding is exact, and
`q_min` becomes the zero point of the TFLite tensor without further rounding.

Reference: Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable
offsets and better initialization", CVPR Workshops 2020,
https://arxiv.org/abs/2004.09576
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .first_steps import check_step_init, sampled
from .plain import ROUNDING, quantize
from .ranges import IntegerRange

# Fractions of the extremes among which the first range is searched.
_LOW_SHARES = (1.0, 0.85, 0.7, 0.5, 0.3, 0.0)
_HIGH_SHARES = 32
_SAMPLE = 1 << 14


def num_levels(num_bits: int) -> int:
    """Returns the distance between the largest and the smallest integer."""
    return 2**num_bits - 1


def offset_range(offset: tf.Tensor, step: tf.Tensor, num_bits: int) -> IntegerRange:
    """Returns the integers of an asymmetric activation, all ``2^b`` of them.

    Args:
        offset: Value of the smallest integer, unit of the values, shape `[]`.
        step: Positive, unit of the values, shape `[]`.
        num_bits: Bits of one integer.

    Returns:
        ``round(offset / step)`` and the ``2^b - 1`` integers after it, shifted so that
        they include 0 and 1; as tensors.

    Example:
        >>> integers = offset_range(tf.constant(-0.3), tf.constant(0.1), 4)
        >>> int(integers.q_min), int(integers.q_max)
        (-3, 12)
    """
    levels = float(num_levels(num_bits))
    q_min = tf.clip_by_value(tf.round(offset / step), 1.0 - levels, 0.0)
    return IntegerRange(q_min, q_min + levels)


def learned_offset(factor: tf.Tensor, unit: tf.Tensor, num_bits: int) -> tf.Tensor:
    """Returns the offset ``factor * unit * (2^b - 1)``, with LSQ+'s updates.

    It is trained as a fraction of the first range's width, just as a step is trained
    as a factor of its first value, and for the same reason; see `lsq.learned_step`.

    Args:
        factor: The trained variable, dimensionless, shape `[]`.
        unit: First value of the step, positive.
        num_bits: Bits of one integer.
    """

    @tf.custom_gradient
    def scaled(factor: tf.Tensor, width: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
            return upstream / width, None

        return factor * width, gradient

    width = tf.convert_to_tensor(unit) * float(num_levels(num_bits))
    return scaled(tf.convert_to_tensor(factor), width)


def fake_quantize(
    x: tf.Tensor,
    step: tf.Tensor,
    offset: tf.Tensor,
    num_bits: int,
    *,
    gradient_scale: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Returns `x` rounded to the grid that begins at the rounded offset.

    Gradients, with ``v = x / step``: inside the range, including its ends (see
    `lsq.is_inside`), the gradient of `x` passes through, that of `step` is
    ``round(v) - v`` and that of `offset` is 0; outside the range, that of `x` is 0,
    that of `offset` is 1, and that of `step` is the distance of the bound from the
    smallest integer. The gradient passes straight through the rounding of the offset.
    `gradient_scale` multiplies the gradients of step and offset.

    Args:
        x: Float values, any shape, any unit.
        step: Positive, unit of `x`, shape `[]`.
        offset: Value of the smallest integer, unit of `x`, shape `[]`.
        num_bits: Bits of one integer.
        gradient_scale: See `lsq.step_gradient_scale`, with ``q_max = 2^b - 1``.

    Returns:
        Same shape, dtype and unit as `x`.

    References:
        Bhalgat et al., Equations 3-7.
    """
    x, step = tf.convert_to_tensor(x), tf.convert_to_tensor(step)
    scale = tf.cast(gradient_scale, step.dtype)

    @tf.custom_gradient
    def quantized(x: tf.Tensor, step: tf.Tensor, offset: tf.Tensor) -> Any:
        bounds = offset_range(offset, step, num_bits)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            v = x / step
            slack = 1.0 + ROUNDING
            inside = (v >= bounds.q_min * slack) & (v <= bounds.q_max * slack)
            inside = tf.cast(inside, upstream.dtype)
            beyond = upstream * (1.0 - inside)
            distance = quantize(x, step, bounds) - bounds.q_min
            within = upstream * inside * (distance + bounds.q_min - v)
            step_gradient = tf.reduce_sum(within + beyond * distance)
            return (
                upstream * inside,
                scale * step_gradient,
                scale * tf.reduce_sum(beyond),
            )

        return quantize(x, step, bounds) * step, gradient

    return tf.cast(quantized(tf.cast(x, step.dtype), step, offset), x.dtype)


def initial_values(
    x: tf.Tensor, num_bits: int, *, method: str = "mse"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the step and the offset that training starts from.

    Args:
        x: The first batch of an activation.
        num_bits: Bits of one integer.
        method: "mse": the range with the smallest mean squared error among those that
            end at fractions of the extremes. "max" and "lsq": the range from the
            smallest value (or 0) to the largest, as in the LSQ+ paper.

    Returns:
        Step, positive, and offset, not positive; float32, shape `[]`. All-zero
        values get a step of ``1 / (2^b - 1)``.

    References:
        Bhalgat et al., Section 3.2.
    """
    check_step_init(method)
    x = tf.reshape(tf.cast(x, tf.float32), [-1])
    low = tf.minimum(tf.reduce_min(x), 0.0)
    high = tf.maximum(tf.reduce_max(x), 0.0)
    if method == "mse":
        low, high = _best_ends(sampled(x, _SAMPLE), low, high, num_bits)
    step = (high - low) / num_levels(num_bits)
    step = tf.where(step > 0.0, step, 1.0 / num_levels(num_bits))
    return step, low


def _best_ends(
    x: tf.Tensor, low: tf.Tensor, high: tf.Tensor, num_bits: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the ends of the range with the smallest mean squared error."""
    highs = high * tf.range(1, _HIGH_SHARES + 1, dtype=tf.float32) / _HIGH_SHARES
    lows = [low * share for share in _LOW_SHARES]
    errors = tf.stack([_squared_errors(x, one, highs, num_bits) for one in lows])
    best = tf.unravel_index(tf.argmin(tf.reshape(errors, [-1])), errors.shape)
    return tf.gather(lows, best[0]), tf.gather(highs, best[1])


def _squared_errors(
    x: tf.Tensor, low: tf.Tensor, highs: tf.Tensor, num_bits: int
) -> tf.Tensor:
    """Returns the mean squared error of the range up to each of several ends."""
    steps = tf.maximum((highs - low) / num_levels(num_bits), 1e-30)[:, tf.newaxis]
    bounds = offset_range(low, steps, num_bits)
    return tf.reduce_mean(tf.square(quantize(x, steps, bounds) * steps - x), axis=1)
