"""Normalizations: each is several operators, in a form that the target computes.

The analysis of a float model keeps one operator of kind "normalize" for each:

    c = x - mean(x)             unless it only divides
    v = sum(c ** 2)
    r = 1 / sqrt(v / n + epsilon)
    y = gamma * (c * r) + beta

`expand_norm` puts these operators in its place, once the form is known. Each has a
quantization point, so training computes what the file computes. The reciprocal root is
a table with a value for every code of `v`, epsilon included.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..layers import AddConstant, ChannelScaling, MultiplyConstant
from ..lsq import MAX_ACTIVATION_BITS, MAX_NUM_BITS
from .copying import copied
from .float_layers import Reduction, UnaryFunction
from .functions.recorded import Unsupported
from .lowering import Call
from .nodes import Graph, Layer, Node
from .norm_layers import L2Normalization, Lookup, SumOfSquares
from .rewriting import unique_name

layers = keras.layers
NORMALIZE = "normalize"
_EPSILON_OF_UNIT = 1e-12  # Of the squared norm, in Keras' `UnitNormalization`.
# Layers whose kernels can have the gamma and beta of a normalization before them.
_FOLDING = (layers.Dense, layers.Conv1D, layers.Conv2D)
# Constant of several axes -> the kind of its operator, and its layer.
_CONSTANTS = {
    "gamma": ("multiply_constant", MultiplyConstant),
    "beta": ("add_constant", AddConstant),
}


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


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """What a normalization computes.

    Attributes:
        axes: Axes over which it normalizes, counted from the batch axis 0; with groups,
            those of ``[batch, positions, groups, channels of a group]``.
        centered: Whether the mean is subtracted.
        averaged: Whether it divides by the root of a mean square; else of a sum.
        epsilon: Added to that; without an average, its smallest value.
        gamma: Trained factors, None without.
        beta: Trained summands, None without.
        constant_axes: Axes of gamma and beta.
        groups: How many groups the channels have that are normalized separately; 1: no
            axis is split.
    """

    axes: tuple[int, ...]
    centered: bool
    averaged: bool
    epsilon: float
    gamma: Any = None
    beta: Any = None
    constant_axes: tuple[int, ...] = ()
    groups: int = 1


# --- Reading layers ------------------------------------------------------------------


def layer_norm(call: Call) -> Node:
    """Lowers a `LayerNormalization`."""
    layer, axes = call.layer, _axes(call, call.layer.axis)
    return _norm(
        call,
        Norm(
            axes,
            centered=True,
            averaged=True,
            epsilon=float(layer.epsilon),
            gamma=layer.gamma if layer.scale else None,
            beta=layer.beta if layer.center else None,
            constant_axes=axes,
        ),
    )


def rms_norm(call: Call) -> Node:
    """Lowers an `RMSNormalization`."""
    layer, axes = call.layer, _axes(call, call.layer.axis)
    return _norm(
        call,
        Norm(
            axes,
            centered=False,
            averaged=True,
            epsilon=float(layer.epsilon),
            gamma=layer.gamma,
            constant_axes=axes,
        ),
    )


def group_norm(call: Call) -> Node:
    """Lowers a `GroupNormalization`."""
    layer, rank = call.layer, len(call.shape)
    [axis] = _axes(call, layer.axis)
    if axis != rank - 1:
        raise Unsupported(f"axis must be the last one, received {layer.axis}")
    channels, groups, positions = call.shape[-1], layer.groups, tuple(range(1, axis))
    if groups == 1:
        axes = (*positions, axis)
    elif groups == channels:
        axes = positions
    else:
        axes = (1, 3)
    return _norm(
        call,
        Norm(
            axes,
            centered=True,
            averaged=True,
            epsilon=float(layer.epsilon),
            gamma=layer.gamma if layer.scale else None,
            beta=layer.beta if layer.center else None,
            constant_axes=(axis,),
            groups=groups if axes == (1, 3) and groups not in (1, channels) else 1,
        ),
    )


def unit_norm(call: Call) -> Node:
    """Lowers a `UnitNormalization`."""
    return _unit(call, call.layer.axis, _EPSILON_OF_UNIT)


def l2_norm(call: Call) -> Node:
    """Lowers an `L2Normalization`."""
    return _unit(call, call.layer.axes, call.layer.epsilon)


def l2_normalize(call: Call, x: Node, axes: Any, epsilon: float) -> Node:
    """Adds `tf.math.l2_normalize`.

    Args:
        call: The call it belongs to.
        x: Its input.
        axes: Its axes.
        epsilon: Smallest square of the norm.

    Raises:
        Unsupported: If its axes include the batch.
    """
    layer = L2Normalization(_axes(call, axes), epsilon, name=call.name)
    return l2_norm(call.part(layer, call.name, [x]))


def _unit(call: Call, axes: Any, epsilon: float) -> Node:
    """Adds a division by the Euclidean norm."""
    axes = _axes(call, axes)
    return _norm(call, Norm(axes, centered=False, averaged=False, epsilon=epsilon))


def _axes(call: Call, axes: Any) -> tuple[int, ...]:
    """Returns axes in order, counted from the batch axis 0.

    Raises:
        Unsupported: If they include the batch axis.
    """
    rank = len(call.shape)
    if axes is None or np.asarray(axes).dtype == object:
        raise Unsupported("axis must be given, excluding the batch, received None")
    numbers = sorted({int(axis) % rank for axis in np.ravel(np.asarray(axes))})
    if 0 in numbers:
        raise Unsupported("axis must not be the batch axis, received 0")
    return tuple(numbers)


def _norm(call: Call, norm: Norm) -> Node:
    """Adds the operator that stands for a normalization.

    Raises:
        Unsupported: If the number of values is unknown.
    """
    shape, rank = call.shape, len(call.shape)
    sizes = shape[1:] if norm.groups > 1 else [shape[axis] for axis in norm.axes]
    if None in sizes:
        raise Unsupported(
            "the sizes of the axes that it normalizes must be known, received "
            f"{shape}; build the model with a full `keras.Input(shape=...)`"
        )
    if not norm.axes or rank < 2:
        raise Unsupported(f"there must be an axis to normalize, received {shape}")
    node = call.add(NORMALIZE, norm=norm)
    return node


# --- Folding -------------------------------------------------------------------------


def fold_norm(graph: Graph, node: Node) -> bool:
    """Moves gamma and beta of a normalization into the kernels that read it.

    ``W (gamma * x + beta) + b`` is ``(W * gamma) x + (W beta + b)``, which is one
    operator less. The user's layers stay unchanged: the operators get copies.

    Args:
        graph: The graph of a float model, whose operators change.
        node: Its operator of kind "normalize".

    Returns:
        Whether it has neither afterwards: its readers may not allow it.
    """
    norm: Norm = node.options["norm"]
    if not _may_fold(graph, node):
        return norm.gamma is None and norm.beta is None
    for reader in node.consumers:
        reader.layer = reader.model_layer = _with_folded(reader.layer, node)
    plain = copied(node.layer)
    plain.build((None, *node.shape[1:]))
    beta = getattr(plain, "beta", None)
    plain.set_weights(
        [
            np.zeros(weight.shape) if weight is beta else np.ones(weight.shape)
            for weight in plain.weights
        ]
    )
    node.layer = node.model_layer = plain
    node.options["norm"] = dataclasses.replace(norm, gamma=None, beta=None)
    return True


def _may_fold(graph: Graph, node: Node) -> bool:
    """Returns whether all that reads a normalization is a kernel of its own."""
    norm: Norm = node.options["norm"]
    read = {term.node for term in graph.terms} | set(graph.outputs)
    return (
        (norm.gamma is not None or norm.beta is not None)
        and norm.constant_axes == (len(node.shape) - 1,)
        and not (node.shared or node in read)
        and bool(node.consumers)
        and all(_folds(reader, node, norm) for reader in node.consumers)
    )


def _folds(reader: Node, node: Node, norm: Norm) -> bool:
    """Returns whether an operator can have the gamma and beta of a normalization."""
    layer = reader.layer
    if type(layer) not in _FOLDING or reader.kind not in ("conv", "dense"):
        return False
    one_by_one = all(size == 1 for size in getattr(layer, "kernel_size", ()))
    padded = getattr(layer, "padding", "valid") != "valid" and not one_by_one
    return (
        not (reader.shared or padded and norm.beta is not None)
        and getattr(layer, "groups", 1) == 1
        and layer.kernel_constraint is None
        and layer.trainable == node.layer.trainable
        and not reader.options.get("constant")
    )


def _with_folded(layer: Layer, node: Node) -> Layer:
    """Returns a copy of a layer that has the gamma and beta of its input."""
    norm: Norm = node.options["norm"]
    kernel = layer.kernel.numpy()
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(kernel.shape[-1:])
    if norm.beta is not None:
        products = kernel * norm.beta.numpy()[:, np.newaxis]
        bias = bias + products.reshape(-1, kernel.shape[-1]).sum(axis=0)
    if norm.gamma is not None:
        kernel = kernel * norm.gamma.numpy()[:, np.newaxis]
    has_bias = layer.use_bias or norm.beta is not None
    copy = copied(layer, use_bias=has_bias)
    return _with_weights(copy, node.shape, [kernel, bias] if has_bias else [kernel])


# --- Expanding -----------------------------------------------------------------------


def num_values(node: Node) -> int:
    """Returns how many values a normalization reduces to one.

    Args:
        node: An operator of kind "normalize".
    """
    norm: Norm = node.options["norm"]
    shape = _grouped_shape(node.shape, norm.groups)
    return math.prod(shape[axis] or 1 for axis in norm.axes)


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
        norm, form, rank = self._norm, self._form, len(x.shape)
        count = len(norm.axes)
        if form.inner <= MAX_NUM_BITS and norm.axes == tuple(range(rank - count, rank)):
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
        self, kind: str, layer: Layer, inputs: list[Node], bits: int | None, **options: Any
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
        shapes = [tf.TensorShape(source.shape) for source in inputs]
        shape = layer.compute_output_shape(shapes if len(shapes) > 1 else shapes[0])
        added = Node(
            name=layer.name,
            layer_name=layer.name,
            kind=kind,
            layer=layer,
            model_layer=layer,
            origin=self._node.origin,
            inputs=inputs,
            shape=tuple(tf.TensorShape(shape)),
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
    batch, *positions, channels = shape
    return (batch, math.prod(positions), groups, channels // groups)


def _constant_layers(node: Node) -> list[tuple[str, Layer]]:
    """Returns the layers with gamma and beta of a normalization, by their kinds.

    Constants of channels are one operator, with a factor and a summand for each. Others
    are tensors with a grid.
    """
    norm: Norm = node.options["norm"]
    given = {"gamma": norm.gamma, "beta": norm.beta}
    values = {name: v.numpy() for name, v in given.items() if v is not None}
    rank, shape = len(node.shape), node.shape
    settings = {"dtype": "float32", "name": node.layer_name}
    if not values:
        return []
    if norm.constant_axes == (rank - 1,):
        layer = ChannelScaling(
            scale="gamma" in values,
            center="beta" in values,
            trainable=node.layer.trainable,
            **settings,
        )
        return [("affine", _with_weights(layer, shape, values.values()))]
    sizes = [shape[n] if n in norm.constant_axes else 1 for n in range(rank)]
    found = []
    for name, value in values.items():
        kind, layer_class = _CONSTANTS[name]
        if name != [*values][-1]:
            settings = {**settings, "name": f"{node.layer_name}_{name}"}
        layer = layer_class(sizes, trained=node.layer.trainable, weight_name=name, **settings)
        value = np.reshape(value, sizes)
        found.append((kind, _with_weights(layer, shape, [value])))
    return found


def _with_weights(layer: Layer, shape: Any, values: Any) -> Layer:
    """Returns a built layer with weights."""
    layer.build((None, *shape[1:]))
    layer.set_weights(list(values))
    return layer
