"""Converts the operators of a file to float32, to compare latencies."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..file import TFLiteGraph, TFLiteOp, TFLiteTensor
from ..freezing import FrozenModel

# Operators of the frozen model that a float network does not need.
_REQUANTIZING = ("quantize", "widen", "to_int16", "clip_high", "clip_low")
_CONVERTING = ("QUANTIZE", "DEQUANTIZE")


def float_graph(graph: TFLiteGraph, frozen: FrozenModel) -> TFLiteGraph:
    """Returns the same network in float32, with the values of all constants' codes.

    Operators that only move integers from one grid to another are omitted.

    Args:
        graph: A file's graph.
        frozen: The numbers that it was built from.
    """
    dropped = {node.name for node in frozen.nodes if node.kind in _REQUANTIZING}
    ops: list[TFLiteOp] = []
    source: dict[str, str] = {}
    for op in graph.ops:
        inputs = [source.get(name, name) for name in op.inputs]
        outputs = list(op.outputs)
        if op.code in _CONVERTING or outputs[0] in dropped:
            source[outputs[0]] = inputs[0]
        else:
            ops.append(dataclasses.replace(op, inputs=inputs, outputs=outputs))
    ends = {name: source.get(tensor, tensor) for name, tensor in graph.outputs.items()}
    return _with_used_tensors(graph, ops, dict(graph.inputs), ends)


def operators_alone(graph: TFLiteGraph, ops: list[TFLiteOp]) -> TFLiteGraph:
    """Returns some operators of a graph as a separate graph.

    Args:
        graph: A file's graph.
        ops: Operators in order of execution, each of which feeds the next.
    """
    used = [name for op in ops for name in (*op.inputs, *op.outputs) if name]
    tensors = {name: graph.tensors[name] for name in used}
    computed = {name for op in ops for name in op.outputs}
    read = [n for n in used if tensors[n].data is None and n not in computed]
    inputs = {f"input_{number}": name for number, name in enumerate(read)}
    outputs = {f"output_{number}": n for number, n in enumerate(ops[-1].outputs)}
    return TFLiteGraph(tensors, ops, inputs, outputs)


def _with_used_tensors(
    graph: TFLiteGraph,
    ops: list[TFLiteOp],
    inputs: dict[str, str],
    outputs: dict[str, str],
) -> TFLiteGraph:
    """Returns a graph of these operators, with the tensors that they use, in float."""
    used = [name for op in ops for name in (*op.inputs, *op.outputs) if name]
    names = dict.fromkeys([*inputs.values(), *used, *outputs.values()])
    tensors = {name: _in_float(graph.tensors[name]) for name in names}
    return TFLiteGraph(tensors, ops, inputs, outputs, min_runtime=graph.min_runtime)


def _in_float(tensor: TFLiteTensor) -> TFLiteTensor:
    """Returns a tensor with values instead of codes; leaves float tensors unchanged."""
    grid = tensor.quantization
    if grid is None:
        return tensor
    data = tensor.data
    if data is not None:
        shape = [1] * data.ndim
        shape[grid.axis] = len(grid.scale)
        codes = data.astype(np.float64) - grid.zero_point
        data = (codes * grid.scale.astype(np.float64).reshape(shape)).astype(np.float32)
    return dataclasses.replace(tensor, dtype="float32", quantization=None, data=data)
