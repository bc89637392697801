"""Lowers activation functions: as layers, as arguments of layers, as functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .._compat import keras
from .float_layers import HardSigmoid, ScaledSoftmax, UnaryFunction
from .limiting import Limits, limiting
from .lowering import Call, Options, variant
from .nodes import Layer, Node
from .tabulated import TABULATED, is_registered
from .unary import UNARY, kind_and_options

layers = keras.layers

FUSED = ("linear", "relu", "relu6")
_HARD_SIGMOID_SLOPE = 0.2  # Keras 2's.


def activation_name(activation: Any) -> str | None:
    """Returns the name of an activation function, or None if not supported.

    Args:
        activation: A Keras activation function, a TensorFlow function, or a
            layer object used as one.
    """
    if isinstance(activation, Layer):
        return _name_of_layer(activation)
    if activation is None:
        return "linear"
    for function, name in _FUNCTIONS.items():
        if activation is function:
            return name
    for name, row in TABULATED.items():  # Users add rows.
        if any(activation is function for function in row.activations):
            return name
    return None


def function_of_layer(layer: Layer) -> tuple[str, dict[str, Any]] | None:
    """Returns the function that a layer is, and its settings; None for other layers.

    Returns:
        A key of `UNARY` or `TABULATED`, and the settings of that function.
    """
    if isinstance(layer, UnaryFunction):
        return layer.function, layer.settings
    if isinstance(layer, layers.ELU):
        alpha = float(layer.alpha)
        return ("elu", {}) if alpha == 1.0 else ("elu_alpha", {"alpha": alpha})
    if isinstance(layer, layers.LeakyReLU) and float(layer.alpha) < 0:
        return "leaky_relu", {"alpha": float(layer.alpha)}
    if isinstance(layer, layers.ThresholdedReLU):
        return "threshold", {"threshold": float(layer.theta), "default": 0.0}
    if isinstance(layer, layers.ReLU) and layer.threshold:
        return "relu_from", {
            "threshold": float(layer.threshold),
            "slope": float(layer.negative_slope),
            "max_value": None if layer.max_value is None else float(layer.max_value),
        }
    return None


def _name_of_layer(layer: Layer) -> str | None:
    """Returns the name of an activation that is given as a layer."""
    function = function_of_layer(layer)
    if function is not None:
        return function[0]
    if isinstance(layer, layers.ReLU):
        return relu_name(layer)
    if isinstance(layer, layers.Softmax):
        return "softmax" if layer.axis == -1 else None
    if isinstance(layer, layers.LeakyReLU):
        return "leaky_relu"
    if isinstance(layer, layers.Activation):
        return activation_name(layer.activation)
    return None


_FUNCTIONS = {
    keras.activations.linear: "linear",
    keras.activations.relu: "relu",
    tf.nn.relu: "relu",
    tf.nn.relu6: "relu6",
    keras.activations.softmax: "softmax",
    tf.nn.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    tf.nn.sigmoid: "sigmoid",
    keras.activations.tanh: "tanh",
    tf.nn.tanh: "tanh",
    keras.activations.hard_sigmoid: "hard_sigmoid",
    keras.activations.swish: "swish",
    tf.nn.silu: "swish",
    tf.nn.leaky_relu: "leaky_relu",
    **{f: name for name, row in UNARY.items() for f in row.activations},
}
# The values that an activation argument may have.
ACTIVATIONS = sorted(
    {*_FUNCTIONS.values(), "relu6"}
    | {name for name, row in TABULATED.items() if row.activations}
)


def relu_name(layer: Layer) -> str | None:
    """Returns the name of the function of a ReLU layer, or None if not supported."""
    if layer.threshold:
        return "relu_from"
    if layer.max_value == 0:
        return None
    name = "leaky_relu" if layer.negative_slope else "relu"
    if layer.max_value is None:
        return name
    is_relu6 = name == "relu" and float(layer.max_value) == 6.0
    return "relu6" if is_relu6 else f"capped_{name}"


def limit(call: Call, source: Node, limits: Limits, name: str) -> Node:
    """Adds the operator that limits values.

    Args:
        call: The call it belongs to.
        source: Its input.
        limits: At most 0 and at least 0, infinite where there is none.
        name: Its name.
    """
    new = limiting(limits, name)
    return call.add(
        new.kind, [source], layer=new.layer, activation=new.activation, **new.options
    )


def activate(call: Call, source: Node, activation: Any, name: str) -> Node:
    """Adds the operators of an activation function that is not fused.

    Args:
        call: The call they belong to.
        source: Their input.
        activation: One for which `activation_name` is neither None nor "linear".
        name: Name of the last operator.
    """
    if isinstance(activation, Layer):
        function = function_of_layer(activation)
        if function is not None:
            return unary(call, source, *function, name)
    kind = activation_name(activation)
    if kind in ("relu", "relu6", "capped_relu"):
        largest = {"relu": math.inf, "relu6": 6.0}.get(kind)
        largest = float(activation.max_value) if largest is None else largest
        return limit(call, source, (0.0, largest), name)
    if kind == "leaky_relu":
        return leaky_relu(call, source, _negative_slope(activation), name)
    if kind == "capped_leaky_relu":
        slope = _negative_slope(activation)
        leaky = leaky_relu(call, source, slope, f"{name}_leaky")
        return limit(call, leaky, (-math.inf, float(activation.max_value)), name)
    if kind == "softmax":
        return softmax(call, source, 1.0, name)
    if kind == "hard_sigmoid":
        layer = HardSigmoid(_HARD_SIGMOID_SLOPE, name=name)
        return call.add("hard_sigmoid", [source], layer=layer, slope=layer.slope)
    if kind == "swish":
        gate = layers.Activation("sigmoid", name=f"{name}_sigmoid")
        gated = call.add("sigmoid", [source], layer=gate)
        return call.add("multiply", [source, gated], layer=layers.Multiply(name=name))
    if kind is None:
        raise ValueError(f"An activation must be supported. Received: {activation!r}.")
    if kind in UNARY or kind in TABULATED:
        return unary(call, source, kind, {}, name)
    return call.add(kind, [source], layer=layers.Activation(kind, name=name))


def softmax(call: Call, source: Node, beta: float, name: str) -> Node:
    """Adds a softmax over the last axis, with the scaling before it.

    An offset for all of its input changes nothing.

    Args:
        call: The call it belongs to.
        source: Its input.
        beta: Factor of its input.
        name: Its name.
    """
    while (inner := _scaling_of(source)) is not None and inner[0] > 0.0:
        source, beta = source.inputs[0], beta * inner[0]
    if beta == 1.0:
        return call.add("softmax", [source], layer=layers.Softmax(name=name))
    return call.add(
        "softmax", [source], layer=ScaledSoftmax(beta, name=name), beta=beta
    )


def unary(
    call: Call, source: Node, function: str, settings: dict[str, Any], name: str
) -> Node:
    """Adds an elementwise function.

    Args:
        call: The call it belongs to.
        source: Its input.
        function: A key of `UNARY` or `TABULATED`.
        settings: Its settings.
        name: Its name.
    """
    scale, offset = 1.0, 0.0
    while function in TABULATED or function == "log":
        inner = _scaling_of(source)
        if inner is None:
            break
        source, scale, offset = (
            source.inputs[0],
            scale * inner[0],
            scale * inner[1] + offset,
        )
    if function == "log" and (scale, offset) != (1.0, 0.0):
        function, settings = "logarithm", {"base": math.e}
    layer = UnaryFunction(function, settings, scale, offset, name=name)
    kind, options = _kind_and_options(layer)
    return call.add(kind, [source], layer=layer, **options)


def _scaling_of(node: Node) -> tuple[float, float] | None:
    """Returns scale and offset of an operator that a table can compute as well.

    In a table ``x + 0.001`` is exact. On a grid of its own it could be rounded to 0,
    where a logarithm or a quotient has no result. A scaling of an input stays: it may
    say that the input is pixels.
    """
    if not node.options.get("written_out") or node.inputs[0].kind == "input":
        return None
    scale, offset = node.layer.scale, node.layer.offset
    numbers = isinstance(scale, float) and isinstance(offset, float)
    return (scale, offset) if numbers else None


def _kind_and_options(layer: UnaryFunction) -> tuple[str, dict[str, Any]]:
    """Returns the kind of an elementwise function's operator, and its options."""
    kind, options = kind_and_options(layer.function, layer.settings)
    if options.get("range") == "inputs" and min(layer.scale, layer.offset) < 0.0:
        options["range"] = "signed"
    return kind, options


