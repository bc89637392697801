"""TensorFlow functions that limit or bend values: activations, clips, extrema."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..._compat import keras
from ..activations import activate, leaky_relu, limit, unary
from ..lowering import Call, rescaling
from ..nodes import Node
from .recorded import Rows, Unsupported, constant, tensor_argument, with_equal_ranks

layers = keras.layers


def _extremum(kind: str, layer_class: type) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.maximum` or `tf.minimum`; a constant is a limit."""

    def lower(call: Call) -> Node:
        x, y = with_equal_ranks(call.arguments["x"], call.arguments["y"])
        if isinstance(x, Node) and isinstance(y, Node):
            return call.add(kind, [x, y], layer=layer_class(name=call.name))
        x, bound = (x, _number(y)) if isinstance(x, Node) else (y, _number(x))
        limits = (bound, math.inf) if kind == "maximum" else (-math.inf, bound)
        return _limited(call, x, limits)

    return lower


def _clip(call: Call) -> Node:
    """``clip_by_value(x, low, high)`` with two numbers."""
    ends = [_number(call.arguments[f"clip_value_{end}"]) for end in ("min", "max")]
    return _limited(call, call.arguments["t"], (ends[0], ends[1]))


def _number(value: Any) -> float:
    """Returns a limit."""
    numbers = np.unique(constant(value))
    if numbers.size != 1:
        raise Unsupported(f"a limit must be one number, received {numbers.size}")
    return float(numbers[0])


def _limited(call: Call, x: Node, limits: tuple[float, float]) -> Node:
    """Adds limits; those that exclude 0 are moved to it, as integer grids hold 0."""
    low, high = limits
    if not low < high:
        raise Unsupported(
            f"the lower limit must be below the upper one, received {low} and {high}"
        )
    shift = max(low, 0.0) + min(high, 0.0)
    if shift == 0.0:
        return limit(call, x, limits, call.name)
    down = rescaling(1.0, -shift, f"{call.name}_down")
    moved = call.add("affine", [x], layer=down)
    ends = (low - shift, high - shift)
    kept = limit(call, moved, ends, f"{call.name}_limited")
    return call.add("affine", [kept], layer=rescaling(1.0, shift, call.name))


def _activation(function: Any) -> Callable[[Call], Node]:
    """Returns the lowering of an activation function."""

    def lower(call: Call) -> Node:
        x = tensor_argument(call)
        if call.arguments.get("axis") not in (None, -1, len(x.shape) - 1):
            raise Unsupported(f"axis must be -1, received {call.arguments['axis']}")
        return activate(call, x, function, call.name)

    return lower


def _leaky_relu(call: Call) -> Node:
    """``leaky_relu(x, alpha)``."""
    slope = float(constant(call.arguments["alpha"]))
    x = call.arguments["features"]
    if slope == 0.0:
        return activate(call, x, tf.nn.relu, call.name)
    if slope < 0.0:
        return unary(call, x, "leaky_relu", {"alpha": slope}, call.name)
    return leaky_relu(call, x, slope, call.name)


def _silu(call: Call) -> Node:
    """``x * sigmoid(beta * x)``."""
    x, beta = tensor_argument(call), float(constant(call.arguments["beta"]))
    if beta == 1.0:
        return activate(call, x, tf.nn.silu, call.name)
    return unary(call, x, "swish_beta", {"beta": beta}, call.name)


def _crelu(call: Call) -> Node:
    """``crelu(x)``: the ReLUs of x and of -x side by side."""
    x, axis = call.arguments["features"], int(constant(call.arguments["axis"]))
    if axis % len(x.shape) == 0:
        raise Unsupported("axis must not be the batch axis, received 0")
    negative = rescaling(-1.0, 0.0, f"{call.name}_negative")
    sides = [
        activate(call, side, tf.nn.relu, f"{call.name}_relu_{number}")
        for number, side in enumerate([x, call.add("affine", [x], layer=negative)])
    ]
    layer = layers.Concatenate(axis=axis, name=call.name)
    axis = axis % len(x.shape)
    return call.add("concat", sides, layer=layer, axis=axis)


ACTIVATION_FUNCTIONS: Rows = {
    ("math.maximum", "maximum"): _extremum("maximum", layers.Maximum),
    ("math.minimum", "minimum"): _extremum("minimum", layers.Minimum),
    ("clip_by_value",): _clip,
    ("nn.relu",): _activation(tf.nn.relu),
    ("nn.relu6",): _activation(tf.nn.relu6),
    ("nn.leaky_relu",): _leaky_relu,
    ("nn.crelu", "compat.v1.nn.crelu"): _crelu,
    ("math.sigmoid", "nn.sigmoid", "sigmoid"): _activation(tf.nn.sigmoid),
    ("math.tanh", "nn.tanh", "tanh"): _activation(tf.nn.tanh),
    ("nn.silu", "nn.swish"): _silu,
    ("nn.softmax", "compat.v1.nn.softmax"): _activation(tf.nn.softmax),
}
