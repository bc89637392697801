"""The fused graph of a model: its operators, and how they are connected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .._compat import keras
from .kinds import Kind
from .unary import KINDS

Layer = keras.layers.Layer


@dataclasses.dataclass(frozen=True)
class Slot:
    """Stands for an input tensor among the arguments of a layer's call."""

    number: int


@dataclasses.dataclass(eq=False)
class Node:
    """One operator of the fused graph.

    Attributes:
        name: Name of the last Keras layer in it, unique in the graph.
        layer_name: Name that `layer` gets in a model made of these operators.
        kind: A key of `KINDS`.
        layer: The Keras layer that does the work, unwrapped.
        model_layer: The layer as it stands in the model: `layer`, or the
            `LSQWrapper` around it.
        origin: Name of the layer in the user's model; "model/layer" for a layer of
            a model inside the model.
        inputs: Producing nodes, in the order of the layer's inputs.
        shape: Output shape, None where unknown.
        options: Settings of the operator that do not depend on the layer's class.
        call_kwargs: What the user passed at the call (`training=False`).
        activation: "relu", "relu6" or None.
        fused: Nodes that were taken in, in order: affine part, then ReLU.
        consumers: Nodes that read the output, once per use.
        is_output: Whether the output is one of the model's.
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
    activation: str | None = None
    fused: list[Node] = dataclasses.field(default_factory=list)
    consumers: list[Node] = dataclasses.field(default_factory=list)
    is_output: bool = False
    shared: bool = False

    def call(self, layer: Layer, tensors: list[Any]) -> Any:
        """Calls a layer on tensors, as the user called the one of this operator."""
        if "arguments" in self.options:
            args, kwargs = tf.nest.map_structure(
                lambda value: tensors[value.number] if type(value) is Slot else value,
                self.options["arguments"],
            )
            return layer(*args, **kwargs)
        inputs = tensors if len(tensors) > 1 else tensors[0]
        return layer(inputs, **self.call_kwargs)

    @property
    def properties(self) -> Kind:
        """The row of `KINDS`."""
        return KINDS[self.kind]

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
        """Returns whether no output can be negative; None: only data can tell."""
        if self.activation or self.properties.range == "positive":
            return True
        if self.kind == "input":
            return None
        if self.kind == "point":
            return {True: False, False: True}.get(self.layer.quantizer.signed)
        if self.properties.range == "signed":
            return False
        signs = [node.nonnegative() for node in self.inputs]
        if False in signs:
            return False
        return None if None in signs else True


@dataclasses.dataclass
class Graph:
    """The fused graph of one model.

    Attributes:
        name: Name of the model.
        nodes: Operators in topological order.
        inputs: Those that are the model's inputs, in order.
        outputs: Those that make the model's outputs, in order.
        problems: What has no exact integer form, each with the operator that stands
            for it. One of kind "foreign" can be left in float.
    """

    name: str
    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Node]
    problems: list[tuple[Node, str]] = dataclasses.field(default_factory=list)

    def check(self, may_be_float: Callable[[Node], bool]) -> None:
        """Refuses what has no exact integer form.

        Args:
            may_be_float: Whether an operator is left in float.

        Raises:
            ValueError: Naming every layer that has a problem.
        """
        found = [
            problem
            for node, problem in self.problems
            if node.kind != "foreign" or not may_be_float(node)
        ]
        if found:
            raise ValueError(
                f"`{self.name}` cannot be quantized exactly. Every layer must be "
                "supported, known by `tf_lsq.register_layer`, or left in float with "
                "`overrides`. Received:\n  " + "\n  ".join(found)
            )
