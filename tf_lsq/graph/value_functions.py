"""TensorFlow functions that compute values: arithmetic, activations, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from .float_layers import Reduction, UnaryFunction
from .lowering import Call, activate, chained, rescaling
from .nodes import Node
from .recorded import Rows, Unsupported, constant, tensor_argument
from .unary import UNARY

layers = keras.layers


def _operands(call: Call) -> tuple[Any, Any]:
    """Returns the two operands of an arithmetic function."""
    return call.arguments["x"], call.arguments["y"]


def _add(call: Call) -> Node:
    """``x + y``; a constant becomes a scaling."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("add", [x, y], layer=layers.Add(name=call.name))
    x, offset = (x, y) if isinstance(x, Node) else (y, x)
    return _affine(call, x, 1.0, offset)


def _subtract(call: Call) -> Node:
    """``x - y``."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("subtract", [x, y], layer=layers.Subtract(name=call.name))
    if isinstance(x, Node):
        return _affine(call, x, 1.0, -constant(y))
    return _affine(call, y, -1.0, x)


def _multiply(call: Call) -> Node:
    """``x * y``."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("multiply", [x, y], layer=layers.Multiply(name=call.name))
    x, factor = (x, y) if isinstance(x, Node) else (y, x)
    return _affine(call, x, factor, 0.0)


def _divide(call: Call) -> Node:
    """``x / constant``."""
    x, y = _operands(call)
    if isinstance(y, Node):
        raise Unsupported("a division by a tensor has no integer form")
    return _affine(call, x, 1.0 / constant(y).astype(np.float64), 0.0)


def _negative(call: Call) -> Node:
    """``-x``."""
    return _affine(call, call.arguments["x"], -1.0, 0.0)


def _affine(call: Call, x: Node, scale: Any, offset: Any) -> Node:
    """``scale * x + offset`` with one constant, or one per channel."""
    for value in (scale, offset):
        shape = constant(value).shape
        if any(size != 1 for size in shape[:-1]) or len(shape) > len(x.shape):
            raise Unsupported(
                f"a constant must be one number or one per channel, received {shape}"
            )
    return call.add("affine", [x], layer=rescaling(scale, offset, call.name))


def _joining(kind: str, layer_class: type) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.maximum` or `tf.minimum`."""

    def lower(call: Call) -> Node:
        x, y = _operands(call)
        if not (isinstance(x, Node) and isinstance(y, Node)):
            return _limit(call, kind, x, y)
        return call.add(kind, [x, y], layer=layer_class(name=call.name))

    return lower


def _limit(call: Call, kind: str, x: Any, y: Any) -> Node:
    """``maximum(x, 0)`` is a ReLU; other limits have no operator."""
    x, limit = (x, y) if isinstance(x, Node) else (y, x)
    if kind == "maximum" and np.all(constant(limit) == 0):
        return activate(call, x, tf.nn.relu, call.name)
    raise Unsupported(f"a limit must be maximum(x, 0), received {kind} of {limit}")


def _clip(call: Call) -> Node:
    """``clip_by_value(x, 0, 6)`` is a ReLU6."""
    low, high = (
        constant(call.arguments[f"clip_value_{end}"]) for end in ("min", "max")
    )
    if np.any(low != 0) or np.any(high != 6):
        raise Unsupported(f"limits must be 0 and 6, received {low} and {high}")
    return activate(call, call.arguments["t"], tf.nn.relu6, call.name)


def _add_n(call: Call) -> Node:
    """Sum of a list of tensors."""
    return chained(call, "add", layers.Add, call.arguments["inputs"], call.name)


def _activation(function: Any) -> Callable[[Call], Node]:
    """Returns the lowering of an activation function."""

    def lower(call: Call) -> Node:
        x = tensor_argument(call)
        if call.arguments.get("axis") not in (None, -1, len(x.shape) - 1):
            raise Unsupported(f"axis must be -1, received {call.arguments['axis']}")
        if call.arguments.get("beta", 1.0) != 1.0:
            raise Unsupported(f"beta must be 1, received {call.arguments['beta']}")
        return activate(call, x, function, call.name)

    return lower


def _leaky_relu(call: Call) -> Node:
    """``leaky_relu(x, alpha)``."""
    slope = float(constant(call.arguments["alpha"]))
    layer = layers.LeakyReLU(slope, name=call.name)
    return activate(call, call.arguments["features"], layer, call.name)


def _identity(call: Call) -> Node:
    """A function that changes nothing, such as a cast between floats."""
    x = tensor_argument(call)
    linear = layers.Activation("linear", name=call.name)
    return call.add("identity", [x], layer=linear)


def _reduce(reduction: str) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.reduce_mean` or `tf.reduce_max`."""

    def lower(call: Call) -> Node:
        x, axes = call.arguments["input_tensor"], call.arguments["axis"]
        if axes is None:
            raise Unsupported("axis must be given, excluding the batch, received None")
        axes = sorted(int(a) % len(x.shape) for a in np.ravel(constant(axes)))
        if 0 in axes:
            raise Unsupported("axis must not be the batch axis, received 0")
        keepdims = bool(call.arguments["keepdims"])
        layer = Reduction(reduction, axes, keepdims, name=call.name)
        kind = {"mean": "mean", "max": "reduce_max"}[reduction]
        return call.add(kind, [x], layer=layer, axes=layer.axes, keepdims=keepdims)

    return lower


def _unary(kind: str) -> Callable[[Call], Node]:
    """Returns the lowering of a function of one tensor."""

    def lower(call: Call) -> Node:
        x = tensor_argument(call)
        return call.add(kind, [x], layer=UnaryFunction(kind, name=call.name))

    return lower


VALUE_FUNCTIONS: Rows = {
    ("__operators__.add", "math.add", "add"): _add,
    ("math.subtract", "subtract"): _subtract,
    ("math.multiply", "multiply"): _multiply,
    ("math.truediv", "math.divide", "divide"): _divide,
    ("math.negative", "negative"): _negative,
    ("math.maximum", "maximum"): _joining("maximum", layers.Maximum),
    ("math.minimum", "minimum"): _joining("minimum", layers.Minimum),
    ("clip_by_value",): _clip,
    ("math.add_n", "add_n"): _add_n,
    ("nn.relu",): _activation(tf.nn.relu),
    ("nn.relu6",): _activation(tf.nn.relu6),
    ("nn.leaky_relu",): _leaky_relu,
    ("math.sigmoid", "nn.sigmoid", "sigmoid"): _activation(tf.nn.sigmoid),
    ("math.tanh", "nn.tanh", "tanh"): _activation(tf.nn.tanh),
    ("nn.silu", "nn.swish"): _activation(tf.nn.silu),
    ("nn.softmax",): _activation(tf.nn.softmax),
    ("identity", "cast"): _identity,
    ("math.reduce_mean", "reduce_mean"): _reduce("mean"),
    ("math.reduce_max", "reduce_max"): _reduce("max"),
    **{row.symbols: _unary(name) for name, row in UNARY.items() if row.symbols},
}
