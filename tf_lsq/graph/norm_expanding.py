"""Puts the operators of a form in the place of a normalization."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._compat import keras
from ..layers import AddConstant, ChannelScaling, MultiplyConstant
from ..lsq import MAX_ACTIVATION_BITS, MAX_NUM_BITS
from .copying import with_weights
from .float_layers import Reduction, UnaryFunction
from .lowering import output_shape
from .nodes import Graph, Layer, Node
from .norm_layers import Lookup, SumOfSquares
from .normalizing import Norm
from .rewriting import unique_name

layers = keras.layers
# Constant of several axes -> the kind of its operator, and its layer.
_CONSTANTS = {
    "gamma": ("multiply_constant", MultiplyConstant),
    "beta": ("add_constant", AddConstant),
}

# Bits of the values whose squares, or which, are summed -> how many fit 32 bits.
_MOST_VALUES = {MAX_NUM_BITS: 2**17 - 1, MAX_ACTIVATION_BITS: 2**16 - 1}


@dataclasses.dataclass(frozen=True)
class NormForm:
    """How a target computes a normalization: bits of the tensors inside it.

    Attributes:
        name: What users call it.
        inner: Bits of the mean, of the centered tensor, and of the normalized one
            before gamma and beta.
        variance: Bits of the sum of squares, 9 to 15; the table of reciprocal roots has
            ``2 ** bits`` entries.
        root: Bits of the reciprocal root.
    """

    name: str
    inner: int
    variance: int
    root: int


def num_values(node: Node) -> int:
    """Returns how many values a normalization reduces to one.

    Args:
        node: An operator of kind "normalize".
    """
    norm: Norm = node.options["norm"]
    shape = _grouped_shape(node.shape, norm.groups)
    return math.prod(shape[axis] or 1 for axis in norm.axes)


def most_values(node: Node, form: NormForm) -> int:
    """Returns how many values fit the sums of a form, which have 32 bits.

    Args:
        node: An operator of kind "normalize".
        form: How it is computed.
    """
    bits = MAX_NUM_BITS if _sums_int8(node, form) else MAX_ACTIVATION_BITS
    return _MOST_VALUES[bits]


def _sums_int8(node: Node, form: NormForm) -> bool:
    """Returns whether squares of int8 codes are summed in int32: over last axes."""
    norm: Norm = node.options["norm"]
    rank, count = len(_grouped_shape(node.shape, norm.groups)), len(norm.axes)
    trailing = norm.axes == tuple(range(rank - count, rank))
    return form.inner <= MAX_NUM_BITS and trailing


def expand_norm(
    graph: Graph, node: Node, form: NormForm, copies: dict[int, list[Any]]
) -> None:
    """Puts the operators of a normalization in its place.

    The operator itself becomes the last of them, so that all that refers to it stays
    right.

    Args:
        graph: The graph, which changes.
        node: Its operator of kind "normalize".
        form: How it is computed.
        copies: The layers with gamma and beta of normalizations that were expanded, by
            the id of the user's layer: a layer that is called twice stays one layer.
    """
    _Expansion(graph, node, form).run(copies)


class _Expansion:
    """The operators of one normalization."""

    def __init__(self, graph: Graph, node: Node, form: NormForm) -> None:
        self._graph, self._node, self._form = graph, node, form
        self._norm: Norm = node.options["norm"]

    def run(self, copies: dict[int, list[Any]]) -> None:
        """Adds all operators; the given one becomes the last of them."""
        node, norm, inner = self._node, self._norm, self._form.inner
        [source] = node.inputs
        source.consumers = [c for c in source.consumers if c is not node]
        x = source
        if norm.groups > 1:
            x = self._reshaped(x, "grouped", _grouped_shape(node.shape, norm.groups))
        if norm.centered:
            mean = self._reduced(x, "mean", "mean", inner)
            layer = self._layer(layers.Subtract, "centered")
            x = self._add("subtract", layer, [x, mean], inner)
        root = self._root(self._squares(x))
        if id(node.layer) not in copies:
            copies[id(node.layer)] = [node.layer, *_constant_layers(node)]
        constants = copies[id(node.layer)][1:]
        layer = self._layer(layers.Multiply, "normalized")
        x = self._add("multiply", layer, [x, root], inner if constants else None)
        if norm.groups > 1:
            x = self._reshaped(x, "whole", node.shape)
        for kind, layer in constants:
            x = self._add(kind, layer, [x], inner)
        self._end(x)

    def _squares(self, x: Node) -> Node:
        """Adds the sum of squares."""
        form, count = self._form, len(self._norm.axes)
        if _sums_int8(self._node, form):
            layer = self._layer(SumOfSquares, "squares", count)
            return self._add(
                "sum_of_squares", layer, [x], form.variance, num_axes=count
            )
        layer = self._layer(UnaryFunction, "squared", "square")
        return self._reduced(
            self._add("square", layer, [x], MAX_ACTIVATION_BITS),
            "squares",
            "sum",
            form.variance,
        )

    def _root(self, squares: Node) -> Node:
        """Adds the table of reciprocal roots."""
        norm = self._norm
        function: tuple[Any, ...] = ("rsqrt_from", {"least": norm.epsilon})
        if norm.averaged:
            function = ("rsqrt", None, 1 / num_values(self._node), norm.epsilon)
        layer = self._layer(Lookup, "root", *function)
        return self._add("lookup", layer, [squares], self._form.root)

    def _reduced(self, x: Node, part: str, reduction: str, bits: int) -> Node:
        """Adds a mean or a sum."""
        axes = self._norm.axes
        layer = self._layer(Reduction, part, reduction, axes, True)
        return self._add(reduction, layer, [x], bits, axes=axes, keepdims=True)

    def _reshaped(self, x: Node, part: str, shape: Sequence[int | None]) -> Node:
        """Adds a reshape."""
        layer = self._layer(layers.Reshape, part, tuple(shape[1:]))
        return self._add("reshape", layer, [x], None)

    def _layer(self, layer_class: type, part: str, *args: Any) -> Layer:
        """Returns a layer, which computes in float32 whatever the model does."""
        return layer_class(
            *args,
            name=unique_name(self._graph, f"{self._node.name}_{part}"),
            dtype="float32",
            trainable=self._node.layer.trainable,
        )

    def _add(
        self,
        kind: str,
        layer: Layer,
        inputs: list[Node],
        bits: int | None,
        **options: Any,
    ) -> Node:
        """Adds an operator before the given one.

        Args:
            kind: Its kind.
            layer: Its layer.
            inputs: Its inputs.
            bits: Bits of its output; None: they are not its own.
            **options: Its settings.
        """
        if bits is not None:
            options["bits"] = bits
        added = Node(
            name=unique_name(self._graph, layer.name),
            layer_name=layer.name,
            kind=kind,
            layer=layer,
            model_layer=layer,
            origin=self._node.origin,
            inputs=inputs,
            shape=output_shape(layer, inputs),
            options=options,
        )
        for source in inputs:
            source.consumers.append(added)
        self._graph.nodes.insert(self._graph.nodes.index(self._node), added)
        return added

    def _end(self, last: Node) -> None:
        """Makes the given operator the last one, which it replaces."""
        node = self._node
        constant = bool(last.layer.weights)
        node.kind, node.layer, node.model_layer = last.kind, last.layer, last.layer
        node.inputs, node.options, node.call_kwargs = last.inputs, last.options, {}
        node.options.pop("bits", None)  # What its readers need, or the user wants.
        node.shared = node.shared and constant
        if not constant:
            node.layer_name = node.name
        for source in last.inputs:
            source.consumers = [node if c is last else c for c in source.consumers]
        self._graph.nodes.remove(last)


def _grouped_shape(
    shape: tuple[int | None, ...], groups: int
) -> tuple[int | None, ...]:
    """Returns a shape with one axis of positions, and the channels split into groups.

    Args:
        shape: Of a tensor, channels last; all sizes but the batch are known.
        groups: How many groups; 1: the shape stays.
    """
    if groups == 1:
        return shape
    *positions, channels = [size or 1 for size in shape[1:]]
    return (shape[0], math.prod(positions), groups, channels // groups)


def _constant_layers(node: Node) -> list[tuple[str, Layer]]:
    """Returns the layers with gamma and beta of a normalization, by their kinds.

    Constants of channels are one operator, with a factor and a summand for each. Others
    are tensors with a grid.
    """
    norm: Norm = node.options["norm"]
    given = {"gamma": norm.gamma, "beta": norm.beta}
    values = {name: v.numpy() for name, v in given.items() if v is not None}
    rank, shape = len(node.shape), node.shape
    if not values:
        return []
    if norm.constant_axes == (rank - 1,):
        layer = ChannelScaling(
            scale="gamma" in values,
            center="beta" in values,
            trainable=node.layer.trainable,
            dtype="float32",
            name=node.layer_name,
        )
        return [("affine", with_weights(layer, shape, values.values()))]
    sizes = [(shape[n] or 1) if n in norm.constant_axes else 1 for n in range(rank)]
    found = []
    for name, value in values.items():
        kind, layer_class = _CONSTANTS[name]
        is_last = name == [*values][-1]
        layer = layer_class(
            sizes,
            trained=True,
            trainable=node.layer.trainable,
            weight_name=name,
            dtype="float32",
            name=node.layer_name if is_last else f"{node.layer_name}_{name}",
        )
        value = np.reshape(value, sizes)
        found.append((kind, with_weights(layer, shape, [value])))
    return found
