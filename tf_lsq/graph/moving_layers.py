"""Float layers that move, repeat or select values, and that Keras does not have.

The graph analysis replaces `x[:, 1:]`, `tf.pad`, `tf.gather` and the like with them, as
`float_layers` does for functions that compute values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from .float_layers import SettingsLayer

MIRRORS = ("REFLECT", "SYMMETRIC")
_RESIZE = {
    "bilinear": tf.raw_ops.ResizeBilinear,
    "nearest": tf.raw_ops.ResizeNearestNeighbor,
}


@keras.utils.register_keras_serializable(package="tf_lsq")
class StridedSlice(SettingsLayer):
    """Returns a strided slice of a tensor; the batch axis is kept whole.

    Args:
        begin: First index along every axis but the batch.
        size: How many indices are taken along every axis but the batch.
        strides: Distance between the indices; negative ones go backwards.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("begin", "size", "strides")

    def __init__(
        self,
        begin: Sequence[int],
        size: Sequence[int],
        strides: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.begin, self.size, self.strides = map(tuple, (begin, size, strides))

    @property
    def end(self) -> tuple[int, ...]:
        """Index after the last one along every axis but the batch.

        It is -1, "before the first", where a slice goes backwards to index 0.
        """
        rows = zip(self.begin, self.size, self.strides, strict=True)
        return tuple(
            begin + (size - 1) * stride + (1 if stride > 0 else -1)
            for begin, size, stride in rows
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the slice, shape ``[batch, *size]``."""
        rows = zip(self.begin, self.end, self.strides, strict=True)
        parts = [slice(b, None if e < 0 else e, stride) for b, e, stride in rows]
        return inputs[(slice(None), *parts)]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns ``(batch, *size)``."""
        return (input_shape[0], *self.size)


@keras.utils.register_keras_serializable(package="tf_lsq")
class Gather(SettingsLayer):
    """Selects slices of a tensor along one axis, in any order and number.

    Args:
        indices: Indices of the slices, none negative.
        axis: The axis, counted from 1 after the batch axis.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("indices", "axis")

    def __init__(self, indices: Sequence[int], axis: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.indices, self.axis = tuple(int(i) for i in indices), int(axis)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the selected slices, shape of `inputs` apart from the axis."""
        return tf.gather(inputs, np.array(self.indices, np.int32), axis=self.axis)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape with as many slices as there are indices."""
        shape = list(input_shape)
        shape[self.axis] = len(self.indices)
        return tuple(shape)


class _Padding(SettingsLayer):
    """A layer that adds values around a tensor, along any axis but the batch.

    Attributes:
        paddings: (before, after) for every axis but the batch.
    """

    paddings: tuple[tuple[int, int], ...]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the padded shape."""
        pairs = zip(input_shape[1:], self.paddings, strict=True)
        return (input_shape[0], *(size + sum(pair) for size, pair in pairs))


def _pairs(paddings: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Returns amounts of padding as integers."""
    return tuple((int(before), int(after)) for before, after in paddings)


@keras.utils.register_keras_serializable(package="tf_lsq")
class ConstantPadding(_Padding):
    """Pads a tensor with a constant along any axis but the batch.

    Args:
        paddings: (before, after) for every axis but the batch.
        value: The constant.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("paddings", "value")

    def __init__(
        self, paddings: Sequence[Sequence[int]], value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.paddings, self.value = _pairs(paddings), float(value)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the padded tensor."""
        paddings = [(0, 0), *self.paddings]
        if any(paddings[-1]):
            # oneDNN fuses `Pad` with the convolution behind it, as if it padded height
            # and width.
            value = tf.cast(self.value, inputs.dtype)
            return tf.raw_ops.PadV2(
                input=inputs, paddings=paddings, constant_values=value
            )
        return tf.pad(inputs, paddings, constant_values=self.value)


@keras.utils.register_keras_serializable(package="tf_lsq")
class MirrorPadding(_Padding):
    """Pads a tensor with its own values, mirrored at the edges.

    Args:
        paddings: (before, after) for every axis but the batch.
        mode: "REFLECT", which does not repeat the value at the edge, or "SYMMETRIC",
            which does.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("paddings", "mode")

    def __init__(
        self, paddings: Sequence[Sequence[int]], mode: str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if mode not in MIRRORS:
            raise ValueError(f"`mode` must be one of {MIRRORS}. Received: {mode!r}.")
        self.paddings = _pairs(paddings)
        self.mode: Any = mode

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the padded tensor."""
        return tf.pad(inputs, [(0, 0), *self.paddings], self.mode)


@keras.utils.register_keras_serializable(package="tf_lsq")
class DepthToSpace(SettingsLayer):
    """Moves channels into blocks of pixels, as `tf.nn.depth_to_space` does.

    Args:
        block_size: Height and width of a block.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("block_size",)

    def __init__(self, block_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block_size = int(block_size)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns images that are larger by the block size, with fewer channels."""
        return tf.nn.depth_to_space(inputs, self.block_size)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the larger images."""
        batch, height, width, channels = input_shape
        size = self.block_size
        return (batch, height * size, width * size, channels // size**2)


@keras.utils.register_keras_serializable(package="tf_lsq")
class SpaceToDepth(SettingsLayer):
    """Moves blocks of pixels into channels, as `tf.nn.space_to_depth` does.

    Args:
        block_size: Height and width of a block.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("block_size",)

    def __init__(self, block_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block_size = int(block_size)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns images that are smaller by the block size, with more channels."""
        return tf.nn.space_to_depth(inputs, self.block_size)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the smaller images."""
        batch, height, width, channels = input_shape
        size = self.block_size
        return (batch, height // size, width // size, channels * size**2)


@keras.utils.register_keras_serializable(package="tf_lsq")
class ImageResizing(SettingsLayer):
    """Resizes images with the sampling grids of TensorFlow 1.

    `keras.layers.Resizing` is the same with half-pixel centers.

    Args:
        size: Height and width of the result.
        interpolation: "bilinear" or "nearest".
        align_corners: Whether the corner pixels keep their place.
        half_pixel_centers: Whether a pixel's value is at its center; not together with
            `align_corners`.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("size", "interpolation", "align_corners", "half_pixel_centers")

    def __init__(
        self,
        size: Sequence[int],
        interpolation: str,
        align_corners: bool,
        half_pixel_centers: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if interpolation not in _RESIZE:
            raise ValueError(
                f"`interpolation` must be one of {list(_RESIZE)}. "
                f"Received: {interpolation!r}."
            )
        self.size, self.interpolation = tuple(int(n) for n in size), interpolation
        self.align_corners = bool(align_corners)
        self.half_pixel_centers = bool(half_pixel_centers)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the resized images, in the type of `inputs`."""
        resized = _RESIZE[self.interpolation](
            images=inputs,
            size=np.array(self.size, np.int32),
            align_corners=self.align_corners,
            half_pixel_centers=self.half_pixel_centers,
        )
        return tf.cast(resized, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the resized images."""
        return (input_shape[0], *self.size, input_shape[-1])


@keras.utils.register_keras_serializable(package="tf_lsq")
class ZerosLike(keras.layers.Layer):
    """Returns zeros in the shape of its input."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns zeros, shape of `inputs`."""
        return tf.zeros_like(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


@keras.utils.register_keras_serializable(package="tf_lsq")
class StopGradient(keras.layers.Layer):
    """Returns its input, and stops gradients."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns `inputs`."""
        return tf.stop_gradient(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape
