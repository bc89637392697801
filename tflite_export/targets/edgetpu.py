"""Coral's Edge TPU."""

from __future__ import annotations

from . import conditions
from .phone import KERNELS
from .types import Found, Rule, Target

CORAL = "https://coral.ai/docs/edgetpu/models-intro/"
# The complete table, from a manufacturer of cameras with an Edge TPU.
AXIS = (
    "https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/"
    "supported-ops/"
)
VERSIONS = "https://github.com/google-coral/edgetpu/issues/879"
_LEAVE_FLOAT = "Leave the layer out of the model, and run it after the file."
_EDGE_TPU_OPS = frozenset(
    """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED
    LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PAD PRELU QUANTIZE REDUCE_MAX RELU
    RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SOFTMAX SPACE_TO_DEPTH SPLIT
    STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV""".split()
)


def _rule(
    name: str,
    ops: str | tuple[str, ...],
    expected: str,
    found: Found,
    *,
    remedy: str,
    source: str = AXIS,
    refused: bool = False,
) -> Rule:
    """Returns a rule of the Edge TPU, by default from its table of operators."""
    ops = tuple(ops.split()) if isinstance(ops, str) else ops
    return Rule(name, ops, expected, found, remedy, source, refused)


_EDGE_TPU_RULES = (
    _rule(
        "static_shapes",
        "",
        "All sizes must be known to the compiler",
        conditions.open_batch,
        remedy="Quantize the model for 'edgetpu', which fixes the batch size.",
        source=CORAL,
        refused=True,
    ),
    _rule(
        "op_version",
        "",
        "Operators must have versions that compiler 16 knows (TensorFlow 2.5)",
        conditions.new_version,
        remedy="Write the layer with other layers: no ReLU after a transposed "
        "convolution, one scale per tensor where it is quantized; ReLU, sigmoid, tanh "
        "or swish as activation.",
        source=VERSIONS,
        refused=True,
    ),
    _rule(
        "int8_containers",
        "",
        "Weights must be stored in int8",
        conditions.packed_weights,
        remedy='Export with storage="int8".',
        source=CORAL,
        refused=True,
    ),
    _rule(
        "int8_activations",
        "",
        "Tensors must not be in int16",
        conditions.int16_tensors,
        remedy="Give every point at most 8 bits.",
        source=CORAL,
        refused=True,
    ),
    _rule(
        "constant_weights",
        KERNELS,
        "Kernel and bias must be constants",
        conditions.variable_weights,
        remedy="Use a layer with its own kernel.",
        source=CORAL,
        refused=True,
    ),
    _rule(
        "supported_operator",
        "",
        "Operators must be among those of the Edge TPU",
        conditions.not_among(_EDGE_TPU_OPS),
        remedy=_LEAVE_FLOAT,
        source=CORAL,
    ),
    _rule(
        "integer_tensors",
        "",
        "All tensors must be integers",
        conditions.float_tensors,
        remedy="Quantize the layer; export with int8 inputs and outputs.",
        source=CORAL,
    ),
    _rule(
        "three_dimensions",
        "",
        "Only the three innermost sizes may exceed 1",
        conditions.large_sizes,
        remedy="Reshape the tensor to fewer axes.",
        source=CORAL,
    ),
    _rule(
        "even_dilation",
        "CONV_2D DEPTHWISE_CONV_2D",
        "Both dilations must be equal",
        conditions.uneven_dilation,
        remedy="Pass a single number as `dilation_rate`.",
    ),
    _rule(
        "weights_format",
        "FULLY_CONNECTED",
        "Weights must have the default format",
        conditions.weights_format,
        remedy="Export the model again.",
    ),
    _rule(
        "vector_output",
        "FULLY_CONNECTED",
        "The output must be one vector",
        conditions.matrix_output,
        remedy="Use a 1x1 convolution instead of a dense layer on several positions.",
    ),
    _rule(
        "no_fused_activation",
        "AVERAGE_POOL_2D MAX_POOL_2D CONCATENATION",
        "No activation may be fused into the operator",
        conditions.fused_activation,
        remedy="Put the activation before it.",
    ),
    _rule(
        "constant_part",
        "CONCATENATION",
        "A constant must be all zeros, and one of two inputs",
        conditions.constant_part,
        remedy="Concatenate the constant outside the model.",
    ),
    _rule(
        "no_batch_reduction",
        "MEAN REDUCE_MAX",
        "The batch must not be reduced",
        conditions.batch_reduction,
        remedy="Reduce only the other axes.",
    ),
    _rule(
        "channel_mean",
        "MEAN",
        "A mean over channels must have a multiple of 4 channels",
        conditions.channel_mean,
        remedy="Change the number of channels.",
    ),
    _rule(
        "no_batch_padding",
        "PAD",
        "The batch must not be padded",
        conditions.batch_padding,
        remedy="Pad only the other axes.",
    ),
    _rule(
        "no_batch_split",
        "SPLIT",
        "The batch must not be split",
        conditions.batch_split,
        remedy="Split other axes.",
        source=CORAL,
    ),
    _rule(
        "slope_per_channel",
        "PRELU",
        "There must be one slope per channel",
        conditions.slopes,
        remedy="Use `PReLU(shared_axes=[1, 2])`.",
    ),
    _rule(
        "image",
        "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
        "Images must have a batch size of 1",
        conditions.large_sizes,
        remedy="Resize one image at a time.",
    ),
    _rule(
        "small_softmax",
        "SOFTMAX",
        f"The input must be one vector of at most {conditions.SOFTMAX_LIMIT} numbers",
        conditions.wide_softmax,
        remedy="Leave the softmax out: the largest logit is the largest probability.",
        source=CORAL,
    ),
    _rule(
        "slice_of_ones",
        "STRIDED_SLICE",
        "All strides must be 1",
        conditions.steps_of_slice,
        remedy="Use pooling or a convolution with strides.",
        source=CORAL,
    ),
    _rule(
        "slice_masks",
        "STRIDED_SLICE",
        "No axis may be added or omitted",
        conditions.masks_of_slice,
        remedy="Reshape after the slice.",
        source=CORAL,
    ),
)

EDGETPU = Target(
    "edgetpu",
    device="Edge TPU",
    dynamic_batch=False,
    symmetric=False,
    newest_release="2.5.0",
    containers={},
    fast={},
    rules=_EDGE_TPU_RULES,
    source=CORAL,
    runtime="arm64",
    predictable=False,
    # Its compiler does not know CONV_2D with groups.
    split_groups=("int8", "float32"),
    compiler="edgetpu_compiler",
)
