"""Operators that move tensors between grids, after the operator before a point."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode, Grid
from .base import Compute, Context, Operator, integers_of, quantized
from .builder import Builder, per_tensor


class Regridding(Operator):
    """An operator that changes values only by rounding and clipping."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns its input."""
        return inputs[0]


class Quantize(Regridding):
    """Quantization from float or from another grid.

    XNNPACK's QUANTIZE from int8 to int8 rounds the ratio of the two scales to
    1/256, which moves codes. From int16 to int16 it rounds twice, coarsely.
    """

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a QUANTIZE, or a MUL where the scale changes."""
        source, grid = builder.nodes[node.inputs[0]].grid, node.integer_grid
        if source is None or self._by_quantize(source, grid):
            builder.op("QUANTIZE", inputs, builder.output(node))
        else:
            builder.rescale(node, inputs)

    def integers(self, context: Context) -> Compute:
        """Rounds values, moves codes, or changes the scale."""
        source = context.sources[0].grid
        if source is None:
            return quantized(context.grid, by_reciprocal=context.in_int16)
        if source.scale == context.grid.scale:
            return lambda inputs: context.limited(inputs[0])
        if not self._by_quantize(source, context.grid):
            return context.rescaled()
        first, output = map(np.float64, context.scales)
        requantize = context.requantize(first / output)
        return lambda inputs: context.limited(requantize(integers_of(inputs[0])))

    def _by_quantize(self, source: Grid, grid: Grid) -> bool:
        """Returns whether a QUANTIZE moves codes to another grid, else a MUL."""
        return source.scale == grid.scale or source.container != grid.container


class ToInt16(Regridding):
    """Storage of int8 codes in int16, minus their zero point."""

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a CAST, which old runtimes have, or a QUANTIZE from a zero point."""
        source = builder.nodes[node.inputs[0]].integer_grid
        if source.zero_point == 0 and builder.casts:
            builder.cast(inputs[0], builder.output(node))
        else:
            builder.op("QUANTIZE", inputs, builder.output(node))

    def integers(self, context: Context) -> Compute:
        """Returns the codes."""
        return lambda inputs: context.limited(inputs[0])


class Widen(Regridding):
    """Multiplication of codes by an integer, for a finer grid of biases."""

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a change of scale."""
        builder.rescale(node, inputs)

    def integers(self, context: Context) -> Compute:
        """Changes the scale."""
        return context.rescaled()


class Clip(Regridding):
    """Clipping of codes at one end of their grid.

    Attributes:
        code: Name of the TFLite operator.
        end: Attribute of the grid with the limit.
    """

    code: ClassVar[str]
    end: ClassVar[str]

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a comparison with the limit."""
        grid = node.integer_grid
        limit = builder.constant(
            f"{node.name}/limit",
            np.array([getattr(grid, self.end)], grid.container),
            per_tensor(grid.scale, grid.zero_point),
        )
        builder.op(self.code, [inputs[0], limit], builder.output(node))

    def integers(self, context: Context) -> Compute:
        """Clips."""
        grid = context.grid
        low, high = (float(end - grid.zero_point) for end in (grid.low, grid.high))
        return lambda inputs: tf.clip_by_value(inputs[0], low, high)


class ClipHigh(Clip):
    """Clipping to the largest code."""

    code, end = "MINIMUM", "high"


class ClipLow(Clip):
    """Clipping to the smallest code."""

    code, end = "MAXIMUM", "low"


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "quantize": Quantize(),
    "to_int16": ToInt16(),
    "widen": Widen(),
    "clip_high": ClipHigh(),
    "clip_low": ClipLow(),
}
