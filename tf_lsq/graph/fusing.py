"""The only graph analysis: from Keras layers to the operators TFLite runs.

TFLite stores one integer tensor per edge of its *fused* graph: a batch norm after a
convolution is folded into its weights, a ReLU is fused into the operator before it.
`analyze` builds that graph for a float model and for a quantized one (which also
contains `QuantizationPoint` layers). Training, export and checks all read it.

To add a layer, add a row to `layer_table.LAYERS`; for a TensorFlow function, to
`functions.table.FUNCTIONS`; for an operator, to `unary.KINDS`.
"""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from .float_layers import HardSigmoid
from .integers import make_foreign, settle_integers
from .limiting import limiting, limits_of, merged
from .lowering import rescaling
from .masks import settle_masks
from .nodes import Graph, Node
from .normalizing import NORMALIZE
from .reader import read_model
from .rewriting import bypass, scaling_numbers

_HARD_SIGMOID_SLOPE = 1 / 6
_CLOSE = 1e-6  # For constants that a user writes as 1/6 in float32.


def analyze(model: keras.Model) -> Graph:
    """Returns the fused graph of a functional or sequential Keras model.

    Args:
        model: A float model, or one that holds `LSQWrapper` and
            `QuantizationPoint` layers.

    Returns:
        The graph; its `problems` list everything without an exact integer form.

    Raises:
        TypeError: If `model` is not a `tf_keras` model.
        ValueError: If it is subclassed or not built.
    """
    _check_model(model)
    graph = read_model(model)
    beside = _remove_unread(graph)
    _connect(graph, beside)
    settle_integers(graph)
    _check_lowest_padding(graph)
    settle_masks(graph)
    _simplify(graph)
    _fuse(graph)
    if any(node.kind == "point" for node in graph.nodes):
        for node in graph.nodes:
            if node.kind == NORMALIZE:  # Others have become operators.
                node.options = {}
                make_foreign(node)
    return graph


