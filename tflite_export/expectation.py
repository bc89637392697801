"""What the training graph computes, operator by operator, in float64.

The verifier feeds each operator of the file's graph the integers that the file
itself computed, and asks here for the exact result: kernels as the training op
quantizes them, batch norms unfolded, biases in full precision. Nothing of
`freeze` or `integerize` is used, so their errors show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_lsq._compat import keras
from tf_lsq.graph import Layer, Node
from tf_lsq.layers import QUANTIZED_WEIGHTS, LSQWrapper, QuantizationPoint


def operator_output(node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """Returns the real-valued output of one operator of the fused graph.

    Args:
        node: An operator of a quantized model's graph; what is fused into it is
            applied too.
        inputs: Its inputs, float64, in the unit of the training graph.
    """
    arrays = [tf.constant(array, tf.float64) for array in inputs]
    return operator_tensor(node, arrays).numpy()


def operator_tensor(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Returns the same for float64 tensors, also inside of a graph."""
    result = COMPUTE[node.kind](node, inputs)
    if node.affine is not None:
        result = _affine(node.affine.layer, result)
    if node.activation is not None:
        result = tf.nn.relu(result)
    if node.activation == "relu6":
        result = tf.minimum(result, tf.constant(6.0, tf.float64))
    return result


def point_codes(point: QuantizationPoint, values: np.ndarray) -> np.ndarray:
    """Returns the training integers of a point for real values, exact.

    Args:
        point: A quantization point with its step.
        values: float64, unit of the tensor.
    """
    step = np.float64(np.float32(point.step.numpy()))
    bounds = point.integer_range
    codes = np.rint(np.clip(values / step, float(bounds.q_min), float(bounds.q_max)))
    return codes.astype(np.int64)


def _kernel(node: Node, name: str) -> Any:
    """Returns the kernel as the training op quantizes it, float64.

    The float32 product of code and step is replaced by the exact one.
    """
    outer = node.model_layer
    if not isinstance(outer, LSQWrapper):
        return tf.cast(getattr(node.layer, name), tf.float64)
    return tf.cast(outer.codes(), tf.float64) * tf.cast(outer.step, tf.float64)


def _with_bias(layer: Layer, result: tf.Tensor) -> tf.Tensor:
    """Adds the layer's bias."""
    if not layer.use_bias:
        return result
    return result + tf.cast(layer.bias, tf.float64)


