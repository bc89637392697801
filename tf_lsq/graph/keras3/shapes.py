"""Operations of Keras 3 that move values: reshapes, slices, concatenation, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .recorder import Recorder, Row, dtype_of, recorded, require


def _reshape(record: Recorder, x: Any) -> Any:
    """Reshape; Keras 3 counts the batch axis."""
    shape = record.operation.newshape
    shape = [shape] if isinstance(shape, int) else shape
    return record(tf.reshape, x, [-1 if size is None else size for size in shape])


def _ravel(record: Recorder, x: Any) -> Any:
    """One axis."""
    return record(tf.reshape, x, [-1])


def _pad(record: Recorder, x: Any, constant_values: Any = None) -> Any:
    """Padding with a constant, or with the values at the edge."""
    operation = record.operation
    pairs = np.asarray(operation.pad_width)
    pairs = np.broadcast_to(pairs, (len(x.shape), 2)).tolist()
    value = 0 if constant_values is None else constant_values
    return record(tf.pad, x, pairs, operation.mode.upper(), value)


def _getitem(record: Recorder, x: Any, key: Any) -> Any:
    """``x[key]``."""
    key = list(key) if isinstance(key, tuple | list) else [key]
    if Ellipsis in key:  # tf_keras does not save it.
        at = key.index(Ellipsis)
        missing = len(x.shape) - sum(part is not None for part in key) + 1
        key[at : at + 1] = [slice(None)] * missing
    return record(tf.__operators__.getitem, x, [_stored_slice(part) for part in key])


def _stored_slice(part: Any) -> Any:
    """Returns one index the way that tf_keras records it."""
    if isinstance(part, slice):
        return {"start": part.start, "stop": part.stop, "step": part.step}
    return int(part) if isinstance(part, np.integer) else part


def _expand(record: Recorder, x: Any) -> Any:
    """New axes of size 1."""
    axes = np.ravel(record.operation.axis)
    rank = len(x.shape) + len(axes)
    *others, last = sorted(int(axis) % rank for axis in axes)
    for axis in others:
        x = record.part(f"axis_{axis}", tf.expand_dims, x, axis)
    return record(tf.expand_dims, x, last)


def _slice(record: Recorder, x: Any, begin: Any) -> Any:
    """A slice of constant size."""
    return record(tf.slice, x, begin, record.operation.shape)


def _split(default_axis: int | None = None) -> Row:
    """Returns the row of a split into parts, or at indices."""

    def row(record: Recorder, x: Any) -> Any:
        axis = getattr(record.operation, "axis", default_axis)
        parts = record.operation.indices_or_sections
        if np.ndim(parts) or type(record.operation).__name__ == "ArraySplit":
            require(x.shape[axis] is not None, "it splits an axis of unknown size")
            parts = _sizes(parts, int(x.shape[axis]))
        return record(tf.split, x, parts, axis)

    return row


def _sizes(parts: Any, size: int) -> list[int]:
    """Returns the sizes of the parts of an axis: a number of parts, or indices."""
    if not np.ndim(parts):
        return [len(part) for part in np.array_split(np.arange(size), parts)]
    bounds = [0, *(int(i) % (size + 1) for i in parts), size]
    require(bounds == sorted(bounds), f"its indices do not increase: {bounds[1:-1]}")
    return np.diff(bounds).tolist()


def _stack(record: Recorder, xs: Any) -> Any:
    """Stacking along a new axis."""
    return record(tf.stack, _alike(record, xs), axis=record.operation.axis)


def _concat(default_axis: int | None = None) -> Row:
    """Returns the row of a concatenation."""

    def row(record: Recorder, xs: Any, *more: Any) -> Any:
        axis = getattr(record.operation, "axis", default_axis)
        require(axis is not None, "it flattens its inputs")
        tensors = [xs, *more] if more else list(xs)
        return record(tf.concat, _alike(record, tensors), axis)

    return row


def _alike(record: Recorder, xs: Any) -> list[Any]:
    """Returns tensors as the type of the output."""
    return [
        record.cast(f"cast_{number}", x, record.dtype)
        for number, x in enumerate(xs, start=1)
    ]


def _take(record: Recorder, x: Any, indices: Any) -> Any:
    """Gathers slices along an axis; constant indices may be negative."""
    axis = record.operation.axis
    require(axis is not None, "it flattens its input")
    if not hasattr(indices, "dtype") or isinstance(indices, np.ndarray):
        size = x.shape[axis]
        require(size is not None, "it takes from an axis of unknown size")
        indices = np.asarray(indices) % size
        indices = indices.astype(np.int32)
    elif "float" in dtype_of(indices):
        indices = record.cast("indices", indices, "int32")
    return record(tf.gather, x, indices, axis=axis)


def _repeat(record: Recorder, x: Any) -> Any:
    """Repeats values along an axis."""
    axis = record.operation.axis
    require(axis is not None, "it flattens its input")
    return record(tf.repeat, x, record.operation.repeats, axis)


def _tile(record: Recorder, x: Any) -> Any:
    """Repeats a whole tensor."""
    repeats = np.ravel(record.operation.repeats).tolist()
    rank = len(x.shape)
    require(len(repeats) <= rank, "it adds axes")
    return record(tf.tile, x, [1] * (rank - len(repeats)) + repeats)


def _roll(record: Recorder, x: Any) -> Any:
    """Moves values along axes, round the end."""
    operation = record.operation
    require(operation.axis is not None, "it flattens its input")
    return record(tf.roll, x, operation.shift, operation.axis)


def _reverse(*axes: int) -> Row:
    """Returns the row of a reversal, along the operation's axes if none are given."""

    def row(record: Recorder, x: Any) -> Any:
        given: Any = axes or record.operation.axis
        given = range(len(x.shape)) if given is None else given
        return record(tf.reverse, x, np.ravel(list(np.atleast_1d(given))).tolist())

    return row


