"""Lowers one call of a Keras layer to operators.

`Call` describes the call to the analysis. A lowering adds operators to it; most
layers are one operator, some are several: a softmax or swish argument, a separable
convolution, a sum of more than two tensors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..layers import replaced_attributes
from .float_layers import HardSigmoid, UnaryFunction
from .limiting import Limits, limiting
from .nodes import Layer, Node
from .unary import UNARY

layers = keras.layers


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a Keras layer.

    Attributes:
        layer: The layer, unwrapped.
        model_layer: The layer as it is in the model.
        name: Name of the operator that produces the output.
        layer_name: Name of the layer in a model built from these operators.
        origin: Name of the layer in the user's model.
        sources: Producers of the input tensors.
        shape: Shape of the (first) output.
        dtype: Type of the (first) output.
        arguments: Arguments of a TensorFlow function by name, with tensors
            replaced by their producers.
        call_kwargs: What the user passed in the call (`training=False`).
        copies: Layers that replace the user's, for all calls of a model: a layer
            that is called twice is replaced by one layer called twice.
        nodes: The operators so far.
        unique: Returns a name like the given one that no other operator has.
    """

    layer: Layer
    model_layer: Layer
    name: str
    layer_name: str
    origin: str
    sources: list[Node]
    shape: tuple[int | None, ...]
    dtype: tf.DType = tf.float32
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    call_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    copies: dict[Any, Any] = dataclasses.field(default_factory=dict)
    nodes: list[Node] = dataclasses.field(default_factory=list)
    unique: Callable[[str], str] = str

    def add(
        self,
        kind: str,
        sources: list[Node] | None = None,
        *,
        layer: Layer | None = None,
        activation: str | None = None,
        **options: Any,
    ) -> Node:
        """Adds an operator.

        Args:
            kind: A key of `unary.KINDS`.
            sources: Its inputs; those of the call if None.
            layer: A layer that replaces the user's layer or a part of it; its name
                becomes the operator's. None: the user's layer.
            activation: A ReLU inside the layer.
            **options: Settings that do not depend on the layer's class.

        Returns:
            The operator.
        """
        sources = self.sources if sources is None else sources
        own = layer is None
        node = Node(
            name=self.name if own else layer.name,
            layer_name=self.layer_name if own else layer.name,
            kind=kind,
            layer=self.layer if own else layer,
            model_layer=self.model_layer if own else layer,
            origin=self.origin,
            inputs=list(sources),
            shape=self.shape if own else _output_shape(layer, sources),
            options=options,
            call_kwargs=self.call_kwargs if own else {},
            dtype=self.dtype,
            activation=activation,
        )
        self.nodes.append(node)
        return node

    def part(self, layer: Layer, name: str, sources: list[Node]) -> Call:
        """Returns a call of a layer that does part of this call's work."""
        return Call(
            layer=layer,
            model_layer=layer,
            name=name,
            layer_name=layer.name,
            origin=self.origin,
            sources=sources,
            shape=_output_shape(layer, sources),
            dtype=self.dtype,
            copies=self.copies,
            nodes=self.nodes,
            unique=self.unique,
        )

    def replacement(self, what: str, make: Callable[[], Any]) -> Any:
        """Returns the replacement of the user's layer, created once per layer."""
        key = (id(self.layer), what)
        if key not in self.copies:
            # The layer is kept, so that its id stays unique.
            self.copies[key] = (self.layer, make())
        return self.copies[key][1]


def _output_shape(layer: Layer, sources: list[Node]) -> tuple[int | None, ...]:
    """Returns the output shape of a layer that is not part of a model."""
    shapes = [tf.TensorShape(source.shape) for source in sources]
    shape = layer.compute_output_shape(shapes if len(shapes) > 1 else shapes[0])
    return tuple(tf.TensorShape(shape))


Lowering = Callable[[Call], Node | list[Node]]
# Returns the settings of an operator.
Options = Callable[[Call], dict[str, Any]]


def single(kind: str, options: Options | None = None) -> Any:
    """Returns the lowering of a layer that is one operator.

    Args:
        kind: A key of `unary.KINDS`.
        options: Returns the operator's settings.
    """

    def lower(call: Call) -> Node:
        return call.add(kind, **({} if options is None else options(call)))

    return lower


