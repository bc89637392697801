"""Biases on the grid of the file.

TFLite's bias is an int32 on the grid of input step times kernel step. With few
bits that grid is coarse, and a bias off the grid is the one thing that makes a
file's integers differ from the trained ones. `round_biases` ends a training by
moving biases onto it; from then on Keras computes what the file computes.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..graph import Node, affine_part, analyze, bias_unit

# The package that knows how files of other storages hold biases.
_EXPORTER = "tflite_export.freezing"


def round_biases(model: keras.Model, storage: str = "int8") -> None:
    """Moves every bias of a quantized model to the nearest one its file can hold.

    The beta of a batch norm changes (or its moving mean, or the bias of a layer
    without batch norm), by half a unit of the file's bias at most: typically a
    thousandth of the step of the layer's output. Layers with `trainable=False` and
    layers that are called twice are left alone, and so is a model that has not been
    trained or calibrated.

    `model.fit` ends with this by itself, for int8 storage; call it at the end of a
    custom training loop, and on a model loaded from a checkpoint of the middle of a
    training. The next `fit` starts from the values before the rounding.

    Packed kernels whose inputs have 5 bits or more (in INT2, more than 2) have a
    coarser grid of biases: call ``round_biases(model, "packed")`` between `fit` and
    ``export_model(..., storage="packed")``, and `evaluate` in Keras shows what the
    coarser grid costs. Biases on it are exact in the file, and in that of int8 storage.

    Args:
        model: A quantized model.
        storage: "int8", "packed" or "auto", as for `tflite_export.export_model`.

    Raises:
        TypeError: If `model` is no tf_keras model.
        ValueError: If it is not quantized, or `storage` is unknown.
        RuntimeError: If it must be calibrated for `storage`, and is not.
    """
    divisions = None
    if storage != "int8":
        # Imported here only: training does not depend on the exporter.
        exporter = importlib.import_module(_EXPORTER)
        divisions = exporter.divisions_of_biases(model, storage)
    for node in analyze(model).nodes:
        if not (node.properties.matmul or node.kind == "affine") or node.shared:
            continue
        unit = bias_unit(node, None if divisions is None else divisions.get(node.name))
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
