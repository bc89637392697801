"""TensorFlow functions that resize images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._compat import keras
from ..lowering import Call
from ..moving import add_identity
from ..moving_layers import ImageResizing
from ..nodes import Node
from ..shape_values import known, sizes
from .images import framed, images
from .recorded import Rows, Unsupported

layers = keras.layers
# `tf.image.ResizeMethod` of TensorFlow 1 has numbers.
_METHODS = {"0": "bilinear", "1": "nearest"}


def _resize(call: Call) -> Node:
    """``tf.image.resize``."""
    if call.arguments["antialias"]:
        raise Unsupported("antialias must be False")
    return _resized(call, call.arguments["method"], _new_size(call))


def _resize_images(call: Call) -> Node:
    """``tf.compat.v1.image.resize_images``."""
    corners = bool(call.arguments["align_corners"])
    return _resized(call, call.arguments["method"], _new_size(call), corners, False)


def _resize_by(method: str) -> Callable[[Call], Node]:
    """Returns the lowering of ``tf.compat.v1.image.resize_bilinear`` and the like."""

    def lower(call: Call) -> Node:
        corners, centers = (
            bool(call.arguments[name])
            for name in ("align_corners", "half_pixel_centers")
        )
        return _resized(call, method, _new_size(call), corners, centers)

    return lower


def _new_size(call: Call) -> tuple[int, int]:
    """Returns the new height and width."""
    size = known(call.arguments["size"]).tolist()
    if call.arguments.get("preserve_aspect_ratio"):
        _, *size, _ = sizes(call.shape, 1)
    height, width = size
    return int(height), int(width)


def _resized(
    call: Call,
    method: Any,
    size: tuple[int, int],
    align_corners: bool = False,
    half_pixel_centers: bool = True,
    name: str = "",
) -> Node:
    """Adds a resizing.

    Args:
        call: The call it belongs to.
        method: Name or number of the method.
        size: The new height and width.
        align_corners: Whether the corner pixels keep their place.
        half_pixel_centers: Whether a pixel's value is at its center.
        name: Its name, by default that of the call.
    """
    x, old = images(call)
    name = name or call.name
    method = _METHODS.get(str(method), str(method))
    if method not in _METHODS.values():
        raise Unsupported(f"method must be bilinear or nearest, received {method}")
    if size == old:
        return add_identity(call, x, name)
    if half_pixel_centers and not align_corners:
        layer = layers.Resizing(*size, interpolation=method, name=name)
        return call.add(f"resize_{method}", [x], layer=layer, size=size)
    if half_pixel_centers:
        raise Unsupported("half_pixel_centers must be False with align_corners")
    layer = ImageResizing(size, method, align_corners, False, name=name)
    return call.add(f"resize_{method}", [x], layer=layer, **resize_options(layer))


def resize_options(layer: ImageResizing) -> dict[str, Any]:
    """Returns the settings of the operator of an `ImageResizing`."""
    return {
        "size": layer.size,
        "align_corners": layer.align_corners,
        "half_pixel_centers": layer.half_pixel_centers,
    }


def _resize_with_pad(call: Call) -> Node:
    """``tf.image.resize_with_pad``: keeps the aspect ratio, and pads with zeros."""
    arguments = call.arguments
    if arguments.get("antialias"):
        raise Unsupported("antialias must be False")
    _, old = images(call)
    target = [int(known(arguments[f"target_{n}"])) for n in ("height", "width")]
    # In float32, as TensorFlow computes it.
    ratio = max(np.float32(o) / np.float32(t) for o, t in zip(old, target, strict=True))
    exact = [np.float32(own) / ratio for own in old]
    size = int(exact[0]), int(exact[1])
    before = [
        max(0, int((wanted - own) / 2))
        for wanted, own in zip(target, exact, strict=True)
    ]
    corners = arguments.get("align_corners")  # Only in TensorFlow 1.
    sampling = bool(corners), corners is None
    name = f"{call.name}_resize"
    x = _resized(call, arguments["method"], size, *sampling, name=name)
    return framed(call, x, (before[0], before[1]), (target[0], target[1]))


RESIZING_FUNCTIONS: Rows = {
    ("image.resize",): _resize,
    ("compat.v1.image.resize_images", "compat.v1.image.resize"): _resize_images,
    ("compat.v1.image.resize_bilinear",): _resize_by("bilinear"),
    ("compat.v1.image.resize_nearest_neighbor",): _resize_by("nearest"),
    (
        "image.resize_with_pad",
        "compat.v1.image.resize_image_with_pad",
    ): _resize_with_pad,
}
