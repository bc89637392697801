"""Elementwise functions of one tensor: each is one operator and has one row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from .._compat import keras
from .elementwise import SMALLEST_OF_LOG, finite
from .kinds import BASIC_KINDS, Kind
from .tabulated import TABULATED


@dataclasses.dataclass(frozen=True)
class Unary:
    """A function of one tensor.

    Attributes:
        function: Computes it: a tensor, and settings as keyword arguments.
        kind: What the analysis knows about the operator.
        symbols: Names of TensorFlow functions that compute it.
        settings: Arguments of these functions that it takes as well.
        activations: Activation functions equal to it.
    """

    function: Callable[[Any], Any]
    kind: Kind
    symbols: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    activations: tuple[Callable[..., Any], ...] = ()


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
    ),
    "exp": Unary(
        tf.exp,
        Kind(range="positive"),
        symbols=("math.exp", "exp"),
        activations=(keras.activations.exponential, tf.exp),
    ),
    "gelu": Unary(
        tf.nn.gelu,
        Kind(range="signed"),
        symbols=("nn.gelu",),
        settings=("approximate",),
        activations=(keras.activations.gelu, tf.nn.gelu),
    ),
    "log": Unary(
        finite(tf.math.log, SMALLEST_OF_LOG),
        Kind(range="signed"),
        symbols=("math.log",),
        activations=(tf.math.log,),
    ),
}
KINDS = {**BASIC_KINDS, **{name: row.kind for name, row in UNARY.items()}}


# Kinds whose operators compute in integers only.
WITHOUT_FLOAT = ("embedding", "log", "normalize", "table")


def function_of(name: str) -> Callable[..., Any]:
    """Returns an elementwise function: a tensor, and settings as keyword arguments.

    Args:
        name: A key of `UNARY` or `TABULATED`.

    Raises:
        ValueError: If there is none.
    """
    row = UNARY.get(name) or TABULATED.get(name)
    if row is None:
        raise ValueError(
            f"`function` must be one of {sorted({*UNARY, *TABULATED})}, or be "
            "registered with `tf_lsq.register_elementwise` before a model with it is "
            f"loaded. Received: {name!r}."
        )
    return row.function


def kind_and_options(name: str, settings: Mapping[str, Any]) -> tuple[str, Any]:
    """Returns the kind of an elementwise function's operator, and its options.

    Args:
        name: A key of `UNARY` or `TABULATED`.
        settings: Its settings.
    """
    if name in UNARY:
        return name, dict(settings)
    return "table", {
        "function": name,
        "range": TABULATED[name].range_with(settings),
        **settings,
    }
