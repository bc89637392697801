"""Runs files on the GPU, and counts the codes that differ from the CPU's."""

from __future__ import annotations

import collections
import dataclasses
import re
import sys
from pathlib import Path

from harness import crashes, results

from tflite_export.consumers import CONSUMERS, facts_of, judge
from tflite_export.file import from_bytes

from . import run_compiled


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the GPU computes.

    Attributes:
        counts: By operators; the CPU's codes are the right ones.
        refused: Why files are not run -> how many.
    """

    counts: dict[str, results.Count]
    refused: dict[str, int]

    @property
    def wrong(self) -> set[str]:
        """The operators of which a code differs by more than one."""
        return {name for name, count in self.counts.items() if count.most > 1}


def run(folder: Path, output: Path, environment: dict[str, str], examples: int) -> None:
    """Runs all files of a folder on the GPU.

    Args:
        folder: Files, with what `cases.write_file` writes beside them.
        output: Gets what `run_compiled` writes.
        environment: Environment variables of the process, with a Vulkan driver.
        examples: Of each file.

    Raises:
        RuntimeError: If the process ends, and not by running a file.
    """
    output.mkdir(exist_ok=True)
    paths = ":".join(path for path in sys.path if path)
    command = [sys.executable, run_compiled.__file__, folder, output, "gpu", examples]
    environment = environment | {"PYTHONPATH": paths}
    crashes.run_past([str(part) for part in command], output, environment)


def count(folder: Path, output: Path) -> Measured:
    """Returns what the GPU computed.

    Args:
        folder: As for `run`.
        output: As for `run`.
    """
    counts: dict[str, results.Count] = collections.defaultdict(results.Count)
    refused: collections.Counter[str] = collections.Counter()
    for file in results.read(folder, output, runs=("gpu",)):
        if file.error:
            refused[_reason(file.error)] += 1
        for tensor in file.tensors:
            counts[tensor.operators].add(tensor)
    return Measured(dict(counts), dict(refused))


def misjudged(folder: Path, output: Path) -> list[str]:
    """Returns the files of which the rules of the consumer say something else.

    Args:
        folder: As for `run`.
        output: As for `run`.
    """
    found = []
    for file in results.read(folder, output, runs=("gpu",)):
        graph = from_bytes((folder / f"{file.file}.tflite").read_bytes())
        report = judge(facts_of(graph), CONSUMERS["gpu"])
        measured = "refused" if file.error else "wrong" if _is_wrong(file) else "runs"
        if measured != report.verdict:
            found.append(f"{file.file} ({measured}): {report}")
    return found


def _is_wrong(file: results.FileResult) -> bool:
    """Returns whether an operator of a file is wrong."""
    return any((one.steps[one.judged] > 1).any() for one in file.tensors)


def _reason(error: str) -> str:
    """Returns LiteRT's words on a file, without the names of tensors."""
    words = error.rpartition("Received: ")[2] or error
    return re.sub(r"(Tensor dimensions must be less than 5)\..*", r"\1.", words)
