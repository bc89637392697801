"""What the graph analysis knows of operators and Keras layers, as tables.

`KINDS` has a row per TFLite operator, `LAYERS` a row per Keras layer class with
the check that refuses settings without an exact integer form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ._compat import keras
from .layers import LSQWrapper, QuantizationPoint

Layer = keras.layers.Layer
layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the analysis knows about one TFLite operator.

    Attributes:
        matmul: Has a quantized weight: its input and weight bits are chosen.
        fuses_relu: Takes a ReLU that follows into itself.
        keeps_codes: Passes integer codes on unchanged, so its output has the
            grid of its input.
        keeps_grid: Its output must have the grid of its input, but is computed
            and rounded (average pooling).
    """

    matmul: bool = False
    fuses_relu: bool = False
    keeps_codes: bool = False
    keeps_grid: bool = False


KINDS = {
    "input": Kind(),
    "conv": Kind(matmul=True, fuses_relu=True),
    "depthwise": Kind(matmul=True, fuses_relu=True),
    "dense": Kind(matmul=True, fuses_relu=True),
    "affine": Kind(fuses_relu=True),
    "add": Kind(fuses_relu=True),
    "relu": Kind(),
    "softmax": Kind(),
    "mean": Kind(),
    "concat": Kind(),
    "average_pool": Kind(keeps_grid=True),
    "max_pool": Kind(keeps_codes=True),
    "global_max": Kind(keeps_codes=True),
    "reshape": Kind(keeps_codes=True),
    "pad": Kind(keeps_codes=True),
    "identity": Kind(keeps_codes=True),
    "point": Kind(keeps_codes=True),
}


def activation_name(activation: Any) -> str | None:
    """Returns "linear", "relu", "relu6", "softmax", or None if not supported.

    Args:
        activation: A Keras activation function, a TensorFlow function, or a
            layer object used as one.
    """
    if isinstance(activation, layers.Layer):
        if isinstance(activation, layers.ReLU) and _check_relu(activation) is None:
            return relu_name(activation)
        return "softmax" if isinstance(activation, layers.Softmax) else None
    if activation is None:
        return "linear"
    names = {
        keras.activations.linear: "linear",
        keras.activations.relu: "relu",
        tf.nn.relu: "relu",
        tf.nn.relu6: "relu6",
        keras.activations.softmax: "softmax",
        tf.nn.softmax: "softmax",
    }
    for function, name in names.items():
        if activation is function:
            return name
    return None


def _check_activation(layer: Layer) -> str | None:
    """Refuses activation functions without a fused integer form."""
    if activation_name(layer.activation) is None:
        found = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        return (
            f"its activation must be linear, relu, relu6 or softmax, received {found!r}"
        )
    return None


def _check_convolution(layer: Layer) -> str | None:
    """Refuses layouts and groups without an integer kernel."""
    if layer.data_format != "channels_last":
        return f"data_format must be channels_last, received {layer.data_format!r}"
    if getattr(layer, "groups", 1) != 1:
        return f"groups must be 1, received {layer.groups}"
    if layer.padding not in ("same", "valid"):
        return f"padding must be same or valid, received {layer.padding!r}"
    return _check_activation(layer)


def _check_spatial(layer: Layer) -> str | None:
    """Refuses channels-first layouts."""
    if layer.data_format != "channels_last":
        return f"data_format must be channels_last, received {layer.data_format!r}"
    return None


def _check_relu(layer: Layer) -> str | None:
    """Refuses ReLUs other than max(x, 0) and min(max(x, 0), 6)."""
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6.0):
        return (
            "only ReLU() and ReLU(6) have a fused integer form, received "
            f"max_value={layer.max_value}, negative_slope={layer.negative_slope}, "
            f"threshold={layer.threshold}"
        )
    return None


def _check_batch_norm(layer: Layer) -> str | None:
    """Refuses batch norms over anything but the last axis."""
    axis = list(layer.axis) if isinstance(layer.axis, list | tuple) else [layer.axis]
    rank = layer.input_spec.ndim
    if axis not in ([-1], [rank - 1]):
        return f"axis must be the last one, received {axis}"
    if rank not in (2, 4):
        return f"inputs must have 2 or 4 axes, received {rank}"
    return None


def _check_softmax(layer: Layer) -> str | None:
    """Refuses softmax over anything but the last axis."""
    if layer.axis != -1:
        return f"axis must be -1, received {layer.axis}"
    return None


def _check_concat(layer: Layer) -> str | None:
    """Refuses concatenation along the batch."""
    if layer.axis == 0:
        return "axis must not be the batch axis, received 0"
    return None


def relu_name(layer: Layer) -> str:
    """Returns the name of a ReLU layer's function."""
    return "relu6" if layer.max_value else "relu"


def _nothing(layer: Layer) -> None:
    """Accepts every setting."""


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """How the analysis reads one Keras layer class.

    Attributes:
        kind: The operator; of `Activation` decided by its function.
        check: Returns why this layer cannot be done exactly, or None.
    """

    kind: str
    check: Callable[[Layer], str | None] = _nothing


LAYERS: dict[type, LayerRule] = {
    layers.InputLayer: LayerRule("input"),
    layers.Conv2D: LayerRule("conv", _check_convolution),
    layers.DepthwiseConv2D: LayerRule("depthwise", _check_convolution),
    layers.SeparableConv2D: LayerRule("separable", _check_convolution),
    layers.Dense: LayerRule("dense", _check_activation),
    layers.BatchNormalization: LayerRule("affine", _check_batch_norm),
    layers.Activation: LayerRule("activation", _check_activation),
    layers.ReLU: LayerRule("relu", _check_relu),
    layers.Softmax: LayerRule("softmax", _check_softmax),
    layers.Add: LayerRule("add"),
    layers.Concatenate: LayerRule("concat", _check_concat),
    layers.MaxPooling2D: LayerRule("max_pool", _check_spatial),
    layers.AveragePooling2D: LayerRule("average_pool", _check_spatial),
    layers.GlobalAveragePooling2D: LayerRule("mean", _check_spatial),
    layers.GlobalMaxPooling2D: LayerRule("global_max", _check_spatial),
    layers.Flatten: LayerRule("reshape", _check_spatial),
    layers.Reshape: LayerRule("reshape"),
    layers.ZeroPadding2D: LayerRule("pad", _check_spatial),
    layers.Dropout: LayerRule("identity"),
    layers.SpatialDropout2D: LayerRule("identity"),
    LSQWrapper: LayerRule("wrapped"),
    QuantizationPoint: LayerRule("point"),
}
PUBLIC_LAYERS = set(LAYERS) - {LSQWrapper, QuantizationPoint, layers.InputLayer}
MAY_REPEAT = {
    "activation",
    "relu",
    "softmax",
    "add",
    "concat",
    "mean",
    "max_pool",
    "average_pool",
    "global_max",
    "reshape",
    "pad",
    "identity",
    "point",
}
