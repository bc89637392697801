"""The registry of custom layers, and how they decompose into supported layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._compat import is_keras3_layer_class, is_keras3_model, keras
from .layer_table import PUBLIC_LAYERS
from .nodes import Layer

Expansion = Callable[[Any], Any]
EXPANSIONS: dict[type, Expansion] = {}
_SUPPORTED_NAMES = {layer_class.__name__ for layer_class in PUBLIC_LAYERS}


def register_layer(layer_class: type) -> Callable[[Expansion], Expansion]:
    """Registers how a custom layer decomposes into supported layers.

    The layer can then be quantized. The decorated function takes a built layer of
    `layer_class` and returns a functional model of supported layers that computes the
    same, with the same weights. The quantized model has these layers in its place:
    their kernels get learned steps, and quantization points go between them as in any
    model. They are called "layer/inner", where "layer" is the name of the custom layer.

    For a class of Keras 3, the function takes the Keras 3 layer and returns a
    functional model of Keras 3, or of `tf_keras`. Layers of Keras 3 in it, usually
    those that the custom layer holds, are translated like the rest of the model, and
    `from_keras3` refuses a decomposition that computes something else. As for the whole
    model, the weights are copied: training the quantized model does not change them.

    Args:
        layer_class: A subclass of `keras.layers.Layer`, of `tf_keras` or Keras 3.

    Raises:
        TypeError: If `layer_class` is not a layer class.
        ValueError: If this library already supports the class.

    Example:
        >>> import tf_keras as keras
        >>> class Gated(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.dense = keras.layers.Dense(shape[-1], activation="sigmoid")
        ...         self.dense.build(shape)
        ...     def call(self, x):
        ...         return x * self.dense(x)
        >>> @register_layer(Gated)
        ... def expand(layer):
        ...     x = keras.Input(layer.dense.kernel.shape[:1])
        ...     return keras.Model(x, keras.layers.Multiply()([x, layer.dense(x)]))
    """
    of_keras3 = is_keras3_layer_class(layer_class)
    if not of_keras3 and not (
        isinstance(layer_class, type) and issubclass(layer_class, Layer)
    ):
        raise TypeError(
            "`layer_class` must be a subclass of `keras.layers.Layer`, of tf_keras or "
            f"Keras 3. Received: {layer_class!r}."
        )
    if layer_class in PUBLIC_LAYERS or (of_keras3 and _is_supported(layer_class)):
        raise ValueError(
            f"`layer_class` must be a custom layer. Received: {layer_class}, which is "
            "already supported."
        )

    def register(expand: Expansion) -> Expansion:
        EXPANSIONS[layer_class] = expand
        return expand

    return register


def expand_layer(layer: Any) -> Any:
    """Returns the model that a registered layer decomposes into.

    Args:
        layer: A layer of tf_keras or Keras 3.

    Returns:
        A model of either Keras; None for a class that is not registered.

    Raises:
        TypeError: If the registered function returns something else.
    """
    expand = EXPANSIONS.get(type(layer))
    if expand is None:
        return None
    model = expand(layer)
    if not (isinstance(model, keras.Model) or is_keras3_model(model)):
        raise TypeError(
            f"The function registered for {type(layer).__name__} must return a "
            f"functional model. Received, for `{layer.name}`: {model!r}."
        )
    return model


def _is_supported(layer_class: type) -> bool:
    """Returns whether a class of Keras 3 itself has a supported twin."""
    own = layer_class.__module__.startswith("keras.")
    return own and layer_class.__name__ in _SUPPORTED_NAMES
