"""Conditions of the GPU's rules: what LiteRT's GPU accelerator refuses or miscomputes.

Each was measured with LiteRT 2.3.0 by `make gpu`, which fails if a file is refused or
computed wrongly there, and no rule names it: docs/gpu.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from ..file import TFLiteOp, TFLiteTensor, op_version
from .conditions import counted, listed, packed_container
from .types import Consumer, FileFacts

_MOST_AXES = 4
_PADDED_AXES = (3, 4)
_PADS = ("PAD", "PADV2", "MIRROR_PAD")
# The newest version of an operator in int8 that it has a kernel for.
_NEWEST = {"TRANSPOSE_CONV": 3}
# Operators whose codes differ by one from the CPU's in places; none by more.
_ROUNDS_OTHERWISE = """AVERAGE_POOL_2D CONV_2D DEPTHWISE_CONV_2D MEAN MUL QUANTIZE
    RESIZE_BILINEAR""".split()


def int16_tensors(file: FileFacts, consumer: Consumer) -> str:
    """Finds tensors of 16-bit integers."""
    names = [n for n, t in file.graph.tensors.items() if t.dtype == "int16"]
    return f"int16 tensors {listed(names)}" if names else ""


def strided_1x1(file: FileFacts, consumer: Consumer) -> str:
    """Finds 1x1 convolutions of integers with strides."""
    found = [
        one.name
        for one in _convolutions(file, "CONV_2D")
        if one.of_integers and one.window == (1, 1) and one.strided
    ]
    return f"1x1 convolutions with strides: {listed(found)}" if found else ""


def grouped(file: FileFacts, consumer: Consumer) -> str:
    """Finds convolutions with groups."""
    found = [
        one.name
        for one in _convolutions(file, "CONV_2D")
        if one.kernel_channels != one.channels
    ]
    return f"convolutions with groups: {listed(found)}" if found else ""


def multiplied_1x1(file: FileFacts, consumer: Consumer) -> str:
    """Finds depthwise 1x1 convolutions with several outputs for an input."""
    found = [
        one.name
        for one in _convolutions(file, "DEPTHWISE_CONV_2D")
        if one.window == (1, 1) and one.kernel_channels != one.channels
    ]
    return f"depthwise 1x1 convolutions: {listed(found)}" if found else ""


def flattening(file: FileFacts, consumer: Consumer) -> str:
    """Finds dense layers that read several axes as one."""
    found = [
        op.outputs[0]
        for op, source, kernel in _with_kernels(file, "FULLY_CONNECTED")
        if source.shape[-1] != kernel.shape[-1]
    ]
    return f"dense layers that flatten: {listed(found)}" if found else ""


def joined_axes(file: FileFacts, consumer: Consumer) -> str:
    """Finds dense layers that join all axes but the last one."""
    found = [
        op.outputs[0]
        for op, source, kernel in _with_kernels(file, "FULLY_CONNECTED")
        if source.shape[-1] == kernel.shape[-1]
        and math.prod(source.shape[:-1]) != source.shape[0]
        and len(file.graph.tensors[op.outputs[0]].shape) != len(source.shape)
    ]
    return f"dense layers that join axes: {listed(found)}" if found else ""


def newer_versions(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators in versions that it has no kernel for."""

    def newer(op: TFLiteOp) -> str:
        version = op_version(op, file.graph)
        return (
            f"{op.code} v{version}" if version > _NEWEST.get(op.code, version) else ""
        )

    return counted(file, newer)


def many_axes(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators on tensors with more than four axes."""

    def many(op: TFLiteOp) -> str:
        tensors = [
            file.graph.tensors[name] for name in (*op.inputs, *op.outputs) if name
        ]
        axes = max((len(tensor.shape) for tensor in tensors), default=0)
        return f"{op.code} of {axes} axes" if axes > _MOST_AXES else ""

    return counted(file, many)


def unfit_paddings(file: FileFacts, consumer: Consumer) -> str:
    """Finds paddings of tensors with other than three or four axes."""

    def unfit(op: TFLiteOp) -> str:
        if op.code not in _PADS:
            return ""
        axes = len(file.graph.tensors[op.inputs[0]].shape)
        fits = not axes or axes in _PADDED_AXES  # 0: the file does not say.
        return "" if fits else f"{op.code} of {axes} axes"

    return counted(file, unfit)


def symmetric_paddings(file: FileFacts, consumer: Consumer) -> str:
    """Finds paddings that repeat the border."""
    mode = "SYMMETRIC"
    return counted(
        file, lambda op: f"{op.code} {mode}" if op.options.get("mode") == mode else ""
    )


def reversed_slices(file: FileFacts, consumer: Consumer) -> str:
    """Finds slices with negative strides."""

    def backwards(op: TFLiteOp) -> str:
        strides = [file.graph.tensors[name].data for name in op.inputs[3:4] if name]
        negative = any(one is not None and (one < 0).any() for one in strides)
        is_found = op.code == "STRIDED_SLICE" and negative
        return f"{op.code} with a negative stride" if is_found else ""

    return counted(file, backwards)


def other_rounding(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators whose codes may differ by one from the CPU's."""
    found = [
        op.code
        for op in file.graph.ops
        if op.code in _ROUNDS_OTHERWISE or packed_container(op, file)
    ]
    names = listed(dict.fromkeys(found))
    return f"codes of {names} may differ by one from the CPU's" if found else ""


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """An operator with a window.

    Attributes:
        name: Its output.
        window: Height and width.
        strided: Whether it has strides.
        of_integers: Whether its input is int8 or uint8.
        channels: Channels of its input.
        kernel_channels: The last size of its kernel.
    """

    name: str
    window: tuple[int, ...]
    strided: bool
    of_integers: bool
    channels: int
    kernel_channels: int


def _convolutions(file: FileFacts, code: str) -> Iterator[_Convolution]:
    """Yields the convolutions of a kind."""
    for op, source, weight in _with_kernels(file, code):
        strides = {op.options.get(f"stride_{axis}", 1) for axis in "hw"}
        yield _Convolution(
            op.outputs[0],
            weight.shape[1:3],
            strides != {1},
            source.dtype in ("int8", "uint8"),
            source.shape[-1],
            weight.shape[-1],
        )


def _with_kernels(
    file: FileFacts, code: str
) -> Iterator[tuple[TFLiteOp, TFLiteTensor, TFLiteTensor]]:
    """Yields operators of a kind with input and kernel, if the file has both."""
    for op in file.graph.ops:
        names = [name for name in op.inputs[:2] if name]
        if op.code == code and len(names) == 2:
            source, kernel = (file.graph.tensors[name] for name in names)
            if source.shape and kernel.shape:
                yield op, source, kernel
