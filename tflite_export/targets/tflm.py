"""Microcontrollers: TFLite Micro with its reference kernels."""

from __future__ import annotations

from . import conditions
from .types import TFLITE_MICRO, Rule, Target

_SOURCES = "https://github.com/tensorflow/tflite-micro/blob/main/tensorflow/lite/micro"
RESOLVER = f"{_SOURCES}/micro_mutable_op_resolver.h"
CONVOLUTION = f"{_SOURCES}/kernels/conv.cc"
DENSE = f"{_SOURCES}/kernels/fully_connected.cc"
SLICE = f"{_SOURCES}/kernels/strided_slice_common.cc"
TRANSPOSE = f"{_SOURCES}/kernels/transpose_common.cc"
_ALLOCATOR = f"{_SOURCES}/micro_allocator.cc"

# Operators that differ from their method of `MicroMutableOpResolver` by more than
# capitals.
_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
# As loaded by the Python wheel of October 2026, operator by operator.
OPERATORS = frozenset(
    """ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
    BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION
    CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV
    FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF
    L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT
    LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG
    NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX
    REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2
    ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT
    SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH
    TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE
    ZEROS_LIKE""".split()
)


def resolver_method(code: str) -> str:
    """Returns the method of `MicroMutableOpResolver` that adds an operator.

    Args:
        code: An operator among `OPERATORS`.

    Example:
        >>> resolver_method("DEPTHWISE_CONV_2D"), resolver_method("PRELU")
        ('AddDepthwiseConv2D', 'AddPrelu')
    """
    words = [word.capitalize() for word in code.split("_")]
    return _METHODS.get(code, "Add" + "".join(words).replace("2d", "2D"))


_TFLM_RULES = (
    Rule(
        "static_shapes",
        (),
        "All sizes must be known to the memory planner",
        conditions.open_batch,
        remedy="Quantize the model for 'tflm', which fixes the batch size.",
        source=_ALLOCATOR,
        refused=True,
    ),
    Rule(
        "supported_operator",
        (),
        "Operators must be among those of TFLite Micro",
        conditions.not_among(OPERATORS),
        remedy="Leave the layer out of the model, and run it after the file.",
        source=RESOLVER,
        refused=True,
    ),
    Rule(
        "packed_kernels",
        ("CONV_2D", "DEPTHWISE_CONV_2D"),
        "Packed weights must be INT4",
        conditions.missing_kernels,
        remedy='Export with storage="packed" or "int8".',
        source=CONVOLUTION,
        refused=True,
    ),
    Rule(
        "packed_matrix",
        ("FULLY_CONNECTED",),
        "Packed weights must be INT4, with one scale for all channels",
        conditions.missing_kernels,
        remedy='Export with storage="packed" or "int8".',
        source=DENSE,
        refused=True,
    ),
    Rule(
        "four_axes",
        ("STRIDED_SLICE",),
        "Tensors must have at most four axes",
        conditions.more_axes_than(4),
        remedy="Reshape the tensor to fewer axes before the layer.",
        source=SLICE,
        refused=True,
    ),
    Rule(
        "five_axes",
        ("TRANSPOSE",),
        "Tensors must have at most five axes",
        conditions.more_axes_than(5),
        remedy="Write the layer as two, each of which moves fewer axes.",
        source=TRANSPOSE,
        refused=True,
    ),
)

TFLM = Target(
    "tflm",
    device=TFLITE_MICRO,
    dynamic_batch=False,
    symmetric=False,
    newest_release="",
    containers={
        "CONV_2D": ("int4",),
        "DEPTHWISE_CONV_2D": ("int4",),
        "FULLY_CONNECTED": ("int4",),
    },
    fast={},
    rules=_TFLM_RULES,
    source=RESOLVER,
    runtime="tflm",
    predictable=True,
    one_scale=("FULLY_CONNECTED",),
    dense_pointwise=False,
    int32_places=True,
    mixed_products=False,
    tables=("exp", "gelu", "log"),  # EXP and LOG are float only, there is no GELU.
)
