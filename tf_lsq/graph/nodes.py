"""The fused graph of a model: its operators, and how they are connected."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from .._compat import keras
from .kinds import Kind
from .unary import KINDS

Layer: TypeAlias = keras.layers.Layer


# Functions whose result depends only on the shape of a tensor.
_OF_SHAPES = {"shape", "size", "rank", "compat.v1.shape", "compat.v1.size"}


def class_name(layer: Layer) -> str:
    """Returns what a layer is called in messages: its class, or its function."""
    symbol = getattr(layer, "symbol", None)
    # One that Keras 3 runs is called like the layer of Keras 3.
    own = getattr(layer, "keras3_class_name", type(layer).__name__)
    return f"tf.{symbol}" if symbol else own


def tensors_of(outputs: Any) -> list[Any]:
    """Returns the tensors among the outputs of a layer; functions may return None."""
    return [value for value in tf.nest.flatten(outputs) if hasattr(value, "shape")]


@dataclasses.dataclass(frozen=True)
class Slot:
    """Placeholder for an input tensor among the arguments of a layer's call."""

    number: int


@dataclasses.dataclass(frozen=True, eq=False)
class ForeignCall:
    """A call of a layer that has no operator here, for all of its outputs.

    Attributes:
        args: Its positional arguments, with a `Slot` for every tensor.
        kwargs: Its keyword arguments, likewise.
    """

    args: Any
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, keras_node: Any) -> ForeignCall:
        """Returns the call of a layer that Keras has recorded."""
        numbers = {id(t): Slot(i) for i, t in enumerate(keras_node.keras_inputs)}
        args, kwargs = tf.nest.map_structure(
            lambda value: numbers.get(id(value), value),
            (keras_node.call_args, keras_node.call_kwargs),
        )
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        return cls(args, kwargs)

    def outputs(
        self, layer: Layer, tensors: list[Any], training: Any = None
    ) -> list[Any]:
        """Returns the outputs of a layer for tensors in place of the slots.

        Args:
            layer: The layer, or a copy.
            tensors: Its input tensors.
            training: Whether it is called in training, unless the call says so; None:
                as the layer does by itself.
        """
        args, kwargs = tf.nest.map_structure(
            lambda value: tensors[value.number] if type(value) is Slot else value,
            (self.args, self.kwargs),
        )
        if training is not None and getattr(layer, "_expects_training_arg", False):
            kwargs = {"training": training, **kwargs}
        return tensors_of(layer(*args, **kwargs))


