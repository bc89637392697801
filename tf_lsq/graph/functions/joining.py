"""TensorFlow functions that join tensors: concatenation and stacking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._compat import keras
from ..lowering import Call
from ..moving import (
    add_identity,
    add_padding,
    add_reshape,
    add_selection,
    add_transpose,
    batch_kept,
)
from ..nodes import Node
from ..shape_values import at_batch_size, sizes
from .recorded import Rows, Unsupported

layers = keras.layers


def _concat(call: Call) -> Node:
    """Concatenation along any axis but the batch."""
    values, axis = list(call.arguments["values"]), call.arguments["axis"]
    tensors = [v for v in values if isinstance(v, Node) and not v.of_shapes]
    if not tensors:
        raise Unsupported("constants cannot be concatenated")
    axis = batch_kept(axis, len(tensors[0].shape))
    if len(tensors) == 1 < len(values):
        return _between_zeros(call, values, tensors[0], axis)
    return add_concat(call, nodes_of(values, "concatenated"), axis, call.name)


def concatenate(call: Call) -> Node:
    """Lowers a `Concatenate` layer, which stays unless its result is simpler."""
    values = call.sources
    axis = int(call.layer.axis) % len(values[0].shape)
    zeros = any(value.kind == "zeros" for value in values)
    if zeros or _selection(values, axis) is not None:
        return add_concat(call, values, axis, call.name)
    return call.add("concat", axis=axis)


def add_concat(call: Call, values: list[Node], axis: int, name: str) -> Node:
    """Adds a concatenation, or what does the same on the grid of one tensor.

    Slices of one tensor are a selection of its slices; zeros are a padding.

    Args:
        call: The call it belongs to.
        values: Its inputs.
        axis: The axis, counted from the batch axis.
        name: Its name.
    """
    if len(values) == 1:
        return add_identity(call, values[0], name)
    selected = _selection(values, axis)
    if selected is not None:
        return add_selection(call, values[0].inputs[0], [(axis, selected)], name)
    others = [value for value in values if value.kind != "zeros"]
    if len(others) == 1:
        at = values.index(others[0])
        parts = values[:at], values[at + 1 :]
        amounts = [sum(sizes(v.shape, 1)[axis] for v in part) for part in parts]
        return _pad_along(call, others[0], axis, amounts, name)
    layer = layers.Concatenate(axis=axis, name=name)
    return call.add("concat", values, layer=layer, axis=axis)


def _between_zeros(call: Call, values: list[Any], x: Node, axis: int) -> Node:
    """Pads a tensor that is concatenated with zeros."""
    amounts = [0, 0]
    for at, value in enumerate(values):
        if value is x:
            continue
        zeros = at_batch_size(value, 1)
        if zeros.any():
            raise Unsupported("constants other than zeros cannot be concatenated")
        amounts[at > values.index(x)] += zeros.shape[axis]
    return _pad_along(call, x, axis, amounts, call.name)


def _pad_along(
    call: Call, x: Node, axis: int, amounts: Sequence[int], name: str
) -> Node:
    """Adds zeros before and after a tensor along one axis."""
    paddings = [(0, 0)] * (len(x.shape) - 1)
    paddings[axis - 1] = amounts[0], amounts[1]
    return add_padding(call, x, paddings, name)


def _selection(values: list[Node], axis: int) -> list[int] | None:
    """Returns the indices along an axis that slices of one tensor select, or None."""
    if any(value.kind != "slice" for value in values):
        return None
    source, indices = values[0].inputs[0], []
    if any(value.inputs[0] is not source for value in values):
        return None
    for value in values:
        begin, end, strides = (value.options[n] for n in ("begin", "end", "strides"))
        parts = list(zip(begin, end, strides, strict=True))
        first, last, stride = parts.pop(axis - 1)
        others = [size for at, size in enumerate(source.shape[1:], 1) if at != axis]
        if any(part != (0, size, 1) for part, size in zip(parts, others, strict=True)):
            return None
        indices += range(first, last, stride)
    return indices


def _stack(call: Call) -> Node:
    """``tf.stack``: a concatenation, then a reshape."""
    values = nodes_of(call.arguments["values"], "stacked")
    rank = len(values[0].shape)
    axis = batch_kept(call.arguments["axis"], rank + 1)
    parts = [_slice_before(value, axis) for value in values]
    slices = [part for part in parts if part is not None]
    if len(slices) == len(parts) and _selection(slices, axis) is not None:
        return add_concat(call, slices, axis, call.name)
    at = min(axis, rank - 1)
    size = values[0].shape[at]
    joined = add_concat(call, values, at, f"{call.name}_concat")
    shape = [*joined.shape[:at], len(values), size, *joined.shape[at + 1 :]]
    if axis < rank:
        return add_reshape(call, joined, shape, call.name)
    split = add_reshape(call, joined, shape, f"{call.name}_reshape")
    return add_transpose(call, split, [*range(rank - 1), rank, rank - 1])


def _slice_before(value: Node, axis: int) -> Node | None:
    """Returns the slice of size 1 whose axis was dropped to give a tensor, or None."""
    if value.kind != "reshape" or value.inputs[0].kind != "slice":
        return None
    shape = list(value.inputs[0].shape)
    return value.inputs[0] if shape.pop(axis) == 1 and shape == [*value.shape] else None


def nodes_of(values: Any, what: str) -> list[Node]:
    """Returns several tensors.

    Raises:
        Unsupported: If some of them are constants.
    """
    values = list(values) if isinstance(values, list | tuple) else [values]
    if not all(isinstance(value, Node) for value in values):
        raise Unsupported(f"constants cannot be {what}")
    return values


JOINING_FUNCTIONS: Rows = {
    ("concat",): _concat,
    ("stack",): _stack,
}
