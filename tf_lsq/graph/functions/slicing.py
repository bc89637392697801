"""TensorFlow functions that take parts of a tensor: slices, indices, splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..lowering import Call
from ..moving import add_identity, add_reshape, add_slice, batch_kept
from ..nodes import Node
from ..shape_values import by_axis, known, sizes
from .recorded import Rows, Unsupported, tensor_argument

_WHOLE = slice(None)


def _getitem(call: Call) -> Node:
    """``x[...]``: a strided slice, then a reshape for dropped and new axes."""
    spec = call.arguments["slice_spec"]
    return _indexed(call, list(spec) if isinstance(spec, list | tuple) else [spec])


def _indexed(call: Call, spec: list[Any]) -> Node:
    """Lowers an index expression."""
    x = tensor_argument(call)
    items = _complete([_index(item) for item in spec], len(x.shape))
    lengths = sizes(x.shape, 1)
    bounds: tuple[list[int], list[int], list[int]] = ([], [], [])
    shape, axis = [x.shape[0]], 1
    for item in items:
        if item is None:
            shape.append(1)
            continue
        begin, size, stride = _bounds(item, lengths[axis])
        for values, value in zip(bounds, (begin, size, stride), strict=True):
            values.append(value)
        shape += [] if isinstance(item, int) else [size]
        axis += 1
    return _sliced(call, x, bounds, shape)


def _sliced(
    call: Call, x: Node, bounds: tuple[Any, Any, Any], shape: Sequence[int | None]
) -> Node:
    """Adds a slice and a reshape, as far as they change anything."""
    size = [x.shape[0], *bounds[1]]
    plain = list(shape) == size
    if tuple(size) == tuple(x.shape) and set(bounds[2]) <= {1}:
        if plain:
            return add_identity(call, x)
        return add_reshape(call, x, shape, call.name)
    if plain:
        return add_slice(call, x, bounds, call.name)
    part = add_slice(call, x, bounds, f"{call.name}_slice")
    return add_reshape(call, part, shape, call.name)


def _complete(items: list[Any], rank: int) -> list[Any]:
    """Returns an index expression for every axis but the batch, without ellipsis."""
    given = sum(item is not None and item is not Ellipsis for item in items)
    missing = [_WHOLE] * (rank - given)
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items = items[:at] + missing + items[at + 1 :]
    else:
        items = items + missing
    if items[0] not in (
        _WHOLE,
        slice(0, None),
        slice(0, None, 1),
        slice(None, None, 1),
    ):
        raise Unsupported("the batch axis must stay first and whole in a slice")
    return items[1:]


def _bounds(item: Any, length: int) -> tuple[int, int, int]:
    """Returns begin, size and stride of one index or slice of an axis."""
    if isinstance(item, int):
        if not -length <= item < length:
            raise Unsupported(f"index {item} is out of range for a size of {length}")
        return item % length, 1, 1
    if item.step == 0:
        raise Unsupported(f"slices must have a stride, received {item}")
    indices = range(length)[item]
    if not indices:
        raise Unsupported(f"slices must not be empty, received {item}")
    stride = indices.step if len(indices) > 1 else max(indices.step, 1)
    return indices[0], len(indices), stride


def _index(item: Any) -> Any:
    """Returns one index of a recorded slice; Keras records slices as dicts."""
    if item is Ellipsis or item is None or isinstance(item, int):
        return item
    if isinstance(item, dict):
        item = slice(item["start"], item["stop"], item["step"])
    if isinstance(item, slice):
        parts = (item.start, item.stop, item.step)
        return slice(*(None if part is None else int(known(part)) for part in parts))
    value = known(item)
    if value.ndim or not np.issubdtype(value.dtype, np.integer):
        raise Unsupported("indices must be integers and slices, received an array")
    return int(value)


def _slice(call: Call) -> Node:
    """``tf.slice``; a size of -1 goes to the end."""
    x = call.arguments["input_"]
    begin = known(call.arguments["begin"]).tolist()
    size = by_axis(call.arguments["size"], x.shape)
    spec = [
        slice(first, None if number in (None, -1) else first + number)
        for first, number in zip(begin, size, strict=True)
    ]
    return _indexed(call, spec)


def _strided_slice(call: Call) -> Node:
    """``tf.strided_slice`` with its masks."""
    x, arguments = call.arguments["input_"], call.arguments
    begin = known(arguments["begin"]).tolist()
    end, strides = by_axis(arguments["end"], x.shape), arguments["strides"]
    strides = [1] * len(begin) if strides is None else known(strides).tolist()

    def masked(name: str, axis: int) -> bool:
        return bool(arguments[f"{name}_mask"] & (1 << axis))

    spec: list[Any] = []
    for axis, (first, last, stride) in enumerate(zip(begin, end, strides, strict=True)):
        if masked("ellipsis", axis):
            spec.append(Ellipsis)
        elif masked("new_axis", axis):
            spec.append(None)
        elif masked("shrink_axis", axis):
            spec.append(first)
        else:
            low = None if masked("begin", axis) else first
            high = None if masked("end", axis) else last
            spec.append(slice(low, high, stride))
    return _indexed(call, spec)


def _split(call: Call) -> list[Node]:
    """``tf.split``: one slice per part."""
    x, parts = tensor_argument(call), known(call.arguments["num_or_size_splits"])
    axis = batch_kept(call.arguments["axis"], len(x.shape))
    length = sizes(x.shape, 1)[axis]
    lengths = np.ravel(parts).tolist()
    if parts.ndim == 0:
        lengths = [length // int(parts)] * int(parts)
    if -1 in lengths:
        lengths[lengths.index(-1)] = length - sum(lengths) - 1
    slices, first = [], 0
    for number, size in enumerate(lengths):
        bounds = _part(x, axis, first, size)
        slices.append(add_slice(call, x, bounds, f"{call.name}_{number}"))
        first += size
    return slices


def _unstack(call: Call) -> list[Node]:
    """``tf.unstack``: one slice and one reshape per part."""
    x = tensor_argument(call)
    axis = batch_kept(call.arguments["axis"], len(x.shape))
    shape = [size for at, size in enumerate(x.shape) if at != axis]
    parts = []
    for number in range(sizes(x.shape, 1)[axis]):
        name = f"{call.name}_{number}"
        bounds = _part(x, axis, number, 1)
        part = add_slice(call, x, bounds, f"{name}_slice")
        parts.append(add_reshape(call, part, shape, name))
    return parts


def _part(
    x: Node, axis: int, first: int, size: int
) -> tuple[list[int], list[int], list[int]]:
    """Returns begin, size and strides of a part of a tensor along one axis."""
    lengths = list(sizes(x.shape, 1))
    begin, strides = [0] * len(lengths), [1] * len(lengths)
    begin[axis], lengths[axis] = first, size
    return begin[1:], lengths[1:], strides[1:]


SLICING_FUNCTIONS: Rows = {
    ("__operators__.getitem",): _getitem,
    ("slice",): _slice,
    ("strided_slice",): _strided_slice,
    ("split",): _split,
    ("unstack",): _unstack,
}
