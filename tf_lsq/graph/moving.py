"""Adds operators that move, repeat or select values to the lowering of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._compat import keras
from .functions.recorded import BatchMoved, Unsupported
from .lowering import Call
from .moving_layers import ConstantPadding, Gather, StridedSlice
from .nodes import Node
from .shape_values import known, sizes

layers = keras.layers
_MAX_BITS = 8
# A larger constant, such as -1e9 before a max pooling, would need all codes of a grid.
_LARGEST = 1e5


def add_identity(call: Call, x: Node, name: str = "") -> Node:
    """Adds an operator that changes nothing, by default with the name of the call."""
    linear = layers.Activation("linear", name=name or call.name)
    return call.add("identity", [x], layer=linear)


def add_reshape(call: Call, x: Node, shape: Any, name: str) -> Node:
    """Adds a reshape.

    Args:
        call: The call it belongs to.
        x: Its input.
        shape: Shape of the output; the batch axis is that of `x`.
        name: Its name.
    """
    return call.add("reshape", [x], layer=layers.Reshape(shape[1:], name=name))


def add_transpose(call: Call, x: Node, perm: list[int], name: str = "") -> Node:
    """Adds a transposition.

    Args:
        call: The call it belongs to.
        x: Its input.
        perm: The axes in their new order.
        name: Its name, by default that of the call.

    Raises:
        BatchMoved: If the batch axis does not stay first.
    """
    if perm[0] != 0:
        raise BatchMoved(f"the batch axis must stay first, received perm={perm}")
    layer = layers.Permute(perm[1:], name=name or call.name)
    return call.add("transpose", [x], layer=layer, perm=tuple(perm))


def add_slice(call: Call, x: Node, bounds: tuple[Any, Any, Any], name: str) -> Node:
    """Adds a strided slice.

    Args:
        call: The call it belongs to.
        x: Its input.
        bounds: Begin, size and strides of every axis but the batch.
        name: Its name.
    """
    layer = StridedSlice(*bounds, name=name)
    return call.add(
        "slice",
        [x],
        layer=layer,
        begin=layer.begin,
        end=layer.end,
        strides=layer.strides,
    )


def reversed_along(call: Call, x: Node, axes: Sequence[int]) -> Node:
    """Adds a slice that goes backwards along axes.

    Args:
        call: The call it belongs to.
        x: Its input.
        axes: The axes.

    Raises:
        Unsupported: If the batch axis is among them.
    """
    lengths = sizes(x.shape, 1)
    begin, strides = [0] * len(lengths), [1] * len(lengths)
    for axis in {batch_kept(axis, len(lengths)) for axis in axes}:
        if lengths[axis] > 1:
            begin[axis], strides[axis] = lengths[axis] - 1, -1
    if not any(begin):
        return add_identity(call, x)
    return add_slice(call, x, (begin[1:], lengths[1:], strides[1:]), call.name)


def add_selection(
    call: Call,
    x: Node,
    selected: Sequence[tuple[int, Sequence[int]]],
    name: str = "",
) -> Node:
    """Adds the operators that select slices of a tensor: slices where that is enough.

    Args:
        call: The call they belong to.
        x: Their input.
        selected: Axis, counted from the batch axis, and indices; one pair per axis.
        name: Name of the last of them, by default that of the call.
    """
    name = name or call.name
    shape = sizes(x.shape, 1)
    steps = [(a, list(i)) for a, i in selected if list(i) != list(range(shape[a]))]
    if not steps:
        return add_identity(call, x, name)
    for number, (axis, indices) in enumerate(steps, start=1):
        own = name if number == len(steps) else f"{name}_{number}"
        bounds = _as_slice(shape, axis, indices)
        if bounds is not None:
            x = add_slice(call, x, bounds, own)
        else:
            layer = Gather(indices, axis, name=own)
            options = {"indices": layer.indices, "axis": axis}
            x = call.add("gather", [x], layer=layer, **options)
        shape = sizes(x.shape, 1)
    return x


def _as_slice(
    shape: Sequence[int], axis: int, indices: Sequence[int]
) -> tuple[Any, Any, Any] | None:
    """Returns begin, size and strides of indices at equal distances, else None."""
    distances = set(np.diff(indices).tolist()) or {1}
    if len(distances) > 1 or 0 in distances:
        return None
    begin, size, strides = [0] * len(shape), list(shape), [1] * len(shape)
    begin[axis], size[axis], [strides[axis]] = indices[0], len(indices), distances
    return begin[1:], size[1:], strides[1:]


def add_padding(
    call: Call, x: Node, paddings: Any, name: str, value: float = 0.0
) -> Node:
    """Adds a padding with a constant.

    Args:
        call: The call it belongs to.
        x: Its input.
        paddings: (before, after) for every axis but the batch.
        name: Its name.
        value: The constant.

    Raises:
        Unsupported: If the grid of `x` cannot hold the constant.
    """
    layer = ConstantPadding(paddings, value, name=name)
    if not value:
        return call.add("pad", [x], layer=layer, paddings=layer.paddings)
    _check_held(x, value)
    options = {"paddings": layer.paddings, "value": layer.value}
    return call.add("pad_constant", [x], layer=layer, **options)


def _check_held(x: Node, value: float) -> None:
    """Refuses a constant that is certainly not on the grid of a tensor."""
    source = x
    while source.inputs and (
        source.properties.keeps_codes or source.properties.keeps_grid
    ):
        source = source.inputs[0]
    low, high = _range(source)
    low = max(low, 0.0 if x.nonnegative() else -_LARGEST)
    if not low <= value <= high:
        raise Unsupported(
            f"padding must use a value that the tensor can have, {low:g} to {high:g}, "
            f"received {value:g}"
        )


def _range(source: Node) -> tuple[float, float]:
    """Returns the smallest and largest value that a grid may hold."""
    step = source.properties.fixed_step
    if step is not None:
        codes = 2**_MAX_BITS if source.nonnegative() else 2 ** (_MAX_BITS - 1)
        return -codes * step, (codes - 1) * step
    largest = 6.0 if source.activation == "relu6" else _LARGEST
    low, high = source.options.get("limits", (-_LARGEST, largest))
    return max(low, -_LARGEST), min(high, _LARGEST)


def constant_padding(call: Call) -> Node:
    """Lowers a `ConstantPadding`."""
    layer = call.layer
    if not layer.value:
        return call.add("pad", paddings=layer.paddings)
    return call.add("pad_constant", paddings=layer.paddings, value=layer.value)


def batch_kept(axis: Any, rank: int) -> int:
    """Returns an axis counted from the batch axis.

    Raises:
        Unsupported: If it is the batch axis.
    """
    found = int(known(axis)) % rank
    if found == 0:
        raise Unsupported("axis must not be the batch axis, received 0")
    return found
