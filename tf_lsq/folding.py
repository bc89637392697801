"""What becomes an operator's scale and bias once batch norms are folded.

TFLite's bias is an int32 on the grid of input step times kernel step. With few
bits that grid is coarse, and a bias off the grid is the one thing that makes a
file's integers differ from the trained ones. `round_biases` ends a training by
moving biases onto it; from then on Keras computes what the file computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ._compat import keras
from .float_layers import HardSigmoid
from .graph import analyze
from .layers import LSQWrapper
from .operators import Layer, Node

LARGEST_INT8 = 127


def round_biases(
    model: keras.Model, multiplier: Callable[[Node], int] | None = None
) -> None:
    """Moves every bias of a quantized model to the nearest one its file can hold.

    The beta of a batch norm changes (or its moving mean, or the bias of a layer
    without batch norm), by half a unit of the file's bias at most: typically a
    thousandth of the step of the layer's output. Layers with `trainable=False` and
    layers that are called twice are left alone, and so is a model that has not been
    trained or calibrated.

    `model.fit` ends with this by itself; call it at the end of a custom training loop,
    and on a model loaded from a checkpoint of the middle of a training. The next `fit`
    starts from the values before the rounding, see `restore_biases`.

    Args:
        model: A quantized model.
        multiplier: How finely the file divides the product of input step and kernel
            step, for an operator with a kernel. None: as int8 storage does.
            `tflite_export.round_biases` chooses it for packed files.
    """
    for node in analyze(model).nodes:
        if not (node.properties.matmul or node.kind == "affine") or node.shared:
            continue
        unit = bias_unit(node, multiplier)
        if unit is None:
            continue
        factor, bias = affine_part(node)
        # Where gamma is 0 there is no grid to be on.
        codes = np.divide(bias, unit, out=np.zeros_like(bias), where=unit > 0)
        shift = np.where(unit > 0, np.rint(codes) * unit - bias, 0.0)
        variable, change = _bias_change(node, shift, factor)
        if variable is not None:
            _round(model, variable, change)


def restore_biases(model: keras.Model) -> None:
    """Puts back what `round_biases` took off, where nothing has changed since.

    Otherwise a training of many short calls of `fit` would lose every update that is
    smaller than half a unit of a bias. Layers that do not train keep rounded biases.

    Args:
        model: A quantized model.
    """
    if not _roundings(model):
        return
    trained = {
        id(variable)
        for layer in model.submodules
        if isinstance(layer, keras.layers.Layer) and layer.trainable
        for variable in vars(layer).values()
        if isinstance(variable, tf.Variable)
    }
    for key in trained & set(_roundings(model)):
        variable, original, rounded = _roundings(model).pop(key)
        if np.array_equal(variable.numpy(), rounded):
            variable.assign(original)


def rounded_biases(model: keras.Model) -> list[list[Any]]:
    """Returns what `restore_biases` needs to know, to be saved with a model.

    Returns:
        For each bias: its place in `model.weights`, its values before it was rounded,
        and after.
    """
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    return [
        [places[id(variable)], original.tolist(), rounded.tolist()]
        for variable, original, rounded in _roundings(model).values()
    ]


def set_rounded_biases(model: keras.Model, saved: list[list[Any]]) -> None:
    """Takes what `rounded_biases` returned for the model that was saved."""
    for place, *values in saved:
        variable = model.weights[place]
        original, rounded = (np.asarray(v, variable.dtype.name) for v in values)
        _roundings(model)[id(variable)] = variable, original, rounded


def _roundings(model: keras.Model) -> dict[int, tuple[Any, np.ndarray, np.ndarray]]:
    """Returns the biases of a model that were rounded: variable, before, after."""
    return vars(model).setdefault("_rounded_biases", {})  # Unseen by Keras' tracking.


def _round(model: keras.Model, variable: tf.Variable, change: np.ndarray) -> None:
    """Adds the change that rounds a bias to its variable, and keeps what was there."""
    before = original = variable.numpy()
    if id(variable) in _roundings(model):
        _, first, rounded = _roundings(model)[id(variable)]
        original = first if np.array_equal(before, rounded) else before
    variable.assign(before + change)
    _roundings(model)[id(variable)] = variable, original, variable.numpy()


def bias_unit(
    node: Node, multiplier: Callable[[Node], int] | None = None
) -> np.ndarray | None:
    """Returns the value of one bias code per output channel, float64.

    Args:
        node: An operator with a kernel, or a batch norm by itself, in the graph of
            a quantized model.
        multiplier: See `round_biases`.

    Returns:
        Shape `[channels]`, unit of the operator's output; None where the operator
        is left in float, or its input has no step yet.
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
    room = code_multiplier(node.model_layer.quantizer.num_bits)
    if multiplier is not None:
        room = multiplier(node)
    return input_step * step * np.abs(factor) / room


def code_multiplier(num_bits: int, container_bits: int = 8) -> int:
    """Returns by how much the codes of a kernel are multiplied where they are stored.

    The weights stay the same if the scale is divided by it, and the bias gets a finer
    grid. int8 takes a multiple of what INT4 takes, so that biases on the grid of INT4
    are on that of int8, too.

    Args:
        num_bits: Bits of the codes.
        container_bits: Bits that store one of them.

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
    """Returns what an operator does to the product of input and kernel.

    Args:
        node: A matmul, a batch norm or scaling by itself (whose kernel is 1), or a
            hard sigmoid (in front of its limits).

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

    1 but for an operator behind a scaling of the model's input, which has no
    operator of its own in the file.
    """
    source = node.inputs[0]
    return float(source.layer.scale) if source.kind == "scale" else 1.0


def point_of(node: Node) -> Node | None:
    """Returns the point whose grid a tensor is on, None without one.

    Args:
        node: The operator that makes the tensor.
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
    mean = layer.moving_mean.numpy().astype(np.float64)
    variance = layer.moving_variance.numpy().astype(np.float64)
    factor = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        factor = factor * layer.gamma.numpy().astype(np.float64)
    beta = layer.beta.numpy().astype(np.float64) if layer.center else 0.0
    return factor, beta - mean * factor


def _bias_change(
    node: Node, shift: np.ndarray, factor: np.ndarray
) -> tuple[tf.Variable | None, Any]:
    """Returns the variable that holds a bias, and what to add to it.

    None where there is none, or where it is not trained or is shared.
    """
    affine = node if node.kind == "affine" else node.affine
    owner = node.layer if affine is None else affine.layer
    if not owner.trainable or isinstance(owner, keras.layers.Rescaling):
        return None, 0.0
    if affine is None:
        return (owner.bias, shift) if owner.use_bias else (None, 0.0)
    if affine.shared:
        return None, 0.0
    if owner.center:
        return owner.beta, shift
    moved = np.divide(shift, factor, out=np.zeros_like(shift), where=factor != 0)
    return owner.moving_mean, -moved
