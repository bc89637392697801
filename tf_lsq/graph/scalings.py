"""Lowers the layers that `keras.applications` defines for itself."""

from __future__ import annotations

from .._compat import keras
from ..layers import ChannelScaling
from .copying import with_weights
from .lowering import Call
from .nodes import Node


def layer_scale(call: Call) -> Node:
    """Lowers a `LayerScale` of ConvNeXt: a trained factor for each channel."""
    layer = call.layer

    def scaling() -> ChannelScaling:
        own = ChannelScaling(
            center=False,
            trainable=layer.trainable,
            dtype="float32",
            name=call.layer_name,
        )
        return with_weights(own, call.shape, layer.get_weights())

    node = call.add("affine", layer=call.replacement("scaling", scaling))
    node.name = call.name  # Each call of the layer has its own.
    return node


def scaled_sum(call: Call) -> Node:
    """Lowers a `CustomScaleLayer` of Inception-ResNet: ``x + scale * y``."""
    x, y = call.sources
    scaling = keras.layers.Rescaling(
        call.layer.scale, name=call.unique(f"{call.name}_scaled")
    )
    scaled = call.add("affine", [y], layer=scaling)
    return call.add("add", [x, scaled], layer=keras.layers.Add(name=call.name))
