"""Writes files that no model becomes; LiteRT on this machine has the right codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tflite_export.file import TFLiteGraph, to_bytes
from tflite_export.runtimes import KERNELS

from . import run_files
from .cases import Described, write_file


def write_graph(
    stem: Path, graph: TFLiteGraph, inputs: dict[str, np.ndarray], label: str
) -> None:
    """Writes a file, and what LiteRT on this machine computes.

    Args:
        stem: Path of the files, without a suffix.
        graph: The file; its ends have the names of their tensors.
        inputs: Its inputs by name, codes of any integer type that holds them.
        label: What the table of results calls its outputs.
    """
    inputs = {
        name: codes.astype(graph.tensors[name].dtype) for name, codes in inputs.items()
    }
    path = stem.with_suffix(".tflite")
    path.write_bytes(to_bytes(graph))
    codes = {
        kernels: run_files.run(path, kernels, inputs)  # Names of ends are tensors'.
        for kernels in KERNELS
    }
    described = {end: Described(label, label) for end in graph.outputs}
    write_file(stem, graph, inputs, codes, described)
