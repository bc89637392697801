"""Conditions of the GPU's rules: what LiteRT's GPU accelerator refuses or miscomputes.

Each was measured with LiteRT 2.3.0 by `make gpu`, which fails if a file is refused or
computed wrongly there, and no rule names it: docs/gpu.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from ..file import TFLiteOp, TFLiteTensor, op_version
from .conditions import counted, listed
from .types import Consumer, FileFacts

_INTEGERS = frozenset(["int8", "uint8"])
_MOST_AXES = 4
_MOST_ROWS = 8  # More are refused, of fewer the first one is computed.
_PADDED_AXES = (3, 4)
_PADS = ("PAD", "PADV2", "MIRROR_PAD")
# The newest version of an operator in int8 that it has a kernel for.
_NEWEST = {"TRANSPOSE_CONV": 3}
# Operators whose codes were compared with the CPU's: those of docs/gpu.md, the end of
# a file with float outputs, of docs/consumers.md, and SPLIT, before the convolutions of
# groups.
MEASURED = frozenset(
    """ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D
    DEPTH_TO_SPACE DEQUANTIZE ELU EXP FULLY_CONNECTED GATHER GELU LOG LOGISTIC
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL PAD PADV2 QUANTIZE REDUCE_MAX
    REDUCE_MIN RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SOFTMAX
    SPACE_TO_DEPTH SPLIT STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV""".split()
)
# Masks of STRIDED_SLICE.
_UNMEASURED_MASKS = ("ellipsis_mask", "new_axis_mask")


def int16_tensors(file: FileFacts, consumer: Consumer) -> str:
    """Finds tensors of 16-bit integers."""
    names = [n for n, t in file.graph.tensors.items() if t.dtype == "int16"]
    return f"int16 tensors {listed(names)}" if names else ""


def _tensors(op: TFLiteOp, file: FileFacts) -> list[TFLiteTensor]:
    """Returns the inputs and outputs of an operator."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    return [file.graph.tensors[name] for name in names]


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
    """Finds dense layers that join all axes but the last one to few rows."""
    found = [name for name, rows in _joined_rows(file) if rows <= _MOST_ROWS]
    return f"dense layers that join axes: {listed(found)}" if found else ""


def many_joined_rows(file: FileFacts, consumer: Consumer) -> str:
    """Finds dense layers that join all axes but the last one to many rows."""
    found = [
        f"{name} to {rows} rows"
        for name, rows in _joined_rows(file)
        if rows > _MOST_ROWS
    ]
    return f"dense layers that join axes: {listed(found)}" if found else ""


def _joined_rows(file: FileFacts) -> Iterator[tuple[str, int]]:
    """Yields dense layers of integers that join axes, by output, and how many rows."""
    for op, source, kernel in _with_kernels(file, "FULLY_CONNECTED"):
        rows, of_integers = math.prod(source.shape[:-1]), source.dtype in _INTEGERS
        keeps = len(file.graph.tensors[op.outputs[0]].shape) == len(source.shape)
        fits = source.shape[-1] == kernel.shape[-1]
        if of_integers and fits and not keeps and rows != source.shape[0]:
            yield op.outputs[0], rows


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
        axes = max((len(tensor.shape) for tensor in _tensors(op, file)), default=0)
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


def indices_of_several_axes(file: FileFacts, consumer: Consumer) -> str:
    """Finds gathers by indices with more than one axis, as of tables."""

    def several(op: TFLiteOp) -> str:
        if op.code != "GATHER":
            return ""
        axes = len(file.graph.tensors[op.inputs[1]].shape)
        return f"GATHER by indices of {axes} axes" if axes > 1 else ""

    return counted(file, several)


def scaled_softmaxes(file: FileFacts, consumer: Consumer) -> str:
    """Finds softmaxes of multiples of their input."""

    def scaled(op: TFLiteOp) -> str:
        beta = op.options.get("beta", 1.0) if op.code == "SOFTMAX" else 1.0
        return f"{op.code} with beta {beta:.6g}" if beta != 1.0 else ""

    return counted(file, scaled)


def squares(file: FileFacts, consumer: Consumer) -> str:
    """Finds products of a tensor with itself."""

    def is_square(op: TFLiteOp) -> str:
        squared = op.code == "BATCH_MATMUL" and op.inputs[0] == op.inputs[1]
        return f"{op.code} of a tensor and itself" if squared else ""

    return counted(file, is_square)


def broadcast_products(file: FileFacts, consumer: Consumer) -> str:
    """Finds products of matrices that are repeated along the axes before them."""

    def broadcast(op: TFLiteOp) -> str:
        if op.code != "BATCH_MATMUL":
            return ""
        first, second = (file.graph.tensors[name].shape for name in op.inputs[:2])
        same = first[:-2] == second[:-2]
        return "" if same else f"{op.code} of {first} and {second}"

    return counted(file, broadcast)


def uint8_dense(file: FileFacts, consumer: Consumer) -> str:
    """Finds dense layers in uint8."""
    found = [
        op.outputs[0]
        for op, source, _ in _with_kernels(file, "FULLY_CONNECTED")
        if source.dtype == "uint8"
    ]
    return f"dense layers in uint8: {listed(found)}" if found else ""


def dropped_axes(file: FileFacts, consumer: Consumer) -> str:
    """Finds slices that drop an axis of one element."""
    mask = "shrink_axis_mask"
    return counted(
        file,
        lambda op: f"{op.code} that drops an axis" if op.options.get(mask) else "",
    )


def unmeasured_operators(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators that were not measured, on codes in int8."""

    def unmeasured(op: TFLiteOp) -> str:
        types = {one.dtype for one in _tensors(op, file) if one.data is None}
        masks = [mask for mask in _UNMEASURED_MASKS if op.options.get(mask)]
        known = {"int8", "uint8"} if op.code == "QUANTIZE" else {"int8"}
        if op.code in MEASURED and types & known and not masks:
            return ""
        kinds = masks or ([] if types & {"int8"} else sorted(types))
        return f"{op.code} {op.custom or '/'.join(kinds)}".strip()

    found = counted(file, unmeasured)
    return f"not measured: {found}" if found else ""


def other_rounding(file: FileFacts, consumer: Consumer) -> str:
    """Finds integers, which a GPU rounds by itself."""
    computed = (name for op in file.graph.ops for name in op.outputs)
    integers = any(file.graph.tensors[name].dtype in _INTEGERS for name in computed)
    return "codes may differ by one from the CPU's" if integers else ""


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
            source.dtype in _INTEGERS,
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