def elementwise_layer(call: Call) -> Node:
    """Lowers a layer that is an elementwise function."""
    if isinstance(call.layer, UnaryFunction):
        kind, options = _kind_and_options(call.layer)
        return call.add(kind, **options)
    function, settings = function_of_layer(call.layer) or ("", {})
    if function in UNARY:
        return call.add(function)
    return unary(call, call.sources[0], function, settings, call.name)


def leaky_relu(call: Call, source: Node, slope: float, name: str) -> Node:
    """Adds a leaky ReLU.

    Args:
        call: The call it belongs to.
        source: Its input.
        slope: Its slope for negative values, positive.
        name: Its name.
    """
    layer = layers.LeakyReLU(slope, name=name)
    return call.add("prelu", [source], layer=layer, slope=slope)


def _negative_slope(activation: Any) -> float:
    """Returns the slope of a leaky ReLU."""
    for attribute in ("negative_slope", "alpha"):
        if hasattr(activation, attribute):
            return float(getattr(activation, attribute))
    return 0.2  # The default of tf.nn.leaky_relu.


def activation_layer(call: Call) -> Node:
    """Lowers an `Activation` layer; those with one operator keep their layer."""
    name = activation_name(call.layer.activation)
    if name == "linear":
        return call.add("identity")
    if name in ("relu", "relu6"):
        return call.add("relu", activation=name)
    if name in ("softmax", "sigmoid", "tanh"):
        return call.add(name)
    return activate(call, call.sources[0], call.layer.activation, call.name)


