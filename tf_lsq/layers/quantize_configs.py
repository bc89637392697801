"""Defines which attributes of a layer get which quantizer.

`LSQQuantizeConfig` has two uses. Passed to TF-MOT's `quantize_annotate_layer`, it
overrides the bits of one layer under `LSQQuantizeScheme`, or quantizes that layer alone
under TF-MOT's default scheme. Inside a model built by this library, it names the
quantized weight of a wrapped layer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import lsq
from .._compat import keras, tfmot
from .constants import AddConstant, MultiplyConstant
from .quantizers import LSQActivationQuantizer, LSQWeightQuantizer


@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """The quantized weight of a layer.

    Attributes:
        attribute: The attribute of the layer that holds it.
        channel_axes: Its axes with one index per channel.
        bilinear: Whether the layer's output, except for its bias, is linear in this
            weight and linear in the layer's input. Only then do both have the same sum
            of gradient times value, see `loans`.
    """

    attribute: str
    channel_axes: tuple[int, ...]
    bilinear: bool


QUANTIZED_WEIGHTS: dict[type, QuantizedWeight] = {
    keras.layers.Dense: QuantizedWeight("kernel", (-1,), True),
    keras.layers.Conv1D: QuantizedWeight("kernel", (-1,), True),
    keras.layers.Conv2D: QuantizedWeight("kernel", (-1,), True),
    keras.layers.Conv1DTranspose: QuantizedWeight("kernel", (-2,), True),
    keras.layers.Conv2DTranspose: QuantizedWeight("kernel", (-2,), True),
    keras.layers.DepthwiseConv1D: QuantizedWeight("depthwise_kernel", (-2, -1), True),
    keras.layers.DepthwiseConv2D: QuantizedWeight("depthwise_kernel", (-2, -1), True),
    AddConstant: QuantizedWeight("constant", (-1,), False),
    MultiplyConstant: QuantizedWeight("constant", (-1,), False),
    # Linear in alpha where an input is negative, and only there.
    keras.layers.PReLU: QuantizedWeight("alpha", (-1,), False),
}


@keras.utils.register_keras_serializable(package="tf_lsq")
class LSQQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """Quantizes the kernel of a layer, and its activation, with LSQ.

    Args:
        weight_bits: Bits of the kernel, 2 to 8.
        activation_bits: Under `LSQQuantizeScheme` the bits of the layer's
            *input*, as in the paper; under TF-MOT's default scheme, which has
            no quantizers before a layer, the bits of its output. 2 to 16.
        per_channel: One step per output channel instead of one per kernel.
        step_init: First value of the steps, see `lsq.initial_step`.

    Example:
        >>> config = LSQQuantizeConfig(weight_bits=2, activation_bits=4)
        >>> config.get_config()["weight_bits"]
        2
    """

    def __init__(
        self,
        weight_bits: int = 4,
        activation_bits: int = 4,
        *,
        per_channel: bool = False,
        step_init: str = "mse",
    ) -> None:
        self.weight_bits = lsq.check_num_bits(weight_bits, "weight_bits")
        self.activation_bits = lsq.check_num_bits(
            activation_bits, "activation_bits", lsq.MAX_ACTIVATION_BITS
        )
        self.per_channel = bool(per_channel)
        self.step_init = lsq.check_step_init(step_init)

    def weight_attribute(self, layer: keras.layers.Layer) -> str | None:
        """Returns the attribute that holds the layer's kernel, or None."""
        weight = QUANTIZED_WEIGHTS.get(type(layer))
        return weight and weight.attribute

    def get_weights_and_quantizers(
        self, layer: keras.layers.Layer
    ) -> list[tuple[Any, LSQWeightQuantizer]]:
        """Returns the kernel with its quantizer; empty for layers without a kernel."""
        if type(layer) not in QUANTIZED_WEIGHTS:
            return []
        weight = QUANTIZED_WEIGHTS[type(layer)]
        quantizer = LSQWeightQuantizer(
            self.weight_bits,
            weight.channel_axes if self.per_channel else None,
            self.step_init,
        )
        return [(getattr(layer, weight.attribute), quantizer)]

    def get_activations_and_quantizers(
        self, layer: keras.layers.Layer
    ) -> list[tuple[Any, LSQActivationQuantizer]]:
        """Returns the layer's activation function with its quantizer."""
        if not hasattr(layer, "activation"):
            return []
        return [(layer.activation, self._activation_quantizer())]

    def get_output_quantizers(
        self, layer: keras.layers.Layer
    ) -> list[LSQActivationQuantizer]:
        """Returns the quantizer of a layer without an activation function."""
        if hasattr(layer, "activation"):
            return []
        return [self._activation_quantizer()]

    def set_quantize_weights(
        self, layer: keras.layers.Layer, quantize_weights: list[Any]
    ) -> None:
        """Replaces the float kernel with the quantized one (TF-MOT)."""
        attribute = self.weight_attribute(layer)
        if attribute is not None:
            setattr(layer, attribute, quantize_weights[0])

    def set_quantize_activations(
        self, layer: keras.layers.Layer, quantize_activations: list[Any]
    ) -> None:
        """Replaces the float activation with the quantizing one (TF-MOT)."""
        if quantize_activations:
            layer.activation = quantize_activations[0]

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "per_channel": self.per_channel,
            "step_init": self.step_init,
        }

    def __eq__(self, other: object) -> bool:
        """Compares class and settings."""
        return (
            isinstance(other, LSQQuantizeConfig)
            and self.get_config() == other.get_config()
        )

    def __hash__(self) -> int:
        """Returns a hash of the settings."""
        return hash(tuple(self.get_config().values()))

    def _activation_quantizer(self) -> LSQActivationQuantizer:
        """Returns a new quantizer; its first batch decides the sign."""
        return LSQActivationQuantizer(
            self.activation_bits, signed=None, step_init=self.step_init
        )
