"""`LSQQuantizeScheme`: the door for TF-MOT's `quantize_apply`."""

from __future__ import annotations

from typing import Any

from ._compat import keras, tfmot
from .layout import LSQLayoutTransform
from .policy import Options


class _EmptyRegistry(tfmot.quantization.keras.QuantizeRegistry):
    """Adds nothing: the layout transform has placed every quantizer."""

    def supports(self, layer: keras.layers.Layer) -> bool:
        """Returns False, so that TF-MOT wraps no layer a second time."""
        return False

    def get_quantize_config(self, layer: keras.layers.Layer) -> Any:
        """Is never called by TF-MOT, because nothing is supported."""
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
        """Returns the transform that does the work."""
        return LSQLayoutTransform(self.options)

    def get_quantize_registry(self) -> _EmptyRegistry:
        """Returns a registry that leaves the transformed layers alone."""
        return _EmptyRegistry()
