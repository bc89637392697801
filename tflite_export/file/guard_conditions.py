"""Conditions of guards: functions that describe what LiteRT would not compute right.

Each returns what an operator has, "" if nothing is wrong with it. Operators in float,
and in types that are no codes of activations, have nothing wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

# Operators that move, compare or average codes, which LiteRT does not rescale: places
# of the inputs that are data; none: all of them.
MOVED: dict[str, tuple[int, ...]] = {
    "AVERAGE_POOL_2D": (0,),
    "BATCH_TO_SPACE_ND": (0,),
    "BROADCAST_TO": (0,),
    "CONCATENATION": (),
    "DEPTH_TO_SPACE": (0,),
    "DYNAMIC_UPDATE_SLICE": (0, 1),
    "EMBEDDING_LOOKUP": (1,),
    "EXPAND_DIMS": (0,),
    "GATHER": (0,),
    "GATHER_ND": (0,),
    "MAXIMUM": (0, 1),
    "MAX_POOL_2D": (0,),
    "MINIMUM": (0, 1),
    "MIRROR_PAD": (0,),
    "NEG": (0,),
    "PACK": (),
    "PAD": (0,),
    "PADV2": (0, 2),
    "REDUCE_MAX": (0,),
    "REDUCE_MIN": (0,),
    "RESHAPE": (0,),
    "RESIZE_BILINEAR": (0,),
    "RESIZE_NEAREST_NEIGHBOR": (0,),
    "REVERSE_SEQUENCE": (0,),
    "REVERSE_V2": (0,),
    "SELECT": (1, 2),
    "SELECT_V2": (1, 2),
    "SLICE": (0,),
    "SPACE_TO_BATCH_ND": (0,),
    "SPACE_TO_DEPTH": (0,),
    "SPLIT": (1,),
    "SPLIT_V": (0,),
    "SQUEEZE": (0,),
    "STRIDED_SLICE": (0,),
    "TILE": (0,),
    "TOPK_V2": (0,),
    "TRANSPOSE": (0,),
    "UNPACK": (0,),
}
# Operators that rescale codes, of one type only: places of their inputs.
COMPUTED: dict[str, tuple[int, ...]] = {
    "ADD": (0, 1),
    "EXP": (0,),
    "FULLY_CONNECTED": (0,),
    "MEAN": (0,),
    "MUL": (0, 1),
    "PRELU": (0, 1),
    "SQUARED_DIFFERENCE": (0, 1),
    "SUB": (0, 1),
    "SUM": (0,),
}
# Operators with a kernel: places of their input, kernel and bias.
WEIGHTED: dict[str, tuple[int, int, int]] = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
_CODES = frozenset(("int8", "int16"))  # Types of the codes of activations.
# Types of the factors of BATCH_MATMUL -> types of their product.
_PRODUCTS = {
    ("int8", "int8"): ("int8", "int32"),
    ("int16", "int16"): ("int16",),
    ("int16", "int8"): ("int16",),
}
# Types of a softmax -> scale and zero point of its output.
_SOFTMAX = {
    ("int8", "int8"): (1 / 256, -128),
    ("int8", "int16"): (1 / 32768, 0),
    ("int16", "int16"): (1 / 32768, 0),
}
# Types of inputs -> type of biases, types of kernels that are packed and read as such.
_BIASES = {"int8": "int32", "int16": "int64"}
_PACKED_IN_INT16 = {"CONV_2D": ("int8", "int4"), "DEPTHWISE_CONV_2D": ("int8",)}
# Operators without a kernel -> places of inputs that may have several scales.
_SEVERAL_SCALES = {"DEQUANTIZE": (0,), "EMBEDDING_LOOKUP": (1,)}
# Type -> minus its lowest code, as a power of two.
_LOWEST = {"int2": 1, "int4": 3, "int8": 7, "int16": 15, "int32": 31}
_STEEPEST_SOFTMAX = 5.0  # Half of the range of its table of powers.
_INDICES = ("int16", "int32", "int64")  # Types that GATHER reads.
# How many codes of -2 ** 15 are added up in int32; a pool also adds half its size.
_LONGEST_SUM, _LARGEST_POOL = 2**16, 2**16 - 1
_SCALE_TOLERANCE = 1e-5  # Relative; products in float32 are closer.
_CELL_STATE = 19  # Place of the cell state among the inputs of an LSTM.


def mixed_grids(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds data that change their type, scale or zero point on their way."""
    outputs = [graph.tensors[name] for name in op.outputs]
    if op.code == "EMBEDDING_LOOKUP" and outputs[0].dtype == "float32":
        return ""  # It applies the scales of the table.
    if op.code == "TOPK_V2":
        outputs = outputs[:1]  # The other one is indices.
    places = MOVED[op.code] or range(len(op.inputs))
    first, *others = [*_inputs(op, graph, *places), *outputs]
    changed = [
        tensor
        for tensor in others
        if tensor.dtype != first.dtype or tensor.quantization != first.quantization
    ]
    return _described([first, *changed]) if changed else ""


