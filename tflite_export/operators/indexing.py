"""Operators that return or read indices, which are integers without a scale."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..file import tensor_type
from ..freezing import FrozenNode
from .base import Compute, Context, Operator
from .builder import Builder, per_tensor


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


class Embedding(Operator):
    """Rows of a table, whose codes are those of the point after the operator.

    GATHER takes indices of any shape, and EMBEDDING_LOOKUP one row of them. No operator
    of TFLite looks up INT4 codes as int8 ones.
    """

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Looks up."""
        scale = np.float64(node.integer_grid.scale)
        return self._rows(node, inputs[0]) * scale

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a GATHER."""
        grid = node.integer_grid
        codes = (node.trained.looked_up + grid.zero_point).astype(grid.container)
        quantization = per_tensor(grid.scale, grid.zero_point)
        table = builder.constant(f"{node.name}/table", codes, quantization)
        ids, source = inputs[0], builder.nodes[node.inputs[0]]
        if source.integer_type not in ("int32", "int64"):
            ids = builder.tensor(f"{node.name}/ids", source.shape, None, "int32")
            builder.cast(inputs[0], ids)
        builder.op("GATHER", [table, ids], builder.output(node), axis=0, batch_dims=0)

    def integers(self, context: Context) -> Compute:
        """Looks up."""
        node = context.node
        return lambda inputs: tf.cast(self._rows(node, inputs[0]), tf.float32)

    def _rows(self, node: FrozenNode, ids: tf.Tensor) -> tf.Tensor:
        """Returns rows of integers, float64."""
        table = tf.constant(node.trained.looked_up, tf.float64)
        return tf.gather(table, tf.cast(ids, tf.int64))


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "arg_max": ArgMax(),
    "embedding": Embedding(),
}
