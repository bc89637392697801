"""The first batch of a training, which gives activation steps their first values."""

from __future__ import annotations

import collections
import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras, nodes_of
from ..layers import QuantizationPoint, replaced_attributes
from .distribution import assign_chiefs_values
from .learned_steps import check_calibrated, quantization_points

# Smallest and largest value; NaN if there is one that is not finite.
Extremes = tuple[float, float]


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
    first = _FirstBatch()
    points = quantization_points(model)
    initialise_shared_points(
        model, lambda: model(x, training=training), first.note_extremes
    )
    with visited(points, first), batch_norm_statistics_kept(model):
        model(x, training=training)
    empty = _check_first_values(points, first.extremes)
    check_calibrated(model)
    first_values = [
        variable
        for point in points
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


def initialise_shared_points(
    model: keras.Model,
    call: Callable[[], Any],
    note: Callable[[QuantizationPoint, tf.Tensor], None] | None = None,
) -> None:
    """Gives the steps of points of several tensors their first values.

    The tensors that a concatenation joins are on one grid, which must hold the values
    of all of them, not only of the one that is computed first.

    Args:
        model: A quantized model.
        call: Calls the model with the first batch. No point that lacks its step
            quantizes in that call.
        note: Called with each of the points and all of its values.
    """
    shared = missing_shared_points(model)
    if not shared:
        return
    missing = [p for p in quantization_points(model) if not p.is_initialised()]
    arrived: dict[str, list[tf.Tensor]] = {point.name: [] for point in shared}

    def collect(point: QuantizationPoint, inputs: tf.Tensor) -> tf.Tensor:
        if point.name in arrived:
            arrived[point.name].append(inputs)
        return point.quantizer.clipped(inputs)

    with visited(missing, collect), batch_norm_statistics_kept(model):
        call()
    for point in shared:
        values = [tf.reshape(one, [-1]) for one in arrived[point.name]]
        values = tf.concat(values, axis=0)
        if note is not None:
            note(point, values)
        point.initialise(values)


@contextlib.contextmanager
def visited(points: Iterable[QuantizationPoint], visitor: Any) -> Iterator[None]:
    """Has a visitor called at points, see `QuantizationPoint.visitor`."""
    with contextlib.ExitStack() as stack:
        for point in points:
            stack.enter_context(replaced_attributes(point, {"visitor": visitor}))
        yield


class _FirstBatch:
    """A visitor that sets the steps of points from what arrives.

    Attributes:
        extremes: Point -> smallest and largest of the values that set its step.
    """

    def __init__(self) -> None:
        self.extremes: dict[str, Extremes] = {}

    def __call__(self, point: QuantizationPoint, inputs: tf.Tensor) -> None:
        """Sets a step that has no value."""
        if not point.is_initialised():
            self.note_extremes(point, inputs)
            point.initialise(inputs)

    def note_extremes(self, point: QuantizationPoint, values: tf.Tensor) -> None:
        """Keeps the smallest and largest value."""
        if not tf.reduce_all(tf.math.is_finite(values)):
            self.extremes[point.name] = math.nan, math.nan
            return
        ends = float(tf.reduce_min(values)), float(tf.reduce_max(values))
        self.extremes[point.name] = ends


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


def _check_first_values(
    points: list[QuantizationPoint], extremes: dict[str, Extremes]
) -> list[str]:
    """Refuses steps from values that are not finite; returns points of zeros."""
    chosen = [point for point in points if point.name in extremes]
    lost = [p.name for p in chosen if not np.isfinite(extremes[p.name]).all()]
    if lost:
        for point in chosen:
            point.reset()
        raise ValueError(
            "The first batch, which sets the steps, must give finite values. "
            f"Received NaN or infinite values at: {lost}. Check the data and the "
            "weights of the float model."
        )
    return [point.name for point in chosen if _is_empty(point, extremes[point.name])]


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


def _is_empty(point: QuantizationPoint, extremes: Extremes) -> bool:
    """Returns whether the first batch gave a point nothing but zeros."""
    low, high = extremes
    return high <= 0.0 and (low == 0.0 or point.quantizer.signed is False)


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
