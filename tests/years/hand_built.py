"""Files that other tools write: zero points in both factors, inputs in int16.

No layer becomes one of these; reports also describe the files of other tools. Files of
layers in int16 start with a QUANTIZE, which most releases refuse.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness.graph_files import write_graph

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    faults_of,
)

_SHAPE, _OUTPUTS = (8, 64), 48
_ZERO_POINT = 5


def write_files(folder: Path, examples: int) -> int:
    """Writes the files, their inputs, and the codes of LiteRT on this machine.

    Args:
        folder: Gets what `cases.write_case` also writes.
        examples: How many examples the files have.

    Returns:
        How many files were written.
    """
    rng = np.random.default_rng(0)
    graphs = {
        f"hand_{make.__name__}_{zero_point}": make(zero_point, rng)
        for make in (batch_matmul, fully_connected)
        for zero_point in (0, _ZERO_POINT)
    }
    graphs["hand_int4_in_int16"] = int4_in_int16(rng)
    for name, graph in graphs.items():
        inputs = {
            end: _codes(graph.tensors[tensor], examples, rng)
            for end, tensor in graph.inputs.items()
        }
        faults = faults_of(graph)
        label = faults[0].name if faults else graph.ops[0].code
        write_graph(folder / name, graph, inputs, label)
    return len(graphs)


def batch_matmul(zero_point: int, rng: np.random.Generator) -> TFLiteGraph:
    """Returns the product of two computed matrices, the second with a zero point."""
    tensors = {
        "first": _tensor("first", (1, *_SHAPE), 3),
        "second": _tensor("second", (1, _SHAPE[1], _OUTPUTS), zero_point),
        "product": _tensor("product", (1, _SHAPE[0], _OUTPUTS), -2, 0.1),
    }
    op = TFLiteOp("BATCH_MATMUL", ["first", "second"], ["product"], version=2)
    op.table = "BatchMatMulOptions"
    inputs = {"first": "first", "second": "second"}
    return TFLiteGraph(tensors, [op], inputs, {"product": "product"})


def fully_connected(zero_point: int, rng: np.random.Generator) -> TFLiteGraph:
    """Returns a dense layer whose kernel has a zero point."""
    kernel = _tensor("kernel", (_OUTPUTS, _SHAPE[1]), zero_point)
    kernel.data = rng.integers(-127, 128, kernel.shape).astype(np.int8)
    tensors = {
        "first": _tensor("first", (1, _SHAPE[1]), 3),
        "kernel": kernel,
        "product": _tensor("product", (1, _OUTPUTS), -2, 0.1),
    }
    op = TFLiteOp("FULLY_CONNECTED", ["first", "kernel", ""], ["product"])
    return TFLiteGraph(tensors, [op], {"first": "first"}, {"product": "product"})


def int4_in_int16(rng: np.random.Generator) -> TFLiteGraph:
    """Returns a convolution of single pixels in int16 with an INT4 kernel."""
    codes = rng.integers(-7, 8, (_OUTPUTS, 1, 1, _SHAPE[1]))
    axes = 1, 4, 4
    scale = rng.uniform(0.001, 0.02, len(codes)).astype(np.float32)
    source = 1e-4
    grids = {
        "first": _grid(source),
        "kernel": TensorQuantization(scale, 0, 0),
        "bias": TensorQuantization(scale * np.float32(source), 0, 0),
        "product": _grid(2 * source * np.abs(codes).max() / 12),
    }
    bias = rng.integers(-1000, 1000, len(codes))
    tensors = {
        name: TFLiteTensor(name, shape, kind, grids[name], data)
        for name, shape, kind, data in (
            ("first", (*axes, codes.shape[-1]), "int16", None),
            ("kernel", codes.shape, "int4", codes.astype(np.int8)),
            ("bias", bias.shape, "int64", bias),
            ("product", (*axes, len(codes)), "int16", None),
        )
    }
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1}
    op = TFLiteOp("CONV_2D", ["first", "kernel", "bias"], ["product"], options)
    return TFLiteGraph(tensors, [op], {"first": "first"}, {"product": "product"})


def _grid(scale: float) -> TensorQuantization:
    """Returns a grid without a zero point."""
    return TensorQuantization(np.array([scale], np.float32), 0)


def _codes(tensor: TFLiteTensor, examples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns codes for an input."""
    limit = 2**15 if tensor.dtype == "int16" else 2**7
    shape = (examples, *tensor.shape[1:])
    return rng.integers(1 - limit, limit, shape).astype(tensor.dtype)


def _tensor(
    name: str, shape: tuple[int, ...], zero_point: int, scale: float = 1e-2
) -> TFLiteTensor:
    """Returns an int8 tensor."""
    grid = TensorQuantization(np.array([scale], np.float32), zero_point)
    return TFLiteTensor(name, shape, "int8", grid)
