"""Runs files by a program, and compares its answers with those of LiteRT here."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import subprocess
from pathlib import Path

import numpy as np

from tflite_export.file import TensorQuantization, TFLiteGraph, from_bytes

from . import run_consumer
from .programs import Program

_SECONDS = 120  # All files take an interpreter a few.


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a program does with a file.

    Attributes:
        message: Why it does not run the file, "" if it does.
        numbers: How many numbers it answers.
        differ: How many differ from the right ones.
        most: By how much, at most, in codes.
        classes: How many classes it finds where there are others, 0: the right ones.
    """

    message: str = ""
    numbers: int = 0
    differ: int = 0
    most: float = 0.0
    classes: int = 0


def run_program(
    python: Path, program: Program, files: list[Path], output: Path
) -> dict[str, Outcome]:
    """Returns what a program does with files, by their names.

    Classifiers may not answer any more after a file that they refuse, or end with it:
    each file is run by a process of its own.

    Args:
        python: The Python of the program's environment.
        program: The program.
        files: `.tflite` files that `files.write_files` wrote.
        output: An empty folder.
    """
    shares = [[file] for file in files] if program.classifies else [files]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        calls = [
            pool.submit(answer, python, program.call, share, output) for share in shares
        ]
        found = {name: one for call in calls for name, one in call.result().items()}
    return {file.stem: _outcome(file, found[file.stem]) for file in files}


def answer(
    python: Path, call: str, files: list[Path], output: Path
) -> dict[str, dict[str, np.ndarray]]:
    """Returns what a program answers by file, or "error" -> why it does not.

    Args:
        python: The Python of the program's environment.
        call: How `run_consumer` calls it.
        files: The `.tflite` files.
        output: An empty folder.
    """
    command = [python, "-I", run_consumer.__file__, call, output, *files]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS)
        end = f"the process ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        end = f"no answer within {_SECONDS} seconds"
    answers = {}
    for file in files:
        result = output / f"{file.stem}.npz"
        answers[file.stem] = {"error": np.array(end)}
        if result.exists():
            with np.load(result) as found:
                answers[file.stem] = dict(found)
    return answers


def _outcome(file: Path, found: dict[str, np.ndarray]) -> Outcome:
    """Returns how answers compare with the right ones."""
    if "error" in found:
        return Outcome(" ".join(str(found["error"]).split()))
    outputs = {name: values for name, values in found.items() if name != "labels"}
    expected = file.with_suffix(".expected")
    if not expected.exists():
        return Outcome(numbers=sum(values.size for values in outputs.values()))
    with np.load(expected) as answers:
        return compare(outputs, dict(answers), from_bytes(file.read_bytes()))


def compare(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], graph: TFLiteGraph
) -> Outcome:
    """Returns how answers differ from the right ones.

    Args:
        found: Outputs by name, or scores by the number of the output.
        expected: Outputs by name.
        graph: The file's graph.
    """
    steps, classes = [], 0
    for number, (name, right) in enumerate(expected.items()):
        grid = graph.tensors[graph.outputs[name]].quantization
        scale = 1 / 256 if grid is None else float(grid.scale[0])
        answer = found.get(name)
        if answer is None:  # A score, not a code.
            answer, right = found[str(number)], _scores(right, grid)
            if answer.shape[-1] != right.shape[-1]:
                classes = answer.shape[-1]
        unit = 1 if answer.dtype.kind in "iu" else scale
        difference = answer.reshape(right.shape).astype(float) - right.astype(float)
        steps.append(np.abs(difference) / unit)
    most = max(float(one.max()) for one in steps)
    differ = sum(int((one > 0).sum()) for one in steps)
    numbers = sum(one.size for one in steps)
    return Outcome("", numbers, differ, round(most, 3), classes)


def _scores(values: np.ndarray, grid: TensorQuantization | None) -> np.ndarray:
    """Returns the values of codes, float32; values as they are."""
    if grid is None:
        return values
    return (values.astype(np.float32) - grid.zero_point) * grid.scale[0]