def chain(kind: str, layer_class: type) -> Lowering:
    """Returns the lowering of a layer for many tensors to operators for two."""

    def lower(call: Call) -> Node:
        if len(call.sources) == 2:
            return call.add(kind)
        return chained(call, kind, layer_class, call.sources, call.name)

    return lower


def chained(
    call: Call, kind: str, layer_class: type, sources: list[Node], name: str
) -> Node:
    """Adds operators for two tensors until all `sources` are combined."""
    total = sources[0]
    for number, source in enumerate(sources[1:], start=1):
        last = number == len(sources) - 1
        layer = layer_class(name=name if last else f"{name}_partial_{number}")
        total = call.add(kind, [total, source], layer=layer)
    return total


# --- Activation functions ----------------------------------------------------

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
    return None


def _name_of_layer(layer: Layer) -> str | None:
    """Returns the name of an activation that is given as a layer."""
    if isinstance(layer, layers.ReLU):
        return relu_name(layer)
    if isinstance(layer, layers.Softmax):
        return "softmax" if layer.axis == -1 else None
    if isinstance(layer, layers.LeakyReLU):
        return "leaky_relu"
    if isinstance(layer, layers.Activation):
        return activation_name(layer.activation)
    for name, row in UNARY.items():
        if type(layer) in row.layers:
            return name if row.layers[type(layer)](layer) is None else None
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
ACTIVATIONS = sorted(set(_FUNCTIONS.values()) | {"relu6"})


def relu_name(layer: Layer) -> str | None:
    """Returns the name of the function of a ReLU layer, or None if not supported."""
    if layer.threshold or layer.max_value == 0:
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
        return call.add("softmax", [source], layer=layers.Softmax(name=name))
    if kind == "hard_sigmoid":
        layer = HardSigmoid(_HARD_SIGMOID_SLOPE, name=name)
        return call.add("hard_sigmoid", [source], layer=layer, slope=layer.slope)
    if kind == "swish":
        gate = layers.Activation("sigmoid", name=f"{name}_sigmoid")
        gated = call.add("sigmoid", [source], layer=gate)
        return call.add("multiply", [source, gated], layer=layers.Multiply(name=name))
    if kind is None:
        raise ValueError(f"An activation must be supported. Received: {activation!r}.")
    if kind in UNARY:
        return call.add(kind, [source], layer=UnaryFunction(kind, name=name))
    return call.add(kind, [source], layer=layers.Activation(kind, name=name))


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


def relu_layer(call: Call) -> Node:
    """Lowers a `ReLU` layer."""
    name = relu_name(call.layer)
    if name not in ("relu", "relu6"):
        return activate(call, call.sources[0], call.layer, call.name)
    return call.add("relu", activation=name)


def quantization_point(call: Call) -> Node:
    """Lowers a `QuantizationPoint`, with the ReLU that it replaces.

    A point that is used again after a pooling has nothing to clip there.
    """
    sources = call.sources
    if call.layer.absorbed_relu is not None and not sources[0].nonnegative():
        relu = call.add("relu", activation="relu")
        relu.name = call.layer.absorbed_relu
        sources = [relu]
    point = call.add("point", sources)
    if call.name == call.layer.absorbed_relu:  # The tensors have separate names.
        point.name = call.unique(f"quantize_{call.name}")
    return point


# --- Layers that are several operators ---------------------------------------


def convolution_options(call: Call) -> dict[str, Any]:
    """Returns strides, dilations and padding; 1D kernels get a height of 1."""
    layer = call.layer
    higher = (1,) * (2 - layer.rank)
    return {
        "strides": higher + tuple(layer.strides),
        "dilations": higher + tuple(layer.dilation_rate),
        "padding": layer.padding.upper(),
    }


def depthwise_options(call: Call) -> dict[str, Any]:
    """Returns the same for depthwise kernels, with one stride for both axes."""
    options = convolution_options(call)
    return {
        **options,
        "strides": options["strides"][1:] * 2,
        "depth_multiplier": int(call.layer.depth_multiplier),
    }


