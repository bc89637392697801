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

from tf_lsq.graph import Layer, Node
from tf_lsq.layers import LSQWrapper, QuantizationPoint


def operator_output(node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """Returns the real-valued output of one operator of the fused graph.

    Args:
        node: An operator of a quantized model's graph; what is fused into it is
            applied too.
        inputs: Its inputs, float64, in the unit of the training graph.
    """
    arrays = [tf.constant(array, tf.float64) for array in inputs]
    result = _COMPUTE[node.kind](node, arrays)
    if node.batch_norm is not None:
        result = _batch_norm(node.batch_norm, result)
    if node.activation is not None:
        result = tf.nn.relu(result)
    if node.activation == "relu6":
        result = tf.minimum(result, tf.constant(6.0, tf.float64))
    return result.numpy()


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


def _conv(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Convolution."""
    layer = node.layer
    result = tf.nn.conv2d(
        inputs[0],
        _kernel(node, "kernel"),
        layer.strides,
        layer.padding.upper(),
        dilations=layer.dilation_rate,
    )
    return _with_bias(layer, result)


def _depthwise(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Depthwise convolution."""
    layer = node.layer
    result = tf.nn.depthwise_conv2d(
        inputs[0],
        _kernel(node, "depthwise_kernel"),
        [1, *layer.strides, 1],
        layer.padding.upper(),
        dilations=layer.dilation_rate,
    )
    return _with_bias(layer, result)


def _dense(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Fully connected."""
    result = tf.tensordot(inputs[0], _kernel(node, "kernel"), axes=[[-1], [0]])
    return _with_bias(node.layer, result)


def _batch_norm(layer: Layer, x: tf.Tensor) -> tf.Tensor:
    """Batch norm at inference, as Keras defines it."""
    mean = tf.cast(layer.moving_mean, tf.float64)
    variance = tf.cast(layer.moving_variance, tf.float64)
    result = (x - mean) / tf.sqrt(variance + layer.epsilon)
    if layer.scale:
        result = result * tf.cast(layer.gamma, tf.float64)
    if layer.center:
        result = result + tf.cast(layer.beta, tf.float64)
    return result


def _pool(function: Any) -> Any:
    """Returns the function of a pooling operator."""

    def pool(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
        layer = node.layer
        return function(
            inputs[0], layer.pool_size, layer.strides, layer.padding.upper()
        )

    return pool


def _global(reduce: Any) -> Any:
    """Returns the function of a reduction over height and width."""

    def global_pool(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
        return reduce(inputs[0], axis=[1, 2], keepdims=bool(node.layer.keepdims))

    return global_pool


def _pad(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Zero padding."""
    return tf.pad(inputs[0], [[0, 0], *node.layer.padding, [0, 0]])


def _reshape(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Reshape or Flatten."""
    return tf.reshape(inputs[0], [-1, *node.shape[1:]])


def _unchanged(node: Node, inputs: list[tf.Tensor]) -> tf.Tensor:
    """Passes its input on; a ReLU is applied afterwards."""
    return inputs[0]


_COMPUTE = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "affine": lambda node, inputs: _batch_norm(node.layer, inputs[0]),
    "add": lambda node, inputs: inputs[0] + inputs[1],
    "relu": _unchanged,
    "softmax": lambda node, inputs: tf.nn.softmax(inputs[0]),
    "mean": _global(tf.reduce_mean),
    "global_max": _global(tf.reduce_max),
    "concat": lambda node, inputs: tf.concat(inputs, axis=node.layer.axis),
    "max_pool": _pool(tf.nn.max_pool2d),
    "average_pool": _pool(tf.nn.avg_pool2d),
    "pad": _pad,
    "reshape": _reshape,
    "point": _unchanged,
}