def _check_model(model: Any) -> None:
    """Refuses models without a Keras graph to read."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a tf_keras functional or sequential model. "
            f"Received: {type(model).__name__}."
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


def _check_lowest_padding(graph: Graph) -> None:
    """Refuses padding with -inf, except for max pooling that reads a value with it."""
    for node in graph.nodes:
        if node.options.get("lowest") and not (
            node.consumers and all(_pools(reader, node) for reader in node.consumers)
        ):
            graph.problems.append(
                (
                    node,
                    f"`{node.origin}`: only max pooling may read what is padded with "
                    "-inf, with windows of at least twice the padding and "
                    "`padding='valid'`; pad with another value",
                )
            )


def _pools(reader: Node, padding: Node) -> bool:
    """Returns whether a max pooling has a value of the image in every window."""
    if reader.kind != "max_pool" or reader.layer.padding != "valid":
        return False
    window = (*tf.nest.flatten(reader.layer.pool_size), 0)
    pairs = padding.options["paddings"]
    return len(window) == len(pairs) and all(
        2 * max(pair) <= size for pair, size in zip(pairs, window, strict=True)
    )


def _remove_unread(graph: Graph) -> list[Node]:
    """Removes operators that no output depends on, such as unused outputs of layers.

    Returns:
        Those of them that added losses and metrics depend on. They are computed in
        float, beside the graph; a problem remains only where that is impossible.
    """
    read = {*graph.inputs, *graph.outputs}
    beside = {term.node for term in graph.terms}
    for node in reversed(graph.nodes):
        if node in read:
            read.update(node.inputs)
        if node in beside:
            beside.update(node.inputs)
    beside -= read
    in_float = [node for node in graph.nodes if node in beside]
    graph.nodes = [node for node in graph.nodes if node in read]
    graph.problems = [
        (node, text)
        for node, text in graph.problems
        if node in read or (node in beside and node.kind != "foreign")
    ]
    return in_float


def _connect(graph: Graph, beside: list[Node]) -> None:
    """Fills in consumers, outputs and sharing; checks model inputs and outputs."""
    uses = collections.Counter(id(n.model_layer) for n in [*graph.nodes, *beside])
    for node in graph.nodes:
        node.shared = uses[id(node.model_layer)] > 1
        for source in node.inputs:
            source.consumers.append(node)
    for node in graph.outputs:
        if node.is_output:
            problem = f"`{node.origin}`: it is listed as an output twice; list it once"
            graph.problems.append((node, problem))
        node.is_output = True
    for node in graph.inputs:
        if not (node.consumers or node.is_output):
            problem = (
                f"`{node.origin}`: no output depends on this input; leave it out "
                "(targets are `y` in `fit`, their loss belongs to `compile`)"
            )
            graph.problems.append((node, problem))


# --- Simplifying -------------------------------------------------------------


def _simplify(graph: Graph) -> None:
    """Merges scalings and limits, and finds hard sigmoids that were written out."""
    for node in list(graph.nodes):
        if limits_of(node) is not None:
            _merge_limits(graph, node)
        if not _is_rescaling(node):
            continue
        source = node.inputs[0]
        if _is_rescaling(source) and _only_reader(source, node):
            scale, offset = scaling_numbers(source)
            factor, shift = scaling_numbers(node)
            node.layer = node.model_layer = rescaling(
                scale * factor, offset * factor + shift, node.name
            )
            bypass(graph, source)
        elif _ends_hard_sigmoid(node):
            node.kind = "hard_sigmoid"
            node.layer = node.model_layer = HardSigmoid(
                _HARD_SIGMOID_SLOPE, name=node.name
            )
            node.options = {"slope": _HARD_SIGMOID_SLOPE}
            bypass(graph, source)
            bypass(graph, node.inputs[0])
    for node in graph.nodes:
        if _is_rescaling(node) and _scales_input(node):
            node.kind = "scale"


def _merge_limits(graph: Graph, node: Node) -> None:
    """Merges limits with those of the operator before them."""
    source, limits = node.inputs[0], limits_of(node)
    before = limits_of(source)
    if limits is None or before is None or not _only_reader(source, node):
        return
    if not ("limits" in node.options or "limits" in source.options):
        return  # Two plain ReLUs are rare, and have always been two operators.
    both = merged(before, limits)
    if both is not None:
        new = limiting(both, node.name)
        node.kind, node.activation, node.options = new.kind, new.activation, new.options
        node.layer = node.model_layer = new.layer
        bypass(graph, source)


def _is_rescaling(node: Node) -> bool:
    """Returns whether an operator is a scaling by constants."""
    return isinstance(node.layer, keras.layers.Rescaling)


def _scales_input(node: Node) -> bool:
    """Returns whether a scaling of the model's input folds into the kernels after it.

    A positive factor for all channels becomes part of the scale of every kernel
    that reads the scaled tensor; the input keeps its codes.
    """
    scale, offset = scaling_numbers(node)
    source = node.inputs[0]
    while source.kind == "point":
        source = source.inputs[0]
    reads = [consumer.properties.matmul for consumer in node.consumers]
    return bool(
        np.ndim(scale) == 0
        and scale > 0
        and not np.any(offset)
        and source.kind == "input"
        and len(node.inputs[0].consumers) == 1
        and all(reads)
        and bool(reads)
    )


def _only_reader(source: Node, node: Node) -> bool:
    """Returns whether `node` alone reads the output of `source`."""
    return source.consumers == [node] and not source.is_output


def _ends_hard_sigmoid(node: Node) -> bool:
    """Returns whether an operator is the last of ``relu6(x + 3) * (1 / 6)``."""
    relu = node.inputs[0]
    if relu.activation != "relu6" or relu.kind != "relu":
        return False
    shift = relu.inputs[0]
    if not (_is_rescaling(shift) and _only_reader(relu, node)):
        return False
    constants = [*scaling_numbers(node), *scaling_numbers(shift)]
    expected = [_HARD_SIGMOID_SLOPE, 0.0, 1.0, 3.0]
    return _only_reader(shift, relu) and all(
        np.ndim(number) == 0 and abs(number - wanted) < _CLOSE
        for number, wanted in zip(constants, expected, strict=True)
    )


# --- Fusing ------------------------------------------------------------------


def _fuse(graph: Graph) -> None:
    """Fuses batch norms, scalings and ReLUs into the operators before them."""
    kept: list[Node] = []
    for node in graph.nodes:
        absorbed = node.kind in ("affine", "relu", "clip")
        if absorbed and _absorbs(node.inputs[0], node):
            _absorb(node.inputs[0], node)
            graph.outputs = [
                node.inputs[0] if output is node else output for output in graph.outputs
            ]
        else:
            kept.append(node)
    graph.nodes = kept


def _absorbs(producer: Node, node: Node) -> bool:
    """Returns whether `producer` can absorb `node`."""
    limited = producer.activation or "limits" in producer.options
    if len(producer.consumers) != 1 or producer.is_output or limited:
        return False
    if node.kind == "affine":
        return producer.properties.matmul and not producer.fused
    return producer.properties.fuses_relu


def _absorb(producer: Node, node: Node) -> None:
    """Fuses `node` into `producer`."""
    producer.fused.append(node)
    producer.name = node.name
    producer.activation = node.activation
    producer.options = {**producer.options, **node.options}
    producer.shape = node.shape
    producer.is_output = node.is_output
    producer.consumers = node.consumers
    for consumer in node.consumers:
        consumer.inputs = [
            producer if source is node else source for source in consumer.inputs
        ]
