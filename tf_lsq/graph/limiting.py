"""Operators that limit values: ReLUs with any largest value, and clips.

A limit needs no operator in a file if a quantization point follows: rounding never
changes an order, so the integers of limited values are those of the values, limited to
the integers of the limits. The file's grid ends there.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .._compat import keras
from .float_layers import Clip
from .nodes import Layer, Node

Limits = tuple[float, float]
_RELU6 = 6.0


@dataclasses.dataclass(frozen=True)
class Limiting:
    """An operator that limits values.

    Attributes:
        kind: "relu" if the lower limit is 0, else "clip".
        layer: The layer that computes it.
        activation: The ReLU that TFLite has for it, or for its lower limit.
        options: "limits", unless that ReLU has both.
    """

    kind: str
    layer: Layer
    activation: str | None
    options: dict[str, Any]


def limiting(limits: Limits, name: str) -> Limiting:
    """Returns the operator that limits values.

    Args:
        limits: Smallest and largest value, at most 0 and at least 0; infinite where
            there is no limit.
        name: Name of its layer.
    """
    low, high = limits
    if low < 0:
        clip = Clip(_finite(low), _finite(high), name=name)
        return Limiting("clip", clip, None, {"limits": limits})
    relu = keras.layers.ReLU(_finite(high), name=name)
    if high == _RELU6:
        return Limiting("relu", relu, "relu6", {})
    beyond = {} if math.isinf(high) else {"limits": limits}
    return Limiting("relu", relu, "relu", beyond)


def limits_of(node: Node) -> Limits | None:
    """Returns the limits of an operator that only limits values, None for others."""
    if node.kind not in ("relu", "clip"):
        return None
    largest = _RELU6 if node.activation == "relu6" else math.inf
    return node.options.get("limits", (0.0, largest))


def merged(first: Limits, second: Limits) -> Limits | None:
    """Returns the limits of two operators in a row, None if they let nothing vary."""
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return (low, high) if low < high else None


def _finite(limit: float) -> float | None:
    """Returns a limit, None for an infinite one."""
    return None if math.isinf(limit) else limit
