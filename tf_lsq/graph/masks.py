"""Constant masks of scores: positions that get no probability.

A file has scores in int8, and its softmax knows no mask. A masked score is the smallest
code of int8; the others have 7 bits in the upper half of the container. With the
smallest step that they may have, the distance between both is so large that a masked
position has the probability code 0, as in Keras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from .float_layers import SettingsLayer
from .functions.recorded import Unsupported
from .lowering import Call
from .nodes import Graph, Node

SCORE_BITS = 7
# A score that is so much smaller has no probability: e to the power of it is 1e-28.
_EXCLUDED_BY = -64.0
# Summands of these are no numbers like others: their grid would have no other codes.
_LARGE = -1e4
EXCLUDED = -1e9  # What Keras adds to scores that a mask excludes.
# e to the power of minus this is half a code of a probability in int16.
_NEGLIGIBLE = math.log(2.0**16)
_ONLY_SCORES = (
    "only a softmax may read what is masked with a large negative number; multiply by "
    "the mask instead"
)
_WITH_BIASES = (
    "one constant holds biases of scores and large negative numbers that mask them; "
    "add the biases first, then a mask of zeros and large negative numbers"
)


@keras.utils.register_keras_serializable(package="tf_lsq")
class ScoreMask(SettingsLayer):
    """Subtracts a large number from scores that a mask excludes, as Keras does.

    Args:
        mask: Whether a score is kept, nested lists of numbers, with as many axes as the
            scores; those of size 1 are broadcast.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("mask",)

    def __init__(self, mask: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask = np.asarray(mask, bool).astype(int).tolist()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the scores, shape of `inputs`."""
        excluded = max(EXCLUDED, inputs.dtype.min / 2)
        kept = tf.cast(tf.constant(self.mask), inputs.dtype)
        return inputs + (1.0 - kept) * excluded

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


def least_step(beta: float) -> float:
    """Returns the smallest step of scores before a softmax that a mask allows.

    Args:
        beta: Factor of the scores.
    """
    return _NEGLIGIBLE / (2**SCORE_BITS * beta)


def add_mask(call: Call, scores: Node, allowed: np.ndarray, name: str) -> Node:
    """Adds a mask, unless it excludes nothing.

    Args:
        call: The call it belongs to.
        scores: The scores.
        allowed: Whether a score is kept, with at most as many axes as the scores.
        name: Its name.

    Raises:
        Unsupported: If it excludes all scores of a row, or has another shape.
    """
    if allowed.all():
        return scores
    mask = _fitting(allowed, scores.shape)
    layer = ScoreMask(mask.tolist(), name=name)
    return call.add("mask", [scores], layer=layer, mask=mask)


def _fitting(allowed: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    """Returns a mask with as many axes as the scores, whose shape is given.

    Raises:
        Unsupported: If it excludes all scores of a row, or has another shape.
    """
    if not allowed.any(axis=-1).all():
        raise Unsupported("a mask must keep a score of every row")
    own = (1,) * (len(shape) - allowed.ndim) + allowed.shape
    fits = len(own) == len(shape) and all(
        size in (1, wanted) for size, wanted in zip(own[1:], shape[1:], strict=True)
    )
    if not fits:
        raise Unsupported(
            f"a mask must have the shape of the scores, {shape}, or sizes of 1, "
            f"received {allowed.shape}"
        )
    return allowed.reshape(own)


def mask_options(call: Call) -> dict[str, Any]:
    """Returns the mask of a `ScoreMask` or a `MaskedPoint`."""
    return {"mask": np.asarray(call.layer.mask, bool)}


def masked_point(call: Call) -> Node:
    """Lowers a `MaskedPoint`: a point, then the mask."""
    point = call.add("point")
    point.name = call.unique(f"{call.name}_unmasked")
    return call.add("mask", [point], **mask_options(call))


def constant_mask(mask: Any, scores: Node) -> np.ndarray:
    """Returns a constant mask of attention, with at most as many axes as the scores.

    Args:
        mask: Argument of a call, `[batch, ..., queries, keys]` without heads.
        scores: The scores, with heads.

    Raises:
        Unsupported: If the model computes it, or it differs between examples.
    """
    if isinstance(mask, Node):
        raise Unsupported(
            "a mask that the model reads or computes is not part of an integer file; "
            "give a constant mask, leave out padding by giving the model inputs of "
            "one length, or leave the layer in float with `overrides`"
        )
    values = np.asarray(mask).astype(bool)
    if values.ndim > 2 and values.shape[0] != 1:
        if (values != values[:1]).any():
            raise Unsupported(
                f"a mask must be the same for every example, received {values.shape}"
            )
        values = values[:1]
    if values.ndim >= 2:
        missing = len(scores.shape) - values.ndim
        before = values.shape[:-2]
        values = values.reshape(*before, *(1,) * missing, *values.shape[-2:])
    return values


def may_exclude(values: np.ndarray) -> bool:
    """Returns whether some, not all, of the numbers added to scores exclude them.

    Args:
        values: Numbers that are added.
    """
    excluded = values <= _EXCLUDED_BY
    return bool(excluded.any() and not excluded.all())


def excluding(values: np.ndarray) -> np.ndarray | None:
    """Returns the mask that numbers added to scores can be, None if they are no mask.

    Args:
        values: Numbers that are added.
    """
    kept = values == 0
    is_mask = kept.any() and (kept | (values <= _EXCLUDED_BY)).all()
    return kept if is_mask and not kept.all() else None


def settle_masks(graph: Graph) -> None:
    """Finds masks among summands by who reads them, and refuses masks of other things.

    Summands that could be masks, see `may_exclude`, are in the option "summand" of the
    operators that add them. They are masks of scores that only a softmax reads.
    """
    for node in graph.nodes:
        summand = node.options.pop("summand", None)
        if summand is not None:
            problem = _settled(node, summand)
        else:
            points = [reader for reader in node.consumers if reader.kind == "point"]
            # Of a quantized model, whose user left the mask in float.
            in_float = any(point.layer.float_input for point in points)
            wrong = node.kind == "mask" and not in_float and not _are_scores(node)
            problem = _ONLY_SCORES if wrong else ""
        if problem:
            graph.problems.append((node, f"`{node.origin}`: {problem}"))


def _are_scores(node: Node) -> bool:
    """Returns whether only a softmax reads an output."""
    readers = {reader.kind for reader in node.consumers}
    return readers == {"softmax"} and not node.is_output


def _settled(node: Node, summand: np.ndarray) -> str:
    """Makes a sum a mask if it is one; returns what is wrong with it, or ""."""
    kept = excluding(summand)
    largest = float(summand[summand <= _EXCLUDED_BY].max())
    problem = _ONLY_SCORES
    if kept is None:
        problem = _WITH_BIASES if _are_scores(node) else ""
    elif _are_scores(node):
        beta = min(reader.options.get("beta", 1.0) for reader in node.consumers)
        try:
            mask = _fitting(kept, node.inputs[0].shape)
        except Unsupported as reason:
            problem = str(reason)
        else:
            if largest * beta <= _EXCLUDED_BY:
                node.kind, node.options = "mask", {"mask": mask}
                layer = ScoreMask(mask.tolist(), name=node.layer.name)
                node.layer = node.model_layer = layer
                return ""
    return problem if largest <= _LARGE else ""
