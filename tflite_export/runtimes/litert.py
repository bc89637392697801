"""Runs LiteRT on this machine, with either of its two sets of kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from ..file import SIGNATURE_KEY, TFLiteGraph, to_bytes

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}
# TFLite's own MEAN over images rounds a channel by its place among those of a thread.
NUM_THREADS = {"xnnpack": 2, "builtin": 1}


def start(content: bytes, kernels: str, num_threads: int | None = None) -> Interpreter:
    """Returns a LiteRT interpreter for a file.

    Args:
        content: The bytes of the file.
        kernels: One of `runtime.KERNELS`.
        num_threads: How many threads it uses; None: two with XNNPACK, else one.
    """
    return Interpreter(
        model_content=content,
        experimental_op_resolver_type=RESOLVERS[kernels],
        num_threads=num_threads or NUM_THREADS[kernels],
    )


def one_by_one(
    run_one: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    inputs: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Runs a file on one example after the other; returns all outputs by name.

    Args:
        run_one: Runs the file on a batch of one.
        inputs: Arrays by signature name, all of the same batch size.
    """
    count = len(next(iter(inputs.values())))
    rows = [run_one({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


class Runner:
    """Runs a file's bytes under LiteRT.

    Args:
        graph: The file's graph.
        kernels: One of `runtime.KERNELS`.
        content: The file's own bytes; None: `graph` as this library writes it.
    """

    device = ""  # The CPU.

    def __init__(
        self, graph: TFLiteGraph, kernels: str = "xnnpack", content: bytes | None = None
    ) -> None:
        content = to_bytes(graph) if content is None else content
        self._runner = start(content, kernels).get_signature_runner(SIGNATURE_KEY)
        ends = [graph.tensors[name] for name in graph.inputs.values()]
        self._any_batch = all(tensor.dynamic_batch for tensor in ends)

    def __enter__(self) -> Runner:
        """Returns the runner."""
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing: LiteRT frees an interpreter that nothing holds."""

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file, and returns all outputs by their signature names.

        Args:
            inputs: Arrays by signature name, all of the same batch size.
        """
        if self._any_batch:
            return {k: np.array(v) for k, v in self._runner(**inputs).items()}
        return one_by_one(self.run_one, inputs)

    def run_one(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file on inputs of its own batch size, and returns all outputs."""
        return {k: np.array(v) for k, v in self._runner(**inputs).items()}
