"""The smallest files that the writer refuses, and the nearest ones that are right."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    flatbuffer,
)

# What LiteRT does with a file that is refused.
WRONG, ENDS, REFUSES = "computes wrong codes", "ends the process", "refuses the file"
LIMITS = {
    "int2": (-2, 1),
    "int4": (-8, 7),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
}
SCALES = {"int2": 1.0, "int4": 0.5, "int8": 0.05, "uint8": 0.05, "int16": 2e-4}
IMAGE = (1, 4, 4, 8)
Values = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A file that the writer refuses.

    Attributes:
        name: Unique.
        guard: The guard that refuses it.
        wrong: The file.
        right: The nearest file that is written.
        value: Returns what the output must be, for real values of inputs and constants.
        effect: What LiteRT does with the wrong file.
        codes: Inputs by name; those left out are random.
        finish: Adds what `TFLiteGraph` cannot represent to the bytes of either.
    """

    name: str
    guard: str
    wrong: TFLiteGraph
    right: TFLiteGraph
    value: Callable[[Values], np.ndarray]
    effect: str = WRONG
    codes: Values = dataclasses.field(default_factory=dict)
    finish: Callable[[bytes], bytes] = lambda content: content


def tensor(name, shape, dtype, scale=None, zero_point=0, data=None, axis=0):
    """A tensor, with the scale of its type if none is given."""
    scale = SCALES.get(dtype) if scale is None else scale
    grid = None
    if scale is not None:
        grid = TensorQuantization(np.ravel(np.float32(scale)), zero_point, axis)
    return TFLiteTensor(name, tuple(shape), dtype, grid, data)


def constant(name, values, dtype="int32"):
    """A constant without a scale."""
    values = np.array(values, dtype)
    return TFLiteTensor(name, values.shape, dtype, data=values)


def graph(code, inputs, outputs, table="", version=1, **options):
    """A file of one operator; `inputs` has None where one is left out."""
    tensors = {t.name: t for t in (*inputs, *outputs) if t is not None}
    names = ["" if t is None else t.name for t in inputs]
    op = TFLiteOp(code, names, [t.name for t in outputs], options, version, table)
    ends = {t.name: t.name for t in tensors.values() if t.data is None}
    computed = {name: name for name in ends if name in names}
    return TFLiteGraph(tensors, [op], computed, {t.name: t.name for t in outputs})


def random_codes(one, rng):
    """Codes of a tensor, or values of one without a grid."""
    if one.dtype == "bool":
        return rng.integers(0, 2, one.shape).astype(bool)
    low, high = LIMITS[one.dtype]
    stored = "int8" if one.dtype in ("int2", "int4") else one.dtype
    # No lowest code: its negative is none.
    return rng.integers(low + 1, high + 1, one.shape).astype(stored)


def real(one, codes):
    """What codes of a tensor stand for."""
    if one.quantization is None:
        return np.asarray(codes)
    scale, axis = one.quantization.scale.astype(np.float64), one.quantization.axis
    if scale.size > 1:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(len(one.shape))])
    return (np.asarray(codes, np.float64) - one.quantization.zero_point) * scale


def values_of(one_graph, inputs):
    """The real values of inputs and constants."""
    codes = {**one_graph.constants(), **inputs}
    return {name: real(one_graph.tensors[name], array) for name, array in codes.items()}


def expected_codes(one_graph, values):
    """The codes of the output for its real values."""
    output = one_graph.tensors[next(iter(one_graph.outputs.values()))]
    if output.quantization is None:
        return values
    grid = output.quantization
    codes = np.floor(values / float(grid.scale[0]) + 0.5) + grid.zero_point
    return np.clip(codes, *LIMITS[output.dtype])


# --- Operators that move, compare or average ------------------------------------


@dataclasses.dataclass(frozen=True)
class Move:
    """How a moving operator is written; X stands for its data."""

    table: str
    value: Callable[..., np.ndarray]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: tuple[Any, ...] = ("x",)
    effect: str = WRONG
    dtype: str = "int8"
    shape: tuple[int, ...] = IMAGE
    version: int = 2


_PADS = constant("pads", [[0, 0], [1, 1], [1, 1], [0, 0]])
_POOL = {
    "padding": "VALID",
    "stride_h": 1,
    "stride_w": 1,
    "filter_height": 4,
    "filter_width": 4,
}
_MASK = constant("mask", np.arange(128).reshape(IMAGE) % 3 == 0, "bool")
_ROWS = constant("rows", [1, 3, 0])
_PAD_VALUE = tensor("value", (1,), "int8", data=np.array([3], np.int8))
_BLOCK, _CROPS = constant("block", [2, 2]), constant("crops", [[0, 0], [0, 0]])


def _blocks(x, batch):
    """The batches of BATCH_TO_SPACE_ND, in blocks of 2 by 2."""
    h, w, c = x.shape[1:]
    rows = x.reshape(2, 2, batch, h, w, c).transpose(2, 3, 0, 4, 1, 5)
    return rows.reshape(batch, h * 2, w * 2, c)


