"""TensorFlow functions of arithmetic, and elementwise functions of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._compat import keras
from ...layers import AddConstant, MultiplyConstant
from ..activations import unary
from ..copying import with_weights
from ..lowering import Call, chained, rescaling
from ..masks import add_mask, excluding, may_exclude
from ..nodes import Layer, Node
from ..tabulated import TABULATED
from ..unary import UNARY
from .recorded import (
    Rows,
    Unsupported,
    constant,
    is_trained,
    tensor_argument,
    weight,
    with_equal_ranks,
)

layers = keras.layers
_CONSTANT_LAYERS = {"add_constant": AddConstant, "multiply_constant": MultiplyConstant}


def _operands(call: Call) -> tuple[Any, Any]:
    """Returns the two operands of an arithmetic function."""
    return with_equal_ranks(call.arguments["x"], call.arguments["y"])


def _add(call: Call) -> Node:
    """``x + y``."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("add", [x, y], layer=layers.Add(name=call.name))
    x, summand = (x, y) if isinstance(x, Node) else (y, x)
    return _shifted(call, x, summand, 1, call.name)


def _subtract(call: Call) -> Node:
    """``x - y``."""
    return _difference(call, *_operands(call), call.name)


def _difference(call: Call, x: Any, y: Any, name: str) -> Node:
    """Adds the operators of ``x - y``."""
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("subtract", [x, y], layer=layers.Subtract(name=name))
    if isinstance(x, Node):
        return _shifted(call, x, y, -1, name)
    if _fits_affine(y, x):
        return _affine(call, y, -1.0, constant(x), name)
    negative = _affine(call, y, -1.0, 0.0, f"{name}_negative")
    return _shifted(call, negative, x, 1, name)


