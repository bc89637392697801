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
# Scores of these are no mask, but numbers like others.
_LEAST_EXCLUDED = -1e3
_EXCLUDED = -1e9
# e to the power of minus this is half a code of a probability in int16.
_DISTANCE = math.log(2.0**16)


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
        excluded = max(_EXCLUDED, inputs.dtype.min / 2)
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
    return _DISTANCE / (2**SCORE_BITS * beta)


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
    if not allowed.any(axis=-1).all():
        raise Unsupported("a mask must keep a score of every row")
    shape = (1,) * (len(scores.shape) - allowed.ndim) + allowed.shape
    fits = len(shape) == len(scores.shape) and all(
        size in (1, own) for size, own in zip(shape[1:], scores.shape[1:], strict=True)
    )
    if not fits:
        raise Unsupported(
            f"a mask must have the shape of the scores, {scores.shape}, or sizes of 1, "
            f"received {allowed.shape}"
        )
    mask = allowed.reshape(shape)
    layer = ScoreMask(mask.tolist(), name=name)
    return call.add("mask", [scores], layer=layer, mask=mask)


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


def excluding(values: np.ndarray) -> np.ndarray | None:
    """Returns the mask that numbers added to scores are, None if they are no mask."""
    kept = values == 0
    is_mask = kept.any() and (kept | (values <= _LEAST_EXCLUDED)).all()
    return kept if is_mask and not kept.all() else None


def check_masks(graph: Graph) -> None:
    """Refuses masks of anything but scores before a softmax."""
    for node in graph.nodes:
        readers = {reader.kind for reader in node.consumers}
        points = [reader for reader in node.consumers if reader.kind == "point"]
        if any(point.layer.float_input for point in points):
            continue  # Of a quantized model, whose user left the mask in float.
        if node.kind == "mask" and (readers != {"softmax"} or node.is_output):
            problem = (
                f"`{node.origin}`: only a softmax may read what is masked with a large "
                "negative number; multiply by the mask instead"
            )
            graph.problems.append((node, problem))
