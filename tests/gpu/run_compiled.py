"""Runs files by `CompiledModel`, and writes their codes.

    python run_compiled.py FOLDER OUTPUT ACCELERATOR EXAMPLES

For each FOLDER/NAME.tflite with inputs in NAME.npz, writes OUTPUT/NAME.ACCELERATOR.npz
with its outputs, or NAME.ACCELERATOR.error, as `harness.run_files` does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from harness import run_files

from tflite_export.file import from_bytes
from tflite_export.runtimes import CompiledRunner


def run(
    path: Path, accelerator: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the outputs of a file by signature name."""
    content = path.read_bytes()
    graph = from_bytes(content)
    size = graph.tensors[next(iter(graph.inputs.values()))].shape[0]
    with CompiledRunner(graph, accelerator, content) as runner:
        return run_files.in_batches(runner.run_one, inputs, size)


def main(folder: str, output: str, accelerator: str, examples: str) -> None:
    """Runs all files that have no results yet."""
    Path(output).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(folder).glob("*.tflite")):
        run_files.write_codes(path, accelerator, output, int(examples), run)


if __name__ == "__main__":
    main(*sys.argv[1:])
