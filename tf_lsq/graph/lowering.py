"""Lowers one call of a Keras layer to operators.

`Call` describes the call to the analysis. A lowering adds operators to it; most
layers are one operator, some are several: a sum of more than two tensors. Activations
and convolutions have their own modules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..layers import replaced_attributes
from .copying import with_weights
from .nodes import Layer, Node

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
        names: Names that its operators may have as they are; others change where
            another operator has them.
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
    names: set[str] = dataclasses.field(default_factory=set)

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
            shape=self.shape if own else output_shape(layer, sources),
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
            shape=output_shape(layer, sources),
            dtype=self.dtype,
            copies=self.copies,
            nodes=self.nodes,
            unique=self.unique,
            names=self.names,
        )

    def replacement(self, what: str, make: Callable[[], Any]) -> Any:
        """Returns the replacement of the user's layer, created once per layer."""
        key = (id(self.layer), what)
        if key not in self.copies:
            # The layer is kept, so that its id stays unique.
            self.copies[key] = (self.layer, make())
        return self.copies[key][1]

    def trained_constant(
        self, layer_class: type[Layer], name: str, value: Any, x: Node
    ) -> Any:
        """Returns a layer with a weight of the user's layer, created once per layer.

        Args:
            layer_class: `AddConstant` or `MultiplyConstant`.
            name: Name of the weight.
            value: Its value.
            x: What the new layer reads.
        """
        value = np.asarray(value)
        shape = (1,) * (len(x.shape) - value.ndim) + value.shape

        def make() -> Layer:
            layer = layer_class(
                shape,
                trained=True,
                weight_name=name,
                trainable=self.layer.trainable,
                name=f"{self.layer_name}_{name}",
            )
            return with_weights(layer, x.shape, [value.reshape(shape)])

        return self.replacement(name, make)


def output_shape(layer: Layer, sources: list[Node]) -> tuple[int | None, ...]:
    """Returns the output shape of a layer that is not part of a model.

    Args:
        layer: The layer.
        sources: Its inputs.
    """
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
        sources = _with_all_axes(call)
        if len(sources) == 2:
            return call.add(kind, sources)
        return chained(call, kind, layer_class, sources, call.name)

    return lower


def difference(call: Call) -> Node:
    """Lowers a `Subtract`."""
    return call.add("subtract", _with_all_axes(call))


def _with_all_axes(call: Call) -> list[Node]:
    """Returns the inputs of a merging layer with the same number of axes.

    Keras adds the missing axes after the batch, and TFLite would add them before it.
    """
    rank = max(len(source.shape) for source in call.sources)
    sources = []
    for source in call.sources:
        missing = rank - len(source.shape)
        if missing:
            shape = (*(1,) * missing, *source.shape[1:])
            name = call.unique(f"{call.name}_input")
            layer = layers.Reshape(shape, name=name)
            source = call.add("reshape", [source], layer=layer)
        sources.append(source)
    return sources


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


def quantization_point(call: Call) -> Node:
    """Lowers a `QuantizationPoint`, with the ReLU that it replaces.

    A point that is used again after a pooling has nothing to clip there.
    """
    sources = call.sources
    if call.layer.absorbed_relu is not None and not sources[0].nonnegative():
        relu = call.add("relu", activation="relu")
        relu.name = call.layer.absorbed_relu
        call.names.add(relu.name)  # It may be that of the layer that it is fused with.
        sources = [relu]
    point = call.add("point", sources)
    if call.name == call.layer.absorbed_relu:  # The tensors have separate names.
        point.name = call.unique(f"quantize_{call.name}")
    return point


def average(call: Call) -> Node:
    """Lowers `Average`: a sum, then a scaling."""
    sources = _with_all_axes(call)
    total = chained(call, "add", layers.Add, sources, f"{call.name}_sum")
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


def variant(layer: Layer, **changes: Any) -> Layer:
    """Returns a copy of a built layer with other settings, weights included."""
    plain = {"activation": keras.activations.linear} if "activation" in changes else {}
    with replaced_attributes(layer, plain):  # Some functions have no config.
        config = layer.get_config()
    copy = type(layer).from_config({**config, **changes})
    copy.build(_input_shape(layer))
    copy.set_weights(layer.get_weights())
    return copy


def _input_shape(layer: Layer) -> tuple[int | None, ...]:
    """Returns the shape of the inputs that a layer was built for."""
    if layer.input_spec is None:
        return tuple(layer.get_build_config()["input_shape"])
    rank = layer.input_spec.ndim or layer.input_spec.min_ndim
    return (*([None] * (rank - 1)), input_channels(layer))


def input_channels(layer: Layer) -> int:
    """Returns the size of the last input axis of a built layer."""
    [channels] = layer.input_spec.axes.values()
    return channels
