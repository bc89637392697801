"""Compares the answers of a program with those of LiteRT on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tflite_export.file import TensorQuantization, TFLiteGraph, from_bytes

# What a program answers by file and output, or "error" -> why it does not.
Answers = dict[str, dict[str, np.ndarray]]
# Releases round some operators otherwise; after softmax, one code is up to three.
ROUNDING = 3
KINDS = ("right", "other rounding", "wrong", "refused")


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

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if self.message:
            return "refused"
        if self.classes or self.most > ROUNDING:
            return "wrong"
        return "other rounding" if self.differ else "right"


def outcomes_of(answers: Answers, files: list[Path]) -> dict[str, Outcome]:
    """Returns what a program does with files, by their names.

    Args:
        answers: Of the program.
        files: `.tflite` files that `files.write_files` wrote.
    """
    return {file.stem: _outcome(file, answers[file.stem]) for file in files}


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
