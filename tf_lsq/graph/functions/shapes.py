"""TensorFlow functions that give a tensor another shape, or put values around it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..._compat import keras
from ..lowering import Call
from ..moving import (
    add_identity,
    add_padding,
    add_reshape,
    add_transpose,
    batch_kept,
)
from ..moving_layers import MIRRORS, MirrorPadding, StopGradient, ZerosLike
from ..nodes import Layer, Node
from ..shape_values import known, reshaped, sizes
from .recorded import Rows, Unsupported, tensor_argument

layers = keras.layers


def _reshape(call: Call) -> Node:
    """``tf.reshape``; the model may compute the shape from sizes."""
    x = tensor_argument(call)
    shape = reshaped(x.shape, call.arguments["shape"])
    return add_reshape(call, x, shape, call.name)


def _flatten(call: Call) -> Node:
    """Flattens all axes but the batch."""
    x = tensor_argument(call)
    size = int(np.prod(sizes(x.shape, 1)[1:]))
    return add_reshape(call, x, (x.shape[0], size), call.name)


def _expand_dims(call: Call) -> Node:
    """Adds an axis of size 1."""
    x = tensor_argument(call)
    axis = call.arguments.get("dim")
    axis = call.arguments["axis"] if axis is None else axis
    axis = batch_kept(axis, len(x.shape) + 1)
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return add_reshape(call, x, shape, call.name)


def _squeeze(call: Call) -> Node:
    """Drops axes of size 1."""
    x = tensor_argument(call)
    axes = call.arguments.get("squeeze_dims")
    axes = call.arguments["axis"] if axes is None else axes
    found = np.ravel(known([] if axes is None else axes)).tolist()
    if axes is None or not found:
        raise Unsupported(
            "axis must be given, because a batch of one example would be dropped as "
            "well, received None"
        )
    dropped = {batch_kept(axis, len(x.shape)) for axis in found}
    shape = [size for axis, size in enumerate(x.shape) if axis not in dropped]
    return add_reshape(call, x, shape, call.name)


def _transpose(call: Call) -> Node:
    """Transposition that keeps the batch axis first."""
    x = tensor_argument(call)
    perm = call.arguments["perm"]
    if perm is None:
        perm = list(reversed(range(len(x.shape))))
    return add_transpose(call, x, [int(a) % len(x.shape) for a in known(perm)])


def _matrix_transpose(call: Call) -> Node:
    """``tf.linalg.matrix_transpose``: swaps the last two axes."""
    x = tensor_argument(call)
    *kept, first, second = range(len(x.shape))
    return add_transpose(call, x, [*kept, second, first])


def _pad(call: Call) -> Node:
    """Padding with a constant or with mirrored values."""
    mode = str(call.arguments["mode"]).upper()
    pairs = [(int(a), int(b)) for a, b in known(call.arguments["paddings"])]
    if any(pairs[0]):
        raise Unsupported(f"the batch axis cannot be padded, received {pairs[0]}")
    x = tensor_argument(call)
    value = float(known(call.arguments["constant_values"]))
    lowest = mode == "CONSTANT" and value == -np.inf
    if mode in MIRRORS or lowest:
        # The values at an edge leave the maximum of every window as it is.
        mode = "SYMMETRIC" if lowest else mode
        layer = MirrorPadding(pairs[1:], mode, name=call.name)
        options = {"paddings": layer.paddings, "mode": mode, "lowest": lowest}
        return call.add("pad_mirror", [x], layer=layer, **options)
    return add_padding(call, x, pairs[1:], call.name, value)


def _of_layer(kind: str, layer_class: type[Layer]) -> Callable[[Call], Node]:
    """Returns the lowering of a function that is a layer without settings."""

    def lower(call: Call) -> Node:
        return call.add(
            kind, [tensor_argument(call)], layer=layer_class(name=call.name)
        )

    return lower


def _identity(call: Call) -> Node:
    """A function that changes nothing."""
    return add_identity(call, tensor_argument(call))


SHAPE_FUNCTIONS: Rows = {
    ("reshape",): _reshape,
    ("keras.backend.batch_flatten",): _flatten,
    ("expand_dims",): _expand_dims,
    ("squeeze", "compat.v1.squeeze"): _squeeze,
    ("transpose", "compat.v1.transpose"): _transpose,
    ("linalg.matrix_transpose", "linalg.adjoint"): _matrix_transpose,
    ("pad", "compat.v1.pad"): _pad,
    ("zeros_like", "compat.v1.zeros_like"): _of_layer("zeros", ZerosLike),
    ("stop_gradient",): _of_layer("identity", StopGradient),
    ("ensure_shape", "convert_to_tensor"): _identity,
}
