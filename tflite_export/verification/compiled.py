"""Compares what LiteRT's `CompiledModel` computes of a file with what it should.

New apps run files by `CompiledModel`. On a CPU it must compute the codes of LiteRT's
interpreter. A GPU computes in floating point, so codes may differ by one.
"""

from __future__ import annotations

import numpy as np

from ..build import BuiltFile
from ..errors import VerificationError
from ..freezing import Grid
from ..runtimes import CompiledRunner
from .values import file_codes, file_inputs

TOLERANCES = {"cpu": 0, "gpu": 1}  # In codes.
_FLOAT_TOLERANCE = 1e-3  # Share of the largest value, for outputs without a scale.


def compare_compiled(
    built: BuiltFile,
    codes: dict[str, np.ndarray],
    examples: list[np.ndarray],
    name: str,
    accelerator: str = "cpu",
) -> int:
    """Runs a file as an app does, and compares its outputs.

    Args:
        built: The file.
        codes: What its outputs should be, by tensor: what LiteRT's interpreter computed
            of them on the CPU, or the accelerator when all tensors could be read.
        examples: Inputs of the model, one array per input.
        name: Name of the file in messages.
        accelerator: One of `runtimes.ACCELERATORS`.

    Returns:
        How many output codes were compared.

    Raises:
        VerificationError: If an output differs by more than `TOLERANCES`.
        RuntimeError: If there is no such accelerator here, or it refuses the file.
    """
    nodes, graph = built.frozen.by_name(), built.graph
    with CompiledRunner(graph, accelerator, built.content) as runner:
        found = runner.run(file_inputs(graph, built.frozen, examples))
    wrong, total = [], 0
    for end, tensor in graph.outputs.items():
        wanted, grid = codes[tensor], nodes[built.frozen.outputs[end]].grid
        total += wanted.size
        different = _num_different(found[end], wanted, grid, TOLERANCES[accelerator])
        if different:
            wrong.append(f"output `{end}`: {different} of {wanted.size} values differ")
    if wrong:
        raise VerificationError(f"`{name}` by CompiledModel ({accelerator})", wrong)
    return total


def _num_different(
    found: np.ndarray, wanted: np.ndarray, grid: Grid | None, tolerance: int
) -> int:
    """Counts the values that differ by more than a tolerance in codes."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return max(found.size, wanted.size)
    if grid is not None:
        difference = np.abs(file_codes(found, grid) - file_codes(wanted, grid))
        return int((difference > tolerance).sum())
    if wanted.dtype.kind not in "fc":
        return int((found != wanted).sum())
    largest = _FLOAT_TOLERANCE * np.abs(wanted).max()
    return int((~np.isclose(found, wanted, rtol=0, atol=largest)).sum())
