"""The operators of a file: what each means, its TFLite form, and what it computes.

To add an operator, add a class here and a row in `tf_lsq.graph.KINDS`.
"""

import tensorflow as tf

from ..freezing import FrozenNode
from .activations import Abs, Elu, PRelu, Relu, Sigmoid, Softmax, Tanh
from .base import Compute, Context, Operator, quantized
from .builder import Builder
from .elementwise import Add, Maximum, Minimum, Multiply, Subtract
from .foreign import Foreign
from .kernels import (
    Affine,
    Conv,
    Dense,
    Depthwise,
    HardSigmoid,
    Pointwise,
    TransposedConv,
)
from .moving import Concat, Pad, Reshape, Slice, Transpose
from .pooling import AveragePool, MaxPool, Mean, ReduceMax
from .regridding import ClipHigh, ClipLow, Quantize, Widen
from .resizing import ResizeBilinear, ResizeNearest

OPERATORS: dict[str, Operator] = {
    "conv": Conv(),
    "depthwise": Depthwise(),
    "transposed_conv": TransposedConv(),
    "dense": Dense(),
    "pointwise": Pointwise(),
    "affine": Affine(),
    "hard_sigmoid": HardSigmoid(),
    "prelu": PRelu(),
    "abs": Abs(),
    "add": Add(),
    "subtract": Subtract(),
    "multiply": Multiply(),
    "maximum": Maximum(),
    "minimum": Minimum(),
    "concat": Concat(),
    "relu": Relu(),
    "softmax": Softmax(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "elu": Elu(),
    "mean": Mean(),
    "reduce_max": ReduceMax(),
    "max_pool": MaxPool(),
    "average_pool": AveragePool(),
    "resize_nearest": ResizeNearest(),
    "resize_bilinear": ResizeBilinear(),
    "reshape": Reshape(),
    "transpose": Transpose(),
    "slice": Slice(),
    "pad": Pad(),
    "foreign": Foreign(),
    "quantize": Quantize(),
    "widen": Widen(),
    "clip_high": ClipHigh(),
    "clip_low": ClipLow(),
}


def exact_output(node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Returns what the training graph computes for an operator, float64.

    Args:
        node: An operator of a file.
        inputs: Its inputs, float64, in the unit of the training graph.
    """
    result = OPERATORS[node.kind].exact(node, inputs)
    if node.activation is not None:
        result = tf.nn.relu(result)
    if node.activation == "relu6":
        result = tf.minimum(result, tf.constant(6.0, tf.float64))
    return result


__all__ = [
    "OPERATORS",
    "Builder",
    "Compute",
    "Context",
    "Operator",
    "exact_output",
    "quantized",
]
