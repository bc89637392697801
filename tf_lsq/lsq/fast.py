"""The fast implementation of `lsq.fake_quantize`, with TensorFlow's native ops.

The plain implementation reads and writes every tensor a dozen times. Here one op
computes the forward pass, another masks the gradient, and two dot products, which only
read, give the gradient of the step. With ``v = x / step``,
``y = step * round(clip(v))`` and ``dx`` equal to ``dy`` inside the range and 0
elsewhere, summing equation 3 of the paper gives::

    d_step = sum(dy * (round(v) - v)) inside + sum(dy * bound) outside
           = (sum(dy * y) - sum(dx * x)) / step

The backward pass needs only x and y, which the surrounding layers keep anyway. If those
layers also compute one of the two sums (see `loans`), it is left out here, and
`lend_sum` adds it to the gradient of the same step. Codes and mask equal those of the
plain implementation, except where the quotient is within float32 rounding of a tie: the
op multiplies by 1 / step.

These ops have no gradients, so there are no second-order gradients.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from .plain import ROUNDING, SMALLEST
from .ranges import IntegerRange

Tensors = tuple[tf.Tensor, ...]
# Long dot products become matrix products of chunks: they only read, and two cores
# share them. Short ones are computed precisely instead.
# A chunk that starts at a multiple of TensorFlow's alignment is a view, not a copy.
_NUM_CHUNKS = 4
_CHUNKED_SIZE = 1 << 19
_CHUNKED_EXAMPLE = 1 << 14
_ALIGNMENT = 16  # In float32 values.
_FIRST_ORDER_ONLY = (
    "The fast implementation of the LSQ operator has no second-order gradients. Call "
    "`student.use_plain_op()`: the plain implementation has them."
)


@dataclasses.dataclass(frozen=True)
class OwnSums:
    """The parts of a step and its gradient that `fake_quantize` computes itself.

    Attributes:
        step: The step, if it is already known.
        outputs: Whether the gradient includes ``sum(dy * y)``.
        inputs: Whether the gradient includes ``-sum(dx * x)``.
    """

    step: tf.Tensor | None = None
    outputs: bool = True
    inputs: bool = True


def is_supported(x: tf.Tensor, step: tf.Tensor, integer_range: IntegerRange) -> bool:
    """Returns whether `fake_quantize` supports these arguments.

    It needs a float32 step, shared by the whole tensor or by all axes except the
    last ones, and a range that is known when the graph is built.
    """
    if tf.is_tensor(integer_range.q_min) or tf.is_tensor(integer_range.q_max):
        return False
    return step.dtype == tf.float32 and (
        step.shape.rank == 0 or _num_channels(x, step) is not None
    )


def matmul_keeps_digits() -> bool:
    """Returns whether matrix products multiply float32 numbers unrounded.

    With TensorFloat-32, TensorFlow's default on GPUs, factors are rounded to 10 bits.
    The sums for a step's gradient cancel, and would lose all of their digits.
    """
    rounds = tf.config.experimental.tensor_float_32_execution_enabled()
    return not (rounds and tf.config.list_logical_devices("GPU"))


def fake_quantize(
    x: tf.Tensor,
    step: tf.Tensor,
    integer_range: IntegerRange,
    *,
    gradient_scale: float | tf.Tensor = 1.0,
    own_sums: OwnSums = OwnSums(),
) -> tf.Tensor:
    """Returns `x` rounded to the grid, with LSQ's gradients; see `lsq.fake_quantize`.

    The gradient of the step is a difference of two sums, which loses digits if tensors
    are large: its error is up to about 1e-3 of the size of a sum of as many terms with
    random signs, compared with 1e-5 for the plain implementation. XLA does not support
    the op for the mask.

    Args:
        x: Float values, any shape, any unit.
        step: Positive, unit of `x`; see `is_supported` for its shape.
        integer_range: Integers that may be used; not tensors.
        gradient_scale: See `lsq.step_gradient_scale`.
        own_sums: The sums that the gradient of a single step includes.

    Returns:
        Same shape, dtype and unit as `x`.

    Raises:
        tf.errors.InvalidArgumentError: If a single step is not positive.

    References:
        Esser et al., Equations 1-3 and 5.
    """
    x, step = tf.convert_to_tensor(x), tf.convert_to_tensor(step)
    scale = tf.cast(gradient_scale, step.dtype)
    values = tf.cast(x, step.dtype)
    if step.shape.rank == 0:
        result = _per_tensor(values, step, integer_range, scale, own_sums)
    else:
        result = _per_channel(values, step, integer_range, scale)
    return tf.cast(result, x.dtype)


def lend_sum(
    tensors: Sequence[tf.Tensor], step: tf.Tensor, scale: float
) -> list[tf.Tensor]:
    """Returns tensors unchanged; adds a sum over their gradients to a step's gradient.

    Args:
        tensors: Float tensors t of any shapes.
        step: Positive scalar; its gradient grows by ``scale / step * sum(dt * t)``.
        scale: `gradient_scale` of the step, with the sign of the sum.
    """

    @tf.custom_gradient
    def lent(step: tf.Tensor, *tensors: tf.Tensor) -> Any:
        def gradient(*upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            pairs = zip(upstream, tensors, strict=True)
            parts = [part for pair in pairs for part in _difference(pair, ())]
            return _first_order(_step_gradient(parts, step, scale)), *upstream

        return [tf.identity(t) for t in tensors], gradient

    return lent(step, *tensors)


def _per_tensor(
    x: tf.Tensor,
    step: tf.Tensor,
    integer_range: IntegerRange,
    scale: tf.Tensor,
    own_sums: OwnSums,
) -> tf.Tensor:
    """One step for all values."""
    bounds = (integer_range.q_min, integer_range.q_max)

    @tf.custom_gradient
    def quantized(x: tf.Tensor, step: tf.Tensor) -> Any:
        low, high = (q * step if q else tf.zeros([]) for q in bounds)
        y = _rounded(x, low, high, integer_range)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx = _inside(upstream, x, step, bounds)
            outputs = (upstream, y) if own_sums.outputs else ()
            parts = _difference(outputs, (dx, x) if own_sums.inputs else ())
            step_gradient = _step_gradient(parts, step, scale)
            return _first_order(dx), _first_order(step_gradient)

        return y, gradient

    return quantized(x, step)


def _per_channel(
    x: tf.Tensor, step: tf.Tensor, integer_range: IntegerRange, scale: tf.Tensor
) -> tf.Tensor:
    """One step per index of the last axes; kernels only, so memory hardly matters."""
    bounds = (integer_range.q_min, integer_range.q_max)
    low, high = (tf.constant(bound, step.dtype) for bound in bounds)
    one = tf.ones([])
    rows = [-1, _num_channels(x, step)]

    @tf.custom_gradient
    def quantized(x: tf.Tensor, step: tf.Tensor) -> Any:
        v = x / step
        codes = _rounded(v, low, high, integer_range)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            per_value = codes - _inside(v, v, one, bounds)
            # The gradient of a bias is the fastest sum over all but the last axis.
            sums = tf.raw_ops.BiasAddGrad(
                out_backprop=tf.reshape(upstream * per_value, rows)
            )
            step_gradient = scale * tf.reshape(sums, tf.shape(step))
            dx = _inside(upstream, v, one, bounds)
            return _first_order(dx), _first_order(step_gradient)

        return codes * step, gradient

    return quantized(x, step)


def _rounded(
    x: tf.Tensor, low: tf.Tensor, high: tf.Tensor, integer_range: IntegerRange
) -> tf.Tensor:
    """Returns `x` rounded to the grid from `low` to `high`; ties go to even."""
    signed = integer_range.q_min < 0
    levels = integer_range.q_max - integer_range.q_min + 1
    return tf.raw_ops.QuantizeAndDequantizeV4(
        input=x,
        input_min=low,
        input_max=high,
        signed_input=signed,
        num_bits=math.ceil(math.log2(levels)),
        range_given=True,
        round_mode="HALF_TO_EVEN",
        narrow_range=signed and integer_range.q_min == -integer_range.q_max,
        axis=-1,
    )


def _inside(
    upstream: tf.Tensor, x: tf.Tensor, step: tf.Tensor, bounds: tuple[int, int]
) -> tf.Tensor:
    """Returns `upstream` where `lsq.is_inside` is true, 0 elsewhere.

    The op's bounds are inclusive: they move outwards by a rounding error or two.
    """
    low, high = (q * (1.0 + ROUNDING) * step if q else SMALLEST for q in bounds)
    return tf.raw_ops.QuantizeAndDequantizeV4Grad(
        gradients=upstream, input=x, input_min=low, input_max=high, axis=-1
    )[0]


def _difference(plus: Tensors, minus: Tensors) -> list[tf.Tensor]:
    """Returns one dot product minus another, as parts to be summed.

    If tensors are not cut, the difference is taken before anything is summed, which
    keeps nearly all digits.

    Args:
        plus: Two tensors, or none.
        minus: Two more of their shape, or none.
    """
    if not (plus or minus):
        return []
    chunks = _chunks(*plus, *minus)
    if len(chunks) == 1:
        return [tf.reduce_sum(_subtracted(tf.multiply, plus, minus))]
    return [
        _subtracted(_dot, chunk[: len(plus)], chunk[len(plus) :]) for chunk in chunks
    ]


def _subtracted(
    multiply: Callable[..., tf.Tensor], plus: Tensors, minus: Tensors
) -> tf.Tensor:
    """Returns one product of two tensors minus another; either may be missing."""
    if not plus:
        return -multiply(*minus)
    product = multiply(*plus)
    return product - multiply(*minus) if minus else product


def _chunks(*tensors: tf.Tensor) -> list[Tensors]:
    """Cuts tensors of one shape into chunks if a cut is free and worthwhile."""
    shape = tensors[0].shape
    size = shape.num_elements()
    example = shape[1:].num_elements() if shape.rank else None
    unit = _NUM_CHUNKS * _ALIGNMENT
    if size is not None:
        cut = size >= _CHUNKED_SIZE and size % unit == 0
    else:
        cut = bool(example) and example >= _CHUNKED_EXAMPLE and example % unit == 0
    if not cut:
        return [tensors]
    rows = [tf.unstack(tf.reshape(t, [_NUM_CHUNKS, 1, -1])) for t in tensors]
    return list(zip(*rows, strict=True))


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns the dot product of two rows."""
    if not matmul_keeps_digits():
        return tf.reduce_sum(a * b)
    return tf.reshape(tf.matmul(a, b, transpose_b=True), [])


def _first_order(gradient: tf.Tensor) -> tf.Tensor:
    """Returns a gradient unchanged; differentiating it raises a helpful error."""
    return tf.raw_ops.PreventGradient(input=gradient, message=_FIRST_ORDER_ONLY)


def _step_gradient(
    parts: list[tf.Tensor], step: tf.Tensor, scale: float | tf.Tensor
) -> tf.Tensor:
    """Returns the gradient of a single step from the parts of its sum."""
    if not parts:
        return tf.zeros([])
    return scale / step * (parts[0] if len(parts) == 1 else tf.add_n(parts))


def _num_channels(x: tf.Tensor, step: tf.Tensor) -> int | None:
    """Returns how many steps the last axes have, None if other axes have steps."""
    if step.shape.rank != x.shape.rank or not x.shape[1:].is_fully_defined():
        return None
    axes = [axis for axis, size in enumerate(step.shape) if size != 1]
    first = min(axes, default=len(x.shape) - 1)
    if list(step.shape[first:]) != list(x.shape[first:]):
        return None
    return step.shape[first:].num_elements()
