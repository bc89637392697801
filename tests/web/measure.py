"""Runs files under LiteRT.js and on this machine, and reads their codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness import run_files

from tflite_export.file import TFLiteGraph, from_bytes, to_bytes, with_uint8_ends

from .browser import LiteRt

KERNELS = "xnnpack"  # LiteRT.js has no switch for others.
_OFFSET = 128


def run_file(path: Path, litert: LiteRt, output: Path) -> None:
    """Writes the codes that LiteRT.js computes, or why it refuses the file.

    Args:
        path: A file from `cases.write_case`.
        litert: Runs it with uint8 ends, since LiteRT.js has no int8 ones.
        output: Gets what `run_files` writes.
    """
    graph = with_uint8_ends(from_bytes(path.read_bytes()))
    with np.load(path.with_suffix(".npz")) as data:
        inputs = {name: _as_uint8(data[name]) for name in data}
    result = output / f"{path.stem}.{KERNELS}.npz"
    output.mkdir(parents=True, exist_ok=True)
    try:
        found = litert.run(to_bytes(graph), inputs)
    except RuntimeError as error:
        result.with_suffix(".error").write_text(str(error))
        return
    np.savez(result, **{end: codes_of(graph, end, x) for end, x in found.items()})


def run_here(path: Path, output: Path) -> None:
    """Writes the codes that LiteRT computes on this machine.

    Args:
        path: A file from `cases.write_case`.
        output: Gets what `run_files` writes.
    """
    graph = from_bytes(path.read_bytes())
    with np.load(path.with_suffix(".npz")) as data:
        found = run_files.run(path, KERNELS, dict(data))
    output.mkdir(parents=True, exist_ok=True)
    codes = {end: codes_of(graph, end, x) for end, x in found.items()}
    np.savez(output / f"{path.stem}.{KERNELS}.npz", **codes)


def _as_uint8(array: np.ndarray) -> np.ndarray:
    """Returns int8 codes as uint8; leaves other arrays unchanged."""
    if array.dtype != np.int8:
        return array
    return (array.astype(np.int16) + _OFFSET).astype(np.uint8)


def codes_of(graph: TFLiteGraph, end: str, found: np.ndarray) -> np.ndarray:
    """Returns an output as the int8 codes that it was computed from.

    Args:
        graph: The file.
        end: Name of the output.
        found: What was computed.

    Raises:
        ValueError: If floats are not exactly the values of codes.
    """
    if found.dtype == np.uint8:
        return found.astype(np.int16) - _OFFSET
    producer = graph.producers().get(graph.outputs[end])
    if producer is None or producer.code != "DEQUANTIZE":
        return found
    grid = graph.tensors[producer.inputs[0]].quantization
    codes = np.rint(found / grid.scale) + grid.zero_point
    if not np.array_equal((codes - grid.zero_point) * grid.scale, found):
        raise ValueError(f"`{end}` must have values of codes. Received others.")
    return codes.astype(np.int16)


def differences(output: Path, other: Path, file: str) -> dict[str, int]:
    """Returns how many codes of each output differ between two folders of results.

    Args:
        output: What `run_file` or `run_here` wrote.
        other: The same.
        file: Name of the file.
    """
    name = f"{file}.{KERNELS}.npz"
    with np.load(output / name) as one, np.load(other / name) as two:
        return {end: int((one[end] != two[end]).sum()) for end in one}
