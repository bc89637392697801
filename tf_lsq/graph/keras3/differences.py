"""How much the outputs of two calls may differ, and by how much they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Differences are relative to the largest value of a tensor. This one is a fortieth of a
# step of 8 bits, and about a thousand roundings of float32: the two Keras do not always
# add in the same order.
_TOLERANCE = 1e-4
_ROUNDINGS = 16  # For types with fewer bits.


def compare(
    found: Sequence[Any], expected: Sequence[Any], limit: float, over: Any = np.max
) -> str | None:
    """Returns how outputs differ, None if they do not.

    Args:
        found: Those of the twin.
        expected: Those of Keras 3.
        limit: Largest difference, relative to the largest value.
        over: What the difference is over all values.
    """
    if len(found) != len(expected):
        return f"it has {len(found)} outputs instead of {len(expected)}"
    for one, other in zip(found, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape:
            return f"its output has the shape {one.shape} instead of {other.shape}"
        if one.dtype.kind not in "fcV":
            if not np.array_equal(one, other):
                return "its output differs"
            continue
        difference = relative_difference(one, other, over)
        if difference > limit:
            return f"its output differs by {difference:.2g} of the largest value"
    return None


def relative_difference(one: np.ndarray, other: np.ndarray, over: Any) -> float:
    """Returns the difference of two tensors, relative to the largest value."""
    one, other = computable(one), computable(other)
    if not (is_finite(one) and is_finite(other)):
        finite = np.isfinite(other)
        if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
            return np.inf
        one, other = one[finite], other[finite]
        if not is_finite(one):
            return np.inf
    if not one.size:
        return 0.0
    return float(over(np.abs(one - other)) / max(np.abs(other).max(), 1e-6))


def computable(array: np.ndarray) -> np.ndarray:
    """Returns an array of a type that NumPy computes with, and that holds sums."""
    return array if array.dtype.kind == "c" else array.astype(np.float32, copy=False)


def is_finite(array: np.ndarray) -> bool:
    """Returns whether all values are finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.isfinite(array.sum())  # Much faster, and usually enough.
    return bool(total or np.isfinite(array).all())


def tolerance(operation: Any, outputs: Sequence[Any]) -> float:
    """Returns the largest relative difference that rounding explains."""
    types = [getattr(operation, "compute_dtype", "float32")]
    types += [str(np.asarray(value).dtype) for value in outputs]
    known = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
    return max([_TOLERANCE, *(_ROUNDINGS * known.get(t, 0) for t in types)])
