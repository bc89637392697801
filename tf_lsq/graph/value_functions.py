"""TensorFlow functions that compute values: arithmetic, activations, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._compat import keras
from .float_layers import UnaryFunction
from .lowering import Call, chained, rescaling
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


def _add_n(call: Call) -> Node:
    """Sum of a list of tensors."""
    return chained(call, "add", layers.Add, call.arguments["inputs"], call.name)


def _identity(call: Call) -> Node:
    """A function that changes nothing, such as a cast between floats."""
    x = tensor_argument(call)
    linear = layers.Activation("linear", name=call.name)
    return call.add("identity", [x], layer=linear)


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
    ("math.add_n", "add_n"): _add_n,
    ("identity", "cast"): _identity,
    **{row.symbols: _unary(name) for name, row in UNARY.items() if row.symbols},
}
