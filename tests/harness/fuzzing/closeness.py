"""Is a student the float model on a grid?

The outputs may differ by 5 % of their range. Some functions jump (`sign`) or are steep
(`1 / x`): there the student may also return what the float model returns for inputs
that are nearly the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .models import Built, outputs_of

TOLERANCE = 0.05  # Relative to the range of an output.
NEARBY = 3 * 2 / 255  # Three steps of an 8-bit input between -1 and 1.
DRAWS = 24
MAX_OUTSIDE = 0.02


def difference(built: Built, student: Any) -> tuple[float, float]:
    """Returns how far a student is from its float model.

    Returns:
        Largest difference relative to the range of the output, and the share of values
        that no nearby input of the float model explains.

    Raises:
        ValueError: If number or shapes of the outputs differ.
    """
    expected = outputs_of(built.model, built.inputs)
    found = outputs_of(student, built.inputs)
    shapes = [[x.shape for x in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"outputs of the shapes {shapes[0]} became {shapes[1]}")
    low, high = _reachable(built, expected)
    largest = outside = 0.0
    for one, other, lowest, highest in zip(expected, found, low, high, strict=True):
        scale = max(float(np.ptp(one)), 1e-3 * float(abs(one).max()), 1e-6)
        wrong = (other < lowest - TOLERANCE * scale) | (
            other > highest + TOLERANCE * scale
        )
        wrong |= ~np.isfinite(other)
        outside = max(outside, float(wrong.mean()))
        largest = max(largest, float(abs(other - one).max()) / scale)
    return largest, outside


def _reachable(
    built: Built, expected: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the smallest and largest outputs for inputs nearby."""
    rng = np.random.default_rng(0)
    inputs = []
    for x in built.inputs:
        many = np.concatenate([x] * DRAWS)
        if x.dtype == np.float32:
            many += rng.uniform(-NEARBY, NEARBY, many.shape).astype(np.float32)
        inputs.append(many)
    low, high = [], []
    for output, one in zip(outputs_of(built.model, inputs), expected, strict=True):
        drawn = output.reshape(DRAWS, *one.shape)
        low.append(np.fmin(np.fmin.reduce(drawn), one))
        high.append(np.fmax(np.fmax.reduce(drawn), one))
    return low, high