@dataclasses.dataclass(eq=False)
class Node:
    """One operator of the fused graph.

    Attributes:
        name: Name of the last Keras layer in it, unique in the graph.
        layer_name: Name that `layer` gets in a model built from these operators.
        kind: A key of `KINDS`.
        layer: The Keras layer that does the work, unwrapped.
        model_layer: The layer as it is in the model: `layer`, or the
            `LSQWrapper` around it.
        origin: Name of the layer in the user's model; "model/layer" for a layer of
            a nested model.
        inputs: Producing nodes, in the order of the layer's inputs.
        shape: Output shape, None where unknown.
        options: Settings of the operator that do not depend on the layer's class;
            "limits" are those of its output that `activation` lacks; "constant":
            whether its weight is an untrained constant of the user's model; "range":
            that of a table, see `Kind`; "written_out": whether it is arithmetic with
            numbers, which a table that reads it computes as well.
        call_kwargs: What the user passed in the call (`training=False`).
        dtype: Type of the output.
        foreign: The call of the layer, for the kind "foreign".
        input_types: Types of its input tensors, if only added terms depend on it.
        output: Which of the outputs of that call this is.
        activation: "relu", "relu6" or None.
        fused: Nodes that were fused into it, in order: affine part, then ReLU.
        consumers: Nodes that read the output, once per use.
        is_output: Whether its output is an output of the model.
        shared: Whether another node computes with the same layer.
    """

    name: str
    layer_name: str
    kind: str
    layer: Layer
    model_layer: Layer
    origin: str
    inputs: list[Node]
    shape: tuple[int | None, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    call_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: tf.DType = tf.float32
    foreign: ForeignCall | None = None
    input_types: tuple[tf.DType, ...] = ()
    output: int = 0
    activation: str | None = None
    fused: list[Node] = dataclasses.field(default_factory=list)
    consumers: list[Node] = dataclasses.field(default_factory=list)
    is_output: bool = False
    shared: bool = False

    def call(self, layer: Layer, tensors: list[Any]) -> Any:
        """Calls a layer on tensors, the way the user called this operator's layer."""
        if self.foreign is not None:
            return self.foreign.outputs(layer, tensors)[self.output]
        inputs = tensors if len(tensors) > 1 else tensors[0]
        return layer(inputs, **self.call_kwargs)

    @property
    def properties(self) -> Kind:
        """The row of `KINDS`."""
        return KINDS[self.kind]

    @property
    def foreign_call(self) -> ForeignCall:
        """The call of a layer that has no operator here.

        Raises:
            TypeError: If it has one.
        """
        if self.foreign is None:
            raise TypeError(f"`{self.name}` ({self.kind}) has its own operator.")
        return self.foreign

    @property
    def reads_shape(self) -> bool:
        """Whether its layer reads nothing but the shape of a tensor."""
        return getattr(self.layer, "symbol", None) in _OF_SHAPES

    @functools.cached_property
    def of_shapes(self) -> bool:
        """Whether its output depends on nothing but the shapes of tensors."""
        computed = bool(self.inputs) and all(node.of_shapes for node in self.inputs)
        return self.reads_shape or computed

    @property
    def is_integer(self) -> bool:
        """Whether the output holds integers or truth values, which have no step."""
        return not self.dtype.is_floating

    @property
    def affine(self) -> Node | None:
        """The batch norm or scaling that is folded into this operator."""
        for node in self.fused:
            if node.kind == "affine":
                return node
        return None

    @property
    def all_layers(self) -> list[Layer]:
        """The Keras layers of this operator, in order."""
        return [self.layer, *(node.layer for node in self.fused)]

    def nonnegative(self) -> bool | None:
        """Returns whether no output can be negative; None: the data decides."""
        reach = self.options.get("range", self.properties.range)
        if self.activation or reach == "positive":
            return True
        if self.kind == "input":
            return None
        if self.kind == "point":
            return {True: False, False: True}.get(self.layer.quantizer.signed)
        if reach == "signed":
            return False
        signs = [node.nonnegative() for node in self.inputs]
        if False in signs:
            return False
        return None if None in signs else True


@dataclasses.dataclass(frozen=True)
class AddedTerm:
    """A loss or metric that `add_loss` or `add_metric` made from tensors of the model.

    Attributes:
        method: "add_loss" or "add_metric".
        arguments: Its arguments by name, without the tensor.
        node: The operator that computes the tensor. It need not be in the graph: no
            output depends on what is computed for terms only.
        dtype: Type of the tensor, which the graph may not cast to.
    """

    method: str
    arguments: dict[str, Any]
    node: Node
    dtype: tf.DType


@dataclasses.dataclass
class Graph:
    """The fused graph of one model.

    Attributes:
        name: Name of the model.
        nodes: Operators in topological order.
        inputs: The operators that are the model's inputs, in order.
        outputs: The operators that produce the model's outputs, in order.
        problems: Everything without an exact integer form, each with the operator
            that represents it. One of kind "foreign" can stay in float.
        terms: What `add_loss` and `add_metric` added to the model.
    """

    name: str
    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Node]
    problems: list[tuple[Node, str]] = dataclasses.field(default_factory=list)
    terms: list[AddedTerm] = dataclasses.field(default_factory=list)

    def check(self, may_be_float: Callable[[Node], bool]) -> None:
        """Refuses everything without an exact integer form.

        Args:
            may_be_float: Whether an operator stays in float.

        Raises:
            ValueError: If any layer has a problem; the error names them all.
        """
        refused = [
            (node, problem)
            for node, problem in self.problems
            if node.kind != "foreign" or not may_be_float(node)
        ]
        if not refused:
            return
        floatable = {
            override_for(node): "float" for node, _ in refused if node.kind == "foreign"
        }
        remedy = f"\nTo leave them in float: overrides={floatable}" if floatable else ""
        raise ValueError(
            f"`{self.name}` cannot be quantized exactly. Every layer must be "
            "supported, registered with `tf_lsq.register_layer`, or left in "
            "float with `overrides`. Received:\n  "
            + "\n  ".join(dict.fromkeys(problem for _, problem in refused))
            + remedy
        )


def override_for(node: Node) -> str:
    """Returns the key of `overrides` for an operator: its name, if that will do."""
    name = node.origin
    return name if re.fullmatch(name, name) else re.escape(name)
