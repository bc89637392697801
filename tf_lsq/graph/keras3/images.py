"""Operations of Keras 3 on kernels, windows and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .products import operands
from .recorder import Recorder, Row, require

_FORMATS = {3: "NWC", 4: "NHWC", 5: "NDHWC"}
_ALL = {"start": None, "stop": None, "step": None}


def _channels_last(record: Recorder) -> None:
    """Refuses channels-first layouts."""
    layout = record.operation.data_format
    require(layout in (None, "channels_last"), f"its data_format is {layout!r}")


def _sizes(value: Any, count: int) -> list[int]:
    """Returns a size per spatial axis."""
    return np.broadcast_to(np.asarray(value), (count,)).tolist()


def _convolution(record: Recorder, x: Any, kernel: Any) -> Any:
    """Convolution."""
    operation = record.operation
    _channels_last(record)
    rank = len(x.shape) - 2
    return record(
        tf.nn.convolution,
        *operands(record, x, kernel),
        strides=_sizes(operation.strides, rank),
        padding=operation.padding.upper(),
        data_format=_FORMATS[len(x.shape)],
        dilations=_sizes(operation.dilation_rate, rank),
    )


def _depthwise(function: Callable[..., Any]) -> Row:
    """Returns the row of a depthwise or separable convolution of images."""

    def row(record: Recorder, x: Any, *kernels: Any) -> Any:
        operation = record.operation
        _channels_last(record)
        require(len(x.shape) == 4, f"its input has {len(x.shape)} axes")
        dilations = _sizes(operation.dilation_rate, 2)
        strides = _sizes(operation.strides, 2)
        require(
            max(dilations) == 1 or max(strides) == 1, "it has strides and dilations"
        )
        return record(
            function,
            *operands(record, x, *kernels),
            strides=[1, *strides, 1],
            padding=operation.padding.upper(),
            dilations=dilations,
        )

    return row


def _pool(by_rank: dict[int, Callable[..., Any]]) -> Row:
    """Returns the row of a pooling, given its function for every rank."""

    def row(record: Recorder, x: Any) -> Any:
        operation = record.operation
        _channels_last(record)
        rank = len(x.shape) - 2
        strides = operation.strides
        strides = operation.pool_size if strides is None else strides
        size, strides = (_sizes(v, rank) for v in (operation.pool_size, strides))
        return record(by_rank[rank], x, size, strides, operation.padding.upper())

    return row


def _resize(record: Recorder, x: Any) -> Any:
    """Resizing of images."""
    operation = record.operation
    _channels_last(record)
    for how in ("crop", "pad"):
        keeps = getattr(operation, f"{how}_to_aspect_ratio", False)
        require(not keeps, f"tf.image.resize does not {how} to the aspect ratio")
    return record(
        tf.image.resize,
        x,
        operation.size,
        method=operation.interpolation,
        antialias=operation.antialias,
    )


def _margins(record: Recorder, x: Any, what: str, sign: int) -> list[tuple[int, int]]:
    """Returns (before, after) for the height and width of images.

    Args:
        record: Of an operation that gives two of before, after, and the size then.
        x: Images.
        what: "padding" or "cropping".
        sign: 1 for a padding, -1 for a cropping.
    """
    operation = record.operation
    _channels_last(record)
    rows = [(-3, "height", "top", "bottom"), (-2, "width", "left", "right")]
    margins = []
    for axis, length, *sides in rows:
        before, after = (getattr(operation, f"{side}_{what}") for side in sides)
        if before is None or after is None:
            require(x.shape[axis] is not None, f"the {length} of its images is unknown")
            total = sign * (getattr(operation, f"target_{length}") - x.shape[axis])
            before = total - after if before is None else before
            after = total - before
        margins.append((int(before), int(after)))
    return margins


def _crop(record: Recorder, x: Any) -> Any:
    """Cropping of images."""
    key = [
        {"start": before, "stop": -after if after else None, "step": None}
        for before, after in _margins(record, x, "cropping", -1)
    ]
    batch = [_ALL] * (len(x.shape) - 3)
    return record(tf.__operators__.getitem, x, [*batch, *key, _ALL])


def _pad(record: Recorder, x: Any) -> Any:
    """Padding of images with zeros."""
    batch = [(0, 0)] * (len(x.shape) - 3)
    return record(tf.pad, x, [*batch, *_margins(record, x, "padding", 1), (0, 0)])


def _colors(function: Callable[..., Any]) -> Row:
    """Returns the row of a conversion between color spaces."""

    def row(record: Recorder, x: Any) -> Any:
        _channels_last(record)
        require(x.shape[-1] == 3, "its images are gray")
        return record(function, x)

    return row


def _patches(record: Recorder, x: Any) -> Any:
    """Windows of images, as channels."""
    operation = record.operation
    _channels_last(record)
    require(len(x.shape) == 4, f"its input has {len(x.shape)} axes")
    strides = operation.size if operation.strides is None else operation.strides
    return record(
        tf.image.extract_patches,
        x,
        sizes=[1, *_sizes(operation.size, 2), 1],
        strides=[1, *_sizes(strides, 2), 1],
        rates=[1, *_sizes(operation.dilation_rate, 2), 1],
        padding=operation.padding.upper(),
    )


IMAGE_ROWS: dict[str, Row] = {
    "AveragePool": _pool(
        {1: tf.nn.avg_pool1d, 2: tf.nn.avg_pool2d, 3: tf.nn.avg_pool3d}
    ),
    "Conv": _convolution,
    "CropImages": _crop,
    "DepthwiseConv": _depthwise(tf.nn.depthwise_conv2d),
    "ExtractPatches": _patches,
    "HSVToRGB": _colors(tf.image.hsv_to_rgb),
    "MaxPool": _pool({1: tf.nn.max_pool1d, 2: tf.nn.max_pool2d, 3: tf.nn.max_pool3d}),
    "PadImages": _pad,
    "RGBToGrayscale": _colors(tf.image.rgb_to_grayscale),
    "RGBToHSV": _colors(tf.image.rgb_to_hsv),
    "Resize": _resize,
    "SeparableConv": _depthwise(tf.nn.separable_conv2d),
}
