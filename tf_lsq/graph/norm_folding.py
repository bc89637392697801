"""Moves gamma and beta of normalizations into the kernels that read them."""

from __future__ import annotations

import dataclasses

import numpy as np

from .._compat import keras
from .copying import copied, with_weights
from .nodes import Graph, Layer, Node
from .normalizing import Norm

layers = keras.layers
# Layers whose kernels can have the gamma and beta of a normalization before them.
_FOLDING = (layers.Dense, layers.Conv1D, layers.Conv2D)


def fold_norm(graph: Graph, node: Node) -> None:
    """Moves gamma and beta of a normalization into the kernels that read it.

    Nothing changes if its readers do not allow it.

    ``W (gamma * x + beta) + b`` is ``(W * gamma) x + (W beta + b)``, which is one
    operator less. The user's layers stay unchanged: the operators get copies.

    Args:
        graph: The graph of a float model, whose operators change.
        node: Its operator of kind "normalize".
    """
    norm: Norm = node.options["norm"]
    if not _may_fold(graph, node):
        return
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


def _may_fold(graph: Graph, node: Node) -> bool:
    """Returns whether all that reads a normalization is a kernel of its own."""
    norm: Norm = node.options["norm"]
    read = _read_by_terms(graph) | set(graph.outputs)
    return (
        (norm.gamma is not None or norm.beta is not None)
        and norm.constant_axes == (len(node.shape) - 1,)
        and not (node.shared or node in read)
        and bool(node.consumers)
        and all(_folds(reader, node, norm) for reader in node.consumers)
    )


def _read_by_terms(graph: Graph) -> set[Node]:
    """Returns the operators that added losses and metrics depend on beside readers."""
    own, found = set(graph.nodes), set()
    waiting = [term.node for term in graph.terms]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [] if node in own else node.inputs
    return found


def _folds(reader: Node, node: Node, norm: Norm) -> bool:
    """Returns whether an operator can have the gamma and beta of a normalization."""
    layer = reader.layer
    if type(layer) not in _FOLDING or reader.kind not in ("conv", "dense"):
        return False
    one_by_one = all(size == 1 for size in getattr(layer, "kernel_size", ()))
    padded = getattr(layer, "padding", "valid") != "valid" and not one_by_one
    return (
        not (reader.shared or (padded and norm.beta is not None))
        and getattr(layer, "groups", 1) == 1
        and layer.kernel_constraint is layer.bias_constraint is None
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
    return with_weights(copy, node.shape, [kernel, bias] if has_bias else [kernel])