def _multiply(call: Call) -> Node:
    """``x * y``."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("multiply", [x, y], layer=layers.Multiply(name=call.name))
    x, factor = (x, y) if isinstance(x, Node) else (y, x)
    return _scaled(call, x, factor, weight(factor))


def _reciprocal(call: Call) -> Node:
    """``1 / x``."""
    x = tensor_argument(call)
    return unary(call, x, "reciprocal", {"numerator": 1.0}, call.name)


def _scalar_multiply(call: Call) -> Node:
    """``scalar_mul(scalar, x)``."""
    factor = call.arguments["scalar"]
    return _scaled(call, call.arguments["x"], factor, weight(factor))


def _divide(call: Call) -> Node:
    """``x / constant`` or ``constant / x``."""
    x, y = _operands(call)
    if isinstance(y, Node):
        if isinstance(x, Node) or "no_nan" in call.layer.symbol:
            raise Unsupported("a division by a tensor has no integer form")
        settings = {"numerator": _only(x, "the numerator")}
        return unary(call, y, "reciprocal", settings, call.name)
    divisor = weight(y).astype(np.float64)
    if not np.all(divisor):
        raise Unsupported("a divisor must not be 0")
    return _scaled(call, x, y, 1.0 / divisor)


def _negative(call: Call) -> Node:
    """``-x``."""
    return _affine(call, call.arguments["x"], -1.0, 0.0, call.name)


def _bias_add(call: Call) -> Node:
    """``bias_add(value, bias)`` of channels that come last."""
    data_format = call.arguments["data_format"]
    if str(data_format or "NHWC").startswith("NC"):
        raise Unsupported(f"data_format must be NHWC, received {data_format}")
    return _shifted(call, call.arguments["value"], call.arguments["bias"], 1, call.name)


def _shifted(call: Call, x: Node, summand: Any, sign: int, name: str) -> Node:
    """Adds ``x + sign * summand`` with a constant."""
    values = sign * weight(summand)
    if _fits_affine(x, summand):
        node = _affine(call, x, 1.0, values, name)
    else:
        node = _with_constant(call, "add_constant", x, summand, values, name)
    if not is_trained(summand) and may_exclude(values):
        node.options["summand"] = values
    return node


def _scaled(call: Call, x: Node, given: Any, factor: np.ndarray) -> Node:
    """Adds ``x * factor``, where the factor was computed from the `given` constant."""
    if _fits_affine(x, given):
        return _affine(call, x, factor, 0.0, call.name)
    return _with_constant(call, "multiply_constant", x, given, factor, call.name)


def _fits_affine(x: Node, value: Any) -> bool:
    """Returns whether a constant is one number, or one per channel of a tensor."""
    shape = weight(value).shape
    channels = (1, x.shape[-1]) if shape else ()
    return (
        not is_trained(value)
        and len(shape) <= len(x.shape)
        and all(size == 1 for size in shape[:-1])
        and shape[-1:] in ((), *((size,) for size in channels))
    )


def _affine(call: Call, x: Node, scale: Any, offset: Any, name: str) -> Node:
    """Adds ``scale * x + offset`` with one number each, or one per channel."""
    layer = rescaling(scale, offset, name)
    return call.add("affine", [x], layer=layer, written_out=True)


def _with_constant(
    call: Call, kind: str, x: Node, given: Any, values: np.ndarray, name: str
) -> Node:
    """Adds an operator with a constant that has its own grid.

    Args:
        call: The call it belongs to.
        kind: Its kind.
        x: Its input.
        given: The constant, or the variable, that the user wrote.
        values: What was computed from it.
        name: Its name.
    """
    axes = len(x.shape) - values.ndim
    if axes < 0 or (axes == 0 and values.shape[0] != 1):
        raise Unsupported(
            "a constant must be the same for every example of the batch, received the "
            f"shape {values.shape}"
        )
    shape = (1,) * axes + values.shape
    trained, settings = is_trained(given), {}
    if trained:
        settings["weight_name"] = given.name.rpartition("/")[2].partition(":")[0]

    def make() -> Layer:
        layer = _CONSTANT_LAYERS[kind](shape, trained=trained, name=name, **settings)
        return with_weights(layer, x.shape, [np.reshape(values, shape)])

    layer = call.replacement(f"{kind} {shape}", make)
    node = call.add(kind, [x], layer=layer, constant=not trained)
    node.name = name
    return node


def _square(call: Call, x: Node, name: str) -> Node:
    """Adds ``x * x``."""
    return unary(call, x, "square", {}, name)


def _where(call: Call) -> Node:
    """``where(mask, scores, -1e9)`` with a constant mask."""
    x, y = call.arguments["x"], call.arguments["y"]
    if isinstance(call.arguments["condition"], Node) or not isinstance(x, Node):
        raise Unsupported("the condition must be a constant mask of a tensor")
    mask = constant(call.arguments["condition"]).astype(bool)
    kept = excluding(np.where(mask, 0.0, constant(y)))
    if kept is None or (mask.ndim == len(x.shape) and mask.shape[0] != 1):
        raise Unsupported(
            "the other value must be a large negative number, such as -1e9, and the "
            "mask the same for every example"
        )
    return add_mask(call, x, kept, call.name)


def _squared_difference(call: Call) -> Node:
    """``(x - y) ** 2``."""
    difference = _difference(call, *_operands(call), f"{call.name}_difference")
    return _square(call, difference, call.name)


def _power(call: Call) -> Node:
    """``x ** exponent`` or ``base ** x``."""
    x, exponent = _operands(call)
    if not isinstance(x, Node):
        base = _only(x, "the base")
        if base <= 0.0:
            raise Unsupported(f"the base must be positive, received {base}")
        return unary(call, exponent, "exponential", {"base": base}, call.name)
    power = _only(exponent, "the exponent")
    if power == 1.0:
        return _identity(call)
    if power == 2.0:
        return _square(call, x, call.name)
    if power == 3.0:
        squared = _square(call, x, f"{call.name}_square")
        return call.add("multiply", [x, squared], layer=layers.Multiply(name=call.name))
    return unary(call, x, "power", {"exponent": power}, call.name)


def _only(value: Any, what: str) -> float:
    """Returns the only number of a constant.

    Raises:
        Unsupported: If it has several.
    """
    numbers = np.unique(constant(value))
    if numbers.size != 1:
        raise Unsupported(f"{what} must be one number, received {numbers.size}")
    return float(numbers[0])


def _add_n(call: Call) -> Node:
    """Sum of a list of tensors."""
    return chained(call, "add", layers.Add, call.arguments["inputs"], call.name)


def _identity(call: Call) -> Node:
    """A function that changes nothing, such as a cast between floats."""
    x = tensor_argument(call)
    linear = layers.Activation("linear", name=call.name)
    return call.add("identity", [x], layer=linear)


def _unary(function: str, arguments: tuple[str, ...] = ()) -> Callable[[Call], Node]:
    """Returns the lowering of a function of one tensor.

    Args:
        function: A key of `UNARY` or `TABULATED`.
        arguments: Those of its arguments that are settings.
    """

    def lower(call: Call) -> Node:
        settings = {name: constant(call.arguments[name]).item() for name in arguments}
        return unary(call, tensor_argument(call), function, settings, call.name)

    return lower


VALUE_FUNCTIONS: Rows = {
    ("__operators__.add", "math.add", "add"): _add,
    ("math.subtract", "subtract"): _subtract,
    ("math.multiply", "multiply", "math.multiply_no_nan"): _multiply,
    ("math.scalar_mul", "scalar_mul", "compat.v1.math.scalar_mul"): _scalar_multiply,
    (
        "math.truediv",
        "math.divide",
        "divide",
        "realdiv",
        "math.divide_no_nan",
        "compat.v1.div",
    ): _divide,
    ("math.reciprocal", "reciprocal"): _reciprocal,
    ("math.negative", "negative"): _negative,
    ("nn.bias_add", "compat.v1.nn.bias_add"): _bias_add,
    ("math.squared_difference",): _squared_difference,
    ("math.pow", "pow"): _power,
    ("where", "compat.v1.where"): _where,
    ("math.add_n", "add_n", "math.accumulate_n"): _add_n,
    ("identity", "cast"): _identity,
    **{
        row.symbols: _unary(name, row.settings)
        for name, row in UNARY.items()
        if row.symbols
    },
    **{row.symbols: _unary(name) for name, row in TABULATED.items() if row.symbols},
}
