"""Measures the latency of a file on this machine, and of int8 kernels and float32."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..file import TFLiteGraph, TFLiteOp, TFLiteTensor, to_bytes
from ..freezing import FrozenModel
from ..runtimes import start
from .export_report import Latency
from .float_graph import float_graph, operators_alone

NUM_THREADS = 1
ROUNDS = 50
_WARM_UP = 3
# A slow operator is measured for about this long, but in at least `_FEWEST` rounds.
_SECONDS = 2.0
_FEWEST = 5
_SEED = 0
# After the name of an operator: its kernel, or what belongs to one of its groups.
_OF_KERNEL = r"/(weight|group_\d+(/.+)?)$"


def measure_latency(
    own: TFLiteGraph, int8: TFLiteGraph, frozen: FrozenModel, *, verbose: bool = True
) -> tuple[Latency, dict[str, Latency]]:
    """Measures the latency of a file, and of each operator with a kernel alone.

    The three forms run in turn, in the same order in each round, so that any other
    load on the machine slows all of them.

    Args:
        own: The file's graph.
        int8: The graph with int8 storage.
        frozen: The numbers that `own` was built from.
        verbose: Whether to show progress.

    Returns:
        The latency of the whole file; and name of the output tensor -> latency of the
        operator alone, together with the operator that widens its input.
    """
    floats = float_graph(int8, frozen)
    forms = (own, int8, floats)
    layers = {}
    kernels = [_kernel_operators(graph, frozen) for graph in forms]
    names = [name for name in kernels[0] if all(name in other for other in kernels)]
    for name in tqdm(names, "Measuring", disable=not verbose, leave=False):
        operators = [by_name[name] for by_name in kernels]
        layers[name] = _latency(
            [operators_alone(g, ops) for g, ops in zip(forms, operators, strict=True)]
        )
    return _latency(list(forms)), layers


def describe_setting() -> str:
    """Describes what latencies were measured with."""
    return (
        f"{platform.machine()} {processor()}, {NUM_THREADS} thread, batch 1, LiteRT "
        f"{importlib.metadata.version('ai-edge-litert')} with XNNPACK, median of up "
        f"to {ROUNDS} rounds"
    )


def processor() -> str:
    """Returns the name of the processor that the system reports."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x for x in lines if "model name" in x).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor()


def _kernel_operators(
    graph: TFLiteGraph, frozen: FrozenModel
) -> dict[str, list[TFLiteOp]]:
    """Returns the operators with a kernel, by the name of the kernel's owner.

    An operator that widens the input, if there is one, comes before them. Those of
    groups are between their SPLIT and their CONCATENATION.
    """
    widenings = {node.name for node in frozen.nodes if node.kind == "widen"}
    producers, found = graph.producers(), {}
    for node in frozen.nodes:
        own = re.compile(re.escape(node.name) + _OF_KERNEL)
        ops = [op for op in graph.ops if any(map(own.match, (*op.inputs, *op.outputs)))]
        if node.weight is not None and ops:
            before = [producers[n] for n in ops[0].inputs if n in widenings]
            found[node.name] = [*before, *ops]
    return found


def _latency(graphs: list[TFLiteGraph]) -> Latency:
    """Returns the medians of the file, of int8 and of float32, which run in turn."""
    own, int8, float32 = graphs
    distinct = [own, float32] if _equal(own, int8) else [own, int8, float32]
    times = _side_by_side([_inference(graph) for graph in distinct])
    return Latency(times[0], times[-2], times[-1])


def _equal(first: TFLiteGraph, second: TFLiteGraph) -> bool:
    """Returns whether two graphs give the same file, except for its descriptions."""
    plain = (
        dataclasses.replace(graph, metadata={}, description="")
        for graph in (first, second)
    )
    return len({to_bytes(graph) for graph in plain}) == 1


def _side_by_side(calls: list[Callable[[], Any]]) -> list[float]:
    """Measures the median time of every call, in milliseconds."""
    times: list[list[float]] = [[] for _ in calls]
    end = None
    for number in range(_WARM_UP + ROUNDS):
        if number == _WARM_UP:
            end = time.perf_counter() + _SECONDS
        for call, own_times in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if number >= _WARM_UP:
                own_times.append(1000 * (time.perf_counter() - start))
        if end is not None and len(times[0]) >= _FEWEST and time.perf_counter() > end:
            break
    return [statistics.median(own_times) for own_times in times]


def _inference(graph: TFLiteGraph) -> Callable[[], Any]:
    """Returns a function that runs a graph once, on random inputs."""
    interpreter = start(to_bytes(graph), "xnnpack", NUM_THREADS)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(_SEED)
    indices = {d["name"]: d["index"] for d in interpreter.get_input_details()}
    for name in graph.inputs.values():
        interpreter.set_tensor(indices[name], _made_up(graph.tensors[name], rng))
    return interpreter.invoke


def _made_up(tensor: TFLiteTensor, rng: np.random.Generator) -> np.ndarray:
    """Returns random values for an input."""
    if tensor.dtype == "float32":
        return rng.uniform(-1, 1, tensor.shape).astype(np.float32)
    limits = np.iinfo(tensor.dtype)
    return rng.integers(limits.min, limits.max + 1, tensor.shape, tensor.dtype)