def _swapaxes(record: Recorder, x: Any) -> Any:
    """Exchanges two axes."""
    perm = list(range(len(x.shape)))
    one, other = record.operation.axis1, record.operation.axis2
    perm[one], perm[other] = perm[other], perm[one]
    return record(tf.transpose, x, perm)


def _moveaxis(record: Recorder, x: Any) -> Any:
    """Moves axes to other places."""
    rank = len(x.shape)
    sources, places = (
        [int(axis) % rank for axis in np.ravel(axes)]
        for axes in (record.operation.source, record.operation.destination)
    )
    perm = [axis for axis in range(rank) if axis not in sources]
    for place, source in sorted(zip(places, sources, strict=True)):
        perm.insert(place, source)
    return record(tf.transpose, x, perm)


def _unstack(record: Recorder, x: Any) -> Any:
    """One tensor for every index of an axis."""
    operation = record.operation
    return record(tf.unstack, x, operation.num, operation.axis)


def _broadcast(record: Recorder, x: Any) -> Any:
    """Repeats axes of size 1."""
    shape = list(record.operation.shape)
    require(None not in shape, "its shape is not constant")
    return record(tf.broadcast_to, x, shape)


def _triangle(lower: bool) -> Row:
    """Returns the row of the lower or upper triangle of matrices."""

    def row(record: Recorder, x: Any) -> Any:
        k = record.operation.k
        require(k == 0, f"its diagonal is not the main one, received k={k}")
        limits = (-1, 0) if lower else (0, -1)
        return record(tf.linalg.band_part, x, *limits)

    return row


def _blocks(function: Callable[..., Any]) -> Row:
    """Returns the row of depth_to_space or space_to_depth."""

    def row(record: Recorder, x: Any) -> Any:
        operation = record.operation
        require(operation.data_format == "channels_last", "it is channels_first")
        return record(function, x, operation.block_size)

    return row


SHAPE_ROWS: dict[str, Row] = {
    "Append": _concat(),
    "ArraySplit": _split(),
    "BroadcastTo": _broadcast,
    "Concatenate": _concat(),
    "DepthToSpace": _blocks(tf.nn.depth_to_space),
    "Dsplit": _split(2),
    "Dstack": _concat(2),
    "ExpandDims": _expand,
    "Flip": _reverse(),
    "Fliplr": _reverse(1),
    "Flipud": _reverse(0),
    "GetItem": _getitem,
    "Hsplit": _split(1),
    "Hstack": _concat(1),
    "Moveaxis": _moveaxis,
    "Pad": _pad,
    "Ravel": _ravel,
    "Repeat": _repeat,
    "Reshape": _reshape,
    "Roll": _roll,
    "Slice": _slice,
    "SpaceToDepth": _blocks(tf.nn.space_to_depth),
    "Split": _split(),
    "Squeeze": recorded(tf.squeeze, axis="axis"),
    "Stack": _stack,
    "Swapaxes": _swapaxes,
    "Take": _take,
    "Tile": _tile,
    "Transpose": recorded(tf.transpose, perm="axes"),
    "Tril": _triangle(lower=True),
    "Triu": _triangle(lower=False),
    "Unstack": _unstack,
    "Vsplit": _split(0),
    "Vstack": _concat(0),
}
