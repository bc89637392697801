"""What the writer refuses, as data: operators that LiteRT does not compute right.

LiteRT runs most of them without a message and computes wrong codes; some end the
process; a few are refused, but only where the file is loaded. Each guard was measured
with LiteRT 2.3.0 on x86-64, both with XNNPACK and without, and
`tests/test_file_guards.py` measures it again.

Files of other tools are read, and rewritten, whatever they compute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from . import guard_conditions as conditions
from .guard_conditions import COMPUTED, MOVED, WEIGHTED
from .tflite_graph import TFLiteGraph, TFLiteOp

# What LiteRT does with such an operator.
WRONG = "computes wrong codes"
ENDS = "ends the process"
REFUSES = "refuses the file"


@dataclasses.dataclass(frozen=True)
class Guard:
    """A use of operators that is not written.

    Attributes:
        name: Short name, unique.
        ops: Operators that have it; empty: all.
        expected: What is right, as a sentence without its full stop.
        found: Describes what an operator has instead; "" if it is right.
        remedy: What to do about it.
        otherwise: What LiteRT does if it is not right.
    """

    name: str
    ops: tuple[str, ...]
    expected: str
    found: Callable[[TFLiteOp, TFLiteGraph], str]
    remedy: str
    otherwise: str = WRONG


def check(graph: TFLiteGraph) -> None:
    """Checks that LiteRT computes every operator of a graph right, and survives it.

    Args:
        graph: A file's graph whose operators name tensors of it.

    Raises:
        ValueError: If one is guarded; the message names all of them.
    """
    wrong = violations(graph)
    if wrong:
        listed = "\n  ".join(wrong)
        raise ValueError(
            "A file must have only operators that LiteRT computes right. Received "
            f"operators that it does not:\n  {listed}"
        )


def violations(graph: TFLiteGraph) -> list[str]:
    """Returns what `check` refuses, a sentence or more for each.

    Args:
        graph: A file's graph.
    """
    return [
        f"{op.code} to {', '.join(f'`{name}`' for name in op.outputs)}: "
        f"{guard.expected}, or LiteRT {guard.otherwise}. Received: {found}. "
        f"{guard.remedy}"
        for op in graph.ops
        for guard in (*_BY_OPERATOR.get(op.code, ()), *_ON_ALL)
        if (found := guard.found(op, graph))
    ]


# --- The table -----------------------------------------------------------------

_QUANTIZE_AFTER = "Compute in the type of the inputs, then QUANTIZE to the other one."
GUARDS = (
    Guard(
        "one_grid",
        tuple(MOVED),
        "Data that are only moved, compared or averaged must keep their type, scale "
        "and zero point",
        conditions.mixed_grids,
        remedy="QUANTIZE them to the grid of the output first.",
    ),
    Guard(
        "cast",
        ("CAST",),
        "Codes that are cast must keep their scale and zero point",
        conditions.cast_grids,
        remedy="QUANTIZE them.",
    ),
    Guard(
        "narrowing_casts",
        ("CAST",),
        "Codes that are cast must fit their new type",
        conditions.narrowing_casts,
        remedy="QUANTIZE them, which clips.",
    ),
    Guard(
        "casts_to_float",
        ("CAST",),
        "Codes with a scale must not be cast to float32",
        conditions.casts_to_float,
        remedy="DEQUANTIZE them.",
    ),
    Guard(
        "one_type",
        tuple(COMPUTED),
        "Codes must be computed in one type",
        conditions.mixed_types,
        remedy=_QUANTIZE_AFTER,
    ),
    Guard(
        "matrix_types",
        ("BATCH_MATMUL",),
        "Products must be int8 or int32 for int8, int16 for int16 times int16 or int8",
        conditions.unknown_products,
        remedy=_QUANTIZE_AFTER,
    ),
    Guard(
        "matrix_accumulators",
        ("BATCH_MATMUL",),
        "Products in int32 must have no zero points",
        conditions.moved_accumulators,
        remedy="Make both factors symmetric.",
    ),
    Guard(
        "accumulator_scales",
        ("BATCH_MATMUL",),
        "The scale of products in int32 must be the product of those of the factors",
        conditions.accumulator_scales,
        remedy="QUANTIZE to another scale after it.",
    ),
    Guard(
        "long_products",
        ("BATCH_MATMUL", "FULLY_CONNECTED"),
        "Products of codes must be added up in a type that holds the sum",
        conditions.long_products,
        remedy="Add up parts; a FULLY_CONNECTED in int16 takes a bias in int64.",
    ),
    Guard(
        "packed_kernels",
        ("CONV_2D", "DEPTHWISE_CONV_2D"),
        "Kernels for int16 must be int8, those of CONV_2D int8 or int4",
        conditions.packed_kernels,
        remedy="Store the kernel in int8.",
    ),
    Guard(
        "several_scales",
        (),
        "Only kernels, biases, rows of a table and numbers in float can have several "
        "scales",
        conditions.several_scales,
        remedy="Use one scale for the tensor.",
        otherwise=f"{ENDS}, or {WRONG}",
    ),
    Guard(
        "kernel_axes",
        ("CONV_2D", "TRANSPOSE_CONV"),
        "Scales of a kernel must be those of its output channels, along axis 0",
        conditions.kernel_axes,
        remedy="Use a scale for each output channel.",
    ),
    Guard(
        "bias_types",
        tuple(WEIGHTED),
        "Biases must be int32 for int8, int64 for int16",
        conditions.bias_types,
        remedy="Store the bias in that type.",
        otherwise=f"{REFUSES}, or {WRONG}",
    ),
    Guard(
        "kernel_zero_points",
        tuple(WEIGHTED),
        "Kernels and biases must have no zero points",
        conditions.kernel_zero_points,
        remedy="Make them symmetric.",
    ),
    Guard(
        "bias_scales",
        tuple(WEIGHTED),
        "Scales of a bias must be those of the input times those of the kernel",
        conditions.bias_scales,
        remedy="Round the bias to that grid.",
    ),
    Guard(
        "negation",
        ("NEG",),
        "Negated codes must have no zero points",
        conditions.any_zero_points,
        remedy="SUB them from 0.",
    ),
    Guard(
        "quotients",
        ("DIV",),
        "Quotients must be computed in float",
        conditions.quotients,
        remedy="MUL by reciprocals from a table.",
    ),
    Guard(
        "long_sums",
        ("MEAN", "SUM"),
        "Sums in int16 must have at most 65536 elements",
        conditions.long_sums,
        remedy="Sum some of the axes first.",
    ),
    Guard(
        "large_pools",
        ("AVERAGE_POOL_2D",),
        "Pools in int16 must have at most 65535 elements",
        conditions.large_pools,
        remedy="Pool twice.",
    ),
    Guard(
        "lstm_cells",
        ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        "The scale of a cell state in int16 must be a power of two",
        conditions.cell_scales,
        remedy="Take the next power of two.",
    ),
    Guard(
        "scales",
        (),
        "Scales must be positive, finite and no subnormal numbers",
        conditions.unusable_scales,
        remedy="Check the values that the tensor was quantized for.",
        otherwise=f"{ENDS}, or {WRONG}",
    ),
    Guard(
        "scales_of_sums",
        ("ADD", "SQUARED_DIFFERENCE", "SUB"),
        "Codes that are added or subtracted must have scales",
        conditions.missing_scales,
        remedy="Give every tensor a scale.",
        otherwise=ENDS,
    ),
    Guard(
        "steep_sums",
        ("ADD", "SQUARED_DIFFERENCE", "SUB"),
        "The scale of the output must not be far smaller than those of the inputs",
        conditions.steep_sums,
        remedy="Give the output a larger scale.",
        otherwise=f"{ENDS}, or {WRONG}",
    ),
    Guard(
        "int16_zero_points",
        (),
        "Tensors in int16 must have no zero point",
        conditions.int16_zero_points,
        remedy="Make them symmetric.",
        otherwise=f"{REFUSES}, or {WRONG}",
    ),
    Guard(
        "softmax",
        ("SOFTMAX",),
        "A softmax must have the scale 1/256 and zero point -128 in int8, the scale "
        "1/32768 and no zero point in int16",
        conditions.softmax_grids,
        remedy="QUANTIZE to another grid after it.",
        otherwise=f"{REFUSES}, or {WRONG}",
    ),
    Guard(
        "steep_softmax",
        ("SOFTMAX",),
        "The scale of a softmax's input in int16 times `beta` must be at most 5",
        conditions.steep_softmaxes,
        remedy="Give the input a smaller scale.",
    ),
    Guard(
        "coarse_tables",
        ("EXP", "GELU", "LOG", "RSQRT"),
        "Functions by a table must be computed in int8: that of int16 has 512 pieces",
        conditions.in_int16,
        remedy="QUANTIZE to int8 before it, or GATHER from a table of all codes.",
    ),
    Guard(
        "indices",
        ("GATHER",),
        "Indices must be int16, int32 or int64",
        conditions.narrow_indices,
        remedy="CAST them.",
        otherwise=REFUSES,
    ),
)
_ON_ALL = tuple(guard for guard in GUARDS if not guard.ops)
_BY_OPERATOR = {
    code: tuple(guard for guard in GUARDS if code in guard.ops)
    for code in sorted({code for guard in GUARDS for code in guard.ops})
}
