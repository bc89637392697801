"""TFLite's facts about the operators that this library writes, one row for each.

Phones with an old runtime and the Edge TPU compiler refuse newer versions than they
know, so every operator gets the smallest version that covers its use.

References: tflite/tools/versioning/{op_version,op_signature,runtime_version}.cc of
https://github.com/google-ai-edge/LiteRT. The releases for packed kernels were measured
by running such files with each release for Python, on x86-64: tflite-runtime 2.11 to
2.14, TensorFlow 2.12 to 2.21, ai-edge-litert 1.0.1 to 2.3. The table there gives 2.11
for INT4, which 2.11 refuses, and 2.12 for depthwise convolutions. Versions that this
library does not write, such as those in float16, are only in files of other
tools; their releases are those of runtime_version.cc, and were not measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from .releases import newest
from .tflite_graph import CUSTOM, TFLiteGraph, TFLiteOp

DTYPES = ("float32", "int8", "int16", "int32", "uint8")
# The version of FULLY_CONNECTED does not show this: older releases refuse it.
_INT4_PER_CHANNEL = "2.19.0"

Rule = Callable[[TFLiteOp, TFLiteGraph], int]


def _no_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns 0: only the type matters."""
    return 0


@dataclasses.dataclass(frozen=True)
class OperatorRow:
    """TFLite's facts about one operator.

    Attributes:
        options: Name of its options table in the schema; None: it has none.
        float_version: Smallest version in float.
        int8_version: Smallest version in int8.
        releases: Version -> first TFLite release that runs it.
        weighted: Whether its second input is the weights.
        xnnpack: Whether XNNPACK has a kernel for it in int8.
        packed: Packed container of its weights -> version, for int8 inputs.
        int16_version: Smallest version in int16, with weights in int8; 0: this library
            does not write it.
        packed_in_int16: The same as `packed`, for int16 inputs.
        rule: Returns the version that a special use needs, 0 for other uses.
    """

    options: str | None
    float_version: int
    int8_version: int
    releases: Mapping[int, str]
    weighted: bool = False
    xnnpack: bool = True
    packed: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    int16_version: int = 0
    packed_in_int16: Mapping[str, int] = dataclasses.field(
        default_factory=dict[str, int]
    )
    rule: Rule = _no_rule


def row_of(code: str) -> OperatorRow:
    """Returns the row of an operator.

    Args:
        code: Name of the builtin operator.

    Raises:
        ValueError: If this library does not write the operator.
    """
    if code not in OPERATORS:
        raise ValueError(
            f"Operators must be among {sorted(OPERATORS)}. Received: {code}."
        )
    return OPERATORS[code]


def xnnpack_has(code: str) -> bool:
    """Returns whether XNNPACK has a kernel for an operator, in int8 for known ones.

    Args:
        code: Name of the builtin operator.
    """
    return code not in OPERATORS or OPERATORS[code].xnnpack


def in_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether an operator reads or writes 16-bit integers.

    Args:
        op: The operator.
        graph: The graph with its tensors.
    """
    names = [name for name in (*op.inputs, *op.outputs) if name]
    return any(graph.tensors[name].dtype == "int16" for name in names)


def op_version(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the smallest operator version that covers this use.

    Args:
        op: The operator.
        graph: The graph with its tensors.

    Raises:
        ValueError: If this library does not write the operator, or does not write it
            for these types.
    """
    if op.version is not None:
        return op.version
    row = row_of(op.code)
    dtypes = [graph.tensors[name].dtype for name in op.inputs if name]
    if op.code == "TRANSPOSE_CONV":
        dtypes = dtypes[2:0:-1]  # The first input is the output's shape.
    if op.code == "SPLIT":
        dtypes = dtypes[1:]  # The first input is the axis.
    if dtypes[0] == "int8" and dtypes[1:] and dtypes[1] in row.packed:
        return row.packed[dtypes[1]]
    if dtypes[0] == "int16" and row.int16_version:
        return _int16_version(op, graph, dtypes)
    types = [dtype for dtype in DTYPES if dtype != "int16"]
    if dtypes[0] not in types or (row.weighted and dtypes[0] != dtypes[1]):
        raise ValueError(
            f"{op.code} must compute in one of {types}, with weights of the same type. "
            f"Received: {dtypes} for {op.outputs}."
        )
    plain = row.int8_version if dtypes[0] == "int8" else row.float_version
    return row.rule(op, graph) or plain


