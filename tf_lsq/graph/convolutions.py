"""Lowers convolutions: plain, depthwise, grouped, separable, and causal ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._compat import keras
from .activations import with_activation
from .lowering import Call, input_channels, variant
from .nodes import Layer, Node

layers = keras.layers


def convolution_options(call: Call) -> dict[str, Any]:
    """Returns strides, dilations, padding and groups; 1D kernels have a height of 1."""
    return {**_window_options(call), "groups": call.layer.groups}


def _window_options(call: Call) -> dict[str, Any]:
    """Returns strides, dilations and padding; 1D kernels have a height of 1."""
    layer = call.layer
    higher = (1,) * (2 - layer.rank)
    return {
        "strides": higher + tuple(layer.strides),
        "dilations": higher + tuple(layer.dilation_rate),
        "padding": layer.padding.upper(),
    }


def depthwise_options(call: Call) -> dict[str, Any]:
    """Returns the same for depthwise kernels, with one stride for both axes."""
    options = _window_options(call)
    return {
        **options,
        "strides": options["strides"][1:] * 2,
        "depth_multiplier": int(call.layer.depth_multiplier),
    }


def causal(inner: Callable[[Call], Node]) -> Callable[[Call], Node]:
    """Returns the lowering of a 1D convolution, which may pad only on the left.

    Args:
        inner: The lowering of one that does not.
    """

    def lower(call: Call) -> Node:
        layer = call.layer
        if layer.padding != "causal":
            return inner(call)
        amount = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        pad = layers.ZeroPadding1D((amount, 0), name=f"{call.name}_pad")
        padded = call.add("pad", layer=pad, paddings=((amount, 0), (0, 0)))
        valid = call.replacement(
            "valid", lambda: variant(layer, padding="valid", name=call.name)
        )
        return inner(call.part(valid, call.name, [padded]))

    return lower


def convolution(call: Call) -> Node:
    """Lowers a convolution; with one input channel per group, to a depthwise one.

    TFLite's depthwise convolution has one stride for both axes.
    """
    layer = call.layer
    single = layer.groups > 1 and layer.groups == input_channels(layer)
    if not single or len(set(layer.strides)) > 1:
        return with_activation("conv", convolution_options)(call)
    depthwise = call.replacement("depthwise", lambda: _as_depthwise(call))
    return depthwise_convolution(call.part(depthwise, call.name, call.sources))


def depthwise_convolution(call: Call) -> Node:
    """Lowers a depthwise convolution."""
    return causal(with_activation("depthwise", depthwise_options))(call)


def _as_depthwise(call: Call) -> Layer:
    """Returns the depthwise layer of a convolution with one channel per group."""
    layer, channels = call.layer, input_channels(call.layer)
    one = isinstance(layer, layers.Conv1D)
    multiplier = layer.filters // channels
    depthwise = (layers.DepthwiseConv1D if one else layers.DepthwiseConv2D)(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=multiplier,
        dilation_rate=layer.dilation_rate,
        activation=layer.activation,
        use_bias=layer.use_bias,
        depthwise_regularizer=layer.kernel_regularizer,
        bias_regularizer=layer.bias_regularizer,
        depthwise_constraint=layer.kernel_constraint,
        bias_constraint=layer.bias_constraint,
        trainable=layer.trainable,
        name=call.name,
    )
    depthwise.build((*[None] * (layer.rank + 1), channels))
    kernel, *bias = layer.get_weights()
    shape = (*layer.kernel_size, channels, multiplier)
    depthwise.set_weights([kernel.reshape(shape), *bias])
    return depthwise


def separable(depthwise_class: type, pointwise_class: type) -> Callable[[Call], Node]:
    """Returns the lowering of a separable convolution to depthwise and pointwise."""

    def lower(call: Call) -> Node:
        depthwise, pointwise = call.replacement(
            "separated",
            lambda: _separated(call.layer, depthwise_class, pointwise_class, call.name),
        )
        name = f"{call.name}_depthwise"
        part = call.part(depthwise, name, call.sources)
        depthwise_node = depthwise_convolution(part)
        part = call.part(pointwise, call.name, [depthwise_node])
        return with_activation("conv", convolution_options)(part)

    return lower


def _separated(
    layer: Layer, depthwise_class: type, pointwise_class: type, name: str
) -> tuple[Layer, Layer]:
    """Returns the two layers that make up a separable convolution, with weights."""
    config = layer.get_config()
    depthwise = depthwise_class(
        config["kernel_size"],
        strides=config["strides"],
        padding=config["padding"],
        dilation_rate=config["dilation_rate"],
        depth_multiplier=config["depth_multiplier"],
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        trainable=layer.trainable,
        name=f"{name}_depthwise",
    )
    pointwise = pointwise_class(
        config["filters"],
        1,
        use_bias=config["use_bias"],
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_constraint=layer.bias_constraint,
        trainable=layer.trainable,
        name=name,
    )
    channels = input_channels(layer)
    free = (None,) * (layer.rank + 1)
    depthwise.build((*free, channels))
    pointwise.build((*free, channels * config["depth_multiplier"]))
    weights = layer.get_weights()
    depthwise.set_weights(weights[:1])
    pointwise.set_weights(weights[1:])
    return depthwise, pointwise
