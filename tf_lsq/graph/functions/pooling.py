"""TensorFlow functions that pool images and sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._compat import keras
from ..lowering import Call
from ..moving import add_padding
from ..nodes import Node
from .recorded import Rows, Unsupported, constant, tensor_argument

layers = keras.layers
_LAYERS = {
    ("max_pool", 3): layers.MaxPooling1D,
    ("max_pool", 4): layers.MaxPooling2D,
    ("average_pool", 3): layers.AveragePooling1D,
    ("average_pool", 4): layers.AveragePooling2D,
}
_LAYOUTS = (None, "NWC", "NHWC")


def _pool(kind: str) -> Callable[[Call], Node]:
    """Returns the lowering of a pooling function."""

    def lower(call: Call) -> Node:
        arguments = call.arguments
        sizes = arguments["ksize"], arguments["strides"], arguments["padding"]
        return _add_pool(call, kind, *sizes)

    return lower


def _any_pool(call: Call) -> Node:
    """``tf.nn.pool``, which has its kind as an argument."""
    arguments = call.arguments
    for name in ("dilations", "dilation_rate"):
        if np.any(constant(arguments.get(name) or 1) != 1):
            raise Unsupported(f"{name} must be 1, received {arguments[name]}")
    kind = {"MAX": "max_pool", "AVG": "average_pool"}[str(arguments["pooling_type"])]
    strides = 1 if arguments["strides"] is None else arguments["strides"]
    return _add_pool(
        call, kind, arguments["window_shape"], strides, arguments["padding"]
    )


def _add_pool(call: Call, kind: str, size: Any, strides: Any, padding: Any) -> Node:
    """Adds a pooling of images or sequences; those are images of height 1."""
    x = tensor_argument(call)
    rank = len(x.shape)
    layout = call.arguments.get("data_format")
    if layout not in _LAYOUTS:
        raise Unsupported(f"data_format must be NHWC or NWC, received {layout}")
    if (kind, rank) not in _LAYERS:
        raise Unsupported(f"images and sequences can be pooled, received {rank} axes")
    if not isinstance(padding, str):
        x, padding = _padded(call, kind, x, padding), "VALID"
    padding = padding.upper()
    if padding not in ("SAME", "VALID"):
        raise Unsupported(f"padding must be SAME or VALID, received {padding}")
    window, steps = _window(size, rank - 2), _window(strides, rank - 2)
    layer = _LAYERS[kind, rank](window, steps, padding.lower(), name=call.name)
    higher = (1,) * (4 - rank)
    options = {"size": higher + window, "strides": higher + steps, "padding": padding}
    return call.add(kind, [x], layer=layer, **options)


def _padded(call: Call, kind: str, x: Node, padding: Any) -> Node:
    """Returns a tensor with zeros around it, which are never the largest values."""
    if kind != "max_pool" or not x.nonnegative():
        raise Unsupported(
            "padding must be SAME or VALID where values can be negative, received "
            f"{padding}; pad with `tf.pad` before a ReLU"
        )
    pairs = constant(padding).tolist()
    return add_padding(call, x, pairs[1:], f"{call.name}_pad")


def _window(value: Any, rank: int) -> tuple[int, ...]:
    """Returns the window or the strides of the axes between batch and channels."""
    sizes = np.ravel(constant(value)).astype(int).tolist()
    if len(sizes) == rank + 2:
        if sizes[0] != 1 or sizes[-1] != 1:
            raise Unsupported(f"batch and channels cannot be pooled, received {sizes}")
        sizes = sizes[1:-1]
    return tuple(sizes * rank if len(sizes) == 1 else sizes)


POOLING_FUNCTIONS: Rows = {
    ("nn.max_pool2d", "nn.max_pool", "nn.max_pool1d", "compat.v1.nn.max_pool"): _pool(
        "max_pool"
    ),
    ("nn.avg_pool2d", "nn.avg_pool", "nn.avg_pool1d", "compat.v1.nn.avg_pool"): _pool(
        "average_pool"
    ),
    ("nn.pool", "compat.v1.nn.pool"): _any_pool,
}
