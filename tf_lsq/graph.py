"""The one graph analysis: Keras layers to the operators TFLite runs.

TFLite stores one integer tensor per edge of its *fused* graph: a batch norm
behind a convolution disappears in its weights, a ReLU in the operator in front.
`analyze` finds that graph for a float model and for a quantized one (where it
also meets `QuantizationPoint` layers). Training, export and checks all read it.

A new layer is a row of `operators.LAYERS`, a new operator one of `operators.KINDS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ._compat import keras
from .operators import (
    KINDS,
    LAYERS,
    MAY_REPEAT,
    PUBLIC_LAYERS,
    Kind,
    Layer,
    activation_name,
    layers,
    relu_name,
)


@dataclasses.dataclass(eq=False)
class Node:
    """One operator of the fused graph.

    Attributes:
        name: Name of the last Keras layer in it, unique in the graph.
        kind: A key of `KINDS`.
        layer: The Keras layer that does the work, unwrapped.
        model_layer: The layer as it stands in the model: `layer`, or the
            `LSQWrapper` around it.
        origin: Name of the layer in the user's model.
        inputs: Producing nodes, in the order of the layer's inputs.
        shape: Output shape, None where unknown.
        call_kwargs: What the user passed at the call (`training=False`).
        activation: "relu", "relu6" or None.
        fused: Nodes that were taken in, in order: batch norm, then ReLU.
        consumers: Nodes that read the output, once per use.
        is_output: Whether the output is one of the model's.
    """

    name: str
    kind: str
    layer: Layer
    model_layer: Layer
    origin: str
    inputs: list[Node]
    shape: tuple[int | None, ...]
    call_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    activation: str | None = None
    fused: list[Node] = dataclasses.field(default_factory=list)
    consumers: list[Node] = dataclasses.field(default_factory=list)
    is_output: bool = False

    @property
    def properties(self) -> Kind:
        """The row of `KINDS`."""
        return KINDS[self.kind]

    @property
    def batch_norm(self) -> Layer | None:
        """The batch norm folded into this operator."""
        for node in self.fused:
            if node.kind == "affine":
                return node.layer
        return None

    @property
    def all_layers(self) -> list[Layer]:
        """The Keras layers of this operator, in order."""
        return [self.layer, *(node.layer for node in self.fused)]

    def nonnegative(self) -> bool | None:
        """Returns whether no output can be negative; None: only data can tell."""
        if self.activation or self.kind in ("relu", "softmax"):
            return True
        if self.kind == "input":
            return None
        if self.kind == "point":
            return {True: False, False: True}.get(self.layer.quantizer.signed)
        if self.kind in ("conv", "depthwise", "dense", "affine"):
            return False
        signs = [node.nonnegative() for node in self.inputs]
        if False in signs:
            return False
        return None if None in signs else True


@dataclasses.dataclass
class Graph:
    """The fused graph of one model: nodes in topological order, ends in order."""

    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Node]


def analyze(model: keras.Model) -> Graph:
    """Returns the fused graph of a functional or sequential Keras model.

    Args:
        model: A float model, or one that holds `LSQWrapper` and
            `QuantizationPoint` layers.

    Raises:
        TypeError: If `model` is no Keras model of this Keras.
        ValueError: If it is subclassed or not built, or has layers, settings or
            connections without an exact integer form; all are named.
    """
    _check_model(model)
    problems: list[str] = []
    nodes = _primitive_nodes(model, problems)
    if problems:
        raise ValueError(
            f"`{model.name}` cannot be quantized exactly. Supported layers: "
            f"{sorted(cls.__name__ for cls in LAYERS if cls in PUBLIC_LAYERS)}. "
            "Received:\n  " + "\n  ".join(problems)
        )
    graph = _connect(model, nodes)
    _fuse(graph)
    return graph


# --- From the Keras model to nodes -------------------------------------------


def _check_model(model: Any) -> None:
    """Refuses what has no Keras graph to read."""
    if not isinstance(model, keras.Model):
        hint = ""
        if type(model).__module__.startswith("keras."):
            hint = (
                " It is a Keras 3 model; build or load it with `tf_keras` (Keras 2), "
                "which TensorFlow Model Optimization works with."
            )
        raise TypeError(
            "`model` must be a tf_keras functional or sequential model. "
            f"Received: {type(model).__name__}.{hint}"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"`model` must be built. Received the unbuilt model `{model.name}`. Call "
            "`model.build(input_shape)` or start it with an `InputLayer`."
        )
    if not getattr(model, "_is_graph_network", False):
        raise ValueError(
            "`model` must be a functional or sequential Keras model. Received: "
            f"`{model.name}`, a subclassed or unbuilt {type(model).__name__}. Write "
            "it as `keras.Model(inputs, outputs)` with its input shape given."
        )


def _primitive_nodes(model: keras.Model, problems: list[str]) -> list[Any]:
    """Returns (primitive nodes, tensor id -> node) of the Keras graph."""
    producers: dict[int, Node] = {}
    nodes: list[Node] = []
    uses: dict[int, int] = {}
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for keras_node in by_depth[depth]:
            layer = keras_node.layer
            use = uses[id(layer)] = uses.get(id(layer), -1) + 1
            problem = _problem(layer, use)
            if problem:
                problems.append(f"`{layer.name}` ({type(layer).__name__}): {problem}")
                continue
            if problems:
                continue
            sources = [producers[id(tensor)] for tensor in keras_node.keras_inputs]
            made = _nodes_of_layer(keras_node, sources, use)
            nodes += made
            for tensor in tf.nest.flatten(keras_node.outputs):
                producers[id(tensor)] = made[-1]
    return [] if problems else [nodes, producers]


def _problem(layer: Layer, use: int) -> str | None:
    """Returns why this use of a layer cannot be quantized, or None."""
    rule = LAYERS.get(type(layer))
    if rule is None:
        if isinstance(layer, keras.Model):
            return "a model inside a model; call its layers in the outer model"
        return "this layer has no exact integer form here"
    if use > 0 and rule.kind not in MAY_REPEAT:
        return "used more than once; give each use a layer of its own"
    wrapped = layer.layer if rule.kind == "wrapped" else layer
    return LAYERS[type(wrapped)].check(wrapped)


def _nodes_of_layer(keras_node: Any, sources: list[Node], use: int) -> list[Node]:
    """Returns the operators that one Keras layer stands for."""
    model_layer = keras_node.layer
    layer = getattr(model_layer, "layer", model_layer)
    name = layer.name if use == 0 else f"{layer.name}_use{use + 1}"
    shape = tuple(tf.nest.flatten(keras_node.outputs)[0].shape)
    kwargs = {k: v for k, v in keras_node.call_kwargs.items() if v is not None}
    kind = LAYERS[type(layer)].kind

    origin = layer.name

    def node(name: str, kind: str, inner: Layer, outer: Layer, source: Any) -> Node:
        return Node(name, kind, inner, outer, origin, source, shape, kwargs)

    if kind == "separable":
        return _split_separable(node, name, layer, sources)
    if kind == "add" and len(sources) > 2:
        return _split_sum(node, name, sources)
    if kind == "activation":
        kind, relu = _kind_of_activation(layer)
        made = node(name, kind, layer, model_layer, sources)
        made.activation = relu
        return [made]
    made = node(name, kind, layer, model_layer, sources)
    if kind == "relu":
        made.activation = relu_name(layer)
    if made.properties.matmul:
        return _split_activation(node, made)
    return [made]


def _kind_of_activation(layer: Layer) -> tuple[str, str | None]:
    """Returns the operator and the ReLU of an Activation layer."""
    name = activation_name(layer.activation)
    if name in ("relu", "relu6"):
        return "relu", name
    return ("softmax" if name == "softmax" else "identity"), None


def _split_activation(node: Callable[..., Node], made: Node) -> list[Node]:
    """Splits a softmax off a layer; a ReLU argument stays inside."""
    name = activation_name(made.layer.activation)
    if name != "softmax":
        made.activation = None if name == "linear" else name
        return [made]
    # The softmax keeps the layer's name: it makes the output the user knows.
    softmax = layers.Softmax(name=made.name)
    made.name = f"{made.name}_logits"
    made.layer = made.model_layer = _variant(
        made.layer, activation="linear", name=made.name
    )
    return [made, node(softmax.name, "softmax", softmax, softmax, [made])]


def _split_sum(node: Callable[..., Node], name: str, sources: list[Node]) -> list[Node]:
    """Splits a sum of many tensors into sums of two, as TFLite has them."""
    made: list[Node] = []
    total = sources[0]
    for number, source in enumerate(sources[1:], start=1):
        last = number == len(sources) - 1
        layer = layers.Add(name=name if last else f"{name}_partial_{number}")
        total = node(layer.name, "add", layer, layer, [total, source])
        made.append(total)
    return made


def _split_separable(
    node: Callable[..., Node], name: str, layer: Layer, sources: list[Node]
) -> list[Node]:
    """Splits a separable convolution into depthwise and pointwise."""
    config = layer.get_config()
    depthwise = layers.DepthwiseConv2D(
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
    pointwise = layers.Conv2D(
        config["filters"],
        1,
        use_bias=config["use_bias"],
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_constraint=layer.bias_constraint,
        trainable=layer.trainable,
        name=f"{name}_pointwise",
    )
    channels = _input_channels(layer)
    depthwise.build((None, None, None, channels))
    pointwise.build((None, None, None, channels * config["depth_multiplier"]))
    weights = layer.get_weights()
    depthwise.set_weights(weights[:1])
    pointwise.set_weights(weights[1:])
    first = node(depthwise.name, "depthwise", depthwise, depthwise, sources)
    first.shape = (*first.shape[:-1], channels * config["depth_multiplier"])
    second = node(pointwise.name, "conv", pointwise, pointwise, [first])
    return [first, *_split_activation(node, second)]


def _variant(layer: Layer, **changes: Any) -> Layer:
    """Returns a copy of a built layer with other settings, weights included."""
    copy = type(layer).from_config({**layer.get_config(), **changes})
    rank = layer.input_spec.ndim or layer.input_spec.min_ndim
    copy.build((*([None] * (rank - 1)), _input_channels(layer)))
    copy.set_weights(layer.get_weights())
    return copy


def _input_channels(layer: Layer) -> int:
    """Returns the size of the last input axis of a built layer."""
    [channels] = layer.input_spec.axes.values()
    return channels


def _connect(model: keras.Model, found: list[Any]) -> Graph:
    """Returns the graph with consumers and ends filled in."""
    nodes, producers = found
    for node in nodes:
        for source in node.inputs:
            source.consumers.append(node)
    outputs = [producers[id(tensor)] for tensor in model.outputs]
    for node in outputs:
        node.is_output = True
    inputs = [producers[id(tensor)] for tensor in model.inputs]
    return Graph(nodes, inputs, outputs)


# --- Fusing ------------------------------------------------------------------


def _fuse(graph: Graph) -> None:
    """Takes batch norms and ReLUs into the operators in front of them."""
    kept: list[Node] = []
    for node in graph.nodes:
        if node.kind in ("affine", "relu") and _absorbs(node.inputs[0], node):
            _absorb(node.inputs[0], node)
            graph.outputs = [
                node.inputs[0] if output is node else output for output in graph.outputs
            ]
        else:
            kept.append(node)
    graph.nodes = kept


def _absorbs(producer: Node, node: Node) -> bool:
    """Returns whether `producer` can take `node` in."""
    if len(producer.consumers) != 1 or producer.is_output or producer.activation:
        return False
    if node.kind == "affine":
        return producer.properties.matmul and not producer.fused
    return producer.properties.fuses_relu


def _absorb(producer: Node, node: Node) -> None:
    """Takes `node` into `producer`."""
    producer.fused.append(node)
    producer.name = node.name
    producer.activation = node.activation
    producer.shape = node.shape
    producer.is_output = node.is_output
    producer.consumers = node.consumers
    for consumer in node.consumers:
        consumer.inputs = [
            producer if source is node else source for source in consumer.inputs
        ]
