"""Converts between real values, codes, and the types of a file's inputs and outputs."""

from __future__ import annotations

import numpy as np

from ..file import TFLiteGraph
from ..freezing import FrozenModel, Grid


def file_inputs(
    graph: TFLiteGraph, frozen: FrozenModel, arrays: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts the inputs of a model to the type and grid of the file's inputs.

    Args:
        graph: The file's graph.
        frozen: The operators that it was built from.
        arrays: Inputs of the model, one array per input.

    Returns:
        Arrays by signature name.
    """
    codes = input_codes(frozen, arrays)
    converted = {}
    for (name, tensor), array in zip(frozen.inputs.items(), arrays, strict=True):
        dtype = graph.tensors[graph.inputs[name]].dtype
        if dtype == "uint8":
            converted[name] = (codes[tensor].astype(np.int16) + 128).astype(dtype)
        else:
            converted[name] = codes[tensor] if dtype == "int8" else array.astype(dtype)
    return converted


def input_codes(frozen: FrozenModel, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Converts the inputs of a model to codes; leaves inputs without a grid unchanged.

    Args:
        frozen: The operators of a file.
        arrays: Inputs of the model, one array per input.

    Returns:
        Name of the tensor -> int8 codes.
    """
    nodes, codes = frozen.by_name(), {}
    for tensor, array in zip(frozen.inputs.values(), arrays, strict=True):
        grid = nodes[tensor].grid
        codes[tensor] = array
        if grid is not None:
            quotient = array.astype(np.float32) / np.float32(grid.scale)
            rounded = np.rint(quotient) + grid.zero_point
            codes[tensor] = np.clip(rounded, -128, 127).astype(np.int8)
    return codes


def file_codes(found: np.ndarray, grid: Grid) -> np.ndarray:
    """Converts an output of the file, of any type, to int8 codes.

    Args:
        found: What the file computed.
        grid: The grid of its int8 codes.
    """
    if found.dtype == np.uint8:
        return found.astype(np.int64) - 128
    if found.dtype == np.float32:
        return on_grid(found.astype(np.float64), grid)
    return found.astype(np.int64)


def on_grid(real: np.ndarray, grid: Grid) -> np.ndarray:
    """Converts real values to codes of the file.

    Args:
        real: float64.
        grid: The grid of the tensor.
    """
    codes = np.rint(real / grid.scale) + grid.zero_point
    return np.clip(codes, -128, 127).astype(np.int64)
