"""TensorFlow functions of images: resizing and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._compat import keras
from .lowering import Call
from .nodes import Node
from .recorded import Rows, Unsupported, constant

layers = keras.layers


def _resize(call: Call) -> Node:
    """``tf.image.resize``."""
    method = str(call.arguments["method"])
    if method not in ("bilinear", "nearest") or call.arguments["antialias"]:
        raise Unsupported(
            f"method must be bilinear or nearest without antialias, received {method}"
        )
    size = tuple(call.shape[1:3])
    layer = layers.Resizing(*size, interpolation=method, name=call.name)
    x = call.arguments["images"]
    return call.add(f"resize_{method}", [x], layer=layer, size=size)


def _pool(layer_class: type, kind: str) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.nn.max_pool2d` or `tf.nn.avg_pool2d`."""

    def lower(call: Call) -> Node:
        size, strides = (_window(call.arguments[name]) for name in ("ksize", "strides"))
        padding = str(call.arguments["padding"])
        if padding not in ("SAME", "VALID"):
            raise Unsupported(f"padding must be SAME or VALID, received {padding}")
        if call.arguments["data_format"] not in (None, "NHWC"):
            raise Unsupported("data_format must be NHWC")
        layer = layer_class(size, strides, padding.lower(), name=call.name)
        x = call.arguments["input"]
        options = {"size": size, "strides": strides, "padding": padding}
        return call.add(kind, [x], layer=layer, **options)

    return lower


def _window(value: Any) -> tuple[int, int]:
    """Returns (height, width) of a window argument."""
    sizes = np.ravel(constant(value)).astype(int).tolist()
    if len(sizes) == 4:
        sizes = sizes[1:3]
    return (sizes[0], sizes[-1])


IMAGE_FUNCTIONS: Rows = {
    ("image.resize",): _resize,
    ("nn.max_pool2d",): _pool(layers.MaxPooling2D, "max_pool"),
    ("nn.avg_pool2d",): _pool(layers.AveragePooling2D, "average_pool"),
}
