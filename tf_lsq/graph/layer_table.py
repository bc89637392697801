"""The table of Keras layers: how each is lowered, and which settings are refused.

To add a layer, add a row to `LAYERS`. Its check returns why a layer with these settings
has no exact integer form, or None.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .._compat import (
    CustomScaleLayer,
    LayerScale,
    OpLambda,
    SlicingOpLambda,
    keras,
)
from ..layers import (
    AddConstant,
    ChannelScaling,
    FixedPoint,
    LSQWrapper,
    MaskedPoint,
    MultiplyConstant,
    PixelPoint,
    QuantizationPoint,
)
from .activations import (
    activation_layer,
    elementwise_lambda,
    elementwise_layer,
    leaky_relu_layer,
    relu_layer,
    with_activation,
)
from .attention import check_dot_attention, dot_attention, multi_head_attention
from .convolutions import causal, convolution, depthwise_convolution, separable
from .float_layers import (
    REDUCED_KINDS,
    ArgMax,
    Clip,
    HardSigmoid,
    Reduction,
    ScaledSoftmax,
    SynchronizedBatchNormalization,
    UnaryFunction,
)
from .functions.images import center_crop
from .functions.joining import concatenate
from .functions.resizing import resize_options
from .functions.selecting import repeat_vector, up_sampling_3d
from .functions.table import check_function, lower_function
from .layer_checks import (
    Check,
    accept,
    check_activation,
    check_batch_norm,
    check_channels_last,
    check_concat,
    check_dot,
    check_in_float,
    check_lambda,
    check_last_axis,
    check_leaky_relu,
    check_norm,
    check_normalization,
    check_prelu,
    check_relu,
    check_rescaling,
    check_resizing,
    check_transposed,
    first_problem,
)
from .lowering import (
    Call,
    Lowering,
    average,
    chain,
    difference,
    normalization,
    quantization_point,
    single,
)
from .masks import ScoreMask, mask_options, masked_point
from .moving import add_reshape, constant_padding
from .moving_layers import (
    ConstantPadding,
    DepthToSpace,
    Gather,
    ImageResizing,
    MirrorPadding,
    SpaceToDepth,
    StopGradient,
    StridedSlice,
    ZerosLike,
)
from .nodes import Layer, Node
from .norm_layers import L2Normalization, Lookup, RMSNormalization, SumOfSquares
from .normalizing import group_norm, l2_norm, layer_norm, rms_norm, unit_norm
from .product_layers import Einsum, MatMul
from .products import Equation, add_product
from .projections import einsum_dense
from .scalings import layer_scale, scaled_sum

layers = keras.layers


# --- Settings ----------------------------------------------------------------


def _transposed_options(call: Call) -> dict[str, Any]:
    """Returns strides, padding and size; 1D kernels get a height of 1."""
    layer = call.layer
    higher = (1,) * (2 - layer.rank)
    return {
        "strides": higher + tuple(layer.strides),
        "padding": layer.padding.upper(),
        "kernel_size": higher + tuple(layer.kernel_size),
    }


def _pool_options(call: Call) -> dict[str, Any]:
    """Returns window, strides and padding; 1D pooling gets a height of 1."""
    layer = call.layer
    size, strides = tuple(layer.pool_size), tuple(layer.strides)
    rank = len(size)
    return {
        "size": (1,) * (2 - rank) + size,
        "strides": (1,) * (2 - rank) + strides,
        "padding": layer.padding.upper(),
    }


def _global_options(call: Call) -> dict[str, Any]:
    """Returns the axes that a global pooling reduces."""
    rank = len(call.sources[0].shape)
    return {"axes": tuple(range(1, rank - 1)), "keepdims": bool(call.layer.keepdims)}


def _reduction(call: Call) -> Node:
    """Lowers a `Reduction`."""
    kind = REDUCED_KINDS[call.layer.reduction]
    return call.add(kind, axes=call.layer.axes, keepdims=call.layer.keepdims)


def _padding_options(call: Call) -> dict[str, Any]:
    """Returns the zeros to pad for every axis but the batch."""
    padding = call.layer.padding
    pairs = [padding] if isinstance(padding[0], int) else list(padding)
    return {"paddings": (*(tuple(pair) for pair in pairs), (0, 0))}


def _cropping_options(call: Call) -> dict[str, Any]:
    """Returns begin, end and strides for every axis but the batch."""
    cropping = call.layer.cropping
    pairs = [cropping] if isinstance(cropping[0], int) else list(cropping)
    begin = [*(pair[0] for pair in pairs), 0]
    end = [start + size for start, size in zip(begin, call.shape[1:], strict=True)]
    return {"begin": tuple(begin), "end": tuple(end), "strides": (1,) * len(begin)}


def _slice_options(call: Call) -> dict[str, Any]:
    """Returns begin, end and strides for every axis but the batch."""
    layer = call.layer
    return {"begin": layer.begin, "end": layer.end, "strides": layer.strides}


def _block_options(call: Call) -> dict[str, Any]:
    """Returns the size of a block of pixels."""
    return {"block_size": call.layer.block_size}


def _clip(call: Call) -> Node:
    """Lowers a `Clip`."""
    low, high = call.layer.low, call.layer.high
    limits = (-math.inf if low is None else low, math.inf if high is None else high)
    return call.add("clip", limits=limits)


def _resize(call: Call) -> Node:
    """Lowers `Resizing` and `UpSampling2D`."""
    return call.add(f"resize_{call.layer.interpolation}", size=tuple(call.shape[1:3]))


def _lookup(call: Call) -> Node:
    """Lowers a `Lookup`."""
    return call.add("lookup", function=call.layer.function)


def _repeat_options(call: Call) -> dict[str, Any]:
    """Returns the output size of `UpSampling1D`, as that of an image of height 1."""
    return {"size": (1, call.shape[1])}


def _matmul_options(call: Call) -> dict[str, Any]:
    """Returns which matrices are transposed."""
    layer = call.layer
    return {"transposed": (layer.transpose_first, layer.transpose_second)}


def _einsum(call: Call) -> Node:
    """Lowers an `Einsum`."""
    x, y = call.sources
    equation = Equation.parse(call.layer.equation, (len(x.shape), len(y.shape)))
    return add_product(call, x, y, equation, call.name)


def _dot(call: Call) -> Node:
    """Lowers a `Dot`: the sum of products over one axis of each tensor."""
    x, y = call.sources
    axes = call.layer.axes
    pair = (axes, axes) if isinstance(axes, int) else axes
    at = [axis % len(node.shape) for axis, node in zip(pair, (x, y), strict=True)]
    if len(x.shape) == len(y.shape) == 2:  # Keras keeps an axis of size 1.
        x = add_reshape(call, x, (x.shape[0], 1, x.shape[1]), f"{call.name}_rows")
        at[0] = 2
    return add_product(call, x, y, Equation.of_dot(x, y, at), call.name)


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """How the analysis reads one Keras layer class.

    Attributes:
        lower: Adds the operators of a call.
        check: Returns why this layer cannot be quantized exactly, or None.
    """

    lower: Lowering
    check: Check = accept


_CONVOLUTION = first_problem(check_channels_last, check_activation)
_IDENTITY = LayerRule(single("identity"))

LAYERS: dict[type, LayerRule] = {
    layers.InputLayer: LayerRule(single("input")),
    layers.Conv1D: LayerRule(causal(convolution), _CONVOLUTION),
    layers.Conv2D: LayerRule(convolution, _CONVOLUTION),
    layers.Conv1DTranspose: LayerRule(
        with_activation("transposed_conv", _transposed_options),
        first_problem(_CONVOLUTION, check_transposed),
    ),
    layers.Conv2DTranspose: LayerRule(
        with_activation("transposed_conv", _transposed_options),
        first_problem(_CONVOLUTION, check_transposed),
    ),
    layers.DepthwiseConv1D: LayerRule(depthwise_convolution, _CONVOLUTION),
    layers.DepthwiseConv2D: LayerRule(depthwise_convolution, _CONVOLUTION),
    layers.SeparableConv1D: LayerRule(
        separable(layers.DepthwiseConv1D, layers.Conv1D), _CONVOLUTION
    ),
    layers.SeparableConv2D: LayerRule(
        separable(layers.DepthwiseConv2D, layers.Conv2D), _CONVOLUTION
    ),
    layers.Dense: LayerRule(with_activation("dense"), check_activation),
    layers.Embedding: LayerRule(single("embedding")),
    layers.EinsumDense: LayerRule(einsum_dense, check_activation),
    layers.MultiHeadAttention: LayerRule(multi_head_attention),
    layers.Attention: LayerRule(dot_attention, check_dot_attention),
    layers.BatchNormalization: LayerRule(single("affine"), check_batch_norm),
    SynchronizedBatchNormalization: LayerRule(single("affine"), check_batch_norm),
    layers.LayerNormalization: LayerRule(layer_norm, check_norm),
    layers.GroupNormalization: LayerRule(group_norm, check_norm),
    layers.UnitNormalization: LayerRule(unit_norm),
    RMSNormalization: LayerRule(rms_norm),
    L2Normalization: LayerRule(l2_norm),
    ChannelScaling: LayerRule(single("affine")),
    LayerScale: LayerRule(layer_scale),
    CustomScaleLayer: LayerRule(scaled_sum),
    Lookup: LayerRule(_lookup),
    SumOfSquares: LayerRule(
        single("sum_of_squares", lambda call: {"num_axes": call.layer.num_axes})
    ),
    layers.Rescaling: LayerRule(single("affine"), check_rescaling),
    layers.Normalization: LayerRule(normalization, check_normalization),
    layers.Activation: LayerRule(activation_layer, check_activation),
    layers.ReLU: LayerRule(relu_layer, check_relu),
    layers.LeakyReLU: LayerRule(leaky_relu_layer, check_leaky_relu),
    layers.PReLU: LayerRule(single("prelu"), check_prelu),
    layers.Softmax: LayerRule(single("softmax"), check_last_axis),
    ScaledSoftmax: LayerRule(single("softmax", lambda call: {"beta": call.layer.beta})),
    HardSigmoid: LayerRule(
        single("hard_sigmoid", lambda call: {"slope": call.layer.slope})
    ),
    layers.Add: LayerRule(chain("add", layers.Add)),
    layers.Subtract: LayerRule(difference),
    layers.Multiply: LayerRule(chain("multiply", layers.Multiply)),
    layers.Average: LayerRule(average),
    layers.Maximum: LayerRule(chain("maximum", layers.Maximum)),
    layers.Minimum: LayerRule(chain("minimum", layers.Minimum)),
    layers.Concatenate: LayerRule(concatenate, check_concat),
    layers.Dot: LayerRule(_dot, check_dot),
    layers.MaxPooling1D: LayerRule(
        single("max_pool", _pool_options), check_channels_last
    ),
    layers.MaxPooling2D: LayerRule(
        single("max_pool", _pool_options), check_channels_last
    ),
    layers.AveragePooling1D: LayerRule(
        single("average_pool", _pool_options), check_channels_last
    ),
    layers.AveragePooling2D: LayerRule(
        single("average_pool", _pool_options), check_channels_last
    ),
    layers.GlobalAveragePooling1D: LayerRule(
        single("mean", _global_options), check_channels_last
    ),
    layers.GlobalAveragePooling2D: LayerRule(
        single("mean", _global_options), check_channels_last
    ),
    layers.GlobalMaxPooling1D: LayerRule(
        single("reduce_max", _global_options), check_channels_last
    ),
    layers.GlobalMaxPooling2D: LayerRule(
        single("reduce_max", _global_options), check_channels_last
    ),
    AddConstant: LayerRule(single("add_constant")),
    MultiplyConstant: LayerRule(single("multiply_constant")),
    MatMul: LayerRule(single("matmul", _matmul_options)),
    Einsum: LayerRule(_einsum),
    ScoreMask: LayerRule(single("mask", mask_options)),
    Clip: LayerRule(_clip),
    Reduction: LayerRule(_reduction),
    ArgMax: LayerRule(single("arg_max", lambda call: {"axis": call.layer.axis})),
    layers.UpSampling1D: LayerRule(single("resize_nearest", _repeat_options)),
    layers.UpSampling2D: LayerRule(
        _resize, first_problem(check_channels_last, check_resizing)
    ),
    layers.Resizing: LayerRule(_resize, check_resizing),
    layers.Flatten: LayerRule(single("reshape"), check_channels_last),
    layers.Reshape: LayerRule(single("reshape")),
    layers.Permute: LayerRule(
        single("transpose", lambda call: {"perm": (0, *call.layer.dims)})
    ),
    layers.Cropping1D: LayerRule(single("slice", _cropping_options)),
    layers.Cropping2D: LayerRule(
        single("slice", _cropping_options), check_channels_last
    ),
    layers.Cropping3D: LayerRule(
        single("slice", _cropping_options), check_channels_last
    ),
    layers.CenterCrop: LayerRule(center_crop),
    StridedSlice: LayerRule(single("slice", _slice_options)),
    Gather: LayerRule(
        single(
            "gather",
            lambda call: {"indices": call.layer.indices, "axis": call.layer.axis},
        )
    ),
    layers.RepeatVector: LayerRule(repeat_vector),
    layers.UpSampling3D: LayerRule(up_sampling_3d, check_channels_last),
    DepthToSpace: LayerRule(single("depth_to_space", _block_options)),
    SpaceToDepth: LayerRule(single("space_to_depth", _block_options)),
    ImageResizing: LayerRule(
        lambda call: call.add(
            f"resize_{call.layer.interpolation}", **resize_options(call.layer)
        )
    ),
    ZerosLike: LayerRule(single("zeros")),
    StopGradient: LayerRule(single("identity")),
    layers.ZeroPadding1D: LayerRule(single("pad", _padding_options)),
    layers.ZeroPadding2D: LayerRule(
        single("pad", _padding_options), check_channels_last
    ),
    layers.ZeroPadding3D: LayerRule(
        single("pad", _padding_options), check_channels_last
    ),
    ConstantPadding: LayerRule(constant_padding),
    MirrorPadding: LayerRule(
        single(
            "pad_mirror",
            lambda call: {"paddings": call.layer.paddings, "mode": call.layer.mode},
        )
    ),
    layers.Dropout: _IDENTITY,
    layers.SpatialDropout1D: _IDENTITY,
    layers.SpatialDropout2D: _IDENTITY,
    layers.GaussianDropout: _IDENTITY,
    layers.GaussianNoise: _IDENTITY,
    layers.ActivityRegularization: _IDENTITY,
    layers.RandomFlip: _IDENTITY,
    layers.RandomRotation: _IDENTITY,
    layers.RandomTranslation: _IDENTITY,
    layers.RandomZoom: _IDENTITY,
    layers.RandomContrast: _IDENTITY,
    layers.RandomBrightness: _IDENTITY,
    UnaryFunction: LayerRule(elementwise_layer, check_in_float),
    layers.ELU: LayerRule(elementwise_layer),
    layers.ThresholdedReLU: LayerRule(elementwise_layer),
    OpLambda: LayerRule(lower_function, check_function),
    SlicingOpLambda: LayerRule(lower_function, check_function),
    layers.Lambda: LayerRule(elementwise_lambda, check_lambda),
    QuantizationPoint: LayerRule(quantization_point),
    FixedPoint: LayerRule(quantization_point),
    PixelPoint: LayerRule(quantization_point),
    MaskedPoint: LayerRule(masked_point),
}
# Layers whose lowering reads the arguments of the call, and not its tensors alone.
OF_ARGUMENTS = (layers.MultiHeadAttention, layers.Attention)
# Layers that users do not write themselves: the analysis puts them into models, or
# those of `keras.applications` hold them.
INTERNAL = {
    layers.InputLayer,
    ArgMax,
    ScaledSoftmax,
    HardSigmoid,
    AddConstant,
    ChannelScaling,
    CustomScaleLayer,
    LayerScale,
    L2Normalization,
    Lookup,
    MultiplyConstant,
    SumOfSquares,
    MatMul,
    Einsum,
    ScoreMask,
    Clip,
    Reduction,
    SynchronizedBatchNormalization,
    UnaryFunction,
    StridedSlice,
    Gather,
    ConstantPadding,
    MirrorPadding,
    DepthToSpace,
    SpaceToDepth,
    ImageResizing,
    ZerosLike,
    StopGradient,
    OpLambda,
    SlicingOpLambda,
    layers.Lambda,
    QuantizationPoint,
    FixedPoint,
    PixelPoint,
    MaskedPoint,
}
PUBLIC_LAYERS = set(LAYERS) - INTERNAL


def unwrapped(model_layer: Layer) -> Layer:
    """Returns the layer inside an `LSQWrapper`, or the layer itself."""
    return model_layer.layer if isinstance(model_layer, LSQWrapper) else model_layer


def rule_of(layer: Layer) -> LayerRule | None:
    """Returns the row of a layer, None if it is not supported."""
    return LAYERS.get(type(layer))
