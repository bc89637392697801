"""Codes as int8 and as uint8; gives a file uint8 inputs and outputs."""

from __future__ import annotations

import dataclasses

import numpy as np

from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

UINT8_OFFSET = 128  # A uint8 code is the int8 code plus this.


def as_uint8(codes: np.ndarray) -> np.ndarray:
    """Returns int8 codes as uint8, each more by `UINT8_OFFSET`.

    Args:
        codes: int8, of any shape.
    """
    return (codes.astype(np.int16) + UINT8_OFFSET).astype(np.uint8)


def as_int8(codes: np.ndarray) -> np.ndarray:
    """Returns uint8 codes as int8, each less by `UINT8_OFFSET`.

    Args:
        codes: uint8, of any shape.
    """
    return (codes.astype(np.int16) - UINT8_OFFSET).astype(np.int8)


def quantized_input(graph: TFLiteGraph, tensor: str) -> str | None:
    """Returns the codes of an input that a QUANTIZE alone reads; None: others read it.

    Args:
        graph: A file.
        tensor: The tensor of the input.
    """
    readers = [op for op in graph.ops if tensor in op.inputs]
    if [op.code for op in readers] != ["QUANTIZE"]:
        return None
    return readers[0].outputs[0]


def with_uint8_ends(graph: TFLiteGraph) -> TFLiteGraph:
    """Returns a copy whose int8 inputs and outputs are uint8; others stay as they are.

    Each is converted by a QUANTIZE between two grids of the same scale, which adds or
    subtracts 128 and is exact in every runtime.

    Args:
        graph: A file.

    Raises:
        ValueError: If an int8 input or output has no scale.
    """
    tensors = dict(graph.tensors)
    sources, sinks = (
        [name for name in dict.fromkeys(ends.values()) if tensors[name].dtype == "int8"]
        for ends in (graph.inputs, graph.outputs)
    )
    before = {name: _add_uint8(tensors, name, "input") for name in sources}
    after = {name: _add_uint8(tensors, name, "output") for name in sinks}
    return dataclasses.replace(
        graph,
        tensors=tensors,
        ops=[
            *(TFLiteOp("QUANTIZE", [outer], [own]) for own, outer in before.items()),
            *graph.ops,
            *(TFLiteOp("QUANTIZE", [own], [outer]) for own, outer in after.items()),
        ],
        inputs={end: before.get(name, name) for end, name in graph.inputs.items()},
        outputs={end: after.get(name, name) for end, name in graph.outputs.items()},
    )


def _add_uint8(tensors: dict[str, TFLiteTensor], name: str, end: str) -> str:
    """Adds the uint8 tensor of an int8 one to `tensors`; returns its name."""
    own = tensors[name]
    grid = own.quantization
    if grid is None:
        raise ValueError(
            "int8 inputs and outputs must have a scale and a zero point to become "
            f"uint8. Received none for {name!r}."
        )
    moved = TensorQuantization(grid.scale, grid.zero_point + UINT8_OFFSET)
    outer = f"{name}/uint8_{end}"
    tensors[outer] = dataclasses.replace(
        own, name=outer, dtype="uint8", quantization=moved, data=None
    )
    return outer
