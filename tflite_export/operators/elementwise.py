"""Operators for two tensors."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..file import TensorQuantization
from ..freezing import FloatWeight, FrozenNode
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
        if context.in_int16:
            return self._in_int16(context)
        add = {"xnnpack": arithmetic.float_sum, "builtin": arithmetic.fixed_sum}
        total, scales = add[context.family], context.scales

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            first, second = map(integers_of, inputs)
            return context.limited(total(first, second, scales, self.sign))

        return compute

    def _in_int16(self, context: Context) -> Compute:
        """Returns the sum in int16, whose kernel depends on the shapes."""
        vector = context.runtime.int16_sum_vector if self.sign == 1 else 0
        scales = context.scales

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            first, second = map(integers_of, inputs)
            total = arithmetic.int16_sum(
                first,
                second,
                scales,
                self.sign,
                vector=vector,
                one_at_a_time=context.one_at_a_time,
            )
            return context.limited(total)

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
        first, second = context.scales[0], context.scales[-2]
        source = context.sources[0]
        squares = context.node.weight is None and context.sources[-1] is source
        if squares and context.family == "xnnpack":
            return self._squares(context)
        requantize = context.requantize(context.product(first, second))
        return lambda inputs: context.limited(
            requantize(integers_of(inputs[0]) * integers_of(inputs[-1]))
        )

    def _squares(self, context: Context) -> Compute:
        """Looks up squares: XNNPACK makes a table of a product of equal tensors."""
        table = arithmetic.table_of_squares(
            context.scales[0],
            context.source_grid.zero_point,
            context.scales[-1],
            context.grid.zero_point,
        )
        shift = context.source_grid.zero_point
        return lambda inputs: context.limited(
            arithmetic.look_up(integers_of(inputs[0]) + shift, table)
        )


class ConstantOperator(Operator):
    """An operator whose second input is a constant of the model."""

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the operator and its constant."""
        name = f"{node.name}/weight"
        if isinstance(node.weight, FloatWeight):
            values = builder.constant(name, node.weight.values.astype(np.float32))
        else:
            codes = node.integer_weight.codes
            grid = TensorQuantization(codes.scale, 0, 0)
            container = node.integer_grid.container  # All inputs have one type.
            values = builder.constant(name, codes.codes.astype(container), grid)
        super().write(builder, node, [*inputs, values])

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the same as for two tensors."""
        values = tf.constant(node.trained.any_kernel.real_values())
        return super().exact(node, [*inputs, values])

    def integers(self, context: Context) -> Compute:
        """Computes the same as for two tensors."""
        codes = tf.constant(context.node.integer_weight.codes.codes, tf.float32)
        compute = super().integers(context)
        return lambda inputs: compute([*inputs, codes])

    def channels_last(self, data: np.ndarray) -> np.ndarray:
        """Returns the codes of a file, which already have this order."""
        return data


class AddConstant(ConstantOperator, Add):
    """Sum of a tensor and a constant."""


class MultiplyConstant(ConstantOperator, Multiply):
    """Product of a tensor and a constant."""


class Square(Multiply):
    """Product of a tensor with itself."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Squares."""
        return tf.square(inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a MUL."""
        super().write(builder, node, [*inputs, *inputs])


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
    "add_constant": AddConstant(),
    "multiply_constant": MultiplyConstant(),
    "square": Square(),
    "maximum": Maximum(),
    "minimum": Minimum(),
}
