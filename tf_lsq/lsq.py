"""Learned Step Size Quantization as functions of tensors.

Nothing in this module knows about layers, variables or TF-MOT.

    here     paper   meaning
    x        v       values to quantize
    step     s       width of one integer, in the unit of x
    q_min    -Q_N    smallest integer
    q_max    Q_P     largest integer

Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020,
https://arxiv.org/abs/1902.08153
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

MIN_NUM_BITS, MAX_NUM_BITS = 2, 8
STEP_INITS = ("mse", "lsq", "max")
# A learned step may shrink to this share of its first value, never below:
# the quantizer stays defined whatever an optimizer does.
MIN_STEP_FACTOR = 1e-3
# A value of exactly ``step * q`` may have a quotient that is this much larger than q.
ROUNDING = 2.0**-22  # Relative: two units in the last place of float32.
# The least positive quotient: below the smallest normal float32 there is only 0.
SMALLEST = 1.2e-38
_MSE_CANDIDATES = 80
# With many values the error is a smooth function of the step: candidates are tried
# in strides, then next to the best.
_MSE_STRIDE = 4
_MANY_VALUES = 1 << 12
_MSE_SAMPLE = 1 << 16


@dataclasses.dataclass(frozen=True)
class IntegerRange:
    """The integers that a quantizer may use, both ends included.

    Attributes:
        q_min: Smallest integer, at most 0 (an int, or a scalar tensor where
            only data can tell whether values are signed).
        q_max: Largest integer, at least 1 (an int or a scalar tensor).
    """

    q_min: Any
    q_max: Any

    def __post_init__(self) -> None:
        """Checks the bounds where they are plain integers."""
        if tf.is_tensor(self.q_min) or tf.is_tensor(self.q_max):
            return
        if self.q_min > 0 or self.q_max < 1:
            raise ValueError(
                "An integer range must have `q_min` <= 0 and `q_max` >= 1. "
                f"Received: q_min={self.q_min}, q_max={self.q_max}."
            )


def check_num_bits(num_bits: Any, name: str = "num_bits") -> int:
    """Returns `num_bits` if LSQ supports it.

    Args:
        num_bits: Bits of one integer.
        name: How the caller's argument is called, for the message.

    Raises:
        ValueError: If `num_bits` is no integer from 2 to 8.
    """
    if (
        isinstance(num_bits, bool)
        or not isinstance(num_bits, int)
        or not MIN_NUM_BITS <= num_bits <= MAX_NUM_BITS
    ):
        raise ValueError(
            f"`{name}` must be an integer from {MIN_NUM_BITS} to {MAX_NUM_BITS}. "
            f"Received: {name}={num_bits!r}."
        )
    return num_bits


def weight_range(num_bits: int) -> IntegerRange:
    """Returns the integers of a weight: signed, `-2^(b-1) .. 2^(b-1)-1`.

    Eight bits are narrow, -127..127: TFLite's specification of int8 weights
    has no -128.

    Example:
        >>> weight_range(4)
        IntegerRange(q_min=-8, q_max=7)
        >>> weight_range(8)
        IntegerRange(q_min=-127, q_max=127)

    References:
        Esser et al., Section 2; TFLite 8-bit quantization specification.
    """
    check_num_bits(num_bits)
    half = 2 ** (num_bits - 1)
    return IntegerRange(-half if num_bits < MAX_NUM_BITS else 1 - half, half - 1)


def activation_range(num_bits: int, *, signed: bool) -> IntegerRange:
    """Returns the integers of an activation, all `2^b` of them.

    Args:
        num_bits: Bits of one integer.
        signed: Whether the values can be negative.

    Example:
        >>> activation_range(4, signed=False)
        IntegerRange(q_min=0, q_max=15)

    References:
        Esser et al., Section 2.
    """
    check_num_bits(num_bits)
    if signed:
        return IntegerRange(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return IntegerRange(0, 2**num_bits - 1)


def step_gradient_scale(num_values: int, q_max: int) -> float:
    """Returns the factor that balances step updates against weight updates.

    The factor is ``1 / sqrt(num_values * q_max)``. It multiplies the gradient
    of the step only; the gradient of the values is not touched.

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
    return _codes(tf.cast(x, step.dtype) / step, integer_range)


