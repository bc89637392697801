"""Computes the scale and bias of operators after batch norms are folded."""

from __future__ import annotations

import numpy as np

from .._compat import keras
from ..layers import ChannelScaling, LSQWrapper
from .float_layers import HardSigmoid
from .nodes import Layer, Node

LARGEST_INT8 = 127


def bias_unit(node: Node, divisions: int | None = None) -> np.ndarray | None:
    """Returns the value of one bias code per output channel, float64.

    Args:
        node: An operator with a kernel, or a standalone batch norm, in the graph of
            a quantized model.
        divisions: How finely the file divides the product of input step and kernel
            step. None: as int8 storage does.

    Returns:
        Shape `[channels]`, unit of the operator's output; None if the operator
        stays in float, or its input has no step yet.
    """
    point = point_of(node.inputs[0])
    if point is None or not point.layer.is_initialised():
        return None
    input_step = np.float64(np.float32(point.layer.step.numpy())) * input_factor(node)
    factor, _ = affine_part(node)
    if not node.properties.matmul:
        return input_step * np.abs(factor) / LARGEST_INT8
    if not isinstance(node.model_layer, LSQWrapper):
        return None
    step = np.asarray(node.model_layer.step.numpy(), np.float64).reshape(-1)
    if divisions is None:
        divisions = code_multiplier(node.model_layer.num_bits)
    return input_step * step * np.abs(factor) / divisions


def code_multiplier(num_bits: int, container_bits: int = 8) -> int:
    """Returns the factor by which the codes of a kernel are multiplied in storage.

    Dividing the scale by it keeps the weights the same, and gives the bias a finer
    grid. The factor of int8 is a multiple of that of INT4, so biases on the INT4 grid
    are also on the int8 grid.

    Args:
        num_bits: Bits of the codes.
        container_bits: Bits of the container that stores one code.

    Example:
        >>> [code_multiplier(bits) for bits in (8, 4, 3, 2)]
        [1, 15, 30, 60]
        >>> [code_multiplier(bits, 4) for bits in (4, 3, 2)], code_multiplier(2, 2)
        ([1, 2, 4], 1)
    """
    if num_bits == 8:
        return 1
    largest = 2 ** (num_bits - 1)
    if container_bits < 8:
        return 2 ** (container_bits - 1) // largest
    multiple = code_multiplier(num_bits, 4) or 1
    return LARGEST_INT8 // largest // multiple * multiple


def affine_part(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor and bias that an operator applies to input times kernel.

    Args:
        node: A matmul, a standalone batch norm or scaling (whose kernel is 1), or a
            hard sigmoid (before clipping).

    Returns:
        ``(factor, bias)`` per output channel, float64, such that the output is
        ``factor * product + bias`` at inference.
    """
    channels = int(node.shape[-1])  # type: ignore[arg-type]
    if not node.properties.matmul:
        return _affine_of(node.layer, channels)
    bias = np.zeros(channels)
    if node.layer.use_bias:
        bias = node.layer.bias.numpy().astype(np.float64)
    if node.affine is None:
        return np.ones(channels), bias
    factor, shift = _affine_of(node.affine.layer, channels)
    return factor, factor * bias + shift


def input_factor(node: Node) -> float:
    """Returns the factor between the values an operator reads and its input tensor.

    1, except for an operator after a scaling of the model's input, which has no
    separate operator in the file.
    """
    source = node.inputs[0]
    return float(source.layer.scale) if source.kind == "scale" else 1.0


def point_of(node: Node) -> Node | None:
    """Returns the quantization point that defines a tensor's grid, None without one.

    Args:
        node: The operator that produces the tensor.
    """
    while node.kind != "point":
        passes_on = node.properties.keeps_codes or node.properties.keeps_grid
        if not (passes_on or node.properties.joins):
            return None
        node = node.inputs[0]
    return node


def _affine_of(layer: Layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns factor and shift of a layer at inference, float64, per channel."""
    if isinstance(layer, HardSigmoid):
        return np.full(channels, layer.slope), np.full(channels, 0.5)
    if isinstance(layer, keras.layers.Rescaling):
        numbers = (np.ravel(np.float64(v)) for v in (layer.scale, layer.offset))
        factor, shift = (np.broadcast_to(n, (channels,)).copy() for n in numbers)
        return factor, shift
    if isinstance(layer, ChannelScaling):
        gamma = layer.gamma.numpy() if layer.scale else np.ones(channels)
        beta = layer.beta.numpy() if layer.center else np.zeros(channels)
        return gamma.astype(np.float64), beta.astype(np.float64)
    mean = layer.moving_mean.numpy().astype(np.float64)
    variance = layer.moving_variance.numpy().astype(np.float64)
    factor = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        factor = factor * layer.gamma.numpy().astype(np.float64)
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    return factor, beta - mean * factor
