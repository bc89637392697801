"""The LSQ operator: codes and gradients, written as the paper states them.

    here     paper   meaning
    x        v       values to quantize
    step     s       width of one integer, in the unit of x
    q_min    -Q_N    smallest integer
    q_max    Q_P     largest integer

Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020,
https://arxiv.org/abs/1902.08153
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from .ranges import IntegerRange

# A learned step cannot shrink below this fraction of its first value: the quantizer
# stays defined whatever an optimizer does.
MIN_STEP_FACTOR = 1e-3
# A value of exactly ``step * q`` may have a quotient that is this much larger than q.
ROUNDING = 2.0**-22  # Relative: two units in the last place of float32.
# The smallest positive quotient: below the smallest normal float32 there is only 0.
SMALLEST = 1.2e-38


def step_gradient_scale(num_values: int, q_max: int) -> float:
    """Returns the factor that balances step updates against weight updates.

    The factor is ``1 / sqrt(num_values * q_max)``. It multiplies the gradient
    of the step only; the gradient of the values is unchanged.

    Args:
        num_values: How many values share one step. Weight, one step per
            tensor: all its elements. Weight, one step per channel: the
            elements of one channel (our extension; the paper has one step per
            layer). Activation: the features of one example, without the batch
            axis.
        q_max: Largest integer of the range, at least 1.

    Returns:
        Dimensionless, in (0, 1].

    Raises:
        ValueError: If `num_values` or `q_max` is smaller than 1.

    Example:
        >>> round(step_gradient_scale(num_values=576, q_max=7), 4)  # 3x3x64, 4 bits
        0.0157

    References:
        Esser et al., Section 2.2.
    """
    if num_values < 1 or q_max < 1:
        raise ValueError(
            "`num_values` and `q_max` must be at least 1. "
            f"Received: num_values={num_values}, q_max={q_max}."
        )
    return 1.0 / math.sqrt(num_values * q_max)


def quantize(x: tf.Tensor, step: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns the integer codes of `x`: ``round(clip(x / step, q_min, q_max))``.

    Ties round to even. The quotient is taken in the dtype of `step`.

    Args:
        x: Float values, any shape, any unit.
        step: Positive, unit of `x`, shape `[]` or broadcastable to `x`.
        integer_range: Integers that may be used.

    Returns:
        Shape of `x`, dtype of `step`, dimensionless, whole numbers.

    References:
        Esser et al., Equation 1.
    """
    step = tf.convert_to_tensor(step)
    return codes_of(tf.cast(x, step.dtype) / step, integer_range)


