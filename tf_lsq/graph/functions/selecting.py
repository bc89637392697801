"""TensorFlow functions that repeat, reorder or select slices of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..lowering import Call
from ..moving import add_reshape, add_selection, batch_kept, reversed_along
from ..nodes import Node
from ..shape_values import by_axis, known, sizes
from .recorded import Rows, Unsupported, tensor_argument


def _gather(call: Call) -> Node:
    """``tf.gather`` with constant indices, of any shape."""
    x = call.arguments["params"]
    if not isinstance(x, Node):
        raise Unsupported("it must select slices of a tensor, received a constant")
    if int(call.arguments["batch_dims"]):
        raise Unsupported("batch_dims must be 0")
    axis = call.arguments["axis"]
    axis = batch_kept(0 if axis is None else axis, len(x.shape))
    indices, length = known(call.arguments["indices"]), sizes(x.shape, 1)[axis]
    if not indices.size or indices.min() < 0 or indices.max() >= length:
        raise Unsupported(f"indices must be from 0 to {length - 1}, received {indices}")
    flat = np.ravel(indices).tolist()
    if indices.ndim == 1:
        return add_selection(call, x, [(axis, flat)])
    selected = add_selection(call, x, [(axis, flat)], f"{call.name}_gather")
    shape = [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]]
    return add_reshape(call, selected, shape, call.name)


def _reverse(call: Call) -> Node:
    """``tf.reverse``: a slice that goes backwards."""
    x = tensor_argument(call)
    axes = np.ravel(known(call.arguments["axis"])).tolist()
    return reversed_along(call, x, axes)


def _tile(call: Call) -> Node:
    """``tf.tile``: repeats a tensor as a whole."""
    x = tensor_argument(call)
    return _repeated(call, x, _batch_once(known(call.arguments["multiples"])))


def _batch_once(multiples: np.ndarray) -> list[int]:
    """Returns how often each axis is repeated.

    Raises:
        Unsupported: If the batch is repeated.
    """
    first, *others = (int(multiple) for multiple in multiples)
    if first != 1 or min(others, default=1) < 1:
        raise Unsupported(
            f"the batch axis cannot be repeated, received {multiples.tolist()}"
        )
    return [first, *others]


def _repeated(call: Call, x: Node, multiples: Sequence[int]) -> Node:
    """Adds the operators that repeat a tensor along each axis."""
    lengths = sizes(x.shape, 1)
    pairs = enumerate(zip(lengths, multiples, strict=True))
    selected = [(axis, list(range(length)) * times) for axis, (length, times) in pairs]
    return add_selection(call, x, selected)


def _broadcast_to(call: Call) -> Node:
    """``tf.broadcast_to`` with as many axes: repeats axes of size 1."""
    x = tensor_argument(call)
    target = by_axis(call.arguments["shape"], x.shape)
    if len(target) != len(x.shape) or target[0] is not None:
        raise Unsupported(
            "the batch axis and the number of axes must stay, received the shape "
            f"{target} for {list(x.shape)}"
        )
    pairs = zip(target[1:], sizes(x.shape, 1)[1:], strict=True)
    return _repeated(call, x, [1, *(int(size or 1) // own for size, own in pairs)])


def _repeat(call: Call) -> Node:
    """``tf.repeat``: repeats every slice along an axis."""
    x, axis = tensor_argument(call), call.arguments["axis"]
    if axis is None:
        raise Unsupported("axis must be given, excluding the batch, received None")
    axis = batch_kept(axis, len(x.shape))
    indices = np.arange(sizes(x.shape, 1)[axis])
    repeated = np.repeat(indices, known(call.arguments["repeats"])).tolist()
    return add_selection(call, x, [(axis, repeated)])


def _roll(call: Call) -> Node:
    """``tf.roll`` by constants."""
    x = tensor_argument(call)
    shifts, axes = (
        np.ravel(known(call.arguments[name])).tolist() for name in ("shift", "axis")
    )
    order = {axis: np.arange(size) for axis, size in enumerate(sizes(x.shape, 1))}
    for shift, axis in zip(shifts, axes, strict=True):
        axis = batch_kept(axis, len(x.shape))
        order[axis] = np.roll(order[axis], shift)
    return add_selection(call, x, [(a, i.tolist()) for a, i in order.items() if a])


def repeat_vector(call: Call) -> Node:
    """Lowers `RepeatVector`."""
    [x] = call.sources
    column = add_reshape(call, x, (x.shape[0], 1, x.shape[1]), f"{call.name}_reshape")
    return _repeated(call, column, [1, call.layer.n, 1])


def up_sampling_3d(call: Call) -> Node:
    """Lowers `UpSampling3D`, which repeats every slice along three axes."""
    [x] = call.sources
    lengths = sizes(x.shape, 1)[1:4]
    pairs = enumerate(zip(lengths, call.layer.size, strict=True), start=1)
    selected = [
        (axis, np.repeat(range(n), times).tolist()) for axis, (n, times) in pairs
    ]
    return add_selection(call, x, selected)


SELECTING_FUNCTIONS: Rows = {
    ("gather", "compat.v1.gather"): _gather,
    ("reverse",): _reverse,
    ("tile",): _tile,
    ("broadcast_to",): _broadcast_to,
    ("repeat",): _repeat,
    ("roll",): _roll,
}
