"""Operators that return indices, which are integers without a scale."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..file import tensor_type
from ..freezing import FrozenNode
from .base import Compute, Context, Operator
from .builder import Builder


class ArgMax(Operator):
    """Index of the largest value along an axis, the first if several are."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Compares."""
        axis, dtype = node.trained.options["axis"], tf.as_dtype(node.integer_type)
        return tf.argmax(inputs[0], axis, dtype)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds an ARG_MAX."""
        axis = np.array(node.trained.options["axis"], np.int32)
        constant = builder.constant(f"{node.name}/axis", axis)
        output = builder.output(node)
        kind = tensor_type(node.integer_type)
        builder.op("ARG_MAX", [inputs[0], constant], output, output_type=kind)

    def integers(self, context: Context) -> Compute:
        """Compares codes."""
        return lambda inputs: self.exact(context.node, inputs)


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "arg_max": ArgMax(),
}
