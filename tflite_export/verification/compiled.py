"""Compares what LiteRT's `CompiledModel` computes of a file with what it should.

New apps run files by `CompiledModel`. On a CPU it must compute the codes of LiteRT's
interpreter. A GPU computes in floating point, so codes may differ by one, as may those
after layers left in float.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..build import BuiltFile
from ..errors import VerificationError
from ..freezing import FrozenNode, Grid
from ..runtimes import CompiledRunner, Runner, has_readable_ends
from .points import has_examples
from .values import file_codes, file_inputs

_FLOAT_TOLERANCE = 1e-3  # Share of the largest value, for outputs without a scale.


@dataclasses.dataclass(frozen=True)
class CompiledResult:
    """What `CompiledModel` made of a file.

    Attributes:
        num_codes: How many output codes were compared; None: it was not run.
        refusal: Why LiteRT does not run the file by `CompiledModel` on the CPU, "" if
            it does.
    """

    num_codes: int | None = None
    refusal: str = ""


def compare_compiled(
    built: BuiltFile,
    codes: dict[str, np.ndarray],
    examples: list[np.ndarray],
    name: str,
    accelerator: str = "cpu",
) -> CompiledResult:
    """Runs a file as an app does, and compares its outputs.

    Args:
        built: The file.
        codes: What its outputs should be, by tensor: what LiteRT's interpreter computed
            of them on the CPU, or the accelerator when all tensors could be read.
        examples: Inputs of the model, one array per input.
        name: Name of the file in messages.
        accelerator: One of `runtimes.ACCELERATORS`.

    Returns:
        How many output codes were compared. On the CPU a file that `CompiledModel`
        does not run is no error, as the interpreter does.

    Raises:
        VerificationError: If an output differs: on the CPU by a code, on a GPU, or in a
            file with layers in float, by more than one.
        RuntimeError: If there is no such accelerator here, or a GPU refuses the file.
    """
    nodes, graph = built.frozen.by_name(), built.graph
    if accelerator == "cpu" and not has_readable_ends(graph):
        return CompiledResult()
    inputs = file_inputs(graph, built.frozen, examples)
    if accelerator == "cpu" and any(map(_batch_decides, built.frozen.nodes)):
        codes = _one_at_a_time(built, inputs)
    in_float = any(node.computes_floats for node in built.frozen.nodes)
    tolerance = int(in_float or accelerator != "cpu")
    try:
        with CompiledRunner(graph, accelerator, built.content) as runner:
            found = runner.run(inputs)
    except RuntimeError as error:
        if accelerator != "cpu":
            raise
        return CompiledResult(refusal=" ".join(str(error).split()))
    wrong, total = [], 0
    for end, tensor in graph.outputs.items():
        node, wanted = nodes[built.frozen.outputs[end]], codes[tensor]
        if not has_examples(node):
            continue
        total += wanted.size
        different = _num_different(found[end], wanted, node.grid, tolerance)
        if different:
            wrong.append(f"output `{end}`: {different} of {wanted.size} values differ")
    if wrong:
        raise VerificationError(f"`{name}` by CompiledModel ({accelerator})", wrong)
    return CompiledResult(total)


def _batch_decides(node: FrozenNode) -> bool:
    """Returns whether the size of a batch decides how an operator rounds.

    CompiledModel gets one example at a time. See `arithmetic.int16_sum`.
    """
    in_int16 = node.grid is not None and node.grid.in_int16
    return in_int16 and node.kind in ("add", "add_constant")


def _one_at_a_time(
    built: BuiltFile, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns what the interpreter computes of single examples, by output tensor."""
    runner = Runner(built.graph, content=built.content)
    count = len(next(iter(inputs.values())))
    rows = [
        runner.run({name: array[i : i + 1] for name, array in inputs.items()})
        for i in range(count)
    ]
    return {
        tensor: np.concatenate([row[end] for row in rows])
        for end, tensor in built.graph.outputs.items()
    }


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
