"""`LSQQuantizeScheme`: the entry point for TF-MOT's `quantize_apply`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._compat import keras, tfmot
from .graph import analyze
from .layers import LSQQuantizeConfig
from .layout import build_model
from .pixel_inputs import settle_pixels
from .policy import Options, assign_bits
from .training import LSQModel


class LSQLayoutTransform(tfmot.quantization.keras.QuantizeLayoutTransform):
    """TF-MOT's layout transform: float model in, quantized model out.

    Args:
        options: Checked options.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    def apply(
        self, model: keras.Model, layer_quantize_map: dict[str, Any]
    ) -> tuple[LSQModel, dict[str, Any]]:
        """Returns the quantized model; nothing is left for TF-MOT to wrap.

        Args:
            model: A float functional or sequential model.
            layer_quantize_map: The annotated layers by name; a layer may have
                its own `LSQQuantizeConfig` as "quantize_config".

        Raises:
            ValueError: If a layer carries another kind of config, or `model`
                cannot be quantized exactly; the error names all offenders.
        """
        configs = {
            name: entry.get("quantize_config")
            for name, entry in layer_quantize_map.items()
        }
        _check_configs(configs)
        graph = analyze(model)
        settle_pixels(graph, self.options, configs)
        bits = assign_bits(graph, self.options, configs)
        return build_model(model, graph, bits, self.options), {}


def _check_configs(configs: Mapping[str, Any]) -> None:
    """Refuses configs of other schemes."""
    foreign = {
        name: type(config).__name__
        for name, config in configs.items()
        if config is not None and not isinstance(config, LSQQuantizeConfig)
    }
    if foreign:
        raise ValueError(
            "Layers quantized with `LSQQuantizeScheme` must be annotated without a "
            f"config or with an `LSQQuantizeConfig`. Received: {foreign}."
        )


class _EmptyRegistry(tfmot.quantization.keras.QuantizeRegistry):
    """Adds nothing: the layout transform has placed every quantizer."""

    def supports(self, layer: keras.layers.Layer) -> bool:
        """Returns False, so that TF-MOT wraps no layer a second time."""
        return False

    def get_quantize_config(self, layer: keras.layers.Layer) -> Any:
        """Raises: TF-MOT never calls this, because nothing is supported."""
        raise ValueError(
            "`LSQQuantizeScheme` places its quantizers in its layout transform. "
            f"Received a request for a config of `{layer.name}`."
        )


class LSQQuantizeScheme(tfmot.quantization.keras.QuantizeScheme):
    """Quantizes an annotated model with LSQ.

    Args:
        **options: The options of `tf_lsq.quantize_model`.

    Example:
        >>> import tf_keras as keras
        >>> import tensorflow_model_optimization as tfmot
        >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(4,))])
        >>> annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        >>> student = tfmot.quantization.keras.quantize_apply(
        ...     annotated, LSQQuantizeScheme(weight_bits=4))
        >>> type(student).__name__
        'LSQModel'
    """

    def __init__(self, **options: Any) -> None:
        self.options = Options(**options)

    def get_layout_transformer(self) -> LSQLayoutTransform:
        """Returns the transform that builds the quantized model."""
        return LSQLayoutTransform(self.options)

    def get_quantize_registry(self) -> _EmptyRegistry:
        """Returns a registry that leaves the transformed layers unchanged."""
        return _EmptyRegistry()