def with_activation(
    kind: str, options: Options | None = None
) -> Callable[[Call], Node]:
    """Returns the lowering of a layer with kernel and activation argument.

    A ReLU stays inside. Other activations are split off; the layer with the kernel
    keeps its name.

    Args:
        kind: A key of `unary.KINDS`.
        options: Returns the operator's settings.
    """

    def lower(call: Call) -> Node:
        name = activation_name(call.layer.activation)
        settings = {} if options is None else options(call)
        if name in FUSED:
            activation = None if name == "linear" else name
            return call.add(kind, activation=activation, **settings)
        linear = call.add(kind, **settings)
        linear.layer = linear.model_layer = call.replacement(
            "linear", lambda: variant(call.layer, activation="linear")
        )
        activation = call.unique(f"{call.name}_{name}")
        return activate(call, linear, call.layer.activation, activation)

    return lower


def leaky_relu_layer(call: Call) -> Node:
    """Lowers a `LeakyReLU` layer."""
    if function_of_layer(call.layer) is not None:
        return elementwise_layer(call)
    return call.add("prelu", slope=float(call.layer.alpha))


def is_elementwise_lambda(layer: Layer) -> bool:
    """Returns whether a `Lambda` layer is a registered function."""
    return not layer.arguments and is_registered(layer.function)


def elementwise_lambda(call: Call) -> Node:
    """Lowers a `Lambda` layer of a registered function."""
    return activate(call, call.sources[0], call.layer.function, call.name)


def relu_layer(call: Call) -> Node:
    """Lowers a `ReLU` layer."""
    name = relu_name(call.layer)
    if name not in ("relu", "relu6"):
        return activate(call, call.sources[0], call.layer, call.name)
    return call.add("relu", activation=name)
