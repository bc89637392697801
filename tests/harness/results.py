"""Compares what `run_files` computed elsewhere with the twin's codes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tflite_export.runtimes import KERNELS


@dataclasses.dataclass(frozen=True)
class TensorResult:
    """A tensor of a file.

    Attributes:
        name: Name of the output.
        kind: What computes it, by its kind.
        operators: What computes it, by TFLite's operators.
        steps: By how many codes it differs from the twin, at each place.
        judged: At which places the tensors that it is computed from have the twin's
            codes: whether its own operator computed right.
    """

    name: str
    kind: str
    operators: str
    steps: np.ndarray
    judged: np.ndarray

    @property
    def differ(self) -> np.ndarray:
        """Whether it differs, at each place."""
        return self.steps > 0


@dataclasses.dataclass
class Count:
    """What was computed of an operator.

    Attributes:
        codes: Codes that were computed from the right ones.
        differ: Those that differ from the right ones.
        most: By how many codes one differs, at most.
    """

    codes: int = 0
    differ: int = 0
    most: int = 0

    def add(self, tensor: TensorResult) -> bool:
        """Adds a tensor that the operator computed; returns whether it differs."""
        differ = tensor.differ & tensor.judged
        self.codes += int(tensor.judged.sum())
        self.differ += int(differ.sum())
        if differ.any():
            self.most = max(self.most, int(tensor.steps[differ].max()))
        return bool(differ.any())


@dataclasses.dataclass(frozen=True)
class FileResult:
    """A file under a set of kernels.

    Attributes:
        file: Its name.
        kernels: The set of kernels.
        operators: All operators in the file.
        error: Why it cannot be run; "" if it can.
        tensors: What was computed.
    """

    file: str
    kernels: str
    operators: set[str]
    error: str = ""
    tensors: list[TensorResult] = dataclasses.field(default_factory=list)


def read(
    folder: Path,
    output: Path,
    default: str = "xnnpack",
    runs: Sequence[str] = KERNELS,
) -> Iterator[FileResult]:
    """Yields the results of every file under every set of kernels.

    Args:
        folder: What `cases.write_case` wrote.
        output: What `run_files` wrote.
        default: The kernels that the runtime takes by itself.
        runs: What ran the files: sets of kernels, or accelerators, which are compared
            with the kernels that the runtime takes by itself.

    Raises:
        OSError: If a result is missing.
    """
    for description in sorted(folder.glob("*.json")):
        described = json.loads(description.read_text())
        operators = {one["operators"] for one in described.values()}
        with np.load(description.with_suffix(".expected")) as file:
            expected = dict(file)
        for kernels in runs:
            stem = description.stem
            error = output / f"{stem}.{kernels}.error"
            if error.exists():
                yield FileResult(stem, kernels, operators, error.read_text())
                continue
            with np.load(output / f"{stem}.{kernels}.npz") as file:
                found = dict(file)
            expected_of = kernels if kernels == "builtin" else default
            twin = {end: expected[f"{expected_of}/{end}"] for end in found}
            tensors = _compared(described, found, twin)
            yield FileResult(stem, kernels, operators, tensors=tensors)


def default_kernels(output: Path) -> str:
    """Returns which kernels a runtime takes by itself, as its codes show.

    Args:
        output: What `run_files` wrote.
    """
    for path in sorted(output.glob("*.xnnpack.npz")):
        other = path.with_name(path.name.replace(".xnnpack.", ".builtin."))
        if not other.exists():
            continue
        with np.load(path) as first, np.load(other) as second:
            if any((first[name] != second[name]).any() for name in first):
                return "xnnpack"
    return "builtin"


def _compared(
    described: dict, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> list[TensorResult]:
    """Returns the comparison of every tensor of a file."""
    steps = {
        end: np.abs(codes.astype(int) - expected[end][: len(codes)])
        for end, codes in found.items()
    }
    right = {end: ~array.reshape(len(array), -1).any(1) for end, array in steps.items()}
    results = []
    for end, one in described.items():
        sources = [right[source] for source in one["inputs"]]
        rows = np.all([np.ones_like(right[end]), *sources], axis=0)
        shape = (-1,) + (1,) * (steps[end].ndim - 1)
        judged = np.broadcast_to(rows.reshape(shape), steps[end].shape)
        array, names = steps[end], (end, one["kind"], one["operators"])
        results.append(TensorResult(*names, array, judged))
    return results
