"""Copies layers of a user's model, without their weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._compat import OpLambda, keras
from .float_layers import SynchronizedBatchNormalization
from .nodes import Layer


def copied(layer: Layer, **changes: Any) -> Layer:
    """Returns a new layer with the settings of another, not yet built.

    Args:
        layer: A layer of the user's model.
        **changes: Settings that differ.

    Raises:
        ValueError: If the layer cannot be copied.
    """
    if isinstance(layer, OpLambda):
        return type(layer)(layer.function, name=changes.get("name", layer.name))
    if type(layer) is keras.layers.Lambda:
        return _copied_lambda(layer, changes)
    layer_class = type(layer)
    if getattr(layer, "synchronized", False):
        layer_class = SynchronizedBatchNormalization
    try:
        return layer_class.from_config({**layer.get_config(), **changes})
    except Exception as error:  # The class may be the user's.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"`{layer.name}` ({type(layer).__name__}) must be a layer that can be "
            "copied: its `get_config` must return the arguments of its `__init__`. "
            f"Received: {reason}"
        ) from error


def with_weights(layer: Layer, shape: Any, values: Iterable[Any]) -> Layer:
    """Returns a layer, built for inputs of a shape, with weights.

    Args:
        layer: The layer, not built.
        shape: Of its inputs; the size of the batch does not matter.
        values: Its weights.
    """
    layer.build((None, *shape[1:]))
    layer.set_weights(list(values))
    return layer


def _copied_lambda(layer: Layer, changes: dict[str, Any]) -> Layer:
    """Returns a `Lambda` with the same function; a copy by config is unsafe."""
    settings = {"name": layer.name, "dtype": layer.dtype_policy, **changes}
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        **settings,
    )
