"""Operators that move tensors between grids, after the operator before a point."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode
from .base import Compute, Context, Operator, quantized
from .builder import Builder, per_tensor


class Regridding(Operator):
    """An operator that changes values only by rounding and clipping."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns its input."""
        return inputs[0]


class Quantize(Regridding):
    """Quantization from float or from another grid.

    XNNPACK's QUANTIZE from int8 to int8 rounds the ratio of the two scales to
    1/256, which moves codes.
    """

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a QUANTIZE, or a MUL where the scale changes."""
        source = builder.nodes[node.inputs[0]].grid
        if source is None or source.scale == node.integer_grid.scale:
            builder.op("QUANTIZE", inputs, builder.output(node))
        else:
            builder.rescale(node, inputs)

    def integers(self, context: Context) -> Compute:
        """Rounds values, moves codes, or changes the scale."""
        source = context.sources[0].grid
        if source is None:
            return quantized(context.grid)
        if source.scale == context.grid.scale:
            return lambda inputs: context.limited(inputs[0])
        return context.rescaled()


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
            np.array([getattr(grid, self.end)], np.int8),
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
    "widen": Widen(),
    "clip_high": ClipHigh(),
    "clip_low": ClipLow(),
}
