"""Operators that resize images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

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
        resize: TensorFlow's operator.
    """

    code: ClassVar[str]
    resize: ClassVar[Callable[..., tf.Tensor]]

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Resizes."""
        flat = inputs[0].shape.rank == 3
        x = inputs[0][:, tf.newaxis] if flat else inputs[0]
        size = np.int32(node.trained.options["size"])
        result = self.resize(images=x, size=size, **_sampling(node))
        result = tf.cast(result, x.dtype)
        return result[:, 0] if flat else result

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the resizing of an image."""
        size = np.int32(node.trained.options["size"])
        builder.on_image(
            node,
            self.code,
            [inputs[0], builder.constant(f"{node.name}/size", size)],
            **_sampling(node),
        )


def _sampling(node: FrozenNode) -> dict[str, Any]:
    """Returns where pixels are sampled: by default at their centers."""
    names = {"align_corners": False, "half_pixel_centers": True}
    return {name: node.trained.options.get(name, own) for name, own in names.items()}


class ResizeNearest(Resize, MovingOperator):
    """Resizing to the nearest pixel."""

    code = "RESIZE_NEAREST_NEIGHBOR"
    resize = staticmethod(tf.raw_ops.ResizeNearestNeighbor)


class ResizeBilinear(Resize):
    """Resizing to a weighted mean of four pixels."""

    code = "RESIZE_BILINEAR"
    resize = staticmethod(tf.raw_ops.ResizeBilinear)

    def integers(self, context: Context) -> Compute:
        """Interpolates codes in fixed point."""
        size, shape = context.node.trained.options["size"], context.sources[0].shape
        zero_point, sampling = context.grid.zero_point, _sampling(context.node)
        flat = len(shape) == 3
        source = (1, shape[1]) if flat else (shape[1], shape[2])

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            codes = integers_of(inputs[0]) + zero_point
            codes = codes[:, tf.newaxis] if flat else codes
            result = arithmetic.bilinear(
                codes, tuple(size), source, context.family, **sampling
            )
            return context.limited((result[:, 0] if flat else result) - zero_point)

        return compute


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "resize_nearest": ResizeNearest(),
    "resize_bilinear": ResizeBilinear(),
}
