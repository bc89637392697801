"""Kernels as they were trained: integer codes, read off the training op."""

from __future__ import annotations

import numpy as np

from tf_lsq.graph import Layer, Node, affine_part
from tf_lsq.layers import QUANTIZED_WEIGHTS, LSQWrapper

from .grids import INT8_MAX, ONE

# Operators whose kernel is a factor per channel, which was not trained as codes.
AFFINE = ("affine", "hard_sigmoid")


def trained_codes(node: Node) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns (codes, scale per channel, bits) as the training graph has them.

    Codes of a kernel are read off the training op and have the channels last; a
    depthwise kernel is `[height, width, channels]`, 1D ones have a height of 1. A
    batch norm or scaling by itself is a 1x1 depthwise kernel: codes 127, the rest of
    the factor is scale. The constant slope of a leaky ReLU has the one code 64, so that
    the rest, its scale, is the slope to the last bit but for a power of two.
    """
    if node.kind in AFFINE:
        factor, _ = affine_part(node)
        scale = np.abs(factor) / INT8_MAX
        return np.full((1, 1, len(factor)), INT8_MAX), scale, 8
    wrapper = node.model_layer
    if not isinstance(wrapper, LSQWrapper):
        return np.full((1,), ONE), np.array([leaky_slope(node.layer) / ONE]), 8
    codes = _channels_last(node, np.rint(wrapper.codes().numpy()).astype(np.int64))
    step = np.asarray(wrapper.step.numpy(), np.float64).reshape(-1)
    channels = codes.shape[-1]
    return codes, np.broadcast_to(step, (channels,)), wrapper.quantizer.num_bits


def leaky_slope(layer: Layer) -> float:
    """Returns the slope of a `LeakyReLU` layer for negative values."""
    return float(layer.alpha)


def _channels_last(node: Node, kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel as the file's operators know it, output channels last."""
    if getattr(node.layer, "rank", 2) == 1:
        kernel = kernel[np.newaxis]
    if node.kind == "depthwise":
        return kernel.reshape(*kernel.shape[:2], -1)
    if node.kind == "transposed_conv":
        return kernel.transpose(0, 1, 3, 2)
    return kernel


def float_kernel(node: Node, factor: np.ndarray) -> np.ndarray:
    """Returns a float kernel with the batch norm folded, channels last.

    Args:
        node: An operator that is left in float.
        factor: Of its batch norm, per channel.
    """
    attribute = QUANTIZED_WEIGHTS[type(node.layer)].attribute
    kernel = getattr(node.layer, attribute).numpy().astype(np.float64)
    return _channels_last(node, kernel) * factor