def cast_grids(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds codes that are copied from one grid to another one."""
    tensors = [*_inputs(op, graph, 0), graph.tensors[op.outputs[0]]]
    grids = [t.quantization for t in tensors if t.quantization is not None]
    moved = len(grids) == len(tensors) and grids[0] != grids[1]
    return _described(tensors) if moved else ""


def narrowing_casts(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds codes that are cast to a type with fewer bits, in which they wrap."""
    tensors = [*_inputs(op, graph, 0), graph.tensors[op.outputs[0]]]
    if any(t.quantization is None for t in tensors):
        return ""
    first, output = (_LOWEST.get(t.dtype, 0) for t in tensors)
    return _described(tensors) if output < first else ""


def casts_to_float(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds codes that become numbers without their scale."""
    [source] = _inputs(op, graph, 0)
    to_float = graph.tensors[op.outputs[0]].dtype == "float32"
    return _described([source]) if to_float and source.quantization else ""


def mixed_types(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds codes that are computed from codes of another type."""
    types = [tensor.dtype for tensor in _inputs(op, graph, *COMPUTED[op.code])]
    output = graph.tensors[op.outputs[0]].dtype
    if not _CODES & {*types} or {*types} == {output}:
        return ""
    return f"{' and '.join(types)} to {output}"


def unknown_products(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds products of matrices in types for which there is no kernel."""
    first, second = (tensor.dtype for tensor in _inputs(op, graph, 0, 1))
    output = graph.tensors[op.outputs[0]].dtype
    if first not in _CODES or output in _PRODUCTS.get((first, second), ()):
        return ""
    return f"{first} and {second} to {output}"


def moved_accumulators(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds products of matrices in int32 with zero points."""
    tensors = [*_inputs(op, graph, 0, 1), graph.tensors[op.outputs[0]]]
    in_int32 = (tensors[0].dtype, tensors[2].dtype) == ("int8", "int32")
    return _zero_points(tensors) if in_int32 else ""


def accumulator_scales(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds products of matrices in int32 with another scale than the kernel's."""
    tensors = [*_inputs(op, graph, 0, 1), graph.tensors[op.outputs[0]]]
    grids = [t.quantization for t in tensors if t.quantization is not None]
    if (tensors[0].dtype, tensors[2].dtype) != ("int8", "int32") or len(grids) < 3:
        return ""
    first, second, output = (float(grid.scale[0]) for grid in grids)
    if np.isclose(output, first * second, _SCALE_TOLERANCE, 0):
        return ""
    return f"the scale {output:.6g}, the product {first * second:.6g}"


def long_products(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds sums of products that int32 may not hold.

    BATCH_MATMUL adds up in int64 in int16, and FULLY_CONNECTED with a bias in int64.
    """
    first, second = _inputs(op, graph, 0, 1)
    expected = "int8" if op.code == "BATCH_MATMUL" else "int16"
    if first.dtype != expected or _inputs(op, graph, 2):
        return ""
    axis = -2 if op.options.get("adj_x") else -1
    if op.code == "FULLY_CONNECTED":
        first = second
    count = first.shape[axis]
    limit = 2 ** (31 - _LOWEST[expected] - _LOWEST.get(second.dtype, 0)) - 1
    return f"{count} elements, at most {limit}" if count > limit else ""


def packed_kernels(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds packed kernels for int16 that are read as other codes."""
    source, kernel = _inputs(op, graph, 0, 1)
    known = _PACKED_IN_INT16[op.code]
    is_found = source.dtype == "int16" and kernel.dtype not in known
    return f"int16 and {kernel.dtype}" if is_found else ""


def several_scales(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds several scales where LiteRT reads the first one only, or none."""
    places = WEIGHTED[op.code][1:] if op.code in WEIGHTED else ()
    allowed = {
        op.inputs[place]
        for place in (*places, *_SEVERAL_SCALES.get(op.code, ()))
        if place < len(op.inputs)
    }
    if op.code == "QUANTIZE" and not _computes_codes(op, graph, 0):
        allowed.add(op.outputs[0])
    found = [t for t in _tensors(op, graph) if t.name not in allowed]
    return _described(tensor for tensor in found if tensor.num_scales > 1)


def kernel_axes(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds kernels whose scales are not along the axis of output channels."""
    source, place, _ = WEIGHTED[op.code]
    [kernel] = _inputs(op, graph, place)
    grid = kernel.quantization
    if grid is None or kernel.num_scales < 2 or not grid.axis:
        return ""
    found = f"`{kernel.name}` has {kernel.num_scales} scales along axis {grid.axis}"
    return found if _computes_codes(op, graph, source) else ""


def bias_types(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds biases in a type that is not read, or as another one."""
    source, _, place = WEIGHTED[op.code]
    [first], biases = _inputs(op, graph, source), _inputs(op, graph, place)
    expected = _BIASES.get(first.dtype)
    found = [bias for bias in biases if expected and bias.dtype != expected]
    return ", ".join(f"`{b.name}` is {b.dtype} for {first.dtype}" for b in found)


def kernel_zero_points(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds zero points of kernels and biases.

    FULLY_CONNECTED applies that of a kernel with one scale.
    """
    source, kernel, bias = WEIGHTED[op.code]
    if not _computes_codes(op, graph, source):
        return ""
    kernels = _inputs(op, graph, kernel)
    if op.code == "FULLY_CONNECTED":
        kernels = [tensor for tensor in kernels if tensor.num_scales > 1]
    return _zero_points([*kernels, *_inputs(op, graph, bias)])


def bias_scales(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds biases whose scales are not those of the products they are added to."""
    tensors = _inputs(op, graph, *WEIGHTED[op.code])
    grids = [t.quantization for t in tensors if t.quantization is not None]
    if len(grids) < 3 or not _computes_codes(op, graph, WEIGHTED[op.code][0]):
        return ""
    source, kernel, bias = (np.asarray(grid.scale, np.float64) for grid in grids)
    with np.errstate(invalid="ignore"):  # Of scales that are not finite.
        products, name = source * kernel, tensors[2].name
    if min(len(bias), len(products)) > 1 and len(bias) != len(products):
        return f"`{name}` has {len(bias)} scales for {len(products)} products"
    scales, expected = np.broadcast_arrays(bias, products)
    wrong = ~np.isclose(scales, expected, _SCALE_TOLERANCE, 0)
    if not wrong.any():
        return ""
    scale, product = scales[wrong][0], expected[wrong][0]
    return f"`{name}` has the scale {scale:.6g}, the product {product:.6g}"


def any_zero_points(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds zero points."""
    return _zero_points(_tensors(op, graph))


def int16_zero_points(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds zero points of tensors in int16."""
    return _zero_points(t for t in _tensors(op, graph) if t.dtype == "int16")


def unusable_scales(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds scales that are 0, negative, not finite or subnormal."""
    found: list[str] = []
    for tensor in _tensors(op, graph):
        if tensor.quantization is None:
            continue
        scale = np.asarray(tensor.quantization.scale, np.float32)
        usable = (scale >= np.finfo(np.float32).tiny) & (scale < np.inf)
        if not usable.all():
            found.append(f"`{tensor.name}` has the scale {scale[~usable][0]}")
    return ", ".join(found)


def missing_scales(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds sums of codes without a scale."""
    without = [t for t in _tensors(op, graph) if t.quantization is None]
    return _described(t for t in without if t.dtype in _CODES)


def steep_sums(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds sums with far smaller scales than those of their inputs.

    A factor must be below 1: in add.cc and sub.cc, twice the larger scale of the inputs
    over 2 ** 20 (int8) or 2 ** 15 (int16) scales of the output; in
    squared_difference.cc, its square over 2 ** 14 scales of the output. ADD in int8
    must have the limit of int16: x86-64 computes its sums modulo 2 ** 16 codes.
    """
    tensors = [*_inputs(op, graph, 0, 1), graph.tensors[op.outputs[0]]]
    grids = [t.quantization for t in tensors if t.quantization is not None]
    if len(grids) < len(tensors) or tensors[0].dtype not in _CODES:
        return ""
    *sources, output = (float(grid.scale[0]) for grid in grids)
    doubled, bits = 2 * max(sources), 15
    if op.code == "SUB" and tensors[0].dtype == "int8":
        bits = 20
    if op.code == "SQUARED_DIFFERENCE":
        doubled, bits = doubled**2, 14
    limit = math.ldexp(doubled, -bits)
    steep = 0 < output <= limit
    return f"a scale of {output:.6g}, at most {limit:.6g}" if steep else ""


def quotients(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds divisions of codes."""
    [source] = _inputs(op, graph, 0)
    return source.dtype if source.dtype in _CODES else ""


def long_sums(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds sums of more 16-bit codes than int32 holds."""
    [source] = _inputs(op, graph, 0)
    outputs = math.prod(graph.tensors[op.outputs[0]].shape)
    count = math.prod(source.shape) // max(outputs, 1)
    too_long = source.dtype == "int16" and count > _LONGEST_SUM
    return f"{count} elements" if too_long else ""


def large_pools(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds pools of more 16-bit codes than int32 holds."""
    [source] = _inputs(op, graph, 0)
    sizes = op.options.get("filter_height", 1), op.options.get("filter_width", 1)
    count = math.prod(map(min, sizes, source.shape[1:3]))
    too_large = source.dtype == "int16" and count > _LARGEST_POOL
    return f"{count} elements" if too_large else ""


def softmax_grids(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds outputs of softmaxes in another type or grid than the kernel has."""
    [source], output = _inputs(op, graph, 0), graph.tensors[op.outputs[0]]
    if source.dtype not in _CODES:
        return ""
    scale, zero_point = _SOFTMAX.get((source.dtype, output.dtype), (0, 0))
    right = TensorQuantization(np.array([scale], np.float32), zero_point)
    if output.quantization == right:
        return ""
    return f"{source.dtype}, and {_described([output])}"


def steep_softmaxes(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds softmaxes in int16 whose input exceeds what their table is read with."""
    [source] = _inputs(op, graph, 0)
    if source.dtype != "int16" or source.quantization is None:
        return ""
    scale = float(source.quantization.scale[0]) * op.options.get("beta", 1.0)
    return f"{scale:.6g}" if scale > _STEEPEST_SOFTMAX else ""


def in_int16(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds operators that compute in int16."""
    [source] = _inputs(op, graph, 0)
    return source.dtype if source.dtype == "int16" else ""


def narrow_indices(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds indices in a type that is not read."""
    found = [t for t in _inputs(op, graph, 1) if t.dtype not in _INDICES]
    return ", ".join(f"`{tensor.name}` is {tensor.dtype}" for tensor in found)


def cell_scales(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Finds cell states of LSTMs in int16 whose scale is no power of two."""
    cells = [t for t in _inputs(op, graph, _CELL_STATE) if t.dtype == "int16"]
    scales = [t.quantization.scale for t in cells if t.quantization is not None]
    powers = [math.frexp(float(scale[0]))[0] == 0.5 for scale in scales]
    return "" if len(powers) == len(cells) and all(powers) else _described(cells)


# --- What operators have -------------------------------------------------------


def _inputs(op: TFLiteOp, graph: TFLiteGraph, *places: int) -> list[TFLiteTensor]:
    """Returns the inputs at these places, without those that are left out."""
    names = [op.inputs[place] for place in places if place < len(op.inputs)]
    return [graph.tensors[name] for name in names if name]


def _tensors(op: TFLiteOp, graph: TFLiteGraph) -> list[TFLiteTensor]:
    """Returns the inputs and outputs of an operator, each once."""
    names = dict.fromkeys((*op.inputs, *op.outputs))
    return [graph.tensors[name] for name in names if name]


def _computes_codes(op: TFLiteOp, graph: TFLiteGraph, place: int) -> bool:
    """Returns whether the input at a place is codes of activations."""
    return any(tensor.dtype in _CODES for tensor in _inputs(op, graph, place))


def _zero_points(tensors: Iterable[TFLiteTensor]) -> str:
    """Returns the zero points among tensors as readable text, "" if there are none."""
    return ", ".join(
        f"`{tensor.name}` has the zero point {tensor.quantization.zero_point}"
        for tensor in tensors
        if tensor.quantization is not None and tensor.quantization.zero_point != 0
    )


def _described(tensors: Iterable[TFLiteTensor]) -> str:
    """Returns types and grids of tensors as readable text."""
    return ", ".join(
        f"`{tensor.name}` is {_type_and_grid(tensor)}" for tensor in tensors
    )


def _type_and_grid(tensor: TFLiteTensor) -> str:
    """Returns the type and the grid of a tensor as readable text."""
    grid = tensor.quantization
    if grid is None:
        return f"{tensor.dtype} without a scale"
    several = len(grid.scale) > 1
    scale = f"{len(grid.scale)} scales" if several else f"scale {grid.scale[0]:.6g}"
    return f"{tensor.dtype} with {scale} and zero point {grid.zero_point}"