def fake_quantize(
    x: tf.Tensor,
    step: tf.Tensor,
    integer_range: IntegerRange,
    *,
    gradient_scale: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Returns `x` moved to the nearest value ``step * q``, q in `integer_range`.

    Always equal to ``step * quantize(x, step, integer_range)``: training and
    export share one definition. Ties round to even.

    Gradients: with ``v = x / step``, inside the range the gradient of `x` passes
    through and that of `step` is ``round(v) - v``; outside of it the gradient of `x`
    is 0 and that of `step` is the bound itself. `gradient_scale` multiplies the
    latter. What counts as inside is said by `is_inside`.

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
            per_value = _codes(v, integer_range) - inside * _clip(v, integer_range)
            step_gradient = scale * _sum_like(upstream * per_value, step)
            return upstream * inside, step_gradient

        return _codes(x / step, integer_range) * step, gradient

    return tf.cast(quantized(tf.cast(x, step.dtype), step), x.dtype)


def is_inside(v: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns which quotients are inside the range: gradients pass through there.

    The interval of the paper is open. A step that comes from a maximum puts the
    largest value exactly on the last grid point, where it has no error; counted as
    clipped, it would pull the step with the full bound, and lose its own gradient. So
    the interval is closed here, and the rounding of the quotient is allowed for. The
    end at 0 of an unsigned range stays open: that is the gradient of a ReLU.

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
    training. An optimizer that normalises gradients, such as Adam, moves the
    factor by about its learning rate, whatever the unit: a *relative* change of
    the step, where a bare variable of 0.02 would jump by 5 % at a learning rate
    of 0.001.

    Args:
        factor: The trained variable, 1 at first, dimensionless.
        unit: First value of the step, positive, unit of the values, same shape.
        max_step: The step is at most this.

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


def initial_step(
    x: tf.Tensor,
    integer_range: IntegerRange,
    *,
    step_shape: tuple[int, ...] = (),
    method: str = "mse",
) -> tf.Tensor:
    """Returns the step that training starts from, always positive.

    Args:
        x: Weights, or the first batch of an activation. Where the range has no
            negative integers, negative values count as 0.
        integer_range: Integers that may be used.
        step_shape: Shape of the step: `()`, or the rank of `x` with size 1 on
            every axis along which values share a step.
        method: "mse" is the step with the smallest mean squared error among 80
            fractions of "max", "max" the smallest step that clips nothing, "lsq"
            the paper's ``2 * mean(|x|) / sqrt(q_max)``.

    Returns:
        Shape `step_shape`, dtype float32, unit of `x`. Values that are all zero
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
    elif method == "max":
        step = _max_step(x, integer_range, step_shape)
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


def _bound(value: Any, like: tf.Tensor) -> tf.Tensor:
    """Returns a bound of a range as a tensor of the dtype of `like`."""
    return tf.cast(value, like.dtype)


def _clip(v: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns `v` clipped to the range."""
    low = _bound(integer_range.q_min, v)
    return tf.minimum(tf.maximum(v, low), _bound(integer_range.q_max, v))


def _codes(v: tf.Tensor, integer_range: IntegerRange) -> tf.Tensor:
    """Returns the integer codes of the quotient `v`."""
    return tf.round(_clip(v, integer_range))


def _shared_axes(step_shape: Any) -> list[int] | None:
    """Returns the axes along which values share a step; None for all."""
    return [axis for axis, size in enumerate(step_shape) if size == 1] or None


def _sum_like(values: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Sums `values` over the axes along which they share a step."""
    if step.shape.rank == 0:
        return tf.reduce_sum(values)
    return tf.reduce_sum(values, axis=_shared_axes(step.shape), keepdims=True)


def _mean_like(values: tf.Tensor, step_shape: tuple[int, ...]) -> tf.Tensor:
    """Averages `values` over the axes along which they share a step."""
    if not step_shape:
        return tf.reduce_mean(values)
    return tf.reduce_mean(values, axis=_shared_axes(step_shape), keepdims=True)


def _max_step(
    x: tf.Tensor, integer_range: IntegerRange, step_shape: tuple[int, ...]
) -> tf.Tensor:
    """Returns the smallest step for which no value is clipped."""
    q_max = tf.cast(integer_range.q_max, tf.float32)
    q_min = tf.cast(integer_range.q_min, tf.float32)
    needed = tf.maximum(x / q_max, tf.math.divide_no_nan(x, q_min))
    if not step_shape:
        return tf.reduce_max(needed)
    return tf.reduce_max(needed, axis=_shared_axes(step_shape), keepdims=True)


def _mse_step(
    x: tf.Tensor, integer_range: IntegerRange, step_shape: tuple[int, ...]
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

    values = (x.shape.num_elements() or _MSE_SAMPLE) // math.prod(step_shape)
    stride = _MSE_STRIDE if values >= _MANY_VALUES else 1
    shape = [-1] + [1] * len(step_shape)
    apart = tf.range(stride, _MSE_CANDIDATES + 1, stride)
    best = best_of(tf.reshape(tf.cast(apart, tf.float32), shape))
    near = tf.reshape(tf.range(1.0 - stride, stride), shape)
    best = best_of(tf.minimum(best + near, _MSE_CANDIDATES))
    return tf.where(largest > 0.0, unit * best, 0.0)


def sampled(x: tf.Tensor, count: int) -> tf.Tensor:
    """Returns some values of a large tensor, always those at the same places.

    The places are random ones: those of a regular sample may all lie in a few of the
    channels.

    Args:
        x: Any shape.
        count: How many values.

    Returns:
        Shape `[count]`, or all values if they are not more than that.
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
        steps: Candidates; the first axis counts them, the others are those of a step.
        integer_range: Integers that may be used.
    """
    step_shape = tuple(steps.shape[1:])
    # As many candidates at a time as fit a few million numbers.
    size = x.shape.num_elements() or _MSE_SAMPLE
    at_once = min(max((1 << 23) // size, 1), steps.shape[0])
    errors = []
    for start in range(0, steps.shape[0], at_once):
        some = steps[start : start + at_once]
        step = some if step_shape else tf.reshape(some, [-1] + [1] * len(x.shape))
        difference = _codes(x / step, integer_range) * step - x
        mean = _mean_like(tf.square(difference), (0, *(step_shape or (1,))))
        errors.append(tf.reshape(mean, tf.shape(some)))
    return tf.concat(errors, axis=0)
