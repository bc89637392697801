"""Operations of Keras 3 that reduce axes: sums, extremes, statistics, norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..._compat import import_keras3
from .recorder import Recorder, Row, numeric, recorded, require

_AXES = {"axis": "axis", "keepdims": "keepdims"}


def _reduction(function: Callable[..., Any]) -> Row:
    """Returns the row of a reduction."""
    row = numeric(function, **_AXES)

    def reduce(record: Recorder, x: Any) -> Any:
        require(getattr(record.operation, "initial", None) is None, "it has `initial`")
        return row(record, x)

    return reduce


def _extreme_index(function: Callable[..., Any]) -> Row:
    """Returns the row of argmax or argmin."""

    def row(record: Recorder, x: Any) -> Any:
        axis, keepdims = record.operation.axis, record.operation.keepdims
        require(axis is not None, "it mixes the examples of a batch")
        options = {"axis": axis, "output_type": record.dtype}
        if not keepdims:
            return record(function, x, **options)
        index = record.part("index", function, x, **options)
        return record(tf.expand_dims, index, axis)

    return row


def _cumulative(function: Callable[..., Any]) -> Row:
    """Returns the row of a cumulative sum or product."""

    def row(record: Recorder, x: Any) -> Any:
        axis = record.operation.axis
        require(axis is not None, "it mixes the examples of a batch")
        return record(function, record.cast("cast", x, record.dtype), axis)

    return row


def _average(record: Recorder, x: Any, weights: Any) -> Any:
    """A mean without weights."""
    require(weights is None, "it has weights")
    x = record.cast("cast", x, record.dtype)
    return record(tf.reduce_mean, x, axis=record.operation.axis)


def _norm(record: Recorder, x: Any) -> Any:
    """The Euclidean norm."""
    operation = record.operation
    axes = np.size(operation.axis) if operation.axis is not None else len(x.shape)
    order = operation.ord
    require(
        order is None or (order == 2 and axes == 1) or (order == "fro" and axes == 2),
        f"TensorFlow has no norm of order {order!r} over {axes} axes",
    )
    axis = operation.axis
    if axis is not None and axes == 1:
        [axis] = np.ravel(axis).tolist()  # It may be given as a tuple.
    x = record.cast("cast", x, record.dtype)
    return record(tf.norm, x, axis=axis, keepdims=operation.keepdims)


def _normalize(record: Recorder, x: Any) -> Any:
    """Division by the Euclidean norm."""
    operation = record.operation
    require(operation.order == 2, f"TensorFlow has no norm of order {operation.order}")
    epsilon = operation.epsilon
    epsilon = import_keras3().config.epsilon() if epsilon is None else epsilon
    x = record.cast("cast", x, record.dtype)
    # TensorFlow limits the squared norm.
    return record(tf.math.l2_normalize, x, axis=operation.axis, epsilon=epsilon**2)


def _count_nonzero(record: Recorder, x: Any) -> Any:
    """Number of values that are not 0."""
    axis = record.operation.axis
    return record(tf.math.count_nonzero, x, axis=axis, dtype=record.dtype)


_REDUCTIONS = {
    "All": tf.reduce_all,
    "Amax": tf.reduce_max,
    "Amin": tf.reduce_min,
    "Any": tf.reduce_any,
    "Logsumexp": tf.reduce_logsumexp,
    "Max": tf.reduce_max,
    "Mean": tf.reduce_mean,
    "Min": tf.reduce_min,
    "Prod": tf.reduce_prod,
    "Std": tf.math.reduce_std,
    "Sum": tf.reduce_sum,
    "Var": tf.math.reduce_variance,
}
REDUCTION_ROWS: dict[str, Row] = {
    **{name: _reduction(function) for name, function in _REDUCTIONS.items()},
    "Argmax": _extreme_index(tf.argmax),
    "Argmin": _extreme_index(tf.argmin),
    "Average": _average,
    "CountNonzero": _count_nonzero,
    "Cumprod": _cumulative(tf.math.cumprod),
    "Cumsum": _cumulative(tf.math.cumsum),
    "Moments": recorded(tf.nn.moments, axes="axes", keepdims="keepdims"),
    "Norm": _norm,
    "Normalize": _normalize,
    "TopK": recorded(tf.math.top_k, k="k", sorted="sorted"),
}
