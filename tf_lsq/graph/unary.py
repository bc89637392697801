"""Elementwise functions of one tensor: each is one operator and has one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from .._compat import keras
from .kinds import BASIC_KINDS, Kind

# Returns why a layer with its settings is not the function, or None.
Check = Callable[[Any], str | None]


@dataclasses.dataclass(frozen=True)
class Unary:
    """A function of one tensor.

    Attributes:
        function: Computes it, tensor to tensor.
        kind: What the analysis knows about the operator.
        symbols: Names of TensorFlow functions that compute it.
        activations: Activation functions equal to it.
        layers: Keras layers equal to it -> which of their settings are refused.
    """

    function: Callable[[Any], Any]
    kind: Kind
    symbols: tuple[str, ...] = ()
    activations: tuple[Callable[..., Any], ...] = ()
    layers: Mapping[type, Check] = dataclasses.field(default_factory=dict)


def _check_elu(layer: Any) -> str | None:
    """Refuses an ELU that TFLite does not have."""
    if float(layer.alpha) != 1.0:
        return f"alpha must be 1, received {float(layer.alpha)}"
    return None


UNARY: dict[str, Unary] = {
    "abs": Unary(
        tf.abs,
        Kind(keeps_grid=True, leaves_range=True, int16=True, range="positive"),
        symbols=("math.abs", "abs"),
    ),
    "square": Unary(
        tf.square, Kind(int16=True, range="positive"), symbols=("math.square", "square")
    ),
    "elu": Unary(
        tf.nn.elu,
        Kind(range="signed"),
        symbols=("nn.elu",),
        activations=(keras.activations.elu, tf.nn.elu),
        layers={keras.layers.ELU: _check_elu},
    ),
}
KINDS = {**BASIC_KINDS, **{name: row.kind for name, row in UNARY.items()}}
