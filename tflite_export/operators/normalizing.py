"""Operators of normalizations: a sum of squares in int32, and a table of its codes."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode, Grid
from ..runtimes import arithmetic, fixed_point
from .base import Compute, Context, Operator, integers_of, tabulated
from .builder import Builder, per_tensor


class SumOfSquares(Operator):
    """Sum of squares over the last axes: the product of each row with itself."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Squares, and adds up."""
        return tf.reduce_sum(tf.square(inputs[0]), _axes(node), keepdims=True)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a BATCH_MATMUL to int32, which is exact, and a QUANTIZE.

        Zero points must be 0, which the kernel ignores where the output is int32.
        """
        source = builder.nodes[node.inputs[0]]
        if source.integer_grid.zero_point != 0:
            raise ValueError(
                f"`{node.name}` must read a tensor with a zero point of 0. Received: "
                f"{source.integer_grid.zero_point} for `{source.name}`."
            )
        count = node.trained.options["num_axes"]
        kept, summed = source.shape[1:-count], math.prod(source.shape[-count:])
        matrix = (source.shape[0], math.prod(kept), 1, summed)
        rows = builder.reshape(
            inputs[0], f"{node.name}/rows", matrix, source.integer_grid
        )
        exact = Grid(_scale_of_squares(source), 0)
        sums = builder.tensor(f"{node.name}/sums", (*matrix[:2], 1, 1), exact, "int32")
        builder.op("BATCH_MATMUL", [rows, rows], sums, adj_x=False, adj_y=True)
        codes = builder.tensor(f"{node.name}/codes", (*matrix[:2], 1, 1), node.grid)
        builder.op("QUANTIZE", [sums], codes)
        builder.reshape(codes, node.name, node.shape, node.grid)

    def integers(self, context: Context) -> Compute:
        """Sums squares of codes, and rounds as QUANTIZE does."""
        ratio = np.float64(np.float32(_scale_of_squares(context.sources[0])))
        multiplier, exponent = fixed_point(ratio / np.float64(context.scales[-1]))
        axes = _axes(context.node)

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            codes = integers_of(inputs[0])
            sums = tf.reduce_sum(codes * codes, axes, keepdims=True)
            return context.limited(
                arithmetic.fixed_requantize(sums, multiplier, exponent, half_up=False)
            )

        return compute


class Lookup(Operator):
    """A function of codes that are not negative, as its results for all of them."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the function."""
        return node.trained.tabulated(inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a GATHER from the table; codes are places in it."""
        source, grid = builder.nodes[node.inputs[0]], node.integer_grid
        table = builder.constant(
            f"{node.name}/table",
            _looked_up(node, source.integer_grid),
            per_tensor(grid.scale, grid.zero_point),
        )
        place = inputs[0]
        if builder.int32_places:
            place = builder.tensor(f"{node.name}/place", source.shape, None, "int32")
            builder.cast(inputs[0], place)
        builder.op("GATHER", [table, place], builder.output(node), axis=0, batch_dims=0)

    def integers(self, context: Context) -> Compute:
        """Looks up every code."""
        table = _looked_up(context.node, context.source_grid).astype(np.int64)
        values = tf.constant(table - context.grid.zero_point)
        return lambda inputs: context.limited(tf.gather(values, integers_of(inputs[0])))


def _axes(node: FrozenNode) -> list[int]:
    """Returns the axes of a sum of squares, counted from the last one, -1."""
    return list(range(-node.trained.options["num_axes"], 0))


def _scale_of_squares(source: FrozenNode) -> float:
    """Returns the scale of squares of codes."""
    scale = np.float32(source.integer_grid.scale)
    return float(scale * scale)


def _looked_up(node: FrozenNode, source: Grid) -> np.ndarray:
    """Returns the result of every code from 0 on, in the type of the output.

    Raises:
        ValueError: If codes can be negative.
    """
    if source.low < 0 or source.zero_point != 0:
        raise ValueError(
            f"`{node.name}` must read codes that are not negative. Received: "
            f"{source.low}..{source.high}."
        )
    return tabulated(node, source, range(source.high + 1))


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {"sum_of_squares": SumOfSquares(), "lookup": Lookup()}
