"""Arm's Ethos-U: NPUs of microcontrollers, each with one compiler, Vela.

Vela is tested by comparing the NPU bit by bit with TFLite's reference kernels, says its
README; what it leaves to the CPU, TFLite Micro runs there. The rules are those of
Vela's report of supported operators, and where Vela 5.2 does something else, what it
does: every file of the conformance tests was compiled, and the operators that it left
to the CPU compared with these rules.
"""

from __future__ import annotations

from . import conditions
from . import image_conditions as images
from .types import Found, Rule, Target

VELA = "https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela"
# Also written by `vela --supported-ops-report`.
SUPPORTED = f"{VELA}/-/blob/main/SUPPORTED_OPS.md"
_LEAVE_OUT = "Leave the layer out of the model, and run it before or after the file."
# Those of the report that a file of this library may contain.
_U55_OPS = frozenset(
    """ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D ELU EXP
    EXPAND_DIMS FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM
    MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD PADV2 PRELU QUANTIZE
    REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SLICE SOFTMAX SPLIT SPLIT_V
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE
    TRANSPOSE_CONV UNPACK""".split()
)
_U85_OPS = _U55_OPS | {"CAST", "GATHER"}


def _rule(
    name: str,
    ops: str,
    expected: str,
    found: Found,
    *,
    remedy: str,
    refused: bool = False,
) -> Rule:
    """Returns a rule of Vela's report."""
    return Rule(name, tuple(ops.split()), expected, found, remedy, SUPPORTED, refused)


