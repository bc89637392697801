"""Limits of values in float.

Integers need none: the grid of limited values ends at the integers of the limits.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from ..freezing import FrozenNode
from .builder import Builder


def float_limits(node: FrozenNode) -> dict[str, float]:
    """Returns the limits of an operator that computes in float, beyond its ReLU.

    Args:
        node: The operator.

    Returns:
        "MAXIMUM" -> the smallest value, "MINIMUM" -> the largest one; without infinite
        limits.
    """
    limits = node.trained.options.get("limits")
    if limits is None or not node.is_float:
        return {}
    low, high = limits
    named = {"MAXIMUM": -math.inf if node.activation else low, "MINIMUM": high}
    return {code: value for code, value in named.items() if math.isfinite(value)}


def limited(values: tf.Tensor, limits: dict[str, float]) -> tf.Tensor:
    """Returns limited values.

    Args:
        values: float64.
        limits: From `float_limits`.
    """
    for code, function in (("MAXIMUM", tf.maximum), ("MINIMUM", tf.minimum)):
        if code in limits:
            values = function(values, tf.constant(limits[code], tf.float64))
    return values


def write_limits(builder: Builder, node: FrozenNode, source: str) -> None:
    """Adds the operators that limit a float tensor.

    Args:
        builder: Builder of the graph.
        node: The operator whose output is limited.
        source: Name of the tensor without limits.
    """
    limits = float_limits(node)
    for number, (code, value) in enumerate(limits.items(), start=1):
        name = f"{node.name}/{code.lower()}"
        bound = builder.constant(f"{name}/limit", np.array([value], np.float32))
        last = number == len(limits)
        output = node.name if last else name
        builder.tensor(output, node.shape, None)
        builder.op(code, [source, bound], output)
        source = output
