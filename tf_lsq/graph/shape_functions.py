"""TensorFlow functions that move values: reshapes, slices, concatenation, padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compat import keras
from .float_layers import ConstantPadding, StridedSlice
from .lowering import Call
from .nodes import Node
from .recorded import Rows, Unsupported, constant, tensor_argument

layers = keras.layers


def _reshape(call: Call) -> Node:
    """Reshape, squeeze or expand_dims: only the output shape counts."""
    x = tensor_argument(call)
    return _reshaped(call, x, call.shape, call.name)


def _reshaped(call: Call, x: Node, shape: Any, name: str) -> Node:
    """Adds a reshape to `shape`, apart from the batch."""
    if any(size is None for size in shape[1:]):
        raise Unsupported(f"every size but the batch must be known, received {shape}")
    if x.shape[0] != shape[0] and shape[0] is not None:
        raise Unsupported(f"the batch axis must stay, received the shape {shape}")
    return call.add("reshape", [x], layer=layers.Reshape(shape[1:], name=name))


def _transpose(call: Call) -> Node:
    """Transposition that keeps the batch axis first."""
    x = call.arguments["a"]
    perm = call.arguments["perm"]
    perm = list(reversed(range(len(x.shape)))) if perm is None else perm
    perm = [int(axis) for axis in constant(perm)]
    if perm[0] != 0:
        raise Unsupported(f"the batch axis must stay first, received perm={perm}")
    layer = layers.Permute(perm[1:], name=call.name)
    return call.add("transpose", [x], layer=layer, perm=tuple(perm))


def _concat(call: Call) -> Node:
    """Concatenation along any axis but the batch."""
    values, axis = call.arguments["values"], int(constant(call.arguments["axis"]))
    if not all(isinstance(value, Node) for value in values):
        raise Unsupported("constants cannot be concatenated")
    if axis % len(values[0].shape) == 0:
        raise Unsupported("axis must not be the batch axis, received 0")
    layer = layers.Concatenate(axis=axis, name=call.name)
    return call.add("concat", values, layer=layer)


def _pad(call: Call) -> Node:
    """Padding with zeros."""
    mode, value = call.arguments["mode"], call.arguments["constant_values"]
    if str(mode).upper() != "CONSTANT" or np.any(constant(value) != 0):
        raise Unsupported(f"padding must use zeros, received {mode} with {value}")
    paddings = constant(call.arguments["paddings"]).tolist()
    if any(paddings[0]):
        raise Unsupported("the batch axis cannot be padded")
    layer = ConstantPadding(paddings[1:], name=call.name)
    x = call.arguments["tensor"]
    return call.add("pad", [x], layer=layer, paddings=layer.paddings)


def _getitem(call: Call) -> Node:
    """``x[...]``: a strided slice, then a reshape for dropped and new axes."""
    x = call.arguments["tensor"]
    begin, size, strides = _slices(x.shape, call.arguments["slice_spec"])
    whole = (None, *size)
    if whole == tuple(x.shape):
        return _reshaped(call, x, call.shape, call.name)
    plain = len(call.shape) == len(whole) and tuple(call.shape[1:]) == whole[1:]
    name = call.name if plain else f"{call.name}_slice"
    part = _slice(call, x, (begin, size, strides), name)
    return part if plain else _reshaped(call, part, call.shape, call.name)


def _slice(call: Call, x: Node, bounds: tuple[Any, Any, Any], name: str) -> Node:
    """Adds a strided slice."""
    layer = StridedSlice(*bounds, name=name)
    return call.add(
        "slice",
        [x],
        layer=layer,
        begin=layer.begin,
        end=layer.end,
        strides=layer.strides,
    )


def _slices(shape: Any, spec: Any) -> tuple[list[int], list[int], list[int]]:
    """Returns begin, size and strides of an index expression, without the batch."""
    spec = list(spec) if isinstance(spec, list | tuple) else [spec]
    items = [_index(item) for item in spec if item is not None]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        missing = len(shape) - len(items) + 1
        items[at : at + 1] = [slice(None)] * missing
    items += [slice(None)] * (len(shape) - len(items))
    if items[0] != slice(None):
        raise Unsupported("the batch axis must stay whole in a slice")
    begin, size, strides = [], [], []
    for item, length in zip(items[1:], shape[1:], strict=True):
        if length is None:
            raise Unsupported(
                f"every size but the batch must be known, received {shape}"
            )
        if isinstance(item, int):
            item = slice(item % length, item % length + 1)
        first, last, stride = item.indices(length)
        if stride < 1 or last <= first:
            raise Unsupported(f"slices must be non-empty and forward, received {item}")
        begin.append(first)
        size.append(math.ceil((last - first) / stride))
        strides.append(stride)
    return begin, size, strides


def _index(item: Any) -> Any:
    """Returns one index of a recorded slice; Keras records slices as dicts."""
    if item is Ellipsis or isinstance(item, int):
        return item
    if isinstance(item, dict):
        parts = [item["start"], item["stop"], item["step"]]
        return slice(*(None if p is None else int(constant(p)) for p in parts))
    if isinstance(item, slice):
        return item
    return int(constant(item))


def _split(call: Call) -> list[Node]:
    """``tf.split``: one slice per part."""
    x, parts = call.arguments["value"], call.arguments["num_or_size_splits"]
    axis = int(constant(call.arguments["axis"])) % len(x.shape)
    if axis == 0 or x.shape[axis] is None:
        raise Unsupported("axis must not be the batch axis, and its size must be known")
    length = x.shape[axis]
    sizes = np.ravel(constant(parts)).tolist()
    if np.ndim(parts) == 0:
        sizes = [length // parts] * parts
    if -1 in sizes:
        sizes[sizes.index(-1)] = length - sum(sizes) - 1
    slices, begin = [], 0
    for number, size in enumerate(sizes):
        first, full = [0] * (len(x.shape) - 1), list(x.shape[1:])
        first[axis - 1], full[axis - 1] = begin, size
        begin += size
        bounds = (first, full, [1] * len(first))
        slices.append(_slice(call, x, bounds, f"{call.name}_{number}"))
    return slices


SHAPE_FUNCTIONS: Rows = {
    ("reshape", "squeeze", "compat.v1.squeeze", "expand_dims"): _reshape,
    ("transpose", "compat.v1.transpose"): _transpose,
    ("concat",): _concat,
    ("pad", "compat.v1.pad"): _pad,
    ("__operators__.getitem",): _getitem,
    ("split",): _split,
}
