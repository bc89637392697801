"""Sets the first values of activation steps from the first batch of a training."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras, nodes_of
from ..layers import PixelPoint, QuantizationPoint
from .arrivals import Arrivals, visited
from .distribution import assign_chiefs_values
from .learned_steps import check_calibrated, quantization_points
from .lost_values import explained
from .narrow_ranges import NarrowRange, has_untrained_norms, narrow_ranges
from .pixel_ranges import UnlikelyPixels, unlikely_pixels

# How many images are checked.
_SAMPLE = 32
# Smallest and largest value; NaN if any value is not finite.
Extremes = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class FirstValues:
    """What there is to say about the first values of steps.

    Attributes:
        empty: Names of the points that received only zeros.
        narrow: The tensors that use few of the codes of a grid that they share.
        pixels: The inputs whose values are hardly those of images.
    """

    empty: list[str]
    narrow: list[NarrowRange]
    pixels: list[UnlikelyPixels]


def initialise_steps(model: keras.Model, x: Any, *, training: bool) -> FirstValues:
    """Gives every activation step that has none its first value.

    The batch flows through the model eagerly; each point sets its step from its input
    values, which earlier points have already quantized. Points of several tensors come
    before all others, see `initialise_shared_points`. If several workers train, all of
    them call this and get the first worker's steps.

    Args:
        model: A quantized model.
        x: One batch of inputs.
        training: Whether batch norms use the batch's statistics, as in a
            training step. Their moving averages stay unchanged.

    Returns:
        What the caller may warn about.

    Raises:
        ValueError: If the batch is degenerate: all inputs are constant, or there are
            NaN or infinite values; the error names the layers.
    """
    _check_not_constant(x)
    _check_batched(model, x)
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    first = _FirstBatch()
    points = quantization_points(model)
    initialise_shared_points(
        model, lambda: model(x, training=training), first.note_extremes
    )
    with visited(points, first), batch_norm_statistics_kept(model):
        model(x, training=training)
    empty = _check_first_values(model, points, first.extremes)
    check_calibrated(model)
    first_values = [
        variable
        for point in points
        for name, variable in point.step_variables.items()
        if name != "step"
    ]
    assign_chiefs_values(model.distribute_strategy, first_values)
    return FirstValues(
        empty,
        _narrow_ranges(model, first.arrivals, training),
        unlikely_pixels(model, first.pixels),
    )


def _narrow_ranges(
    model: keras.Model, arrivals: Arrivals, training: bool
) -> list[NarrowRange]:
    """Returns the tensors to warn about.

    A training may begin with random weights, and its outputs anywhere. In inference
    mode, batch norms that were never trained do not normalize.
    """
    if not training and has_untrained_norms(model):
        return []
    found = narrow_ranges(model, arrivals)
    return [one for one in found if not (training and one.kind == "output")]


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

    The tensors that a concatenation joins share one grid, which must cover the values
    of all of them, not only of the one that is computed first.

    Args:
        model: A quantized model.
        call: Calls the model with the first batch. Points that lack their step do not
            quantize in that call.
        note: Called with each of these points and all of its values.
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


class _FirstBatch:
    """A visitor that sets the steps of points from their inputs.

    Attributes:
        extremes: Point -> smallest and largest of the values that set its step.
        arrivals: What every point received.
        pixels: What the points of inputs that are pixels received, of a few examples.
    """

    def __init__(self) -> None:
        self.extremes: dict[str, Extremes] = {}
        self.pixels: dict[str, np.ndarray] = {}
        self.arrivals = Arrivals()

    def __call__(self, point: QuantizationPoint, inputs: tf.Tensor) -> None:
        """Sets a step that has no value."""
        self.arrivals(point, inputs)
        if isinstance(point, PixelPoint):
            self.pixels[point.name] = inputs[:_SAMPLE].numpy()
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
    """Raises if every input holds only one value."""
    arrays = [np.asarray(array) for array in tf.nest.flatten(x)]
    # One black image is a valid batch; several are not.
    if all(len(a) > 1 and (a == a.flat[0]).all() for a in arrays):
        raise ValueError(
            "The first batch, which sets the steps, must be real data. Received: "
            f"inputs that are {[a.flat[0].item() for a in arrays]} everywhere. Train "
            "with real data first, or call `tf_lsq.calibrate(model, data)`."
        )


def _check_batched(model: keras.Model, x: Any) -> None:
    """Refuses single examples, as an unbatched dataset yields them."""
    shapes = [np.shape(array) for array in tf.nest.flatten(x)]
    wanted = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != len(wanted):
        return  # Keras says so.
    single = [
        shape
        for shape, whole in zip(shapes, wanted, strict=True)
        if len(shape) == len(whole) - 1 and whole[1:] != (1,)  # Keras adds this axis.
    ]
    if single:
        raise ValueError(
            f"Steps must be set from batches, of shape {wanted}. Received: an array of "
            f"shape {single[0]}, as from an unbatched dataset. Call "
            "`dataset.batch(batch_size)`."
        )


def _check_first_values(
    model: keras.Model, points: list[QuantizationPoint], extremes: dict[str, Extremes]
) -> list[str]:
    """Refuses steps from values that are not finite; returns points with only zeros."""
    chosen = [point for point in points if point.name in extremes]
    lost = [p.name for p in chosen if not np.isfinite(extremes[p.name]).all()]
    if lost:
        for point in chosen:
            point.reset()
        raise ValueError(
            "The first batch, which sets the steps, must give finite values. "
            f"Received {explained(model, lost)}"
        )
    return [point.name for point in chosen if _is_empty(point, extremes[point.name])]


def warn_of_zeros(names: list[str]) -> None:
    """Warns about points that received only zeros."""
    if names:
        warnings.warn(
            "These quantization points have received only zeros: "
            f"{names}. Their steps have an arbitrary value; train longer, or call "
            "`tf_lsq.calibrate(model, data)` with more examples, unless the model "
            "really computes only zeros there.",
            stacklevel=3,
        )


def _is_empty(point: QuantizationPoint, extremes: Extremes) -> bool:
    """Returns whether a point received only zeros from the first batch."""
    low, high = extremes
    return high <= 0.0 and (low == 0.0 or point.quantizer.signed is False)


@contextlib.contextmanager
def batch_norm_statistics_kept(model: keras.Model) -> Iterator[None]:
    """Restores the moving averages of batch norms on exit."""
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
