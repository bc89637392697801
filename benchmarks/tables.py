"""Measures the forms of elementwise functions: table operators, tables, float islands.

    python -m benchmarks.tables
    python -m benchmarks.tables --rounds 200

Times are the smallest of many calls with one thread, for int8 tensors of
196 x 768 values. The second table compares swish as it is written, a LOGISTIC and a
MUL, with a table of its own, on integers of a normal distribution.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    tensor_type,
    to_bytes,
)
from tflite_export.runtimes import KERNELS, start

from .timing import machine

_SHAPE = (1, 196, 768)
_GRIDS = {"x": (0.05, 3), "y": (0.1, -7)}
_NONE = {"fused_activation_function": "NONE"}


def _tensor(name: str, dtype: str, grid: tuple[float, int] | None) -> TFLiteTensor:
    """Returns an activation tensor."""
    quantization = None
    if grid is not None:
        quantization = TensorQuantization(np.float32([grid[0]]), grid[1])
    return TFLiteTensor(name, _SHAPE, dtype, quantization)


def _graph(ops: list[TFLiteOp], *inner: TFLiteTensor) -> TFLiteGraph:
    """Returns a graph from the int8 tensor "x" to the int8 tensor "y"."""
    ends = [_tensor(name, "int8", grid) for name, grid in _GRIDS.items()]
    tensors = {tensor.name: tensor for tensor in (*ends, *inner)}
    return TFLiteGraph(tensors, ops, {"x": "x"}, {"y": "y"})


def _forms() -> Iterator[tuple[str, TFLiteGraph]]:
    """Yields the forms by what they are called."""
    yield "GELU", _graph([TFLiteOp("GELU", ["x"], ["y"], {"approximate": False})])
    for code in ("EXP", "LOG", "ELU"):
        yield code, _graph([TFLiteOp(code, ["x"], ["y"], {})])
    table = TFLiteTensor(
        "table",
        (256,),
        "int8",
        TensorQuantization(np.float32([0.1]), -7),
        data=np.arange(-128, 128).astype(np.int8),
    )
    first = TFLiteTensor("first", (1,), "int32", data=np.int32([128]))
    places = [_tensor(name, "int32", None) for name in ("code", "place")]
    cast = {"in_data_type": tensor_type("int8"), "out_data_type": tensor_type("int32")}
    ops = [
        TFLiteOp("CAST", ["x"], ["code"], cast),
        TFLiteOp("ADD", ["code", "first"], ["place"], _NONE),
        TFLiteOp("GATHER", ["table", "place"], ["y"], {"axis": 0, "batch_dims": 0}),
    ]
    yield "CAST, ADD, GATHER", _graph(ops, table, first, *places)
    gate = _tensor("gate", "int8", (1 / 256, -128))
    ops = [
        TFLiteOp("LOGISTIC", ["x"], ["gate"], {}),
        TFLiteOp("MUL", ["x", "gate"], ["y"], _NONE),
    ]
    yield "LOGISTIC, MUL (swish)", _graph(ops, gate)
    floats = [_tensor(name, "float32", None) for name in ("real", "result")]
    ops = [
        TFLiteOp("DEQUANTIZE", ["x"], ["real"], {}),
        TFLiteOp("GELU", ["real"], ["result"], {"approximate": False}),
        TFLiteOp("QUANTIZE", ["result"], ["y"], {}),
    ]
    yield "GELU in float", _graph(ops, *floats)


def _microseconds(graph: TFLiteGraph, kernels: str, rounds: int) -> float:
    """Returns the shortest time of one call."""
    interpreter = start(to_bytes(graph), kernels, num_threads=1)
    interpreter.allocate_tensors()
    codes = np.random.default_rng(0).integers(-128, 128, _SHAPE, np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - began)
    return 1e6 * min(times)


def _swish(reach: float) -> tuple[float, float, float]:
    """Returns how a written-out swish differs from a table.

    Args:
        reach: Largest value of the input's grid.

    Returns:
        Share of the codes that differ; root mean square of the error of both, in
        steps.
    """
    step = reach / 127
    codes = np.random.default_rng(0).normal(0, 1 / step, 200_000)
    x = np.clip(np.rint(codes), -128, 127) * step
    exact = tf.nn.silu(x).numpy()
    gate = np.clip(np.rint(256 * tf.sigmoid(x).numpy()), 0, 255) / 256
    scale = exact.max() / 127
    found = [np.clip(np.rint(y / scale), -128, 127) for y in (x * gate, exact)]
    errors = [np.sqrt(np.mean((y - exact / scale) ** 2)) for y in found]
    return float(np.mean(found[0] != found[1])), float(errors[0]), float(errors[1])


def main() -> None:
    """Prints two tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print("\n| form | XNNPACK, us | built-in kernels, us |\n|---|---|---|")
    for name, graph in _forms():
        times = [_microseconds(graph, kernels, rounds) for kernels in KERNELS]
        print(f"| {name} | {times[0]:.0f} | {times[1]:.0f} |", flush=True)
    print("\n| swish, input up to | codes off | rms written out | rms of a table |")
    print("|---|---|---|---|")
    for reach in (3.0, 4.0, 8.0):
        off, written, table = _swish(reach)
        print(f"| {reach:.0f} | {off:.1%} | {written:.3f} | {table:.3f} |")


if __name__ == "__main__":
    main()