def _spaces(x):
    """The inverse of `_blocks`."""
    n, h, w, c = x.shape
    rows = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(2, 4, 0, 1, 3, 5)
    return rows.reshape(4 * n, h // 2, w // 2, c)


def _depths(x):
    """DEPTH_TO_SPACE in blocks of 2 by 2."""
    n, h, w, c = x.shape
    rows = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return rows.reshape(n, 2 * h, 2 * w, c // 4)


def _to_depth(x):
    """SPACE_TO_DEPTH in blocks of 2 by 2."""
    n, h, w, c = x.shape
    rows = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return rows.reshape(n, h // 2, w // 2, 4 * c)


MOVES = {
    "AVERAGE_POOL_2D": Move(
        "Pool2DOptions", lambda x: x.mean((1, 2))[:, None, None], _POOL
    ),
    "BATCH_TO_SPACE_ND": Move(
        "BatchToSpaceNDOptions",
        lambda x: _blocks(x, 1),
        inputs=("x", _BLOCK, _CROPS),
        effect=REFUSES,
        shape=(4, 4, 4, 8),
    ),
    "BROADCAST_TO": Move(
        "BroadcastToOptions",
        lambda x: np.broadcast_to(x, (2, 4, 4, 8)),
        inputs=("x", constant("shape", [2, 4, 4, 8])),
    ),
    "CONCATENATION": Move(
        "ConcatenationOptions",
        lambda x, y: np.concatenate([x, y], 3),
        {"axis": 3},
        ("x", "y"),
        dtype="int16",
    ),
    "DEPTH_TO_SPACE": Move("DepthToSpaceOptions", _depths, {"block_size": 2}),
    "DYNAMIC_UPDATE_SLICE": Move(
        "DynamicUpdateSliceOptions",
        lambda x, y: y,
        inputs=("x", "y", constant("start", [0, 0, 0, 0])),
    ),
    "EMBEDDING_LOOKUP": Move(
        "", lambda x: x[[1, 3, 0]], inputs=(_ROWS, "x"), shape=(4, 8)
    ),
    "EXPAND_DIMS": Move(
        "ExpandDimsOptions",
        lambda x: x[None],
        inputs=("x", constant("axis", 0)),
        effect=REFUSES,
        version=1,
    ),
    "GATHER": Move(
        "GatherOptions", lambda x: x[:, [1, 3, 0]], {"axis": 1}, ("x", _ROWS)
    ),
    "GATHER_ND": Move(
        "GatherNdOptions",
        lambda x: x[[0, 0], [1, 2]],
        inputs=("x", constant("places", [[0, 1], [0, 2]])),
    ),
    "MAXIMUM": Move("MaximumMinimumOptions", np.maximum, inputs=("x", "y")),
    "MAX_POOL_2D": Move("Pool2DOptions", lambda x: x.max((1, 2))[:, None, None], _POOL),
    "MINIMUM": Move("MaximumMinimumOptions", np.minimum, inputs=("x", "y")),
    "MIRROR_PAD": Move(
        "MirrorPadOptions",
        lambda x: np.pad(x, _PADS.data, "reflect"),
        {"mode": "REFLECT"},
        ("x", _PADS),
        effect=REFUSES,
    ),
    "NEG": Move("NegOptions", np.negative, version=1),
    "PACK": Move(
        "PackOptions",
        lambda x, y: np.stack([x, y]),
        {"values_count": 2},
        ("x", "y"),
        effect=REFUSES,
    ),
    "PAD": Move("PadOptions", lambda x: np.pad(x, _PADS.data), inputs=("x", _PADS)),
    "PADV2": Move(
        "PadV2Options",
        lambda x: np.pad(x, _PADS.data, constant_values=3 * 0.05),
        inputs=("x", _PADS, _PAD_VALUE),
        effect=REFUSES,
    ),
    "REDUCE_MAX": Move(
        "ReducerOptions", lambda x: x.max(1), inputs=("x", constant("axes", [1]))
    ),
    "REDUCE_MIN": Move(
        "ReducerOptions", lambda x: x.min(1), inputs=("x", constant("axes", [1]))
    ),
    "RESHAPE": Move(
        "ReshapeOptions",
        lambda x: x.reshape(1, 128),
        inputs=("x", constant("shape", [1, 128])),
        version=1,
    ),
    "RESIZE_BILINEAR": Move(
        "ResizeBilinearOptions", lambda x: x, inputs=("x", constant("size", [4, 4]))
    ),
    "RESIZE_NEAREST_NEIGHBOR": Move(
        "ResizeNearestNeighborOptions",
        lambda x: x.repeat(2, 1).repeat(2, 2),
        inputs=("x", constant("size", [8, 8])),
    ),
    "REVERSE_SEQUENCE": Move(
        "ReverseSequenceOptions",
        lambda x: x[:, ::-1],
        {"seq_dim": 1},
        ("x", constant("lengths", [4])),
        dtype="int16",
        version=1,
    ),
    "REVERSE_V2": Move(
        "ReverseV2Options", lambda x: x[:, ::-1], inputs=("x", constant("axes", [1]))
    ),
    "SELECT": Move(
        "SelectOptions",
        lambda x, y: np.where(_MASK.data, x, y),
        inputs=(_MASK, "x", "y"),
        version=1,
    ),
    "SELECT_V2": Move(
        "SelectV2Options",
        lambda x, y: np.where(_MASK.data, x, y),
        inputs=(_MASK, "x", "y"),
        version=1,
    ),
    "SLICE": Move(
        "SliceOptions",
        lambda x: x[:, :2],
        inputs=("x", constant("start", [0, 0, 0, 0]), constant("size", [1, 2, 4, 8])),
    ),
    "SPACE_TO_BATCH_ND": Move(
        "SpaceToBatchNDOptions", _spaces, inputs=("x", _BLOCK, _CROPS), effect=REFUSES
    ),
    "SPACE_TO_DEPTH": Move("SpaceToDepthOptions", _to_depth, {"block_size": 2}),
    "SPLIT": Move(
        "SplitOptions", lambda x: x, {"num_splits": 1}, (constant("axis", 3), "x")
    ),
    "SPLIT_V": Move(
        "SplitVOptions",
        lambda x: x,
        {"num_splits": 1},
        ("x", constant("sizes", [8]), constant("axis", 3)),
    ),
    "SQUEEZE": Move("SqueezeOptions", lambda x: x[0], {"squeeze_dims": [0]}),
    "STRIDED_SLICE": Move(
        "StridedSliceOptions",
        lambda x: x[:, :2],
        inputs=(
            "x",
            constant("start", [0, 0, 0, 0]),
            constant("end", [1, 2, 4, 8]),
            constant("strides", [1, 1, 1, 1]),
        ),
    ),
    "TILE": Move(
        "TileOptions",
        lambda x: np.tile(x, (1, 2, 1, 1)),
        inputs=("x", constant("counts", [1, 2, 1, 1])),
    ),
    "TOPK_V2": Move(
        "TopKV2Options",
        lambda x: -np.sort(-x, -1)[..., :3],
        inputs=("x", constant("count", 3)),
    ),
    "TRANSPOSE": Move(
        "TransposeOptions",
        lambda x: x.transpose(0, 3, 1, 2),
        inputs=("x", constant("order", [0, 3, 1, 2])),
    ),
    "UNPACK": Move(
        "UnpackOptions", lambda x: x[0], {"axis": 0, "num": 1}, effect=REFUSES
    ),
}


def _moves():
    """A case for every operator that moves data: to twice the scale."""
    for code, move in MOVES.items():
        data = {name: tensor(name, move.shape, move.dtype) for name in ("x", "y")}
        inputs = [data[i] if isinstance(i, str) else i for i in move.inputs]
        names = [i for i in move.inputs if isinstance(i, str)]

        def value(values, move=move, names=names):
            return move.value(*(values[name] for name in names))

        shape = value({name: np.zeros(move.shape) for name in names}).shape
        wrong, right = (
            graph(
                code,
                inputs,
                [
                    tensor("output", shape, move.dtype, factor * SCALES[move.dtype]),
                    *([constant_shape(shape)] if code == "TOPK_V2" else []),
                ],
                move.table,
                move.version,
                **move.options,
            )
            for factor in (2, 1)
        )
        yield Case(f"moved_by_{code}", "one_grid", wrong, right, value, move.effect)


def constant_shape(shape):
    """The indices of TOPK_V2."""
    return TFLiteTensor("indices", shape, "int32")


def _tables():
    """Rows of packed tables that are declared as int8."""
    ids = TFLiteTensor("ids", (3,), "int32")
    codes = {"ids": np.array([1, 5, 2], np.int32)}
    for dtype in ("int4", "int2"):
        rows = random_codes(tensor("rows", (8, 16), dtype), np.random.default_rng(0))
        table = tensor("rows", rows.shape, dtype, 0.05, data=rows)
        in_float = TFLiteTensor("output", (3, 16), "float32")
        wrong, right = (
            graph("EMBEDDING_LOOKUP", [ids, table], [output], version=5)
            for output in (tensor("output", (3, 16), "int8", 0.05), in_float)
        )
        name = f"{dtype}_rows_by_EMBEDDING_LOOKUP"
        yield Case(name, "one_grid", wrong, right, _looked_up, codes=codes)
    wrong, right = (_gathered_and_added(dtype, ids) for dtype in ("int4", "int8"))
    name = "int4_rows_by_GATHER"
    yield Case(name, "one_grid", wrong, right, lambda v: 2 * _looked_up(v), codes=codes)


def _looked_up(values):
    """The rows of a table."""
    return values["rows"][values["ids"]]


def _gathered_and_added(dtype, ids):
    """Rows of a table, declared as int8 and doubled by XNNPACK, which reads int8."""
    rows = np.random.default_rng(0).integers(-7, 8, (8, 16)).astype(np.int8)
    table = tensor("rows", rows.shape, dtype, 0.05, data=rows)
    gathered = tensor("gathered", (3, 16), "int8", 0.05)
    found = graph("GATHER", [table, ids], [gathered], "GatherOptions", 7)
    output = tensor("output", (3, 16), "int8", 0.1)
    found.tensors["output"] = output
    added = graph("ADD", [gathered, gathered], [output], "AddOptions", 2)
    found.ops += added.ops
    return dataclasses.replace(found, outputs=added.outputs)


# --- Types -----------------------------------------------------------------------

_COMPUTED = {
    "ADD": ("AddOptions", lambda x, y: x + y, "int16", "int8"),
    "EXP": ("ExpOptions", np.exp, "int8", "int16"),
    "MUL": ("MulOptions", lambda x, y: x * y, "int16", "int8"),
    "PRELU": ("", lambda x, y: np.where(x < 0, x * y, x), "int8", "int16"),
    "SQUARED_DIFFERENCE": (
        "SquaredDifferenceOptions",
        lambda x, y: (x - y) ** 2,
        "int8",
        "int16",
    ),
    "SUB": ("SubOptions", lambda x, y: x - y, "int16", "int8"),
}


def _types():
    """Codes that are computed from codes of another type."""
    for code, (table, function, dtype, other) in _COMPUTED.items():
        names = ["x"] if code == "EXP" else ["x", "y"]
        inputs = [tensor(name, (1, 64), dtype, 0.02) for name in names]
        version = 1 if code == "PRELU" else 2
        wrong, right = (
            graph(code, inputs, [tensor("output", (1, 64), t, 0.05)], table, version)
            for t in (other, dtype)
        )

        def value(values, function=function, names=names):
            return function(*(values[name] for name in names))

        yield Case(f"types_of_{code}", "one_type", wrong, right, value)
    for code in ("MEAN", "SUM"):
        for dtype, other in (("int8", "int16"), ("int8", "int32"), ("int16", "int8")):
            wrong, right = (_sum(code, dtype, output) for output in (other, dtype))
            name = f"{code}_of_{dtype}_in_{other}"
            yield Case(name, "one_type", wrong, right, _SUMS[code])
    for dtype, other in (("int8", "int16"), ("int16", "int8")):
        wrong, right = (_dense(dtype, output) for output in (other, dtype))
        name = f"FULLY_CONNECTED_of_{dtype}_in_{other}"
        yield Case(name, "one_type", wrong, right, _weighted)


_SUMS = {
    "MEAN": lambda values: values["x"].mean(1),
    "SUM": lambda values: values["x"].sum(1),
}


def _sum(code, dtype, output, length=16, scale=0.01):
    """A sum of rows."""
    inputs = [tensor("x", (1, length, 4), dtype), constant("axes", [1])]
    found = tensor("output", (1, 4), output, scale)
    return graph(code, inputs, [found], "ReducerOptions", 2)


def _matrices():
    """Products of matrices in types without a kernel, or with zero points."""
    for first, second, wrong, right in (
        ("int8", "int8", "int16", "int8"),
        ("int16", "int16", "int8", "int16"),
        ("int16", "int16", "int32", "int16"),
        ("int16", "int8", "int8", "int16"),
        ("int16", "int8", "int32", "int16"),
    ):
        yield Case(
            f"{first}_times_{second}_in_{wrong}",
            "matrix_types",
            _product(first, second, wrong),
            _product(first, second, right),
            _multiplied,
        )
    yield Case(
        "int32_product_of_another_scale",
        "accumulator_scales",
        _product("int8", "int8", "int32", product=0.01),
        _product("int8", "int8", "int32"),
        _multiplied,
    )
    for place in range(3):
        moved = [5 * (place == i) for i in range(3)]
        yield Case(
            f"int32_product_with_zero_point_{place}",
            "matrix_accumulators",
            _product("int8", "int8", "int32", *moved),
            _product("int8", "int8", "int32"),
            _multiplied,
        )


def _product(first, second, output, *zero_points, product=None, length=16):
    """The product of two matrices."""
    moved = zero_points or (0, 0, 0)
    scales = [SCALES[first], SCALES[second]]
    usual = {"int8": 0.2, "int16": 0.002, "int32": np.prod(np.float32(scales))}
    inputs = [
        tensor("x", (1, 4, length), first, zero_point=moved[0]),
        tensor("y", (1, length, 8), second, zero_point=moved[1]),
    ]
    product = product or usual[output]
    found = tensor("output", (1, 4, 8), output, product, moved[2])
    return graph("BATCH_MATMUL", inputs, [found], "BatchMatMulOptions", 4)


def _multiplied(values):
    """The product of two matrices."""
    return values["x"] @ values["y"]


def _casts():
    """Codes that are copied to another grid."""
    wrong, right = (
        graph(
            "CAST",
            [tensor("x", (1, 64), "int8")],
            [tensor("output", (1, 64), "int16", scale)],
            "CastOptions",
            3,
        )
        for scale in (2e-4, SCALES["int8"])
    )
    yield Case("cast_to_other_scale", "cast", wrong, right, lambda v: v["x"])
    for source, output, guard, code in (
        ("int16", "int8", "narrowing_casts", "QUANTIZE"),
        ("int32", "int16", "narrowing_casts", "QUANTIZE"),
        ("int8", "float32", "casts_to_float", "DEQUANTIZE"),
    ):
        first = tensor("x", (1, 64), source, 0.05)
        found = tensor("output", (1, 64), output, 0.05)
        if output == "float32":
            found.quantization = None
        wrong = graph("CAST", [first], [found], "CastOptions", 3)
        right = graph(code, [first], [found], f"{code.capitalize()}Options", 2)
        # Beyond both types; QUANTIZE shifts codes in int32 by one bit.
        codes = {"x": np.linspace(-(2**17), 2**17, 64).reshape(1, 64)}
        codes = codes if source == "int32" else {}
        name = f"cast_of_{source}_to_{output}"
        yield Case(name, guard, wrong, right, lambda v: v["x"], codes=codes)


# --- Kernels ---------------------------------------------------------------------

_CONV = {"padding": "VALID", "stride_h": 1, "stride_w": 1}
_DEPTHWISE = {**_CONV, "depth_multiplier": 1}


def _conv(
    code,
    dtype="int8",
    kernel="int8",
    zero_point=0,
    bias=1.0,
    bias_zero_point=0,
    wide=None,
    axis=None,
    scales=(0.01,) * 8,
):
    """A convolution of single pixels, whose bias has `bias` times its right scale."""
    rng = np.random.default_rng(0)
    depthwise = code == "DEPTHWISE_CONV_2D"
    shape = (1, 1, 1, 8) if depthwise else (8, 1, 1, 8)
    low, high = LIMITS[kernel]
    codes = rng.integers(low + 1, high + 1, shape).astype(np.int8)
    axis = (3 if depthwise else 0) if axis is None else axis
    weight = tensor("kernel", shape, kernel, scales, zero_point, codes, axis)
    wide = wide or ("int32" if dtype == "int8" else "int64")
    values = rng.integers(-2000, 2000, 8).astype(wide)
    products = bias * np.float32(scales) * np.float32(SCALES[dtype])
    offsets = tensor("bias", (8,), wide, products, bias_zero_point, values)
    source = tensor("x", IMAGE, dtype)
    output = tensor("output", IMAGE, dtype, 4 * SCALES[dtype])
    if code == "TRANSPOSE_CONV":
        inputs = [constant("shape", list(IMAGE)), weight, source, offsets]
        return graph(code, inputs, [output], "TransposeConvOptions", 3, **_CONV)
    table = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    options = _DEPTHWISE if depthwise else _CONV
    return graph(code, [source, weight, offsets], [output], table, 7, **options)


def _dense(dtype="int8", output=None, **changes):
    """A dense layer with one scale per channel."""
    weight = _conv("CONV_2D", dtype, **changes)
    kernel, offsets = (weight.tensors[name] for name in ("kernel", "bias"))
    kernel = dataclasses.replace(
        kernel, shape=(8, 8), data=kernel.constant.reshape(8, 8)
    )
    output = output or dtype
    inputs = [tensor("x", (4, 8), dtype), kernel, offsets]
    found = tensor("output", (4, 8), output, 4 * SCALES[output])
    return graph("FULLY_CONNECTED", inputs, [found], "FullyConnectedOptions", 7)


def _weighted(values):
    """What a dense layer, or a convolution of single pixels, computes."""
    x, kernel = values["x"], values["kernel"]
    if kernel.shape[0] == 1:
        return x * kernel[0, 0, 0] + values["bias"]
    return x @ kernel.reshape(8, 8).T + values["bias"]


def _kernels():
    """Kernels and biases with zero points, or scales that are not read."""
    one_scale = {"scales": (0.01,)}
    for code, kernel, right in (
        ("DEPTHWISE_CONV_2D", "int4", "int8"),
        ("DEPTHWISE_CONV_2D", "int2", "int8"),
        ("CONV_2D", "int2", "int4"),
    ):
        yield Case(
            f"{kernel}_kernel_of_{code}_for_int16",
            "packed_kernels",
            _conv(code, "int16", kernel, **one_scale),
            _conv(code, "int16", right, **one_scale),
            _weighted,
        )
    increasing = {"scales": 0.01 * np.arange(1, 9)}
    for code in ("CONV_2D", "TRANSPOSE_CONV"):
        for dtype in ("int8", "int16"):
            yield Case(
                f"other_axis_of_{code}_in_{dtype}",
                "kernel_axes",
                _conv(code, dtype, axis=3, **increasing),
                _conv(code, dtype, **increasing),
                _weighted,
            )
    for code, dtype, wide, effect in (
        ("CONV_2D", "int16", "int32", WRONG),
        ("CONV_2D", "int8", "int64", REFUSES),
        ("DEPTHWISE_CONV_2D", "int16", "int32", REFUSES),
        ("TRANSPOSE_CONV", "int16", "int32", WRONG),
        ("FULLY_CONNECTED", "int8", "int64", WRONG),
    ):
        written = (
            _dense if code == "FULLY_CONNECTED" else functools.partial(_conv, code)
        )
        yield Case(
            f"{wide}_bias_of_{code}_in_{dtype}",
            "bias_types",
            written(dtype=dtype, wide=wide),
            written(dtype=dtype),
            _weighted,
            effect,
        )
    for code in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"):

        def written(code=code, **changes):
            return _dense(**changes) if "FULLY" in code else _conv(code, **changes)

        effect = REFUSES if code == "CONV_2D" else WRONG
        zero_points = {"zero_point": 50}
        for name, guard, changes in (
            ("zero_point_of_kernel", "kernel_zero_points", zero_points),
            ("zero_point_of_bias", "kernel_zero_points", {"bias_zero_point": 900}),
            ("scale_of_bias", "bias_scales", {"bias": 2.0}),
        ):
            yield Case(
                f"{name}_of_{code}",
                guard,
                written(**changes),
                written(),
                _weighted,
                effect if name == "zero_point_of_kernel" else WRONG,
            )


def _several_scales():
    """Tensors with several scales, of which the first one is read, or none."""
    several = 0.05 * np.arange(1, 9)
    for code, effect in (("ADD", ENDS), ("SUB", ENDS), ("MUL", WRONG)):
        table, function, _ = _OF_TWO.get(code, ("MulOptions", _times, None))
        codes = np.arange(-4, 4, dtype=np.int8)
        wrong, right = (
            graph(
                code,
                [
                    tensor("x", (1, 8), "int8"),
                    tensor("y", (8,), "int8", grid, 0, codes),
                ],
                [tensor("output", (1, 8), "int8", 0.2)],
                table,
                2,
            )
            for grid in (several, 0.05)
        )
        name = f"several_scales_of_{code}"
        yield Case(name, "several_scales", wrong, right, function, effect)
    for first, second, output in (
        ("int8", "int8", "int8"),
        ("int16", "int8", "int16"),
        ("int8", "int8", "int32"),
    ):
        wrong, right = (_product(first, second, output) for _ in range(2))
        for one, grid in ((wrong, several), (right, 0.05)):
            codes = random_codes(one.tensors["y"], np.random.default_rng(0))
            one.tensors["y"] = tensor("y", (1, 16, 8), second, grid, 0, codes, 2)
            del one.inputs["y"]
        name = f"several_scales_of_{first}_times_{second}_in_{output}"
        yield Case(name, "several_scales", wrong, right, _multiplied)


def _times(values):
    """The product of two tensors."""
    return values["x"] * values["y"]


# --- Values ----------------------------------------------------------------------


def _pair(code, table, dtype, scales, output, zero_points=(0, 0, 0), version=2):
    """An operator of two tensors; scales of 0 stand for none."""
    grids = [*zip((*scales, output), zero_points, strict=True)]
    x, y, found = (
        tensor(name, (1, 64), dtype, scale, zero_point)
        for name, (scale, zero_point) in zip(("x", "y", "output"), grids, strict=True)
    )
    return graph(code, [x, y], [found], table, version)


# Operator -> options table, what it computes, a fine scale of its output in int8.
_OF_TWO = {
    "ADD": ("AddOptions", lambda v: v["x"] + v["y"], 1.0),
    "SUB": ("SubOptions", lambda v: v["x"] - v["y"], 1.0),
    "SQUARED_DIFFERENCE": (
        "SquaredDifferenceOptions",
        lambda v: (v["x"] - v["y"]) ** 2,
        16.0,
    ),
}


def _sums_of_two():
    """Sums and differences with scales that end the process."""
    scales = 0.5, 0.3  # Powers of two would be added by other kernels in int16.
    for code, (table, function, output) in _OF_TWO.items():
        right = _pair(code, table, "int8", scales, output)
        wrong = _pair(code, table, "int8", scales, output)
        for one in wrong.tensors.values():
            one.quantization = None
        name = f"{code}_without_scales"
        yield Case(name, "scales_of_sums", wrong, right, function, ENDS)
        for dtype, limit in (("int8", 2.0**-20), ("int16", 2.0**-15)):
            if code == "SQUARED_DIFFERENCE" and dtype == "int16":
                continue  # It has no kernel.
            limit = 2.0**-14 if code == "SQUARED_DIFFERENCE" else limit
            right = _pair(code, table, dtype, scales, output)
            wrong = _pair(code, table, dtype, scales, limit)
            name = f"steep_{code}_in_{dtype}"
            yield Case(name, "steep_sums", wrong, right, function, ENDS)
            if (code, dtype) == ("ADD", "int8"):
                wrong = _pair(code, table, dtype, scales, 2.0**-15)
                yield Case("wrapping_ADD", "steep_sums", wrong, right, function)
            wrong = _pair(code, table, dtype, (0.5, 0.0), output)
            name = f"{code}_in_{dtype}_of_scale_0"
            yield Case(name, "scales", wrong, right, function, ENDS)


def _scales():
    """Scales that XNNPACK's QUANTIZE does not survive."""
    for name, scale in (
        ("0", 0.0),
        ("negative", -0.05),
        ("infinite", np.inf),
        ("NaN", np.nan),
        ("subnormal", 1e-41),
    ):
        wrong, right = (
            graph(
                "QUANTIZE",
                [tensor("x", (1, 64), "int8", 0.04)],
                [tensor("output", (1, 64), "int8", output)],
                "QuantizeOptions",
            )
            for output in (scale, 0.05)
        )
        yield Case(f"scale_{name}", "scales", wrong, right, lambda v: v["x"], ENDS)


def _int16_zero_points():
    """Zero points in int16: most kernels refuse them, CAST copies the codes."""
    for code, table, effect in (
        ("ADD", "AddOptions", REFUSES),
        ("MUL", "MulOptions", REFUSES),
    ):
        wrong, right = (
            _pair(code, table, "int16", (2e-4, 2e-4), 4e-4, (0, 0, zero_point), 4)
            for zero_point in (900, 0)
        )
        function = np.add if code == "ADD" else np.multiply
        yield Case(
            f"int16_zero_point_of_{code}",
            "int16_zero_points",
            wrong,
            right,
            lambda v, function=function: function(v["x"], v["y"]),
            effect,
        )


def _softmaxes():
    """Softmaxes on other grids than that of their kernel."""

    def written(dtype, output, scale, zero_point):
        source = tensor("x", (1, 64), dtype)
        found = tensor("output", (1, 64), output, scale, zero_point)
        return graph("SOFTMAX", [source], [found], "SoftmaxOptions", 3, beta=1.0)

    def value(values):
        powers = np.exp(values["x"] - values["x"].max())
        return powers / powers.sum()

    right = written("int8", "int8", 1 / 256, -128)
    for name, grid, effect in (
        ("scale", ("int8", "int8", 1 / 128, -128), REFUSES),
        ("zero_point", ("int8", "int8", 1 / 256, 0), REFUSES),
        ("int16_scale", ("int16", "int16", 1 / 256, 0), REFUSES),
        ("int16_in_int8", ("int16", "int8", 1 / 256, 0), WRONG),
    ):
        yield Case(f"softmax_{name}", "softmax", written(*grid), right, value, effect)
    wrong, right = (
        graph(
            "SOFTMAX",
            [tensor("x", (1, 2), "int16", scale)],
            [tensor("output", (1, 2), "int16", 1 / 32768)],
            "SoftmaxOptions",
            3,
            beta=2.0,
        )
        for scale in (
            2.51,
            1e-5,
        )  # Closer ones are off by 2 where powers are < exp(-10).
    )
    codes = np.array([LIMITS["int16"]])
    yield Case(
        "steep_softmax",
        "steep_softmax",
        wrong,
        right,
        lambda v: value({"x": 2 * v["x"]}),
        codes={"x": codes},
    )


# Operator -> options table, what it computes, scales of input and output in int16.
_OF_TABLES = {
    "EXP": ("ExpOptions", np.exp, 2e-4, 3e-4),
    "GELU": ("GeluOptions", lambda x: x * np.vectorize(_normal)(x), 2e-4, 3e-5),
    "LOG": ("", np.log, 2e-4, 1e-4),
    "RSQRT": ("", lambda x: x**-0.5, 2e-4, 1e-3),
}


def _normal(x):
    """The share of a normal distribution below a value."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def _coarse_tables():
    """Functions by a table in int16, which interpolates."""
    for code, (table, function, scale, output) in _OF_TABLES.items():
        wrong, right = (
            graph(
                code,
                [tensor("x", (1, 64), dtype, factor * scale)],
                [tensor("output", (1, 64), dtype, factor * output)],
                table,
                2,
            )
            for dtype, factor in (("int16", 1), ("int8", 256))
        )
        codes = np.arange(64) * (2**8 + 1) + 32  # Positive in both types.
        yield Case(
            f"{code}_in_int16",
            "coarse_tables",
            wrong,
            right,
            lambda v, function=function: function(v["x"]),
            codes={"x": codes.reshape(1, 64)},
        )


def _single():
    """Negations, quotients, indices and long sums."""
    moved = [tensor("x", (1, 64), "int8", zero_point=9)]
    yield Case(
        "NEG_with_zero_point",
        "negation",
        graph(
            "NEG",
            moved,
            [tensor("output", (1, 64), "int8", zero_point=9)],
            "NegOptions",
        ),
        graph(
            "NEG",
            [tensor("x", (1, 64), "int8")],
            [tensor("output", (1, 64), "int8")],
            "NegOptions",
        ),
        lambda v: -v["x"],
    )
    for dtype in ("int8", "int16"):
        codes = {
            "x": (np.arange(64).reshape(1, 64) % 7 - 3).astype(dtype),
            "y": np.full((1, 64), LIMITS[dtype][1], dtype),
        }
        right = _pair("DIV", "DivOptions", "float32", (None, None), None, version=1)
        yield Case(
            f"DIV_in_{dtype}",
            "quotients",
            _pair("DIV", "DivOptions", dtype, (0.01, 0.01), 0.5),
            right,
            lambda v: v["x"] / v["y"],
            codes=codes,
        )
    for dtype in ("int8", "uint8"):
        wrong, right = (
            graph(
                "GATHER",
                [
                    tensor("rows", (8, 4), "int8", data=np.eye(8, 4, dtype=np.int8)),
                    TFLiteTensor("ids", (3,), indices),
                ],
                [tensor("output", (3, 4), "int8")],
                "GatherOptions",
            )
            for indices in (dtype, "int32")
        )
        codes = {"ids": np.array([1, 3, 0])}
        name = f"indices_in_{dtype}"
        yield Case(name, "indices", wrong, right, _looked_up, REFUSES, codes)


def _long():
    """Sums and pools in int16 whose accumulators overflow, all of the lowest code."""
    lowest = LIMITS["int16"][0]
    for code in ("SUM", "MEAN"):
        scale = 2e-4 * (2**16 if code == "SUM" else 1)
        wrong, right = (
            _sum(code, "int16", "int16", length, scale) for length in (65537, 65536)
        )
        codes = {"x": np.full((1, 65537, 4), lowest)}
        name = f"long_{code}"
        yield Case(name, "long_sums", wrong, right, _SUMS[code], codes=codes)

    def pool(width):
        options = {**_POOL, "filter_height": 256, "filter_width": width}
        source = tensor("x", (1, 256, width, 1), "int16")
        output = tensor("output", (1, 1, 1, 1), "int16")
        table = "Pool2DOptions"
        return graph("AVERAGE_POOL_2D", [source], [output], table, 3, **options)

    yield from _long_products()
    codes = {"x": np.full((1, 256, 256, 1), lowest)}
    value = MOVES["AVERAGE_POOL_2D"].value
    yield Case(
        "large_pool",
        "large_pools",
        pool(256),
        pool(255),
        lambda v: value(v["x"]),
        codes=codes,
    )


def _long_products():
    """Products whose sums in int32 overflow, all of the lowest code."""
    lowest, length = LIMITS["int8"][0], 2**17
    wrong, right = (
        _product("int8", "int8", "int8", product=3e5 / 128, length=count)
        for count in (length, length - 1)
    )
    codes = {"x": np.full((1, 4, length), lowest), "y": np.full((1, length, 8), lowest)}
    yield Case("long_product", "long_products", wrong, right, _multiplied, codes=codes)
    for kernel, length in (("int8", 512), ("int4", 8192), ("int2", 2**15)):
        wrong, right = (_long_dense(kernel, count) for count in (length, length - 1))
        name, codes = f"long_dense_{kernel}", {"x": np.full((1, length), -(2**15))}
        yield Case(name, "long_products", wrong, right, _dense_of_rows, codes=codes)


def _long_dense(kernel, length):
    """A dense layer in int16 without a bias, all of the lowest code."""
    codes = np.full((8, length), LIMITS[kernel][0], np.int8)
    weight = tensor("kernel", codes.shape, kernel, 0.01, 0, codes)
    inputs = [tensor("x", (1, length), "int16"), weight, None]
    output = tensor("output", (1, 8), "int16", 0.01 * 2e-4 * 2**17)
    return graph("FULLY_CONNECTED", inputs, [output], "FullyConnectedOptions", 7)


def _dense_of_rows(values):
    """What a dense layer without a bias computes."""
    return values["x"] @ values["kernel"].T


# --- LSTM ------------------------------------------------------------------------

_STEPS, _UNITS, _GATES = 6, 8, 4
_BETWEEN = [f"between{number}" for number in range(_GATES + 1)]


def _lstm(cell_scale):
    """An LSTM whose states are variables, and whose gates are intermediates."""
    rng = np.random.default_rng(1)
    inputs = [tensor("x", (1, _STEPS, _UNITS), "int8", 1 / 64)]
    for kind in ("kernel", "recurrent"):
        for gate in range(_GATES):
            codes = rng.integers(-127, 128, (_UNITS, _UNITS)).astype(np.int8)
            name = f"{kind}{gate}"
            inputs.append(tensor(name, codes.shape, "int8", 0.005, data=codes))
    inputs += [None] * 3
    for gate in range(_GATES):
        codes = rng.integers(-2000, 2000, _UNITS).astype(np.int32)
        inputs.append(tensor(f"bias{gate}", (_UNITS,), "int32", 0.005 / 64, data=codes))
    state = tensor("state", (1, _UNITS), "int8", 1 / 128)
    cell = tensor("cell", (1, _UNITS), "int16", cell_scale)
    inputs += [None, None, state, cell, *[None] * 4]
    output = tensor("output", (1, _STEPS, _UNITS), "int8", 1 / 128)
    table = "UnidirectionalSequenceLSTMOptions"
    code, options = (
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        {"fused_activation_function": "TANH"},
    )
    found = graph(code, inputs, [output], table, 3, **options)
    for name in _BETWEEN:
        one = (name, (1,), "int16", 2**-12)
        found.tensors[name] = tensor(*one)
    found.tensors[name] = tensor(name, (1,), "int8", 1 / 128)
    return dataclasses.replace(found, inputs={"x": "x"})


def _with_states(content):
    """The bytes of an LSTM with its variables and intermediates."""
    model, _ = flatbuffer.object_tree(content)
    [part] = model.subgraphs
    places = {one.name.decode(): place for place, one in enumerate(part.tensors)}
    part.operators[0].intermediates = [places[name] for name in _BETWEEN]
    for name in ("state", "cell"):
        part.tensors[places[name]].isVariable = True
    return flatbuffer.finished(model)


def _remembered(values):
    """What the LSTM computes."""
    state, cell = np.zeros((2, 1, _UNITS))
    outputs = []
    for step in range(_STEPS):
        gates = [
            values["x"][:, step] @ values[f"kernel{gate}"].T
            + state @ values[f"recurrent{gate}"].T
            + values[f"bias{gate}"]
            for gate in range(_GATES)
        ]
        opened, kept, shown = (1 / (1 + np.exp(-gates[gate])) for gate in (0, 1, 3))
        cell = kept * cell + opened * np.tanh(gates[2])
        state = shown * np.tanh(cell)
        outputs.append(state)
    return np.stack(outputs, 1)


def _cells():
    """An LSTM whose cell state has a scale that is no power of two."""
    yield Case(
        "cell_scale",
        "lstm_cells",
        _lstm(0.0004),
        _lstm(2**-12),
        _remembered,
        finish=_with_states,
    )


_FAMILIES = (
    _moves,
    _tables,
    _types,
    _matrices,
    _casts,
    _kernels,
    _several_scales,
    _sums_of_two,
    _scales,
    _int16_zero_points,
    _softmaxes,
    _coarse_tables,
    _single,
    _long,
    _cells,
)
CASES = [case for family in _FAMILIES for case in family()]