def _conv(node: Node, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution, 1D or 2D."""
    layer = node.layer
    return tf.nn.convolution(
        x,
        kernel,
        layer.strides,
        layer.padding.upper(),
        dilations=layer.dilation_rate,
    )


def _depthwise(node: Node, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Depthwise convolution; 1D ones as 2D ones of height 1."""
    layer = node.layer
    flat = layer.rank == 1
    strides, dilations = tuple(layer.strides), tuple(layer.dilation_rate)
    if flat:
        x, kernel = x[:, tf.newaxis], kernel[tf.newaxis]
        strides, dilations = strides * 2, (1, *dilations)
    result = tf.nn.depthwise_conv2d(
        x, kernel, [1, *strides, 1], layer.padding.upper(), dilations=dilations
    )
    return result[:, 0] if flat else result


def _transposed_conv(node: Node, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Transposed convolution."""
    layer = node.layer
    return tf.nn.conv2d_transpose(
        x,
        kernel,
        [tf.shape(x)[0], *node.shape[1:]],
        layer.strides,
        layer.padding.upper(),
    )


def _dense(node: Node, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Fully connected."""
    return tf.tensordot(x, kernel, axes=[[-1], [0]])


# Operators with a kernel -> the product of input and kernel, of any float type.
PRODUCTS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "transposed_conv": _transposed_conv,
    "dense": _dense,
}


def _matmul(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Product with the quantized kernel, and the bias."""
    attribute = QUANTIZED_WEIGHTS[type(node.layer)].attribute
    product = PRODUCTS[node.kind](node, inputs[0], _kernel(node, attribute))
    return _with_bias(node.layer, product)


def _affine(layer: Layer, x: tf.Tensor) -> tf.Tensor:
    """Batch norm at inference, or scaling, as Keras defines them."""
    if isinstance(layer, keras.layers.Rescaling):
        return x * np.float64(layer.scale) + np.float64(layer.offset)
    mean = tf.cast(layer.moving_mean, tf.float64)
    variance = tf.cast(layer.moving_variance, tf.float64)
    result = (x - mean) / tf.sqrt(variance + layer.epsilon)
    if layer.scale:
        result = result * tf.cast(layer.gamma, tf.float64)
    if layer.center:
        result = result + tf.cast(layer.beta, tf.float64)
    return result


def _prelu(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Leaky ReLU with a constant slope, or trained ones."""
    if isinstance(node.layer, keras.layers.PReLU):
        slope = _kernel(node, "alpha")
    else:
        slope = np.float64(node.layer.alpha)
    return tf.nn.relu(inputs[0]) - slope * tf.nn.relu(-inputs[0])


def _hard_sigmoid(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Clipped line."""
    return tf.clip_by_value(node.layer.slope * inputs[0] + 0.5, 0.0, 1.0)


def _pool(function: Any) -> Any:
    """Returns the function of a pooling operator; 1D ones have a height of 1."""

    def pool(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
        flat = inputs[0].shape.rank == 3
        x = inputs[0][:, tf.newaxis] if flat else inputs[0]
        options = node.options
        result = function(x, options["size"], options["strides"], options["padding"])
        return result[:, 0] if flat else result

    return pool


def _reduce(function: Any) -> Any:
    """Returns the function of a reduction."""

    def reduce(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
        options = node.options
        return function(inputs[0], axis=options["axes"], keepdims=options["keepdims"])

    return reduce


def _pad(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Zero padding."""
    return tf.pad(inputs[0], [(0, 0), *node.options["paddings"]])


def _slice(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Strided slice."""
    names = ("begin", "end", "strides")
    rows = zip(*(node.options[name] for name in names), strict=True)
    return inputs[0][(slice(None), *(slice(*row) for row in rows))]


def _resize(method: str) -> Any:
    """Returns the function of a resizing operator."""

    def resize(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
        flat = inputs[0].shape.rank == 3
        x = inputs[0][:, tf.newaxis] if flat else inputs[0]
        result = tf.cast(tf.image.resize(x, node.options["size"], method), x.dtype)
        return result[:, 0] if flat else result

    return resize


def _reshape(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Reshape or Flatten."""
    return tf.reshape(inputs[0], [-1, *node.shape[1:]])


def _unchanged(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Passes its input on; a ReLU is applied afterwards."""
    return inputs[0]


def _foreign(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """A layer left in float: what Keras computes."""
    result = node.call(node.layer, [tf.cast(x, tf.float32) for x in inputs])
    return tf.cast(result, tf.float64)


# Operator -> its real-valued output for real-valued inputs.
COMPUTE = {
    **dict.fromkeys(PRODUCTS, _matmul),
    "affine": lambda node, inputs: _affine(node.layer, inputs[0]),
    "prelu": _prelu,
    "add": lambda node, inputs: inputs[0] + inputs[1],
    "subtract": lambda node, inputs: inputs[0] - inputs[1],
    "multiply": lambda node, inputs: inputs[0] * inputs[1],
    "maximum": lambda node, inputs: tf.maximum(*inputs),
    "minimum": lambda node, inputs: tf.minimum(*inputs),
    "concat": lambda node, inputs: tf.concat(inputs, axis=node.layer.axis),
    "relu": _unchanged,
    "softmax": lambda node, inputs: tf.nn.softmax(inputs[0]),
    "sigmoid": lambda node, inputs: tf.sigmoid(inputs[0]),
    "tanh": lambda node, inputs: tf.tanh(inputs[0]),
    "hard_sigmoid": _hard_sigmoid,
    "mean": _reduce(tf.reduce_mean),
    "reduce_max": _reduce(tf.reduce_max),
    "max_pool": _pool(tf.nn.max_pool2d),
    "average_pool": _pool(tf.nn.avg_pool2d),
    "resize_nearest": _resize("nearest"),
    "resize_bilinear": _resize("bilinear"),
    "reshape": _reshape,
    "transpose": lambda node, inputs: tf.transpose(inputs[0], node.options["perm"]),
    "slice": _slice,
    "pad": _pad,
    "foreign": _foreign,
    "point": _unchanged,
}
