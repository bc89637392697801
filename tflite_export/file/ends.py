"""Gives a file uint8 inputs and outputs, with the integers of its int8 ones."""

from __future__ import annotations

import dataclasses

from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

_OFFSET = 128  # A uint8 code is the int8 code plus this.


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
    moved = TensorQuantization(grid.scale, grid.zero_point + _OFFSET)
    outer = f"{name}/uint8_{end}"
    tensors[outer] = dataclasses.replace(
        own, name=outer, dtype="uint8", quantization=moved, data=None
    )
    return outer
