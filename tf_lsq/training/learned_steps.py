"""Finds and checks the learned steps of a quantized model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..graph import tf_keras_model
from ..layers import LSQWrapper, QuantizationPoint


def quantization_points(model: keras.Model) -> list[QuantizationPoint]:
    """Returns the quantization points of a model, in the model's order."""
    return [layer for layer in model.layers if isinstance(layer, QuantizationPoint)]


def wrapped_layers(model: keras.Model) -> list[LSQWrapper]:
    """Returns the layers with a quantized kernel, in the model's order."""
    return [layer for layer in model.layers if isinstance(layer, LSQWrapper)]


def student_of(model: keras.Model) -> keras.Model:
    """Returns the quantized model that `model.fit` trains.

    Args:
        model: A quantized model, or one that holds it as its attribute `student`.

    Raises:
        ValueError: If it has no quantized layers.
    """
    student = trained_model(model)
    if not wrapped_layers(student) and not quantization_points(student):
        raise ValueError(
            "The trained model must be quantized, or hold a quantized model as "
            f"`student`. Received: `{student.name}`, which has no quantized layers. "
            "Call `tf_lsq.quantize_model` first."
        )
    return student


def trained_model(model: Any) -> Any:
    """Returns the tf_keras model that a `Distiller` or a Keras 3 student trains.

    Any other model is returned unchanged.
    """
    return tf_keras_model(getattr(model, "student", model))


def trained_variables(layers: Iterable[Any]) -> list[tf.Variable]:
    """Returns the learned steps and offsets of layers, as factors of first values."""
    return [
        variable
        for layer in layers
        for variable in layer.step_variables.values()
        if variable.trainable
    ]


def steps(model: keras.Model) -> dict[str, Any]:
    """Returns the learned steps, in the unit of what they quantize.

    Args:
        model: A quantized model, or a `Distiller`.

    Returns:
        Layer name -> NumPy array: shape `[]`, or size 1 on every axis of the
        kernel that shares a step.
    """
    model = trained_model(model)
    layers = [*wrapped_layers(model), *quantization_points(model)]
    return {layer.name: layer.step.numpy() for layer in layers}


def is_calibrated(model: keras.Model) -> bool:
    """Returns whether every step of a model has its first value."""
    return not _missing(model)


def check_calibrated(model: keras.Model) -> None:
    """Raises unless every step of a model has its first value.

    Raises:
        RuntimeError: If not; the error names the points without a step.
    """
    missing = _missing(model)
    if missing:
        raise RuntimeError(
            f"`{model.name}` must be trained or calibrated before it is used. These "
            f"quantization points have no step yet: {missing}. Call `model.fit`, or "
            "`tf_lsq.calibrate(model, data)`."
        )


def check_steps(model: keras.Model) -> None:
    """Raises if a step is NaN."""
    lost = [name for name, step in steps(model).items() if np.isnan(step).any()]
    if lost:
        raise RuntimeError(
            f"The training of `{model.name}` has diverged: these layers have a learned "
            f"step that is NaN: {lost}. Start again from finite weights, with a lower "
            "learning rate or with a smaller `step_clip`."
        )


def _missing(model: keras.Model) -> list[str]:
    """Returns the names of the points without a first value."""
    return [p.name for p in quantization_points(model) if not p.is_initialised()]