def causal(kind: str, options: Options) -> Callable[[Call], Node]:
    """Returns the lowering of a 1D convolution, which may pad only on the left."""

    def lower(call: Call) -> Node:
        layer = call.layer
        if layer.padding != "causal":
            return with_activation(kind, options)(call)
        amount = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        pad = layers.ZeroPadding1D((amount, 0), name=f"{call.name}_pad")
        padded = call.add("pad", layer=pad, paddings=((amount, 0), (0, 0)))
        valid = call.replacement(
            "valid", lambda: variant(layer, padding="valid", name=call.name)
        )
        part = call.part(valid, call.name, [padded])
        return with_activation(kind, options)(part)

    return lower


def separable(depthwise_class: type, pointwise_class: type) -> Callable[[Call], Node]:
    """Returns the lowering of a separable convolution to depthwise and pointwise."""

    def lower(call: Call) -> Node:
        depthwise, pointwise = call.replacement(
            "separated",
            lambda: _separated(call.layer, depthwise_class, pointwise_class, call.name),
        )
        name = f"{call.name}_depthwise"
        part = call.part(depthwise, name, call.sources)
        depthwise_node = causal("depthwise", depthwise_options)(part)
        part = call.part(pointwise, call.name, [depthwise_node])
        return with_activation("conv", convolution_options)(part)

    return lower


def _separated(
    layer: Layer, depthwise_class: type, pointwise_class: type, name: str
) -> tuple[Layer, Layer]:
    """Returns the two layers that make up a separable convolution, with weights."""
    config = layer.get_config()
    depthwise = depthwise_class(
        config["kernel_size"],
        strides=config["strides"],
        padding=config["padding"],
        dilation_rate=config["dilation_rate"],
        depth_multiplier=config["depth_multiplier"],
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        trainable=layer.trainable,
        name=f"{name}_depthwise",
    )
    pointwise = pointwise_class(
        config["filters"],
        1,
        use_bias=config["use_bias"],
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_constraint=layer.bias_constraint,
        trainable=layer.trainable,
        name=name,
    )
    channels = _input_channels(layer)
    free = (None,) * (layer.rank + 1)
    depthwise.build((*free, channels))
    pointwise.build((*free, channels * config["depth_multiplier"]))
    weights = layer.get_weights()
    depthwise.set_weights(weights[:1])
    pointwise.set_weights(weights[1:])
    return depthwise, pointwise


def average(call: Call) -> Node:
    """Lowers `Average`: a sum, then a scaling."""
    total = chained(call, "add", layers.Add, call.sources, f"{call.name}_sum")
    scaling = layers.Rescaling(1.0 / len(call.sources), name=call.name)
    return call.add("affine", [total], layer=scaling)


def normalization(call: Call) -> Node:
    """Lowers a `Normalization` layer to the scaling that it performs."""
    layer = call.layer
    mean, variance = (np.ravel(np.asarray(v)) for v in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.backend.epsilon())
    scale, offset = 1 / deviation, -mean / deviation
    if layer.invert:
        scale, offset = deviation, mean
    return call.add("affine", layer=rescaling(scale, offset, call.name))


def rescaling(scale: Any, offset: Any, name: str) -> Layer:
    """Returns a `Rescaling` layer; arrays of equal numbers become one number."""

    def plain(values: Any) -> Any:
        values = np.ravel(np.asarray(values, np.float64))
        return float(values[0]) if (values == values[0]).all() else values.tolist()

    return layers.Rescaling(plain(scale), plain(offset), name=name)


# --- Copies of layers --------------------------------------------------------


def variant(layer: Layer, **changes: Any) -> Layer:
    """Returns a copy of a built layer with other settings, weights included."""
    plain = {"activation": keras.activations.linear} if "activation" in changes else {}
    with replaced_attributes(layer, plain):  # Some functions have no config.
        config = layer.get_config()
    copy = type(layer).from_config({**config, **changes})
    rank = layer.input_spec.ndim or layer.input_spec.min_ndim
    copy.build((*([None] * (rank - 1)), _input_channels(layer)))
    copy.set_weights(layer.get_weights())
    return copy


def _input_channels(layer: Layer) -> int:
    """Returns the size of the last input axis of a built layer."""
    [channels] = layer.input_spec.axes.values()
    return channels
