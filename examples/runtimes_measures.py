"""Measures how files compute on a runtime, for the tables of `runtimes.py`.

The codes are those of the integer twin; `emulated` and `on_tflite_micro` run files on
the runtime itself, to compare.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import tf_keras as keras
from tflite_micro.python.tflite_micro.runtime import Interpreter

from tflite_export import verification
from tflite_export.build import BuiltFile
from tflite_export.file import PACKED
from tflite_export.runtimes import KERNELS, Runtime
from tflite_export.twin import build_twin, twin_codes

_BATCH = 100
_TESTS = Path(__file__).resolve().parents[1] / "tests"


@dataclasses.dataclass
class Count:
    """A count of codes.

    Attributes:
        off: Codes that differ from the training graph, by one.
        codes: All codes.
    """

    off: int = 0
    codes: int = 0

    def __add__(self, other: Count) -> Count:
        """Returns the count of both."""
        return Count(self.off + other.off, self.codes + other.codes)

    def __str__(self) -> str:
        """Returns the share in percent."""
        return f"{self.off / max(self.codes, 1):.5%}"


# Kind of an operator and container of its kernel -> its codes.
Counts = dict[tuple[str, str], Count]


def off_by_one(built: BuiltFile, x: np.ndarray, runtime: Runtime) -> Counts:
    """Compares every integer tensor with the training graph, given the same inputs.

    Args:
        built: The file.
        x: Examples.
        runtime: What runs the file.

    Raises:
        VerificationError: If a code is off by more than one.
    """
    counts: Counts = collections.defaultdict(Count)
    nodes = built.frozen.by_name()
    for start in range(0, len(x), _BATCH):
        inputs = verification.input_codes(built.frozen, [x[start : start + _BATCH]])
        codes = twin_codes(built.frozen, inputs, runtime)
        for point in verification.compare_points(built.frozen, codes, "file"):
            container = getattr(nodes[point.name].weight, "container", "")
            count = Count(point.off_by_one, point.num_codes)
            counts[point.kind, container] += count
    return counts


def total(counts: Counts) -> Count:
    """Returns the count of all operators."""
    return sum(counts.values(), Count())


def packed(counts: Counts) -> str:
    """Describes the counts of operators with packed kernels."""
    found = {key: count for key, count in counts.items() if key[1] in PACKED}
    if not found:
        return ""
    kinds = [f"{kind} {holder} {count}" for (kind, holder), count in found.items()]
    return f"{total(found)}: {', '.join(kinds)}"


def outputs(
    built: BuiltFile, student: keras.Model, x: np.ndarray, runtime: Runtime
) -> np.ndarray:
    """Returns the values of a file's only output.

    Args:
        built: The file.
        student: The model that it was built from.
        x: Examples.
        runtime: What runs the file.
    """
    twin = build_twin(built.frozen, student, runtime)
    return twin.predict(x, batch_size=_BATCH, verbose=0)


def agreement(found: np.ndarray, wanted: np.ndarray) -> str:
    """Returns how many examples get the same class, in percent.

    The grid of a file can make two classes equal; so the wanted class agrees if it is
    among the largest.

    Args:
        found: Outputs of a file, `[examples, classes]`.
        wanted: Outputs of what it is compared with.
    """
    chosen = found[np.arange(len(found)), wanted.argmax(axis=-1)]
    return f"{(chosen == found.max(axis=-1)).mean():.2%}"


def accuracy(found: np.ndarray, y: np.ndarray) -> str:
    """Returns the top-1 accuracy in percent.

    Args:
        found: Outputs, `[examples, classes]`.
        y: Class numbers.
    """
    return f"{(found.argmax(axis=-1) == y).mean():.2%}"


def output_codes(built: BuiltFile, x: np.ndarray, runtime: Runtime) -> np.ndarray:
    """Returns the codes of a file's only output, as the twin computes them.

    Args:
        built: The file.
        x: Examples.
        runtime: What runs the file.
    """
    [output] = built.frozen.outputs.values()
    inputs = verification.input_codes(built.frozen, [x])
    return twin_codes(built.frozen, inputs, runtime)[output]


def emulated(
    files: dict[str, BuiltFile], x: np.ndarray, core: str, userland: Path
) -> dict[str, dict[str, np.ndarray]]:
    """Runs files under LiteRT for arm64 on an emulated core, with each set of kernels.

    Args:
        files: Files with one input and one output, by name.
        x: Examples.
        core: A core that qemu knows.
        userland: Folder of the emulator and the packages for arm64.

    Returns:
        The codes of the output, by name of the file and set of kernels.
    """
    sys.path.append(str(_TESTS))
    from arm64 import userland as arm64
    from harness import run_files

    found: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
    machine = arm64.Userland(userland)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, built in files.items():
            (folder / f"{stem}.tflite").write_bytes(built.content)
            [signature] = built.frozen.inputs
            [codes] = verification.input_codes(built.frozen, [x]).values()
            np.savez(folder / f"{stem}.npz", **{signature: codes})
        machine.run(core, run_files.__file__, name, str(folder / "found"))
        for stem in files:
            for kernels in KERNELS:
                with np.load(folder / "found" / f"{stem}.{kernels}.npz") as outputs:
                    [found[stem][kernels]] = outputs.values()
    return found


def on_tflite_micro(built: BuiltFile, x: np.ndarray) -> np.ndarray:
    """Runs a file with one input and one output under TFLite Micro.

    Args:
        built: The file.
        x: Examples.

    Returns:
        The codes of the output.
    """
    interpreter = Interpreter.from_bytes(built.content, arena_size=2**24)
    [codes] = verification.input_codes(built.frozen, [x]).values()
    rows = []
    for i in range(len(codes)):
        interpreter.set_input(codes[i : i + 1], 0)
        interpreter.invoke()
        rows.append(np.array(interpreter.get_output(0)))
    return np.concatenate(rows)
