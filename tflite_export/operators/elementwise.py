"""Operators for two tensors."""

from __future__ import annotations

import tensorflow as tf

from ..freezing import FrozenNode
from ..runtimes import arithmetic
from .base import Compute, Context, MovingOperator, Operator, PlainOperator, integers_of
from .builder import Builder


class Add(PlainOperator):
    """Sum."""

    code, options, fuses, sign = "ADD", {"pot_scale_int16": False}, True, 1

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Adds."""
        return inputs[0] + self.sign * inputs[1]

    def integers(self, context: Context) -> Compute:
        """Moves both inputs to a common scale, adds, and rounds."""
        add = {"xnnpack": arithmetic.float_sum, "builtin": arithmetic.fixed_sum}
        total, scales = add[context.family], context.scales

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            first, second = map(integers_of, inputs)
            return context.limited(total(first, second, scales, self.sign))

        return compute


class Subtract(Add):
    """Difference."""

    code, sign = "SUB", -1


class Multiply(PlainOperator):
    """Product."""

    code, fuses = "MUL", True

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Multiplies."""
        return inputs[0] * inputs[1]

    def integers(self, context: Context) -> Compute:
        """Multiplies codes, and rounds."""
        first, second, output = context.scales
        requantize = context.requantize(first * second / output)
        return lambda inputs: context.limited(
            requantize(integers_of(inputs[0]) * integers_of(inputs[1]))
        )


class Square(Multiply):
    """Product of a tensor with itself."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Squares."""
        return tf.square(inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a MUL."""
        super().write(builder, node, [*inputs, *inputs])

    def integers(self, context: Context) -> Compute:
        """Squares codes, and rounds."""
        source, output = context.scales
        requantize = context.requantize(source * source / output)
        return lambda inputs: context.limited(
            requantize(tf.square(integers_of(inputs[0])))
        )


class Maximum(PlainOperator, MovingOperator):
    """Larger value, of tensors on one grid."""

    code = "MAXIMUM"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Compares."""
        return tf.maximum(inputs[0], inputs[1])


class Minimum(PlainOperator, MovingOperator):
    """Smaller value, of tensors on one grid."""

    code = "MINIMUM"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Compares."""
        return tf.minimum(inputs[0], inputs[1])


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "add": Add(),
    "subtract": Subtract(),
    "multiply": Multiply(),
    "square": Square(),
    "maximum": Maximum(),
    "minimum": Minimum(),
}
