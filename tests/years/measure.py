"""Runs files under a release, and counts the codes that differ from the twin's."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from pathlib import Path

from harness import crashes, results, run_files

from tflite_export.file import from_bytes, is_newer, least_releases


@dataclasses.dataclass
class Count(results.Count):
    """What a release computes of an operator; the twin's codes are the right ones.

    Attributes:
        files: Files with the operator.
        refused: Those that the release does not run.
        blamed: Those of them in which it names this operator.
        wrong: Those in which codes differ.
    """

    files: int = 0
    refused: int = 0
    blamed: int = 0
    wrong: int = 0


Key = tuple[str, str]  # Set of kernels, operators.


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a release computes.

    Attributes:
        numpy: NumPy's version in its environment.
        default: The kernels that it takes by itself.
        counts: By set of kernels and operator.
        messages: Why files are not run -> how many.
        crashes: Files that ended the process.
        promised: Files that are not run, though reports say that they are.
    """

    numpy: str
    default: str
    counts: dict[Key, Count]
    messages: dict[str, int]
    crashes: list[str]
    promised: list[str]


def run_release(python: Path, folder: Path, output: Path, examples: int) -> None:
    """Runs all files under a release; goes on after a file that ends the process.

    Args:
        python: The Python of its environment.
        folder: What `cases.write_case` wrote.
        output: Gets what `run_files` writes.
        examples: Of each file.

    Raises:
        RuntimeError: If the process ends, and not by running a file.
    """
    command = [python, "-I", run_files.__file__, folder, output, str(examples)]
    crashes.run_past(command, output)


def count(name: str, numpy: str, folder: Path, output: Path) -> Measured:
    """Returns what a release computes.

    Args:
        name: The release, such as "LiteRT 2.1.0".
        numpy: NumPy's version in its environment.
        folder: What `cases.write_case` wrote.
        output: What `run_files` wrote.
    """
    default = results.default_kernels(output)
    counts: dict[Key, Count] = collections.defaultdict(Count)
    messages: collections.Counter[str] = collections.Counter()
    crashes, promised = [], []
    for file in results.read(folder, output, default):
        for operators in file.operators:
            cell = counts[file.kernels, operators]
            cell.files += 1
            cell.refused += int(bool(file.error))
            cell.blamed += int(_code(operators) in file.error)
        if file.error and _is_promised(folder / f"{file.file}.tflite", name):
            promised.append(f"{file.file}, {file.kernels}")
        if file.error:
            messages[_without_numbers(file.error)] += 1
        if file.error.startswith(run_files.CRASHED):
            crashes.append(f"{file.file}, {file.kernels}")
        differ = {
            tensor.operators
            for tensor in file.tensors
            if counts[file.kernels, tensor.operators].add(tensor)
        }
        for operators in differ:
            counts[file.kernels, operators].wrong += 1
    return Measured(numpy, default, dict(counts), dict(messages), crashes, promised)


@functools.cache
def _least_releases(path: Path) -> dict[str, str]:
    """Returns which releases run a file, as reports say."""
    return least_releases(from_bytes(path.read_bytes()))


def _is_promised(path: Path, name: str) -> bool:
    """Returns whether reports say that a release runs a file."""
    product, _, number = name.rpartition(" ")
    least = _least_releases(path)
    return product in least and not is_newer(least[product], number)


def _code(operators: str) -> str:
    """Returns the last one of some operators, without their container."""
    return operators.partition(",")[0].split()[-1]


def _without_numbers(message: str) -> str:
    """Returns a runtime's message on one line, without the numbers of nodes."""
    message = re.sub(r"(?i)(node|tensor)( number| index)? \d+", r"\1 N", message)
    return " ".join(message.split())