_POOLS = "AVERAGE_POOL_2D MAX_POOL_2D"
_RULES = (
    _rule(
        "int8_containers",
        "",
        "Weights must be stored in int8",
        conditions.packed_weights,
        remedy='Export with storage="int8".',
        refused=True,
    ),
    _rule(
        "integer_tensors",
        "",
        "All tensors must be integers",
        conditions.float_tensors,
        remedy="Quantize the layer; export with int8 inputs and outputs.",
    ),
    _rule(
        "padded_mean",
        "AVERAGE_POOL_2D",
        f"A padded window must have sides of at most {images.WIDEST_PADDED_MEAN}",
        images.wide_padded_mean,
        remedy='Use a smaller window, or padding="valid".',
    ),
    _rule(
        "window",
        _POOLS,
        f"A window must have at most {images.HIGHEST_POOL} rows and "
        f"{images.LARGEST_POOL} positions",
        images.large_window,
        remedy="Pool twice, with smaller windows.",
    ),
    _rule(
        "one_image_mean",
        "MEAN",
        "All axes before height, width and channels must be 1",
        images.mean_of_several,
        remedy="Reshape the tensor to one image first.",
    ),
    _rule(
        "channel_mean",
        "MEAN",
        "A mean over channels needs a height, width or number of channels of 1",
        images.mean_of_image_channels,
        remedy="Use a 1x1 convolution instead.",
    ),
    _rule(
        "transposed_output",
        "TRANSPOSE_CONV",
        "The output must be the input times the strides, and without padding what the "
        "kernel adds",
        images.transposed_output,
        remedy="Leave out `output_padding`; crop or pad after the layer.",
    ),
    _rule(
        "one_grid",
        "MAXIMUM MINIMUM",
        "Both inputs and the output must be on one grid",
        images.different_grids,
        remedy="Use ReLU, a clip, or max pooling.",
    ),
    _rule(
        "softmax_positions",
        "SOFTMAX",
        f"There must be at most {images.MOST_POSITIONS} positions",
        images.many_rows,
        remedy="Leave the softmax out: the largest logit is the largest probability.",
    ),
    _rule(
        "slice_strides",
        "STRIDED_SLICE",
        "Strides must be positive, and 1 except along height and width",
        images.channel_strides,
        remedy="Slice with strides of 1, or use pooling or a convolution.",
    ),
)
_U55_RULES = (
    *_RULES,
    _rule(
        "supported_operator",
        "",
        "Operators must be among those of the NPU",
        conditions.not_among(_U55_OPS),
        remedy=_LEAVE_OUT,
    ),
    _rule(
        "strides",
        f"CONV_2D {_POOLS}",
        f"Strides above {images.LONGEST_STRIDE} need a window that is neither "
        "padded nor dilated",
        images.long_padded_stride,
        remedy='Use padding="valid" and no dilation, or smaller strides.',
    ),
    _rule(
        "depthwise_strides",
        "DEPTHWISE_CONV_2D",
        f"Strides must be at most {images.LONGEST_STRIDE}",
        images.long_stride,
        remedy="Use smaller strides, or a pooling after the layer.",
    ),
    _rule(
        "int8_product",
        "BATCH_MATMUL",
        "Both tensors must be in int8",
        conditions.int16_tensors,
        remedy="Give the layers before it at most 8 bits.",
    ),
    _rule(
        "resize",
        "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
        "Images must grow by 2, 4 or 8 on both axes; with bilinear interpolation at "
        "half pixels by 2",
        images.uneven_resize,
        remedy="Resize by 2, several times.",
    ),
    _rule(
        "transposed_strides",
        "TRANSPOSE_CONV",
        "Strides must be 1 or 2, the same on both axes unless there is only one row or "
        "column",
        images.transposed_strides,
        remedy="Use strides of 2, or resize and convolve.",
    ),
    _rule(
        "index_of_largest",
        "ARG_MAX",
        f"There must be at most {images.MOST_CLASSES} channels, compared at each "
        "position",
        images.index_of_many,
        remedy="Leave the layer out of the model, and compare its inputs in the app.",
    ),
    _rule(
        "reversal",
        "REVERSE_V2",
        "No axis may be reversed",
        images.reversed_axes,
        remedy="Reverse the inputs in the app.",
    ),
)
_U85_RULES = (
    *_RULES,
    _rule(
        "supported_operator",
        "",
        "Operators must be among those of the NPU",
        conditions.not_among(_U85_OPS),
        remedy=_LEAVE_OUT,
    ),
    _rule(
        "bilinear",
        "RESIZE_BILINEAR",
        "Images must grow by powers of two",
        images.no_power_of_two,
        remedy="Resize by a power of two, and crop.",
    ),
    _rule(
        "widened_for_kernel",
        "QUANTIZE",
        "An int8 tensor must not become int16 for one layer with a kernel, on which "
        "Vela 5.2 crashes",
        conditions.widened_for_kernel,
        remedy="Give the layer at most 8 bits.",
        refused=True,
    ),
    _rule(
        "gathered_axis",
        "GATHER",
        "Indices must be those of the first axis",
        images.gathered_axis,
        remedy="Use slices and a concatenation.",
    ),
)
_REFUSED = {
    ("storage", "packed"): 'Vela crashes on INT4 and INT2 weights ("Floating point '
    'exception"). Low bits save flash in the ordinary int8 file, because Vela '
    "compresses weights: use storage='int8'.",
    ("bias_grid", "packed"): "Widening inputs for biases of packed kernels, which this "
    "target cannot run, costs 26 to 94 % more cycles: use bias_grid='own'.",
}


def _target(name: str, rules: tuple[Rule, ...]) -> Target:
    """Returns the target of one configuration of the NPU."""
    return Target(
        name,
        device="Ethos-U",
        dynamic_batch=False,
        symmetric=False,
        newest_release="",
        containers={},
        fast={},
        rules=rules,
        source=SUPPORTED,
        runtime="tflm",
        predictable=True,
        refused_options=_REFUSED,
        compiler="vela",
        mixed_products=False,
        casts=False,
        int32_places=True,
    )


ETHOS_U = (
    _target("ethos-u55-128", _U55_RULES),
    _target("ethos-u65-256", _U55_RULES),
    _target("ethos-u85-256", _U85_RULES),
)
