"""Operators that resize images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode
from ..runtimes import arithmetic
from .base import Compute, Context, MovingOperator, Operator, integers_of
from .builder import Builder


class Resize(Operator):
    """A resizing operator; 1D tensors are images of height 1.

    Attributes:
        code: Name of the TFLite operator.
        method: Name of the method in `tf.image.resize`.
    """

    code: ClassVar[str]
    method: ClassVar[str]

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Resizes."""
        flat = inputs[0].shape.rank == 3
        x = inputs[0][:, tf.newaxis] if flat else inputs[0]
        size = node.trained.options["size"]
        result = tf.cast(tf.image.resize(x, size, self.method), x.dtype)
        return result[:, 0] if flat else result

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the resizing of an image."""
        size = np.int32(node.trained.options["size"])
        builder.on_image(
            node,
            self.code,
            [inputs[0], builder.constant(f"{node.name}/size", size)],
            align_corners=False,
            half_pixel_centers=True,
        )


class ResizeNearest(Resize, MovingOperator):
    """Resizing to the nearest pixel."""

    code, method = "RESIZE_NEAREST_NEIGHBOR", "nearest"


class ResizeBilinear(Resize):
    """Resizing to a weighted mean of four pixels."""

    code, method = "RESIZE_BILINEAR", "bilinear"

    def integers(self, context: Context) -> Compute:
        """Interpolates codes in fixed point."""
        size, shape = context.node.trained.options["size"], context.sources[0].shape
        zero_point = context.grid.zero_point
        flat = len(shape) == 3
        source = (1, shape[1]) if flat else (shape[1], shape[2])

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            codes = integers_of(inputs[0]) + zero_point
            codes = codes[:, tf.newaxis] if flat else codes
            result = arithmetic.bilinear(codes, tuple(size), source, context.family)
            return context.limited((result[:, 0] if flat else result) - zero_point)

        return compute


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "resize_nearest": ResizeNearest(),
    "resize_bilinear": ResizeBilinear(),
}
