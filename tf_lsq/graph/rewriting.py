"""Changes a fused graph: removes an operator, or inserts one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .._compat import keras
from .copying import copied
from .lowering import rescaling
from .moving_layers import Gather, StridedSlice
from .nodes import Graph, Layer, Node


def is_scaling(node: Node) -> bool:
    """Returns whether an operator is nothing but a scaling by constants."""
    return (
        node.kind in ("affine", "scale")
        and isinstance(node.layer, keras.layers.Rescaling)
        and node.activation is None
        and "limits" not in node.options
    )


def scaling_numbers(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and offset of a scaling, float64, `[]` or `[channels]` each."""
    scale, offset = (
        np.asarray(v, np.float64) for v in (node.layer.scale, node.layer.offset)
    )
    return scale, offset


def bypass(graph: Graph, node: Node) -> None:
    """Removes an operator with one input; its readers read that.

    Args:
        graph: The graph, which changes.
        node: The operator, no output of the model.
    """
    [source] = node.inputs
    _replace_input(node, source)
    source.consumers.remove(node)
    source.consumers += node.consumers
    graph.nodes.remove(node)


def insert_scaling(
    graph: Graph, source: Node, scale: Any, offset: Any, name: str, **options: Any
) -> Node:
    """Inserts ``scale * x + offset``, which all readers of a tensor then read.

    Args:
        graph: The graph, which changes.
        source: The operator that computes the tensor, no output of the model.
        scale: One number, or one per channel.
        offset: The same.
        name: Its name, unique in the graph.
        **options: Settings of the operator.
    """
    return _insert(graph, source, "affine", rescaling(scale, offset, name), options)


def replace_scaling(node: Node, scale: Any, offset: Any) -> None:
    """Gives a scaling other numbers, in a layer with the same settings otherwise.

    Args:
        node: The operator, which changes.
        scale: One number, or one per channel.
        offset: The same.
    """
    plain = rescaling(scale, offset, node.layer.name)
    node.layer = node.model_layer = copied(
        node.layer, scale=plain.scale, offset=plain.offset
    )


def insert_reversal(graph: Graph, source: Node, name: str, **options: Any) -> Node:
    """Inserts an operator that reverses the channels of a tensor.

    Args:
        graph: The graph, which changes.
        source: The operator that computes the tensor, no output of the model.
        name: Its name, unique in the graph.
        **options: Settings of the operator.
    """
    rank, channels = len(source.shape) - 1, source.shape[-1] or 0
    sizes = [size for size in source.shape[1:] if size is not None]
    if len(sizes) < rank:
        layer = Gather(range(channels - 1, -1, -1), rank, name=name)
        return _insert(graph, source, "gather", layer, options)
    begin, strides = [0] * rank, [1] * rank
    begin[-1], strides[-1] = channels - 1, -1
    layer = StridedSlice(begin, sizes, strides, name=name)
    return _insert(graph, source, "slice", layer, options)


def unique_name(graph: Graph, name: str) -> str:
    """Returns a name like the given one that no operator or layer of a graph has."""
    parts = [part for node in graph.nodes for part in (node, *node.fused)]
    taken = {n for part in parts for n in (part.name, part.layer_name, part.origin)}
    candidates = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _insert(
    graph: Graph, source: Node, kind: str, layer: Layer, options: dict[str, Any]
) -> Node:
    """Inserts an operator with the shape of its input."""
    node = Node(
        name=layer.name,
        layer_name=layer.name,
        kind=kind,
        layer=layer,
        model_layer=layer,
        origin=layer.name,
        inputs=[source],
        shape=source.shape,
        options=options,
    )
    _replace_input(source, node)
    node.consumers, source.consumers = source.consumers, [node]
    graph.nodes.insert(graph.nodes.index(source) + 1, node)
    return node


def _replace_input(old: Node, new: Node) -> None:
    """Makes all readers of one operator read another."""
    for reader in old.consumers:
        reader.inputs = [new if source is old else source for source in reader.inputs]
