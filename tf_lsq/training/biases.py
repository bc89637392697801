"""Rounds biases to the grid of the file.

TFLite's bias is an int32 on the grid of input step times kernel step. With few
bits that grid is coarse, and a bias off the grid is the only thing that makes a
file's integers differ from the trained ones. `round_biases` ends a training by
rounding biases to it; from then on Keras computes what the file computes.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..graph import Node, affine_part, analyze, bias_unit, tf_keras_model
from ..layers import ChannelScaling

# The package that knows how files of the other storage modes hold biases.
_EXPORTER = "tflite_export.freezing"


def round_biases(model: keras.Model, storage: str = "int8") -> None:
    """Rounds every bias of a quantized model to the nearest one its file can hold.

    It changes the beta of a batch norm (or its moving mean, or the bias of a layer
    without batch norm) by at most half a unit of the file's bias: typically a
    thousandth of the step of the layer's output. Layers with `trainable=False` and
    layers that are called twice stay unchanged, and so does a model that has not been
    trained or calibrated.

    `model.fit` does this automatically at its end, for int8 storage; call it at the end
    of a custom training loop, and on a model loaded from a mid-training checkpoint. The
    next `fit` starts from the values before rounding.

    Packed kernels whose inputs have 5 bits or more (in INT2, more than 2) have a
    coarser bias grid: call ``round_biases(model, "packed")`` between `fit` and
    ``export_model(..., storage="packed")``; `evaluate` in Keras then shows what the
    coarser grid costs. Biases on it are exact in that file, and in one with int8
    storage.

    Args:
        model: A quantized model.
        storage: "int8", "packed" or "auto", as for `tflite_export.export_model`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is not quantized, or `storage` is unknown.
        RuntimeError: If it must be calibrated for `storage`, but is not.
    """
    divisions = None
    model = tf_keras_model(model)
    if storage != "int8":
        # Imported only here: training does not depend on the exporter.
        exporter = importlib.import_module(_EXPORTER)
        divisions = exporter.divisions_of_biases(model, storage)
    for node in analyze(model).nodes:
        if not (node.properties.matmul or node.kind == "affine") or node.shared:
            continue
        unit = bias_unit(node, None if divisions is None else divisions.get(node.name))
        if unit is None:
            continue
        factor, bias = affine_part(node)
        # If gamma is 0, there is no grid to round to.
        codes = np.divide(bias, unit, out=np.zeros_like(bias), where=unit > 0)
        shift = np.where(unit > 0, np.rint(codes) * unit - bias, 0.0)
        variable, change = _bias_change(node, shift, factor)
        if variable is not None:
            _round(model, variable, change)


def restore_biases(model: keras.Model) -> None:
    """Undoes the rounding of `round_biases` for biases that have not changed since.

    Otherwise a training with many short calls of `fit` would lose every update that is
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
    """Returns what `restore_biases` needs, to be saved with a model.

    Returns:
        For each bias: its place in `model.weights`, its values before rounding, and
        its values after.
    """
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    return [
        [places[id(variable)], original.tolist(), rounded.tolist()]
        for variable, original, rounded in _roundings(model).values()
    ]


def set_rounded_biases(model: keras.Model, saved: list[list[Any]]) -> None:
    """Restores what `rounded_biases` returned for the saved model."""
    for place, *values in saved:
        variable = model.weights[place]
        original, rounded = (np.asarray(v, variable.dtype.name) for v in values)
        _roundings(model)[id(variable)] = variable, original, rounded


def _roundings(model: keras.Model) -> dict[int, tuple[Any, np.ndarray, np.ndarray]]:
    """Returns the rounded biases of a model: variable, value before, value after."""
    return vars(model).setdefault("_rounded_biases", {})  # Hidden from Keras.


def _round(model: keras.Model, variable: tf.Variable, change: np.ndarray) -> None:
    """Rounds a bias by adding `change` to its variable, and keeps the old value."""
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

    The variable is None if there is no bias, or if it is not trained or is shared.
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
    if isinstance(owner, ChannelScaling):
        return None, 0.0
    moved = np.divide(shift, factor, out=np.zeros_like(shift), where=factor != 0)
    return owner.moving_mean, -moved
