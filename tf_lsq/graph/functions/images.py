"""TensorFlow functions that crop, pad, flip and shuffle images."""

from __future__ import annotations

from collections.abc import Callable

from ..._compat import keras
from ..lowering import Call
from ..moving import (
    add_identity,
    add_padding,
    add_slice,
    add_transpose,
    reversed_along,
)
from ..moving_layers import DepthToSpace, SpaceToDepth
from ..nodes import Node
from ..shape_values import known, sizes
from .recorded import Rows, Unsupported, constant, tensor_argument

layers = keras.layers


# --- Cropping and padding ------------------------------------------------------------


def images(call: Call) -> tuple[Node, tuple[int, int]]:
    """Returns a batch of images with their height and width.

    Raises:
        Unsupported: If it is not a batch of images.
    """
    [x] = call.sources if not call.arguments else [tensor_argument(call)]
    if len(x.shape) != 4:
        raise Unsupported(
            f"it must read images [batch, height, width, channels], received {x.shape}"
        )
    _, height, width, _ = sizes(x.shape, 1)
    return x, (height, width)


def _cropped(
    call: Call, x: Node, offset: tuple[int, int], size: tuple[int, int], name: str
) -> Node:
    """Adds a crop of images."""
    channels = sizes(x.shape, 1)[-1]
    bounds = ((*offset, 0), (*size, channels), (1, 1, 1))
    return add_slice(call, x, bounds, name)


def framed(call: Call, x: Node, offset: tuple[int, int], size: tuple[int, int]) -> Node:
    """Adds the zeros around images that give them a size."""
    own = sizes(x.shape, 1)[1:3]
    pairs = [
        (before, whole - before - inner)
        for before, whole, inner in zip(offset, size, own, strict=True)
    ]
    if not any(map(any, pairs)):
        return add_identity(call, x)
    return add_padding(call, x, [*pairs, (0, 0)], call.name)


def _boxed(call: Call) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns offset and size of a bounding box."""
    names = ("offset_height", "offset_width", "target_height", "target_width")
    top, left, height, width = (int(known(call.arguments[name])) for name in names)
    return (top, left), (height, width)


def _crop_to_box(call: Call) -> Node:
    """``tf.image.crop_to_bounding_box``."""
    x, _ = images(call)
    return _cropped(call, x, *_boxed(call), call.name)


def _pad_to_box(call: Call) -> Node:
    """``tf.image.pad_to_bounding_box``."""
    x, _ = images(call)
    return framed(call, x, *_boxed(call))


def _central_crop(call: Call) -> Node:
    """``tf.image.central_crop``."""
    x, (height, width) = images(call)
    fraction = float(known(call.arguments["central_fraction"]))
    top, left = (int((size - size * fraction) / 2) for size in (height, width))
    if top == left == 0:
        return add_identity(call, x)
    size = height - 2 * top, width - 2 * left
    return _cropped(call, x, (top, left), size, call.name)


def _crop_or_pad(call: Call) -> Node:
    """``tf.image.resize_with_crop_or_pad``: a central crop, then zeros around it."""
    x, old = images(call)
    names = ("target_height", "target_width")
    target = [int(known(call.arguments[name])) for name in names]
    pairs = list(zip(old, target, strict=True))
    offset = [max((own - wanted) // 2, 0) for own, wanted in pairs]
    inner = min(pairs[0]), min(pairs[1])
    if inner != old:
        padded = inner != tuple(target)
        name = f"{call.name}_crop" if padded else call.name
        x = _cropped(call, x, (offset[0], offset[1]), inner, name)
        if not padded:
            return x
    before = [max((wanted - own) // 2, 0) for own, wanted in pairs]
    return framed(call, x, (before[0], before[1]), (target[0], target[1]))


def center_crop(call: Call) -> Node:
    """Lowers `CenterCrop`, which resizes images that are smaller than the crop."""
    x, old = images(call)
    size = call.layer.height, call.layer.width
    if any(own < wanted for own, wanted in zip(old, size, strict=True)):
        raise Unsupported(f"images must be at least {size}, received {old}")
    top, left = ((own - wanted) // 2 for own, wanted in zip(old, size, strict=True))
    return _cropped(call, x, (top, left), size, call.name)


# --- Moving pixels -------------------------------------------------------------------


def _flip(axis: int) -> Callable[[Call], Node]:
    """Returns the lowering of a flip of images along an axis."""

    def lower(call: Call) -> Node:
        x, _ = images(call)
        return reversed_along(call, x, [axis])

    return lower


def _transposed(call: Call) -> Node:
    """``tf.image.transpose``: swaps height and width."""
    x, _ = images(call)
    return add_transpose(call, x, [0, 2, 1, 3])


def _rotate(call: Call) -> Node:
    """``tf.image.rot90``: rotates counter-clockwise by multiples of 90 degrees."""
    x, _ = images(call)
    turns = int(known(call.arguments["k"])) % 4
    if turns == 0:
        return add_identity(call, x)
    if turns == 2:
        return reversed_along(call, x, [1, 2])
    swapped = add_transpose(call, x, [0, 2, 1, 3], f"{call.name}_transpose")
    return reversed_along(call, swapped, [1 if turns == 1 else 2])


def _shuffle(kind: str, layer_class: type) -> Callable[[Call], Node]:
    """Returns the lowering of `depth_to_space` or `space_to_depth`."""

    def lower(call: Call) -> Node:
        layout = call.arguments["data_format"]
        if layout not in (None, "NHWC"):
            raise Unsupported(f"data_format must be NHWC, received {layout}")
        x, _ = images(call)
        layer = layer_class(int(constant(call.arguments["block_size"])), name=call.name)
        return call.add(kind, [x], layer=layer, block_size=layer.block_size)

    return lower


def _patches(call: Call) -> Node:
    """``tf.image.extract_patches`` of square patches that do not overlap."""
    x, (height, width) = images(call)
    arguments = call.arguments
    given = arguments.get("sizes", arguments.get("ksizes"))
    parts = (given, arguments["strides"], arguments["rates"])
    patch, strides, rates = (known(part).tolist() for part in parts)
    size = patch[1]
    square = patch == [1, size, size, 1] and rates == [1, 1, 1, 1]
    if not square or strides != patch:
        raise Unsupported(
            "patches must be square and not overlap, received "
            f"sizes={patch}, strides={strides}, rates={rates}"
        )
    inner = height // size * size, width // size * size
    if inner != (height, width):
        if str(call.arguments["padding"]).upper() != "VALID":
            raise Unsupported("padding must be VALID, or the patches must fit")
        x = _cropped(call, x, (0, 0), inner, f"{call.name}_crop")
    layer = SpaceToDepth(size, name=call.name)
    return call.add("space_to_depth", [x], layer=layer, block_size=size)


_BLOCKS = {
    "depth_to_space": _shuffle("depth_to_space", DepthToSpace),
    "space_to_depth": _shuffle("space_to_depth", SpaceToDepth),
}

IMAGE_FUNCTIONS: Rows = {
    ("image.resize_with_crop_or_pad",): _crop_or_pad,
    ("image.central_crop",): _central_crop,
    ("image.crop_to_bounding_box",): _crop_to_box,
    ("image.pad_to_bounding_box",): _pad_to_box,
    ("image.flip_left_right",): _flip(2),
    ("image.flip_up_down",): _flip(1),
    ("image.transpose",): _transposed,
    ("image.rot90",): _rotate,
    ("image.extract_patches", "compat.v1.image.extract_image_patches"): _patches,
    **{(f"nn.{n}", f"compat.v1.nn.{n}"): lower for n, lower in _BLOCKS.items()},
}
