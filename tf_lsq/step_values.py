"""The steps of a quantized model: where they are, first values, what may be wrong."""

from __future__ import annotations

import collections
import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ._compat import keras, nodes_of
from .distribution import assign_chiefs_values
from .layers import LSQWrapper, QuantizationPoint


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
    student = getattr(model, "student", model)
    if not wrapped_layers(student) and not quantization_points(student):
        raise ValueError(
            "The model that is trained must be quantized, or hold a quantized model as "
            f"`student`. Received: `{student.name}`, which has no quantized layers. "
            "Call `tf_lsq.quantize_model` first."
        )
    return student


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
    model = getattr(model, "student", model)
    layers = [*wrapped_layers(model), *quantization_points(model)]
    return {layer.name: layer.step.numpy() for layer in layers}


def is_calibrated(model: keras.Model) -> bool:
    """Returns whether every step of a model has its first value."""
    return not _missing(model)


def check_calibrated(model: keras.Model) -> None:
    """Raises unless every step of a model has its first value.

    Raises:
        RuntimeError: Naming the points without a step.
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


def initialise_steps(model: keras.Model, x: Any, *, training: bool) -> list[str]:
    """Gives every activation step that has none its first value.

    The batch flows through the model, eagerly; each point sets its step from the
    values that arrive, which earlier points have quantized already. Points of several
    tensors come before all others, see `initialise_shared_points`. Where
    several workers train, all of them call this and get the first worker's steps.

    Args:
        model: A quantized model.
        x: One batch of inputs.
        training: Whether batch norms use the batch's statistics, as in a
            training step. Their moving averages are left as they were.

    Returns:
        The names of the points that the batch gave nothing but zeros.

    Raises:
        ValueError: If the batch says nothing about values: all inputs are constant, or
            there are NaN or infinite values; the layers are named.
    """
    _check_not_constant(x)
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    with _points_initialising(model):
        initialise_shared_points(model, lambda: model(x, training=training))
        with batch_norm_statistics_kept(model):
            model(x, training=training)
    empty = _check_first_values(model)
    check_calibrated(model)
    first_values = [
        variable
        for point in quantization_points(model)
        for name, variable in point.step_variables.items()
        if name != "step"
    ]
    assign_chiefs_values(model.distribute_strategy, first_values)
    return empty


def missing_shared_points(model: keras.Model) -> list[QuantizationPoint]:
    """Returns the points of several tensors that have no first value."""
    missing = [p for p in quantization_points(model) if not p.is_initialised()]
    if not missing:
        return []
    calls = collections.Counter(id(node.layer) for node in nodes_of(model))
    return [point for point in missing if calls[id(point)] > 1]


def initialise_shared_points(model: keras.Model, call: Callable[[], Any]) -> None:
    """Gives the steps of points of several tensors their first values.

    The tensors that a concatenation joins are on one grid, which must hold the values
    of all of them, not only of that which is computed first.

    Args:
        model: A quantized model.
        call: Calls the model with the first batch. No point that lacks its step
            quantizes then.
    """
    shared = missing_shared_points(model)
    if not shared:
        return
    missing = [p for p in quantization_points(model) if not p.is_initialised()]
    for point in missing:
        point.passes = True
        point.first_inputs = [] if point in shared else None
    try:
        with batch_norm_statistics_kept(model):
            call()
        for point in shared:
            point.initialise(point.first_inputs)
    finally:
        for point in missing:
            point.passes, point.first_inputs = False, None


def _check_not_constant(x: Any) -> None:
    """Raises if every input holds one value only."""
    arrays = [np.asarray(array) for array in tf.nest.flatten(x)]
    # One black image is a batch; several are not.
    if all(len(a) > 1 and (a == a.flat[0]).all() for a in arrays):
        raise ValueError(
            "The first batch, which sets the steps, must be real data. Received: "
            f"inputs that are {[a.flat[0].item() for a in arrays]} everywhere. Train "
            "with real data first, or call `tf_lsq.calibrate(model, data)`."
        )


def _check_first_values(model: keras.Model) -> list[str]:
    """Refuses steps from values that are not finite; returns points of zeros."""
    points = [p for p in quantization_points(model) if p.first_extremes is not None]
    lost = [p.name for p in points if not np.isfinite(p.first_extremes).all()]
    empty = [p.name for p in points if _is_empty(p)]
    for point in points:
        point.first_extremes = None
        if lost:
            point.reset()
    if lost:
        raise ValueError(
            "The first batch, which sets the steps, must give finite values. "
            f"Received NaN or infinite values at: {lost}. Check the data and the "
            "weights of the float model."
        )
    return empty


def warn_of_zeros(names: list[str]) -> None:
    """Warns of points whose first values came from nothing but zeros."""
    if names:
        warnings.warn(
            "These quantization points have seen nothing but zeros: "
            f"{names}. Their steps have an arbitrary value; train on, or call "
            "`tf_lsq.calibrate(model, data)` with more examples, if that is not what "
            "the model computes.",
            stacklevel=3,
        )


def _is_empty(point: QuantizationPoint) -> bool:
    """Returns whether the first batch gave a point nothing but zeros."""
    low, high = point.first_extremes or (0.0, 0.0)
    return high <= 0.0 and (low == 0.0 or point.quantizer.signed is False)


def _missing(model: keras.Model) -> list[str]:
    """Returns the names of the points without a first value."""
    return [p.name for p in quantization_points(model) if not p.is_initialised()]


@contextlib.contextmanager
def _points_initialising(model: keras.Model) -> Iterator[None]:
    """Lets points take what flows through as their first batch."""
    points = quantization_points(model)
    for point in points:
        point.initialising = True
    try:
        yield
    finally:
        for point in points:
            point.initialising = False


@contextlib.contextmanager
def batch_norm_statistics_kept(model: keras.Model) -> Iterator[None]:
    """Puts the moving averages of batch norms back."""
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    kept = [
        (v, tf.identity(v)) for n in norms for v in (n.moving_mean, n.moving_variance)
    ]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)
