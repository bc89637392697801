"""The operators of a file: what each means, its TFLite form, and what it computes.

To add an operator, add a class to the module of its family, and to that module's
`OPERATORS`; it also needs a row in `tf_lsq.graph.KINDS`.
"""

import tensorflow as tf

from ..freezing import FrozenNode
from . import (
    activations,
    elementwise,
    foreign,
    indexing,
    kernels,
    moving,
    normalizing,
    pooling,
    products,
    regridding,
    resizing,
)
from .base import Compute, Context, Operator, decoded, quantized
from .builder import PICKED, STRIDED_1X1, Builder
from .foreign import FLOAT_PART, write_part
from .limits import float_limits, limited, write_limits

OPERATORS: dict[str, Operator] = {
    **kernels.OPERATORS,
    **elementwise.OPERATORS,
    **activations.OPERATORS,
    **products.OPERATORS,
    **pooling.OPERATORS,
    **resizing.OPERATORS,
    **moving.OPERATORS,
    **regridding.OPERATORS,
    **normalizing.OPERATORS,
    **indexing.OPERATORS,
    **foreign.OPERATORS,
}


def exact_output(node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Returns what the training graph computes for an operator, float64.

    Args:
        node: An operator of a file.
        inputs: Its inputs, float64, in the unit of the training graph.
    """
    result = OPERATORS[node.kind].exact(node, inputs)
    result = limited(result, float_limits(node))
    if node.activation is not None:
        result = tf.nn.relu(result)
    if node.activation == "relu6":
        result = tf.minimum(result, tf.constant(6.0, tf.float64))
    return result


def write_operator(builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Adds an operator to a TFLite graph, with the limits of its output.

    Args:
        builder: Builder of the graph.
        node: The operator.
        inputs: Names of its input tensors, which are float if the operator is.
    """
    OPERATORS[node.kind].write(builder, node, inputs)
    if float_limits(node) and node.kind != "clip":
        write_limits(builder, node, builder.set_aside(node))


__all__ = [
    "FLOAT_PART",
    "OPERATORS",
    "PICKED",
    "STRIDED_1X1",
    "Builder",
    "Compute",
    "Context",
    "Operator",
    "decoded",
    "exact_output",
    "quantized",
    "write_operator",
    "write_part",
]
