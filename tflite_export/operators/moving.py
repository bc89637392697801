"""Operators that move, repeat or select values without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from ..freezing import ONE, FrozenNode, Grid
from .base import Compute, Context, MovingOperator, Operator
from .builder import Builder, per_tensor

# A selection of up to so many ranges is sliced and concatenated, if they are not too
# short: XNNPACK and the Edge TPU have these operators, but not GATHER.
_MAX_RANGES = 8
_MIN_LENGTH = 4  # Of adjacent values in a range.


class Concat(MovingOperator):
    """Concatenation of tensors on one grid."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Concatenates."""
        return tf.concat(inputs, axis=node.trained.options["axis"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a CONCATENATION."""
        builder.op(
            "CONCATENATION",
            inputs,
            builder.output(node),
            axis=node.trained.options["axis"],
            fused_activation_function="NONE",
        )


class Reshape(MovingOperator):
    """Reshape to another shape."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Reshapes."""
        return tf.reshape(inputs[0], [-1, *node.shape[1:]])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a RESHAPE."""
        builder.reshape(inputs[0], node.name, node.shape, node.grid)


class Transpose(MovingOperator):
    """Transposition to another order of axes."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Transposes."""
        return tf.transpose(inputs[0], node.trained.options["perm"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a TRANSPOSE."""
        perm = np.int32(node.trained.options["perm"])
        constant = builder.constant(f"{node.name}/perm", perm)
        builder.op("TRANSPOSE", [inputs[0], constant], builder.output(node))


class Slice(MovingOperator):
    """Strided slice of a tensor, with the whole batch axis."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Slices; an end of -1 is before index 0."""
        parts = [
            slice(begin, None if end < 0 else end, stride)
            for begin, end, stride in zip(*_bounds(node), strict=True)
        ]
        return inputs[0][(slice(None), *parts)]

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a STRIDED_SLICE, or one REVERSE_V2 per axis: that is much faster."""
        bounds = _bounds(node)
        backwards = _reversed_axes(builder.nodes[node.inputs[0]].shape, bounds)
        if backwards:
            _reverse(builder, node, inputs[0], backwards)
            return
        sources = [inputs[0], *_slice_constants(builder, node.name, bounds)]
        output = builder.output(node)
        builder.op("STRIDED_SLICE", sources, output, **_slice_masks(bounds))


Bounds: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int]]


def _bounds(node: FrozenNode) -> Bounds:
    """Returns begin, end and strides of every axis but the batch."""
    options = node.trained.options
    return options["begin"], options["end"], options["strides"]


def _reversed_axes(shape: Sequence[int], bounds: Bounds) -> list[int]:
    """Returns the axes of a slice that are reversed, if it does nothing else."""
    axes = []
    for axis, row in enumerate(zip(*bounds, strict=True), start=1):
        if row == (shape[axis] - 1, -1, -1):
            axes.append(axis)
        elif row != (0, shape[axis], 1):
            return []
    return axes


def _reverse(builder: Builder, node: FrozenNode, source: str, axes: list[int]) -> None:
    """Adds a REVERSE_V2 for every axis."""
    for axis in axes:
        constant = builder.constant(
            f"{node.name}/axis_{axis}", np.array([axis], np.int32)
        )
        if axis == axes[-1]:
            output = builder.output(node)
        else:
            name = f"{node.name}/reversed_{axis}"
            output = builder.tensor(name, node.shape, node.grid)
        builder.op("REVERSE_V2", [source, constant], output)
        source = output


def _slice_constants(builder: Builder, name: str, bounds: Bounds) -> list[str]:
    """Adds begin, end and strides of a slice."""
    names = ("begin", "end", "strides")
    return [
        builder.constant(
            f"{name}/{part}", np.array([int(part == "strides"), *values], np.int32)
        )
        for part, values in zip(names, bounds, strict=True)
    ]


def _slice_masks(bounds: Bounds) -> dict[str, int]:
    """Returns masks that keep the batch axis whole, and go backwards to index 0."""
    backwards = sum(1 << axis for axis, end in enumerate(bounds[1], start=1) if end < 0)
    return {
        "begin_mask": 1,
        "end_mask": 1 | backwards,
        "ellipsis_mask": 0,
        "new_axis_mask": 0,
        "shrink_axis_mask": 0,
    }


class Gather(MovingOperator):
    """Slices of a tensor along one axis, in any order and number."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Selects."""
        options = node.trained.options
        return tf.gather(inputs[0], options["indices"], axis=options["axis"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a GATHER, or slices and a CONCATENATION of a few ranges."""
        options = node.trained.options
        indices, axis = np.array(options["indices"], np.int32), options["axis"]
        ranges = _ranges(indices)
        adjacent = len(indices) * np.prod(node.shape[axis + 1 :], dtype=int)
        if len(ranges) <= min(_MAX_RANGES, adjacent // _MIN_LENGTH):
            parts = [_part(builder, node, inputs[0], axis, one) for one in ranges]
            builder.op(
                "CONCATENATION",
                parts,
                builder.output(node),
                axis=axis,
                fused_activation_function="NONE",
            )
            return
        constant = builder.constant(f"{node.name}/indices", indices)
        builder.op(
            "GATHER",
            [inputs[0], constant],
            builder.output(node),
            axis=axis,
            batch_dims=0,
        )


def _ranges(indices: np.ndarray) -> list[tuple[int, int]]:
    """Returns first and last index of every range of consecutive indices."""
    ends = np.flatnonzero(np.diff(indices) != 1) + 1
    parts = np.split(indices, ends)
    return [(int(part[0]), int(part[-1])) for part in parts]


def _part(
    builder: Builder, node: FrozenNode, source: str, axis: int, part: tuple[int, int]
) -> str:
    """Returns a range of slices of a tensor; the tensor itself if it is all of it."""
    first, last = part
    shape = builder.nodes[node.inputs[0]].shape
    if part == (0, shape[axis] - 1):
        return source
    name = f"{node.name}/{first}_to_{last}"
    if name not in builder.graph.tensors:
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = first, last + 1
        bounds = begin[1:], end[1:], [1] * (len(shape) - 1)
        size = [high - low for low, high in zip(begin, end, strict=True)]
        sources = [source, *_slice_constants(builder, name, bounds)]
        output = builder.tensor(name, size, node.grid)
        builder.op("STRIDED_SLICE", sources, output, **_slice_masks(bounds))
    return name


class Pad(MovingOperator):
    """Zeros around a tensor; TFLite pads integers with the zero point."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Pads."""
        return tf.pad(inputs[0], [(0, 0), *node.trained.options["paddings"]])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a PAD."""
        builder.op("PAD", [inputs[0], _paddings(builder, node)], builder.output(node))


def _paddings(builder: Builder, node: FrozenNode) -> str:
    """Adds the amounts of a padding."""
    amounts = np.array([(0, 0), *node.trained.options["paddings"]], np.int32)
    return builder.constant(f"{node.name}/paddings", amounts)


class PadMirror(MovingOperator):
    """Mirrored values around a tensor."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Pads."""
        options = node.trained.options
        return tf.pad(inputs[0], [(0, 0), *options["paddings"]], options["mode"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a MIRROR_PAD."""
        paddings, mode = _paddings(builder, node), node.trained.options["mode"]
        builder.op("MIRROR_PAD", [inputs[0], paddings], builder.output(node), mode=mode)


class PadConstant(Operator):
    """A constant around a tensor, rounded to the tensor's grid."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Pads."""
        value = np.float32(node.trained.options["value"])
        return _padded(node, inputs[0], float(value))

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a PADV2."""
        value = np.array([node.trained.options["value"]], np.float32)
        quantization = None
        if node.grid is not None:
            code = _code(node, node.grid) + node.grid.zero_point
            value = np.array([code], node.grid.container)
            quantization = per_tensor(node.grid.scale, node.grid.zero_point)
        constant = builder.constant(f"{node.name}/value", value, quantization)
        paddings = _paddings(builder, node)
        builder.op("PADV2", [inputs[0], paddings, constant], builder.output(node))

    def integers(self, context: Context) -> Compute:
        """Pads with the constant's code."""
        code = _code(context.node, context.grid)
        return lambda inputs: _padded(context.node, inputs[0], code)


def _padded(node: FrozenNode, x: tf.Tensor, value: float) -> tf.Tensor:
    """Returns a tensor with a constant around it."""
    paddings = [(0, 0), *node.trained.options["paddings"]]
    return tf.pad(x, paddings, constant_values=tf.cast(value, x.dtype))


def _code(node: FrozenNode, grid: Grid) -> int:
    """Returns the code of the constant of a padding, minus the zero point."""
    value = np.float32(node.trained.options["value"]) / np.float32(grid.scale)
    low, high = grid.low - grid.zero_point, grid.high - grid.zero_point
    return int(np.clip(np.rint(value), low, high))


class DepthToSpace(MovingOperator):
    """Channels to blocks of pixels."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Moves values."""
        return tf.nn.depth_to_space(inputs[0], node.trained.options["block_size"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a DEPTH_TO_SPACE."""
        size = node.trained.options["block_size"]
        builder.op("DEPTH_TO_SPACE", inputs, builder.output(node), block_size=size)


class SpaceToDepth(MovingOperator):
    """Blocks of pixels to channels."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Moves values."""
        return tf.nn.space_to_depth(inputs[0], node.trained.options["block_size"])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a SPACE_TO_DEPTH."""
        size = node.trained.options["block_size"]
        builder.op("SPACE_TO_DEPTH", inputs, builder.output(node), block_size=size)


class Zeros(MovingOperator):
    """Zeros in the shape of a tensor, whose batch size is known only at run time."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns zeros."""
        return tf.zeros_like(inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a MUL by the constant 0."""
        zero, quantization = np.zeros(1, np.float32), None
        if node.grid is not None:
            zero = np.zeros(1, node.grid.container)
            quantization = per_tensor(1.0 / ONE, 0)
        constant = builder.constant(f"{node.name}/zero", zero, quantization)
        builder.op(
            "MUL",
            [inputs[0], constant],
            builder.output(node),
            fused_activation_function="NONE",
        )


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "concat": Concat(),
    "reshape": Reshape(),
    "transpose": Transpose(),
    "slice": Slice(),
    "gather": Gather(),
    "pad": Pad(),
    "pad_mirror": PadMirror(),
    "pad_constant": PadConstant(),
    "depth_to_space": DepthToSpace(),
    "space_to_depth": SpaceToDepth(),
    "zeros": Zeros(),
}
