"""Lowers attention to projections, products of matrices, masks and softmax.

    scores         query times key, for every head
    probabilities  softmax of the scores, whose operator divides them by sqrt(d)
    result         probabilities times value

Key and value are second factors, which have zero points of 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compat import keras
from ..layers import MultiplyConstant
from .activations import softmax
from .functions.recorded import Unsupported
from .lowering import Call
from .masks import add_mask, constant_mask
from .moving import add_identity, add_reshape, add_transpose
from .nodes import Layer, Node
from .products import add_matmul
from .projections import add_projection
from .shape_values import sizes

layers = keras.layers


def multi_head_attention(call: Call) -> Node | list[Node]:
    """Lowers a `MultiHeadAttention`."""
    layer, given = call.layer, call.arguments
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    axes = _attention_axes(layer, query)
    dense = {
        name: getattr(layer, f"_{name}_dense")
        for name in ("query", "key", "value", "output")
    }
    parts = {
        name: _split_heads(call, x, dense[name], name, axes)
        for name, x in (("query", query), ("key", key), ("value", value))
    }
    scores = add_matmul(
        call, parts["query"], parts["key"], (False, True), f"{call.name}_scores"
    )
    scores = _masked(call, scores, given, len(axes))
    beta = 1.0 / math.sqrt(float(layer._key_dim))
    probabilities = softmax(call, scores, beta, f"{call.name}_softmax")
    kept = _dropped(call, probabilities, layer._dropout)
    result = add_matmul(
        call, kept, parts["value"], (False, False), f"{call.name}_weighted"
    )
    joined = _with_tokens_first(call, result, query)
    output = add_projection(call, joined, dense["output"], "output", call.name)
    if not given.get("return_attention_scores"):
        return output
    return [output, _scores_of(call, probabilities, query, key, axes)]


def _attention_axes(layer: Layer, query: Node) -> tuple[int, ...]:
    """Returns the axes of the tokens: those before the last, all or one.

    Raises:
        Unsupported: If they are others.
    """
    rank = len(query.shape)
    axes = tuple(range(1, rank - 1))
    # Keras counts them with an axis for heads.
    own = tuple(axis % (rank + 1) for axis in layer._attention_axes)
    if own not in (axes, axes[-1:]):
        raise Unsupported(
            f"attention_axes must be the last axis before the channels, or None, "
            f"received {own} for {rank} axes; permute the tensor before the layer"
        )
    return own


def _split_heads(
    call: Call, x: Node, dense: Layer, name: str, axes: tuple[int, ...]
) -> Node:
    """Returns the projection of a tensor as ``[batch, ..., heads, tokens, d]``."""
    heads, size = dense.kernel.shape[-2:]
    flat = add_projection(call, x, dense, name, f"{call.name}_{name}", flat=True)
    batch = sizes(x.shape, 1)[1 : axes[0]]
    tokens = math.prod(sizes(x.shape, 1)[axes[0] : -1])
    shape = (x.shape[0], *batch, tokens, heads, size)
    split = add_reshape(call, flat, shape, f"{call.name}_{name}_heads")
    *before, first, second, last = range(len(shape))
    perm = [*before, second, first, last]
    return add_transpose(call, split, perm, f"{call.name}_{name}_transposed")


def _with_tokens_first(call: Call, result: Node, query: Node) -> Node:
    """Returns the heads of every token, with the axes of the query before them."""
    *before, heads, tokens, last = range(len(result.shape))
    perm = [*before, tokens, heads, last]
    moved = add_transpose(call, result, perm, f"{call.name}_weighted_transposed")
    shape = (*query.shape[:-1], *moved.shape[-2:])
    if len(shape) == len(moved.shape):
        return moved
    return add_reshape(call, moved, shape, f"{call.name}_weighted_axes")


def _scores_of(
    call: Call, probabilities: Node, query: Node, key: Node, axes: tuple[int, ...]
) -> Node:
    """Returns the probabilities with the axes that Keras gives them."""
    name = f"{call.name}_attention_scores"
    if len(axes) == 1:
        return add_identity(call, probabilities, name)
    tokens = [sizes(x.shape, 1)[axes[0] : -1] for x in (query, key)]
    shape = (*probabilities.shape[:-2], *tokens[0], *tokens[1])
    return add_reshape(call, probabilities, shape, name)


def _masked(call: Call, scores: Node, given: Any, num_axes: int) -> Node:
    """Returns scores without those that constant masks exclude.

    Args:
        call: The call they belong to.
        scores: The scores.
        given: Arguments of the call.
        num_axes: Along how many axes the tokens are.
    """
    mask = given.get("attention_mask")
    rows, columns = sizes(scores.shape, 1)[-2:]
    allowed = np.ones((rows, columns), bool)
    if mask is not None:
        allowed = constant_mask(_of_tokens(mask, num_axes, (rows, columns)), scores)
    if given.get("use_causal_mask") or getattr(call.layer, "causal", False):
        if num_axes > 1:
            raise Unsupported("a causal mask needs tokens along one axis")
        allowed = allowed & np.tri(rows, columns, dtype=bool)
    return add_mask(call, scores, allowed, f"{call.name}_mask")


def _of_tokens(mask: Any, num_axes: int, tokens: tuple[int, int]) -> Any:
    """Returns a constant mask with one axis for all tokens of a tensor.

    Args:
        mask: The mask, or the operator that computes it, which stays as it is.
        num_axes: How many axes it has for the tokens of the query, and of the key.
        tokens: How many tokens these have.

    Raises:
        Unsupported: If it has other sizes.
    """
    if num_axes == 1 or isinstance(mask, Node):
        return mask
    values = np.asarray(mask)
    before = values.shape[: -2 * num_axes]
    if values.size != math.prod((*before, *tokens)):
        raise Unsupported(
            f"a mask must have {num_axes} axes for queries and {num_axes} for keys, "
            f"{tokens[0]} and {tokens[1]} tokens in all, received {values.shape}"
        )
    return values.reshape(*before, *tokens)


def _dropped(call: Call, probabilities: Node, rate: float) -> Node:
    """Adds the dropout of probabilities in training."""
    if not rate:
        return probabilities
    layer = layers.Dropout(rate, name=f"{call.name}_dropout")
    return call.add("identity", [probabilities], layer=layer)


def dot_attention(call: Call) -> Node | list[Node]:
    """Lowers an `Attention` whose scores are products."""
    layer, given = call.layer, call.arguments
    inputs = given["inputs"]
    query, value = inputs[:2]
    key = inputs[2] if len(inputs) > 2 else value
    if any(mask is not None for mask in given.get("mask") or ()):
        raise Unsupported(
            "a mask of its inputs is not part of a file; multiply the scores by an "
            "input that holds the mask, or leave the layer in float with `overrides`"
        )
    scores = add_matmul(call, query, key, (False, True), f"{call.name}_scores")
    if layer.use_scale:
        factor = call.trained_constant(MultiplyConstant, "scale", layer.scale, scores)
        scores = call.add("multiply_constant", [scores], layer=factor, constant=False)
    scores = _masked(call, scores, given, 1)
    probabilities = softmax(call, scores, 1.0, f"{call.name}_softmax")
    kept = _dropped(call, probabilities, layer.dropout)
    result = add_matmul(call, kept, value, (False, False), call.name)
    if not given.get("return_attention_scores"):
        return result
    name = f"{call.name}_attention_scores"
    return [result, add_identity(call, probabilities, name)]


def check_dot_attention(layer: Layer) -> str | None:
    """Refuses scores that are no products."""
    if layer.score_mode != "dot":
        return f"score_mode must be 'dot', received {layer.score_mode!r}"
    return None