def _int16_version(op: TFLiteOp, graph: TFLiteGraph, dtypes: list[str]) -> int:
    """Returns the smallest version that covers a use in int16.

    Raises:
        ValueError: If this library does not write weights of these types.
    """
    row = row_of(op.code)
    plain = row.int16_version
    if row.weighted and dtypes[1] != "int8":
        if dtypes[1] not in row.packed_in_int16:
            raise ValueError(
                f"{op.code} in int16 must have weights in one of "
                f"{['int8', *row.packed_in_int16]}. Received: {dtypes} for "
                f"{op.outputs}."
            )
        plain = row.packed_in_int16[dtypes[1]]
    return max(row.rule(op, graph), plain)


def first_release(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Returns the first TFLite release that runs an operator, "" if unknown.

    It is unknown for custom operators, for versions that the table does not have, and
    for those that are too small for int16, which converters write. Of operators that
    the table does not have, it is what the writer of the file says.

    Args:
        op: The operator.
        graph: The graph with its tensors.
    """
    names = [name for name in (*op.inputs, *op.outputs) if name]
    in_int16 = any(graph.tensors[name].dtype == "int16" for name in names)
    if op.code == CUSTOM or (in_int16 and not _covers_int16(op, graph)):
        return ""
    if op.code not in OPERATORS:
        return graph.min_runtime
    version = op_version(op, graph)
    if version not in OPERATORS[op.code].releases:
        return ""
    release = OPERATORS[op.code].releases[version]
    if op.code == "FULLY_CONNECTED" and len(op.inputs) > 1 and op.inputs[1]:
        weight = graph.tensors[op.inputs[1]]
        scales = weight.quantization.scale if weight.quantization else ()
        if weight.dtype == "int4" and len(scales) > 1:
            release = newest([release, _INT4_PER_CHANNEL])
    return release


def _covers_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether the version of an operator covers its use in int16."""
    try:
        needed = op_version(dataclasses.replace(op, version=None), graph)
    except ValueError:
        return False
    return op.version is None or op.version >= needed


def min_runtime(graph: TFLiteGraph) -> str:
    """Returns the first TensorFlow release whose TFLite runs a file, "" if unknown.

    It is unknown if that of one operator is.

    Args:
        graph: The file's graph.
    """
    releases = {first_release(op, graph) for op in graph.ops}
    return "" if "" in releases else newest([*releases, graph.min_runtime])


# --- Special uses --------------------------------------------------------------


def _conv_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version of a grouped convolution, 0 for others."""
    source, weight = (graph.tensors[name].shape for name in op.inputs[:2])
    return 6 if source and source[-1] != weight[-1] else 0


def _depthwise_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version of a dilated convolution not in int8, 0 for others."""
    dilation = {op.options.get(f"dilation_{axis}_factor", 1) for axis in "hw"}
    in_int8 = graph.tensors[op.inputs[0]].dtype == "int8"
    return 2 if dilation != {1} and not in_int8 else 0


def _dense_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version that allows no bias, more axes or shuffled weights."""
    if len(op.inputs) == 2:
        return 6
    if op.options.get("keep_num_dims"):
        return 5
    in_int8 = graph.tensors[op.inputs[0]].dtype == "int8"
    shuffled = op.options.get("weights_format", "DEFAULT") != "DEFAULT"
    return 2 if shuffled and not in_int8 else 0


def _mul_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version that may scale codes up, 0 where it does not."""
    tensors = [graph.tensors[name] for name in (*op.inputs, *op.outputs)]
    grids = [t.quantization for t in tensors if t.quantization is not None]
    if len(grids) != len(tensors):
        return 0
    # In float32, as the runtime computes it.
    first, second, output = (np.float32(q.scale[0]) for q in grids)
    return 3 if output and first * second / output >= 1 else 0


def _transpose_conv_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version with a bias, or with a bias and a fused activation."""
    fused = op.options.get("fused_activation_function") not in (None, "NONE")
    return 4 if fused else 3


def _resize_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version with half-pixel centers, 0 without."""
    return 3 if op.options.get("half_pixel_centers") else 0


def _nearest_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version with half-pixel centers or aligned corners, 0 without."""
    aligned = op.options.get("align_corners")
    return 3 if aligned or op.options.get("half_pixel_centers") else 0


def _axes_rule(version: int) -> Callable[[TFLiteOp, TFLiteGraph], int]:
    """Returns the rule of operators that need `version` for more than 4 axes."""

    def rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
        return version if len(graph.tensors[op.inputs[0]].shape) > 4 else 0

    return rule


def _relu_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for uint8, 0 for other types."""
    return 2 if graph.tensors[op.inputs[0]].dtype == "uint8" else 0


def _gather_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for places in int16, 0 for other types."""
    return 6 if graph.tensors[op.inputs[1]].dtype == "int16" else 0


def _quantize_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for one scale per channel, or to int16; 0 for other uses."""
    output = graph.tensors[op.outputs[0]]
    if output.quantization is not None and len(output.quantization.scale) > 1:
        return 3
    return 2 if output.dtype == "int16" else 0


def _dequantize_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for one scale per channel, 0 for one per tensor."""
    source = graph.tensors[op.inputs[0]]
    per_channel = source.quantization is not None and len(source.quantization.scale) > 1
    return 5 if per_channel and source.dtype == "int8" else 0


# --- The table -----------------------------------------------------------------

OPERATORS: dict[str, OperatorRow] = {
    "ABS": OperatorRow(
        "AbsOptions",
        1,
        2,
        {1: "1.13.0", 2: "2.4.0", 3: "2.5.0", 4: "2.6.0", 5: "2.12.0"},
        xnnpack=False,
        int16_version=3,
    ),
    "ADD": OperatorRow(
        "AddOptions",
        1,
        2,
        {1: "1.5.0", 2: "1.14.0", 3: "2.4.0", 4: "2.6.0", 5: "2.13.0"},
        int16_version=3,
    ),
    "ARG_MAX": OperatorRow(
        "ArgMaxOptions", 1, 2, {1: "1.9.0", 2: "1.14.0", 3: "2.9.0"}, xnnpack=False
    ),
    "AVERAGE_POOL_2D": OperatorRow(
        "Pool2DOptions",
        1,
        2,
        {1: "1.5.0", 2: "1.14.0", 3: "2.3.0"},
        xnnpack=False,
        int16_version=3,
    ),
    "BATCH_MATMUL": OperatorRow(
        "BatchMatMulOptions",
        1,
        2,
        {1: "2.3.0", 2: "2.3.0", 3: "2.4.0", 4: "2.5.0"},
        int16_version=3,
    ),
    "CAST": OperatorRow(
        "CastOptions",
        1,
        3,
        {1: "1.5.0", 2: "2.7.0", 3: "2.8.0", 4: "2.9.0", 5: "2.12.0"},
        xnnpack=False,
        int16_version=1,
    ),
    "CONCATENATION": OperatorRow(
        "ConcatenationOptions",
        1,
        2,
        {1: "1.5.0", 2: "1.14.0", 3: "2.3.0", 4: "2.14.0"},
        int16_version=3,
    ),
    "CONV_2D": OperatorRow(
        "Conv2DOptions",
        1,
        3,
        {
            1: "1.5.0",
            2: "1.14.0",
            3: "1.14.0",
            4: "2.3.0",
            5: "2.4.0",
            6: "2.9.0",
            7: "2.12.0",
            8: "2.15.0",
        },
        weighted=True,
        packed={"int4": 7},
        rule=_conv_rule,
        int16_version=4,
        packed_in_int16={"int4": 7},
    ),
    "DEPTH_TO_SPACE": OperatorRow(
        "DepthToSpaceOptions", 1, 2, {1: "2.1.0", 2: "2.5.0"}
    ),
    "DEPTHWISE_CONV_2D": OperatorRow(
        "DepthwiseConv2DOptions",
        1,
        3,
        {
            1: "1.5.0",
            2: "1.12.0",
            3: "1.14.0",
            4: "2.2.0",
            5: "2.3.0",
            6: "2.3.0",
            7: "2.13.0",
        },
        weighted=True,
        packed={"int4": 7},
        rule=_depthwise_rule,
        int16_version=5,
    ),
    "DEQUANTIZE": OperatorRow(
        "DequantizeOptions",
        1,
        2,
        {1: "1.13.1", 2: "1.14.0", 3: "1.15.0", 4: "2.2.0", 5: "2.7.0", 6: "2.18.0"},
        rule=_dequantize_rule,
        int16_version=3,
    ),
    "ELU": OperatorRow(None, 1, 1, {1: "1.14.0"}),
    "EXP": OperatorRow("ExpOptions", 1, 2, {1: "1.7.0", 2: "2.13.0"}, xnnpack=False),
    "FULLY_CONNECTED": OperatorRow(
        "FullyConnectedOptions",
        1,
        4,
        {
            1: "1.5.0",
            2: "1.10.0",
            3: "1.14.0",
            4: "1.14.0",
            5: "2.0.0",
            6: "2.1.0",
            7: "2.3.0",
            8: "2.3.0",
            9: "2.3.0",
            10: "2.13.0",
            11: "2.15.0",
            12: "2.17.0",
            13: "2.18.0",
            14: "2.21.0",
        },
        weighted=True,
        packed={"int4": 10, "int2": 14},
        rule=_dense_rule,
        int16_version=7,
        packed_in_int16={"int4": 13, "int2": 14},
    ),
    "GATHER": OperatorRow(
        "GatherOptions",
        1,
        2,
        {
            1: "1.6.0",
            2: "1.14.0",
            3: "1.15.0",
            4: "2.4.0",
            5: "2.5.0",
            6: "2.13.0",
            7: "2.15.0",
        },
        xnnpack=False,
        int16_version=4,
        rule=_gather_rule,
    ),
    "GELU": OperatorRow("GeluOptions", 1, 2, {1: "2.9.0", 2: "2.9.0"}, xnnpack=False),
    "LOG": OperatorRow(None, 1, 2, {1: "1.14.0", 2: "2.15.0"}, xnnpack=False),
    "LOGISTIC": OperatorRow(None, 1, 2, {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"}),
    "MAXIMUM": OperatorRow(
        "MaximumMinimumOptions",
        1,
        2,
        {1: "1.14.0", 2: "1.14.0", 3: "2.3.0", 4: "2.3.0"},
        rule=_axes_rule(3),
        int16_version=4,
    ),
    "MAX_POOL_2D": OperatorRow(
        "Pool2DOptions", 1, 2, {1: "1.5.0", 2: "1.14.0", 3: "2.3.0"}, int16_version=3
    ),
    "MEAN": OperatorRow("ReducerOptions", 1, 2, {1: "1.6.0", 2: "1.14.0", 3: "2.4.0"}),
    "MINIMUM": OperatorRow(
        "MaximumMinimumOptions",
        1,
        2,
        {1: "1.14.0", 2: "1.14.0", 3: "2.3.0", 4: "2.3.0"},
        rule=_axes_rule(3),
        int16_version=4,
    ),
    "MIRROR_PAD": OperatorRow(
        "MirrorPadOptions",
        1,
        2,
        {1: "1.13.1", 2: "2.3.0", 3: "2.12.0"},
        xnnpack=False,
        int16_version=3,
    ),
    "MUL": OperatorRow(
        "MulOptions",
        1,
        2,
        {
            1: "1.5.0",
            2: "1.14.0",
            3: "1.15.0",
            4: "2.3.0",
            5: "2.6.0",
            6: "2.11.0",
            7: "2.13.0",
        },
        rule=_mul_rule,
        int16_version=4,
    ),
    "PAD": OperatorRow(
        "PadOptions",
        1,
        2,
        {1: "1.5.0", 2: "1.14.0", 3: "2.4.0", 4: "2.6.0"},
        rule=_axes_rule(4),
        int16_version=3,
    ),
    "PADV2": OperatorRow(
        "PadV2Options",
        1,
        2,
        {1: "1.9.0", 2: "1.14.0", 3: "2.4.0", 4: "2.6.0"},
        xnnpack=False,
        rule=_axes_rule(4),
        int16_version=3,
    ),
    "PRELU": OperatorRow(None, 1, 1, {1: "1.8.0"}, xnnpack=False),
    "QUANTIZE": OperatorRow(
        "QuantizeOptions",
        1,
        1,
        {1: "1.14.0", 2: "1.15.0", 3: "2.7.0"},
        rule=_quantize_rule,
        int16_version=1,
    ),
    "REDUCE_MAX": OperatorRow(
        "ReducerOptions",
        1,
        2,
        {1: "1.11.0", 2: "1.14.0", 3: "2.5.0"},
        xnnpack=False,
        int16_version=3,
    ),
    "REDUCE_MIN": OperatorRow(
        "ReducerOptions",
        1,
        2,
        {1: "1.11.0", 2: "1.14.0", 3: "2.5.0"},
        xnnpack=False,
        int16_version=3,
    ),
    "RELU": OperatorRow(
        None, 1, 2, {1: "1.5.0", 2: "2.1.0", 3: "2.5.0"}, rule=_relu_rule
    ),
    "RELU6": OperatorRow(None, 1, 2, {1: "1.5.0", 2: "1.14.0", 3: "2.5.0"}),
    "RESHAPE": OperatorRow("ReshapeOptions", 1, 1, {1: "1.5.0"}, int16_version=1),
    "RESIZE_BILINEAR": OperatorRow(
        "ResizeBilinearOptions",
        1,
        2,
        {1: "1.7.0", 2: "1.14.0", 3: "2.2.0", 4: "2.5.0"},
        rule=_resize_rule,
    ),
    "RESIZE_NEAREST_NEIGHBOR": OperatorRow(
        "ResizeNearestNeighborOptions",
        1,
        2,
        {1: "1.13.1", 2: "1.14.0", 3: "2.3.0", 4: "2.4.0"},
        rule=_nearest_rule,
        int16_version=4,
    ),
    "REVERSE_V2": OperatorRow(
        "ReverseV2Options",
        1,
        3,
        {1: "1.14.0", 2: "2.2.0", 3: "2.5.0"},
        xnnpack=False,
        int16_version=1,
    ),
    "SOFTMAX": OperatorRow(
        "SoftmaxOptions", 1, 2, {1: "1.5.0", 2: "1.14.0", 3: "2.3.0"}, xnnpack=False
    ),
    "SPLIT": OperatorRow(
        "SplitOptions",
        1,
        2,
        {1: "1.5.0", 2: "1.14.0", 3: "1.14.0", 4: "2.3.0"},
        int16_version=4,
    ),
    "SPACE_TO_DEPTH": OperatorRow(
        "SpaceToDepthOptions", 1, 2, {1: "1.5.0", 2: "1.14.0"}
    ),
    "STRIDED_SLICE": OperatorRow(
        "StridedSliceOptions",
        1,
        2,
        {
            1: "1.6.0",
            2: "1.14.0",
            3: "2.1.0",
            4: "2.2.0",
            5: "2.5.0",
            6: "2.6.0",
            7: "2.14.0",
            8: "2.14.0",
        },
        rule=_axes_rule(4),
        int16_version=1,
    ),
    "SUB": OperatorRow(
        "SubOptions",
        1,
        2,
        {1: "1.6.0", 2: "1.14.0", 3: "2.3.0", 4: "2.4.0", 5: "2.4.0"},
        rule=_axes_rule(3),
        int16_version=5,
    ),
    "SUM": OperatorRow(
        "ReducerOptions", 1, 2, {1: "1.10.0", 2: "1.15.0"}, int16_version=2
    ),
    "TANH": OperatorRow(None, 1, 2, {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"}),
    "TRANSPOSE": OperatorRow(
        "TransposeOptions",
        1,
        2,
        {1: "1.6.0", 2: "1.14.0", 3: "1.15.0", 4: "2.3.0", 5: "2.4.0", 6: "2.12.0"},
        rule=_axes_rule(4),
        int16_version=5,
    ),
    "TRANSPOSE_CONV": OperatorRow(
        "TransposeConvOptions",
        1,
        2,
        {1: "1.9.0", 2: "2.2.0", 3: "2.3.0", 4: "2.13.0", 5: "2.15.0"},
        weighted=True,
        rule=_transpose_conv_rule,
        int16_version=3,
    ),
}
