"""Converts between real values, codes, and the types of a file's inputs and outputs."""

from __future__ import annotations

import numpy as np

from ..file import TFLiteGraph, as_int8, as_uint8
from ..freezing import FrozenModel, FrozenNode, Grid


def file_inputs(
    graph: TFLiteGraph, frozen: FrozenModel, arrays: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts the inputs of a model to the type and grid of the file's inputs.

    A float32 input that is pixels takes the values of its grid, which need not be those
    that the model takes.

    Args:
        graph: The file's graph.
        frozen: The operators that it was built from.
        arrays: Inputs of the model, one array per input.

    Returns:
        Arrays by signature name.
    """
    codes, nodes = input_codes(frozen, arrays), frozen.by_name()
    converted = {}
    for (name, tensor), array in zip(frozen.inputs.items(), arrays, strict=True):
        dtype, node = graph.tensors[graph.inputs[name]].dtype, nodes[tensor]
        if dtype == "uint8":
            converted[name] = as_uint8(codes[tensor])
        elif node.grid is not None and dtype == node.grid.container:
            converted[name] = codes[tensor]
        elif node.pixels is not None:
            converted[name] = _values(codes[tensor], node.integer_grid)
        else:
            converted[name] = array.astype(dtype)
    return converted


def input_codes(frozen: FrozenModel, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Converts the inputs of a model to codes; leaves inputs without a grid unchanged.

    Args:
        frozen: The operators of a file.
        arrays: Inputs of the model, one array per input.

    Returns:
        Name of the tensor -> codes in the type of its grid.
    """
    nodes = frozen.by_name()
    return {
        tensor: _codes(nodes[tensor], array)
        for tensor, array in zip(frozen.inputs.values(), arrays, strict=True)
    }


def twin_inputs(
    graph: TFLiteGraph, frozen: FrozenModel, arrays: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Converts the inputs of a model to what its integer twin takes.

    Args:
        graph: The file's graph.
        frozen: The operators that it was built from.
        arrays: Inputs of the model, one array per input.

    Returns:
        Name of the tensor -> codes, or values of the file's type without a grid.
    """
    codes, nodes = input_codes(frozen, arrays), frozen.by_name()
    return {
        tensor: codes[tensor]
        if nodes[tensor].grid is not None
        else codes[tensor].astype(graph.tensors[graph.inputs[name]].dtype)
        for name, tensor in frozen.inputs.items()
    }


def _codes(node: FrozenNode, array: np.ndarray) -> np.ndarray:
    """Converts one input of a model to codes, if it has a grid."""
    grid = node.grid
    if node.pixels is not None:
        return as_int8(node.pixels.bytes_of(array))
    if grid is None:
        return array
    rounded = np.rint(array.astype(np.float32) / np.float32(grid.scale))
    return np.clip(rounded + grid.zero_point, *grid.bounds).astype(grid.container)


def _values(codes: np.ndarray, grid: Grid) -> np.ndarray:
    """Converts codes to the values that they stand for, float32."""
    distances = codes.astype(np.float32) - np.float32(grid.zero_point)
    return distances * np.float32(grid.scale)


def file_codes(found: np.ndarray, grid: Grid) -> np.ndarray:
    """Converts an output of the file, of any type, to codes of its grid.

    Args:
        found: What the file computed.
        grid: The grid of its codes.
    """
    if found.dtype == np.uint8:
        return as_int8(found).astype(np.int64)
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
    return np.clip(codes, *grid.bounds).astype(np.int64)
