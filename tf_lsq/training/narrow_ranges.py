"""Finds tensors that use few of the codes of a grid that they share.

The tensors that a concatenation joins have one grid, that of the largest; so have the
channels of an output, and the grid of a sum is that of its larger terms. Boxes in
pixels joined with scores leave no code for the scores. Such a model trains and exports
without an error.

The rule: a tensor is *narrow* if it spans fewer than a sixteenth of the codes of the
grid: 16 of 256 at 8 bits, less than the distance of two codes at 4 bits. The ratio is
the same for any number of bits, because it is what sharing the grid costs: four bits.
Only grids of more than 12 bits can spare more: 256 codes are as many as 8 bits have.
Not narrow are

- a tensor that is constant on the data: a branch may be switched off;
- a term of a residual connection: its branch is a small change of the tensor that it
  is computed from and added to, as it is in float; and likewise the terms of a maximum
  or minimum, such as ``maximum(x, 0.01 * x)``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..graph import Graph, Node, analyze, point_of
from .arrivals import Arrival, Arrivals, visited
from .learned_steps import quantization_points

_SHARE = 1 / 16
_ENOUGH = 256
# Spans of fewer codes than this are rounding errors, or branches that are switched off.
_CONSTANT = 1e-3
# So few values of an output say little about its range.
_FEW_ROWS = 16
_SUMS = ("add", "subtract")
_EXTREMES = ("maximum", "minimum")
# Kind of a place -> what to do about a narrow tensor there.
_REMEDIES = {
    "join": "Scale it to the range of the others, for example with a batch norm.",
    "joined output": (
        "Return the joined tensors as outputs of their own, or scale this one, and "
        "what it is trained on, to the range of the others."
    ),
    "sum": "If it matters, normalize the terms before they are added.",
    "pool": "`GlobalAveragePooling2D` has a grid of its own.",
    "channel": (
        "Return it as an output of its own, or scale what the model is trained on, so "
        "that all channels have similar ranges."
    ),
    "output": (
        "Subtract the mean from what the model is trained on, and add it to the "
        "outputs of the file."
    ),
}
_GRIDS = {"sum": "the sum", "output": "its grid, which must contain 0"}


@dataclasses.dataclass(frozen=True)
class NarrowRange:
    """A tensor that uses few codes of its grid.

    Attributes:
        place: Name of the user's layer that joins it with others, or of the output.
        tensor: Name of the tensor: of the layer that computes it, or a channel.
        num_codes: How many codes it spans.
        grid_codes: How many codes the grid has.
        kind: A key of `_REMEDIES`.
    """

    place: str
    tensor: str
    num_codes: float
    grid_codes: int
    kind: str

    def __str__(self) -> str:
        """Returns what was found, with its remedy."""
        grid = _GRIDS.get(self.kind, "the grid that it shares")
        return (
            f"`{self.place}`: {self.tensor} spans {self.num_codes:.2g} of "
            f"{self.grid_codes} codes of {grid}. {_REMEDIES[self.kind]}"
        )


def warn_of_narrow_ranges(found: list[NarrowRange]) -> None:
    """Warns about tensors that use few codes of their grid, once for all of them."""
    if found:
        lines = "\n  ".join(str(one) for one in found)
        warnings.warn(
            "These tensors use less than a sixteenth of the codes of their grid, so "
            f"little of their precision is left:\n  {lines}",
            stacklevel=3,
        )


def has_untrained_norms(model: keras.Model) -> bool:
    """Returns whether batch norms of a model still have their initial statistics.

    Until they have seen data, ranges in inference mode are not those of the model.
    """
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    return any(
        not norm.moving_mean.numpy().any() and (norm.moving_variance.numpy() == 1).all()
        for norm in norms
    )


def measured_narrow_ranges(model: keras.Model, x: Any) -> list[NarrowRange]:
    """Returns the tensors of a calibrated or trained model that use few codes.

    Args:
        model: A quantized model whose steps have values; it is not changed.
        x: One batch of inputs.

    Returns:
        None of them if the model has batch norms that were never trained.
    """
    if has_untrained_norms(model):
        return []
    arrivals = Arrivals()
    with visited(quantization_points(model), arrivals):
        model(tf.nest.map_structure(tf.convert_to_tensor, x), training=False)
    return narrow_ranges(model, arrivals)


def narrow_ranges(model: keras.Model, arrivals: Arrivals) -> list[NarrowRange]:
    """Returns the tensors that use few codes of a grid.

    Args:
        model: A quantized model whose steps have values.
        arrivals: What its points received in one call of it.
    """
    return list(dict.fromkeys(_Finder(analyze(model), arrivals).find()))


class _Finder:
    """Compares the ranges of tensors with the grids that they are rounded to."""

    def __init__(self, graph: Graph, arrivals: Arrivals) -> None:
        self._graph = graph
        self._arrivals: dict[Node, Arrival] = {}
        self._shared: dict[str, list[Node]] = {}
        for node in graph.nodes:
            if node.kind == "point":
                nodes = self._shared.setdefault(node.layer.name, [])
                arrived = arrivals.by_point[node.layer.name]
                # Keras calls the layers of a model in the order of its graph.
                self._arrivals[node] = arrived[len(nodes)]
                nodes.append(node)
        points = [point_of(node) for node in graph.outputs]
        self._output_points = [node.layer for node in points if node is not None]

    def find(self) -> Iterator[NarrowRange]:
        """Yields every narrow tensor, by place."""
        for node in self._graph.nodes:
            if node.kind == "point" and len(self._shared[node.layer.name]) > 1:
                yield from self._joined(node)
            elif node.kind in _SUMS:
                yield from self._terms(node)
        for node in self._graph.outputs:
            yield from self._output(node)

    def _joined(self, point: Node) -> Iterator[NarrowRange]:
        """Yields the input of a point that several tensors share, if it is narrow."""
        codes = self._codes(point, self._arrivals[point].span)
        if not _is_narrow(codes, point):
            return
        source, place, kind = _operator(point), _join_after(point), "join"
        if place.kind in _EXTREMES and _is_residual(point, place):
            return
        if source.properties.keeps_grid:
            place, kind = source, "pool"
        elif point.layer in self._output_points:
            kind = "joined output"
        tensor = f"`{source.origin}`"
        yield NarrowRange(place.origin, tensor, codes, _num_codes(point), kind)

    def _terms(self, node: Node) -> Iterator[NarrowRange]:
        """Yields the narrow terms of a sum."""
        points = [n for n in node.consumers if n.kind == "point"]
        for source in node.inputs if points else []:
            point = point_of(source)
            if point is None or point not in self._arrivals:
                continue
            codes = self._codes(points[0], self._arrivals[point].span)
            if _is_narrow(codes, points[0]) and not _is_residual(source, node):
                tensor = f"`{_operator(source).origin}`"
                grid_codes = _num_codes(points[0])
                yield NarrowRange(node.origin, tensor, codes, grid_codes, "sum")

    def _output(self, node: Node) -> Iterator[NarrowRange]:
        """Yields an output, or its channels, if narrow; joins are judged before."""
        point = point_of(node)
        if point is None or not point.layer.step_variables:
            return
        arrival = self._arrivals[point]
        if len(self._shared[point.layer.name]) > 1 or arrival.num_rows < _FEW_ROWS:
            return
        operator = _operator(node)
        if operator.properties.fixed_step is not None:  # Such as probabilities.
            return
        name, grid_codes = operator.origin, _num_codes(point)
        codes = self._codes(point, arrival.span)
        if _is_narrow(codes, point):
            yield NarrowRange(name, "it", codes, grid_codes, "output")
            return
        spans = [self._codes(point, span) for span in arrival.high - arrival.low]
        for channel, codes in enumerate(spans):
            if _is_narrow(codes, point) and codes < _SHARE * max(spans):
                tensor = f"channel {channel}"
                yield NarrowRange(name, tensor, codes, grid_codes, "channel")

    def _codes(self, point: Node, span: Any) -> float:
        """Returns how many codes of the grid of a point a range spans."""
        return float(span) / float(point.layer.step)


def _is_narrow(codes: float, point: Node) -> bool:
    """Returns whether so many codes are few for the grid of a point."""
    return _CONSTANT < codes < min(_SHARE * _num_codes(point), _ENOUGH)


def _num_codes(point: Node) -> int:
    """Returns how many codes the grid of a point has."""
    integers = point.layer.integer_range
    return int(np.rint(float(integers.q_max) - float(integers.q_min))) + 1


def _operator(node: Node) -> Node:
    """Returns the operator before a chain of points, or `node` if it is none."""
    while node.kind == "point":
        node = node.inputs[0]
    return node


def _is_residual(term: Node, total: Node) -> bool:
    """Returns whether a term of a sum or maximum depends on another, or that on it."""
    term, others, sums = _operator(term), [], [total]
    while sums:
        for other in map(_operator, sums.pop().inputs):
            if other is not term:
                others.append(other)
                sums += [other] if other.kind in _SUMS else []
    before = _all_before(term)
    return any(other in before or term in _all_before(other) for other in others)


def _all_before(node: Node) -> set[Node]:
    """Returns the operators that an operator is computed from."""
    found: set[Node] = set()
    waiting = list(node.inputs)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.inputs
    return found


def _join_after(point: Node) -> Node:
    """Returns the operator for which tensors share a point: a join, or their source."""
    for consumer in point.consumers:
        if consumer.properties.joins:
            return consumer
    return _operator(point)
