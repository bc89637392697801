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
from typing import Any

import numpy as np
import tf_keras as keras

from tflite_export import verification
from tflite_export.build import BuiltFile
from tflite_export.file import PACKED
from tflite_export.runtimes import Runtime
from tflite_export.twin import build_twin, twin_codes
from tflite_export.verification.values import file_inputs

_BATCH = 100
_TESTS = Path(__file__).resolve().parents[1] / "tests"


@dataclasses.dataclass
class Shares:
    """Counts of codes, for all operators or by kind of kernel.

    Attributes:
        off: Codes that differ from the training graph, by one.
        codes: All codes.
    """

    off: int = 0
    codes: int = 0

    def __str__(self) -> str:
        """Returns the share in percent."""
        return f"{self.off / self.codes:.5%}" if self.codes else ""


def off_by_one(
    built: BuiltFile, x: np.ndarray, runtime: Runtime
) -> tuple[Shares, Shares]:
    """Compares every integer tensor with the training graph, given the same inputs.

    Args:
        built: The file.
        x: Examples.
        runtime: What runs the file.

    Returns:
        Counts of all operators, and of those with packed kernels.

    Raises:
        VerificationError: If a code is off by more than one.
    """
    total, packed = Shares(), Shares()
    nodes = built.frozen.by_name()
    for start in range(0, len(x), _BATCH):
        inputs = file_inputs(built.graph, built.frozen, [x[start : start + _BATCH]])
        codes = twin_codes(built.frozen, inputs, runtime)
        for point in verification.compare_points(built.frozen, codes, "file"):
            weight = nodes[point.name].weight
            is_packed = getattr(weight, "container", "int8") in PACKED
            for shares in (total, packed) if is_packed else (total,):
                shares.off += point.off_by_one
                shares.codes += point.num_codes
    return total, packed


def classes(
    built: BuiltFile, student: keras.Model, x: np.ndarray, runtime: Runtime
) -> np.ndarray:
    """Returns the class that a file predicts for each example.

    Args:
        built: The file.
        student: The model that it was built from.
        x: Examples.
        runtime: What runs the file.
    """
    twin = build_twin(built.frozen, student, runtime)
    return twin.predict(x, batch_size=_BATCH, verbose=0).argmax(axis=-1)


def widened(built: BuiltFile) -> int:
    """Returns how many operators of a file widen the input of a kernel."""
    return sum(node.kind == "widen" for node in built.frozen.nodes)


def output_codes(built: BuiltFile, x: np.ndarray, runtime: Runtime) -> np.ndarray:
    """Returns the codes of a file's only output, as the twin computes them.

    Args:
        built: The file.
        x: Examples.
        runtime: What runs the file.
    """
    [output] = built.frozen.outputs.values()
    inputs = file_inputs(built.graph, built.frozen, [x])
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

    found: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
    machine = arm64.Userland(userland)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, built in files.items():
            (folder / f"{stem}.tflite").write_bytes(built.content)
            inputs = file_inputs(built.graph, built.frozen, [x])
            np.savez(folder / f"{stem}.npz", **inputs)
        script = str(_TESTS / "arm64" / "run_files.py")
        machine.run(core, script, name, str(folder / "found"))
        for stem in files:
            with np.load(folder / "found" / f"{stem}.npz") as outputs:
                for key, codes in outputs.items():
                    found[stem][key.partition("/")[0]] = codes
    return found


def on_tflite_micro(built: BuiltFile, x: np.ndarray, package: Path | None) -> Any:
    """Runs a file with one input and one output under TFLite Micro.

    Args:
        built: The file.
        x: Examples.
        package: Folder that holds the package `tflite_micro`; None: it is installed.

    Returns:
        The codes of the output.
    """
    if package is not None:
        sys.path.append(str(package))
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(built.content, arena_size=2**24)
    [codes] = file_inputs(built.graph, built.frozen, [x]).values()
    rows = []
    for i in range(len(codes)):
        interpreter.set_input(codes[i : i + 1], 0)
        interpreter.invoke()
        rows.append(np.array(interpreter.get_output(0)))
    return np.concatenate(rows)