def fake_quantize(
    x: tf.Tensor,
    step: tf.Tensor,
    integer_range: IntegerRange,
    *,
    gradient_scale: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Returns `x` rounded to the nearest value ``step * q``, q in `integer_range`.

    Always equal to ``step * quantize(x, step, integer_range)``: training and
    export share one definition. Ties round to even.

    Gradients: with ``v = x / step``, inside the range the gradient of `x` passes
    through and that of `step` is ``round(v) - v``; outside the range the gradient of
    `x` is 0 and that of `step` is the bound itself. `gradient_scale` multiplies the
    latter. `is_inside` defines what counts as inside.

    Args:
        x: Float values, shape `[..., channels]`, any unit. 16-bit values are
            computed in the dtype of `step` and cast back.
        step: Positive, unit of `x`, shape `[]`, or the rank of `x` with size 1
            on every axis along which values share a step.
        integer_range: Integers that may be used.
        gradient_scale: See `step_gradient_scale`.

    Returns:
        Same shape, dtype and unit as `x`.

    Example:
        >>> x = tf.constant([-0.9, -0.2, 0.3, 2.0])
        >>> fake_quantize(x, tf.constant(0.5), IntegerRange(-2, 1)).numpy()
        array([-1. , -0. ,  0.5,  0.5], dtype=float32)

    References:
        Esser et al., Equations 1-3 and 5.
    """
    x, step = tf.convert_to_tensor(x), tf.convert_to_tensor(step)
    scale = tf.cast(gradient_scale, step.dtype)

    @tf.custom_gradient
    def quantized(x: tf.Tensor, step: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            v = x / step
            inside = tf.cast(is_inside(v, integer_range), upstream.dtype)
            # Inside the range round(v) - v, outside it the bound: the codes are
            # clipped to the bound there, and v times 0 drops out.
            per_value = codes_of(v, integer_range) - inside * _clip(v, integer_range)
            step_gradient = scale * _sum_like(upstream * per_value, step)
            return upstream * inside, step_gradient

        return codes_of(x / step, integer_range) * step, gradient

    return tf.cast(quantized(tf.cast(x, step.dtype), step), x.dtype)


def is_inside(v: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns which quotients are inside the range, where gradients pass through.

    The paper's interval is open. A step derived from a maximum puts the largest value
    exactly on the last grid point, where it has no error; if it counted as clipped, it
    would pull the step with the full bound, and lose its own gradient. So the interval
    is closed here, with an allowance for the rounding of the quotient. The end at 0 of
    an unsigned range stays open: that is the gradient of a ReLU.

    Args:
        v: Values divided by their step, any shape.
        integer_range: Integers that may be used.

    Returns:
        bool, shape of `v`.

    References:
        Esser et al., Equations 3 and 5.
    """
    slack = 1.0 + ROUNDING
    low, high = (_bound(q, v) for q in (integer_range.q_min, integer_range.q_max))
    low = tf.where(low < 0.0, low * slack, SMALLEST)
    return (v >= low) & (v <= high * slack)


def learned_step(
    factor: tf.Tensor, unit: tf.Tensor, max_step: float = math.inf
) -> tf.Tensor:
    """Returns the step ``unit * factor``, kept positive, with LSQ's updates.

    A step is trained as a `factor` of its first value, the constant `unit`.
    The gradient handed to `factor` is ``d_step / unit``. So plain gradient
    descent, with or without momentum, moves the step exactly as if the step
    itself were the variable (``unit * (lr / unit) * d_step``): the paper's
    training. An optimizer that normalizes gradients, such as Adam, moves the
    factor by about its learning rate, whatever the unit. That is a *relative*
    change of the step, whereas a bare variable of 0.02 would jump by 5 % at a
    learning rate of 0.001.

    Args:
        factor: The trained variable, 1 at first, dimensionless.
        unit: First value of the step, positive, unit of the values, same shape.
        max_step: Upper bound of the step.

    Returns:
        The step, at least ``1e-3 * unit``; the gradient passes through the
        bounds, so an optimizer can leave them again.
    """

    @tf.custom_gradient
    def scaled(factor: tf.Tensor, unit: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
            return upstream / unit, None

        step = unit * tf.maximum(factor, MIN_STEP_FACTOR)
        return step if math.isinf(max_step) else tf.minimum(step, max_step), gradient

    return scaled(tf.convert_to_tensor(factor), tf.convert_to_tensor(unit))


def _bound(value: Any, like: tf.Tensor) -> tf.Tensor:
    """Returns a bound of a range as a tensor of the dtype of `like`."""
    return tf.cast(value, like.dtype)


def _clip(v: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns `v` clipped to the range."""
    low = _bound(integer_range.q_min, v)
    return tf.minimum(tf.maximum(v, low), _bound(integer_range.q_max, v))


def codes_of(v: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns the integer codes of quotients: clipped to the range, then rounded.

    Args:
        v: Values divided by their step, any shape.
        integer_range: Integers that may be used.
    """
    return tf.round(_clip(v, integer_range))


def shared_axes(step_shape: Any) -> list[int] | None:
    """Returns the axes along which values share a step; None for all of them.

    Args:
        step_shape: `()`, or size 1 on every axis that shares a step.
    """
    return [axis for axis, size in enumerate(step_shape) if size == 1] or None


def _sum_like(values: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Sums `values` over the axes along which they share a step."""
    if step.shape.rank == 0:
        return tf.reduce_sum(values)
    return tf.reduce_sum(values, axis=shared_axes(step.shape), keepdims=True)
