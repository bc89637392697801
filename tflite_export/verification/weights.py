"""Checks that every weight code is the trained code times sign times multiplier."""

from __future__ import annotations

import numpy as np

from ..file import TFLiteGraph
from ..freezing import INT8_MAX, ONE, FrozenModel, FrozenNode, IntegerWeight
from ..operators import OPERATORS


def compare_weights(
    graph: TFLiteGraph, frozen: FrozenModel
) -> tuple[int, int, list[str]]:
    """Returns the number of equal codes, of all codes, and where codes differ.

    Args:
        graph: The file's graph.
        frozen: The operators that the file should have.
    """
    equal = total = 0
    mismatches = []
    for node in frozen.nodes:
        if not isinstance(node.weight, IntegerWeight):
            continue
        codes = np.split(_expected_codes(node), len(node.parts), axis=-1)
        for part, expected in zip(node.parts, codes, strict=True):
            name = f"{part}/weight"
            tensor = graph.tensors.get(name)
            if tensor is None:
                continue
            if tensor.data is None or tensor.data.size != expected.size:
                mismatches.append(f"`{name}` has no codes of the right shape")
                continue
            same = OPERATORS[node.kind].channels_last(tensor.data) == expected
            equal += int(same.sum())
            total += same.size
            if not same.all():
                mismatches.append(
                    f"`{name}`: {int((~same).sum())} of {same.size} codes are "
                    "not the trained code times sign times multiplier"
                )
    return equal, total, mismatches


def _expected_codes(node: FrozenNode) -> np.ndarray:
    """Returns the trained codes times sign times multiplier, channels last."""
    weight = node.integer_weight
    return _trained_codes(node) * weight.sign.astype(np.int64) * weight.multiplier


def _trained_codes(node: FrozenNode) -> np.ndarray:
    """Returns the trained codes; constants that were not trained have one code."""
    trained = node.trained
    if trained.kernel is not None:
        return trained.quantized_kernel.codes
    if trained.folded is None:
        return np.full((1,), ONE)
    return np.full((1, 1, len(trained.folded.factor)), INT8_MAX)
