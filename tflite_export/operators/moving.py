"""Operators that move values without changing them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode
from .base import MovingOperator, Operator
from .builder import Builder


class Concat(MovingOperator):
    """Concatenation of tensors on one grid."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Concatenates."""
        return tf.concat(inputs, axis=node.trained.options["axis"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a CONCATENATION."""
        builder.op(
            "CONCATENATION",
            inputs,
            builder.output(node),
            axis=node.trained.options["axis"],
            fused_activation_function="NONE",
        )


class Reshape(MovingOperator):
    """Reshape to another shape."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Reshapes."""
        return tf.reshape(inputs[0], [-1, *node.shape[1:]])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a RESHAPE."""
        builder.reshape(inputs[0], node.name, node.shape, node.grid)


class Transpose(MovingOperator):
    """Transposition to another order of axes."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Transposes."""
        return tf.transpose(inputs[0], node.trained.options["perm"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a TRANSPOSE."""
        perm = np.int32(node.trained.options["perm"])
        constant = builder.constant(f"{node.name}/perm", perm)
        builder.op("TRANSPOSE", [inputs[0], constant], builder.output(node))


class Slice(MovingOperator):
    """Strided slice of a tensor, with the whole batch axis."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Slices."""
        options = node.trained.options
        names = ("begin", "end", "strides")
        rows = zip(*(options[name] for name in names), strict=True)
        return inputs[0][(slice(None), *(slice(*row) for row in rows))]

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a STRIDED_SLICE; masks keep the batch axis whole."""
        options = node.trained.options
        bounds = []
        for name in ("begin", "end", "strides"):
            values = np.array([int(name == "strides"), *options[name]], np.int32)
            bounds.append(builder.constant(f"{node.name}/{name}", values))
        builder.op(
            "STRIDED_SLICE",
            [inputs[0], *bounds],
            builder.output(node),
            begin_mask=1,
            end_mask=1,
            ellipsis_mask=0,
            new_axis_mask=0,
            shrink_axis_mask=0,
        )


class Pad(MovingOperator):
    """Zeros around a tensor; TFLite pads integers with the zero point."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Pads."""
        return tf.pad(inputs[0], [(0, 0), *node.trained.options["paddings"]])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a PAD."""
        amounts = np.array([(0, 0), *node.trained.options["paddings"]], np.int32)
        paddings = builder.constant(f"{node.name}/paddings", amounts)
        builder.op("PAD", [inputs[0], paddings], builder.output(node))


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "concat": Concat(),
    "reshape": Reshape(),
    "transpose": Transpose(),
    "slice": Slice(),
    "pad": Pad(),
}
