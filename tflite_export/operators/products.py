"""Products of two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode
from ..runtimes import arithmetic, fixed_point
from .base import Compute, Context, Operator, exact_type
from .builder import Builder


class MatMul(Operator):
    """Products of the matrices in the last two axes of two tensors.

    The second has a zero point of 0: others are computed wrongly by some releases,
    ignored by some types, and not computed by XNNPACK.
    """

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Multiplies."""
        first, second = node.trained.options["transposed"]
        return tf.matmul(*inputs, transpose_a=first, transpose_b=second)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a BATCH_MATMUL."""
        first, second = node.trained.options["transposed"]
        builder.op(
            "BATCH_MATMUL",
            inputs,
            builder.output(node),
            adj_x=first,
            adj_y=second,
            asymmetric_quantize_inputs=False,
        )

    def integers(self, context: Context) -> Compute:
        """Multiplies codes, and rounds."""
        requantize, node = self._requantize(context), context.node
        dtype = exact_type(_reach(context))

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            acc = self.exact(node, [tf.cast(codes, dtype) for codes in inputs])
            return context.limited(requantize(tf.cast(tf.round(acc), tf.int64)))

        return compute

    def _requantize(self, context: Context) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns accumulator -> codes of the output."""
        first, second, output = context.scales
        if context.family == "xnnpack":
            ratio = first * second / output
            return lambda acc: arithmetic.float_requantize(acc, ratio)
        exact = np.float64(first * second) / np.float64(output)
        multiplier, exponent = fixed_point(exact)
        if context.in_int16:
            return lambda acc: arithmetic.round_reduced(acc, multiplier, exponent)
        return lambda acc: arithmetic.fixed_requantize(
            acc, multiplier, exponent, half_up=False
        )


def _reach(context: Context) -> int:
    """Returns the largest sum of products of codes."""
    first, second = context.sources
    axis = -2 if context.node.trained.options["transposed"][0] else -1
    reach = math.prod(node.integer_grid.reach for node in (first, second))
    return reach * first.shape[axis]


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "matmul": MatMul(),
}
