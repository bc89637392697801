"""Operations of Keras 3 that multiply tensors: products of matrices, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..masks import EXCLUDED
from ..product_layers import Einsum
from .arguments import is_tensor
from .recorder import Recorder, Row, require


def _matmul(record: Recorder, x: Any, y: Any) -> Any:
    """Product of matrices."""
    require(min(len(x.shape), len(y.shape)) >= 2, "one of its inputs is a vector")
    return record(tf.matmul, *operands(record, x, y))


def _dot(record: Recorder, x: Any, y: Any) -> Any:
    """Sum of products over the last axis of the first tensor."""
    require(len(x.shape) and len(y.shape), "one of its inputs is a scalar")
    axis = -1 if len(y.shape) == 1 else -2
    return record(tf.tensordot, *operands(record, x, y), [[-1], [axis]])


def _tensordot(record: Recorder, x: Any, y: Any) -> Any:
    """Sum of products over some axes."""
    return record(tf.tensordot, *operands(record, x, y), record.operation.axes)


def _einsum(record: Recorder, *values: Any) -> Any:
    """Sum of products of two tensors."""
    equation = str(record.operation.subscripts)
    require(len(values) == 2 and all(map(is_tensor, values)), "it reads no two tensors")
    x, y = operands(record, *values)
    return record.layer("", lambda name: Einsum(equation, name=name))([x, y])


def _attention(
    record: Recorder,
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Any:
    """Attention of several heads, `[batch, tokens, heads, d]`."""
    operation = record.operation
    require(operation.attn_logits_soft_cap is None, "it limits its scores")
    require(query.shape[2] == key.shape[2], "its heads share keys")
    require(bias is None or not is_tensor(bias), "it reads its bias")
    require(mask is None or not is_tensor(mask), "it reads its mask")
    query, key, value = operands(record, query, key, value)
    equations = {"scores": "bqhd,bkhd->bhqk", "": "bhqk,bkhd->bqhd"}
    multiply = {
        label: record.layer(
            f"_{label}" if label else "", lambda name, e=equation: Einsum(e, name=name)
        )
        for label, equation in equations.items()
    }
    scale = float(query.shape[-1] ** -0.5 if scale is None else scale)
    scores = record.part("scaled", tf.multiply, multiply["scores"]([query, key]), scale)
    if bias is not None:
        scores = record.part("biased", tf.add, scores, np.asarray(bias, np.float32))
    kept = np.ones(tuple(scores.shape[-2:]), bool)
    if mask is not None:
        kept = np.asarray(mask, bool)
    if operation.is_causal:
        kept = kept & np.tri(*scores.shape[-2:], dtype=bool)
    if not kept.all():
        excluded = np.where(kept, 0.0, EXCLUDED).astype(np.float32)
        scores = record.part("masked", tf.add, scores, excluded)
    return multiply[""]([record.part("softmax", tf.nn.softmax, scores), value])


def operands(record: Recorder, *values: Any) -> list[Any]:
    """Returns operands as the type of the output.

    Args:
        record: The operation's recorder.
        *values: Tensors or constants.

    Raises:
        NoTwin: If the output is of integers.
    """
    require("float" in record.dtype, "it multiplies integers")
    return [
        record.cast(f"cast_{number}", value, record.dtype)
        for number, value in enumerate(values, start=1)
    ]


PRODUCT_ROWS: dict[str, Row] = {
    "Dot": _dot,
    "DotProductAttention": _attention,
    "Einsum": _einsum,
    "Matmul": _matmul,
    "Tensordot": _tensordot,
}
