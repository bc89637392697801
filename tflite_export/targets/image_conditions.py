"""Conditions of the rules of the Ethos-U, most of them about images."""

from __future__ import annotations

import math

from ..file import TFLiteGraph, TFLiteOp
from .conditions import constant_values
from .types import Target

LONGEST_STRIDE = 3
WIDEST_PADDED_MEAN = 8
HIGHEST_POOL = 256
LARGEST_POOL = 256 * 256
MOST_POSITIONS = 65_536
MOST_CLASSES = 127


def _values(op: TFLiteOp, names: str) -> tuple[int, int]:
    """Returns an option of height and width, such as "stride_{}"."""
    return (
        int(op.options.get(names.format("h"), 1)),
        int(op.options.get(names.format("w"), 1)),
    )


def _image(op: TFLiteOp, graph: TFLiteGraph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns height and width of the input and of the output."""
    shapes = (graph.tensors[name].shape for name in (op.inputs[0], op.outputs[0]))
    source, output = (shape[-3:-1] for shape in shapes)
    return source, output


def _window(op: TFLiteOp, graph: TFLiteGraph) -> tuple[int, int]:
    """Returns height and width of a pooling window or kernel, dilated."""
    if op.code.endswith("POOL_2D"):
        return int(op.options["filter_height"]), int(op.options["filter_width"])
    height, width = graph.tensors[op.inputs[1]].shape[1:3]
    down, right = _values(op, "dilation_{}_factor")
    return (height - 1) * down + 1, (width - 1) * right + 1


def _is_padded(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether a window reaches beyond its image."""
    source, output = _image(op, graph)
    strides, window = _values(op, "stride_{}"), _window(op, graph)
    axes = zip(source, output, strides, window, strict=True)
    return any((last - 1) * stride + own > size for size, last, stride, own in axes)


def long_padded_stride(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a stride above 3 of a window that is padded or dilated."""
    strides = _values(op, "stride_{}")
    if max(strides) <= LONGEST_STRIDE:
        return ""
    if _is_padded(op, graph):
        return f"strides {strides} with padding"
    dilations = _values(op, "dilation_{}_factor")
    return f"strides {strides}, dilations {dilations}" if max(dilations) > 1 else ""


def long_stride(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a stride above 3."""
    strides = _values(op, "stride_{}")
    return f"strides {strides}" if max(strides) > LONGEST_STRIDE else ""


def wide_padded_mean(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a padded window with a side above 8."""
    window = _window(op, graph)
    wide = max(window) > WIDEST_PADDED_MEAN and _is_padded(op, graph)
    return f"a padded window {window}" if wide else ""


def large_window(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a window that is too high or too large."""
    height, width = _window(op, graph)
    large = height > HIGHEST_POOL or height * width > LARGEST_POOL
    return f"a window {(height, width)}" if large else ""


def mean_of_several(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a mean of a tensor with several images."""
    shape = graph.tensors[op.inputs[0]].shape
    return f"an input {shape}" if math.prod(shape[:-3]) > 1 else ""


def mean_of_image_channels(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a mean over channels where height, width and channels exceed 1."""
    shape = graph.tensors[op.inputs[0]].shape
    axes = [axis % len(shape) for axis in constant_values(op, graph, 1)]
    image = len(shape) > 2 and min((1, 1, *shape)[-3:]) > 1
    return f"an input {shape}" if len(shape) - 1 in axes and image else ""


def _factors(op: TFLiteOp, graph: TFLiteGraph) -> list[float]:
    """Returns by how much the height and the width of an image grow."""
    aligned = bool(op.options.get("align_corners", False))
    return [
        (new - 1) / (old - 1) if aligned and old > 1 else new / old
        for old, new in zip(*_image(op, graph), strict=True)
    ]


def _described_resize(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Describes a resize."""
    source, output = _image(op, graph)
    flags = [n for n in ("align_corners", "half_pixel_centers") if op.options.get(n)]
    return " with ".join([f"{source} to {output}", *flags])


def uneven_resize(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a resize by other factors than 2, 4 or 8; by 2 with half pixels."""
    source, output = _image(op, graph)
    height, width = _factors(op, graph)
    half = op.code == "RESIZE_BILINEAR" and op.options.get("half_pixel_centers")
    if half:
        fits = height == width == 2
    elif height == width:
        fits = height in (2, 4, 8) or source == output
    else:  # One row or column stays one.
        fits = 1 in output and {height, width} in ({1, 2}, {1, 4}, {1, 8})
        fits = fits and min(height, width) == (height, width)[output.index(1)]
    fits = fits or set(source) == {1}
    return "" if fits else _described_resize(op, graph)


def no_power_of_two(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a resize by a factor that is not a power of two."""
    source, _ = _image(op, graph)
    fits = all(
        factor >= 1 and math.log2(factor) % 1 == 0 for factor in _factors(op, graph)
    )
    return "" if fits or set(source) == {1} else _described_resize(op, graph)


def transposed_strides(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds strides of a transposed convolution that are neither all 1 nor all 2."""
    strides = _values(op, "stride_{}")
    if strides in ((1, 1), (2, 2)):
        return ""
    _, height, width, _ = graph.tensors[op.inputs[1]].shape
    _, rows, columns, _ = graph.tensors[op.inputs[2]].shape
    flat = (strides == (1, 2) and height == rows == 1) or (
        strides == (2, 1) and width == columns == 1
    )
    return "" if flat else f"strides {strides}"


def transposed_output(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a transposed convolution whose output is padded or cut."""
    strides = _values(op, "stride_{}")
    kernel = graph.tensors[op.inputs[1]].shape[1:3]
    source = graph.tensors[op.inputs[2]].shape[1:3]
    output = graph.tensors[op.outputs[0]].shape[1:3]
    same = op.options.get("padding") == "SAME"
    expected = tuple(
        size * stride + (0 if same else max(own - stride, 0))
        for size, stride, own in zip(source, strides, kernel, strict=True)
    )
    return "" if output == expected else f"an output {output}, not {expected}"


def different_grids(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds inputs and an output that are not on one grid."""
    names = (*op.inputs, *op.outputs)
    grids = [graph.tensors[name].quantization for name in names]
    return "" if all(grid == grids[0] for grid in grids) else f"{len(names)} grids"


def many_rows(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a softmax at more positions than 65,536."""
    shape = graph.tensors[op.inputs[0]].shape
    return f"an input {shape}" if math.prod(shape[-3:-1]) > MOST_POSITIONS else ""


def index_of_many(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds the largest of other values than at most 127 channels."""
    shape = graph.tensors[op.inputs[0]].shape
    axes = [axis % len(shape) for axis in constant_values(op, graph, 1)]
    fits = axes == [len(shape) - 1] and shape[-1] <= MOST_CLASSES
    return "" if fits else f"axis {axes} of {shape}"


def gathered_axis(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds indices along another axis than the first one behind the batch axes."""
    axis, batch = (op.options.get(name, 0) for name in ("axis", "batch_dims"))
    return "" if axis == batch else f"axis {axis}"


def channel_strides(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds backward strides, and strides along other axes than height and width."""
    strides = constant_values(op, graph, 3)
    others = [*strides[:-3], *strides[-1:]]
    fits = all(stride == 1 for stride in others) and min(strides) > 0
    return "" if fits else f"strides {strides}"


def reversed_axes(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds every reversal."""
    return f"axes {constant_values(op, graph, 1)}"
