"""Runs files by LiteRT's `CompiledModel`, the interface of new apps, on CPU or GPU.

LiteRT's GPU accelerator for Linux, macOS and Windows uses WebGPU, which needs a driver
of Vulkan, Metal or Direct3D.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel, HardwareAccelerator
from ai_edge_litert.environment import Environment
from ai_edge_litert.options import CpuOptions, Options

from ..file import SIGNATURE_KEY, TFLiteGraph, to_bytes
from ..library_messages import collected_messages
from .litert import NUM_THREADS, Runner, one_by_one

_ACCELERATORS = {"cpu": HardwareAccelerator.CPU, "gpu": HardwareAccelerator.GPU}
ACCELERATORS = tuple(_ACCELERATORS)
# Types that LiteRT's Python interface writes and reads.
_TYPES = ("bool", "float32", "int8", "int32", "uint8")
_ADAPTER = re.compile(r"Selected adapter: (.+?), arch=")
_REFUSED, _SUMMARY = "not supported by GPU delegate", "operations will run on the"
# What TFLite itself says of a file; other lines name the source file of LiteRT.
_SAYS = re.compile(r"(?:ERROR|WARNING): (?!\[|Logging before)(.+)")
_NO_GPU = ("No adapters found", "Failed to initialize WebGPU environment")


def check_accelerator(name: str) -> None:
    """Checks the name of an accelerator.

    Raises:
        ValueError: If there is none with this name.
    """
    if name not in ACCELERATORS:
        raise ValueError(
            f"`accelerator` must be one of {list(ACCELERATORS)}. Received: {name!r}."
        )


def has_readable_ends(graph: TFLiteGraph) -> bool:
    """Returns whether `CompiledRunner` can write all inputs and read all outputs.

    Args:
        graph: A file's graph.
    """
    ends = (*graph.inputs.values(), *graph.outputs.values())
    return all(graph.tensors[tensor].dtype in _TYPES for tensor in ends)


class CompiledRunner:
    """Runs a file's bytes by `CompiledModel`, one example at a time.

    The GPU runs all operators, or the file is refused: with the CPU as a second choice,
    LiteRT would run files there without a word.

    Args:
        graph: The file's graph.
        accelerator: One of `ACCELERATORS`.
        content: The file's own bytes; None: `graph` as this library writes it.

    Attributes:
        device: Name of the device that runs it; "" for the CPU.

    Raises:
        ValueError: If there is no such accelerator.
        RuntimeError: If this machine has no GPU that LiteRT can use, or LiteRT refuses
            the file, with its reasons, such as operators that the GPU does not run, or
            an input or output is not readable.
    """

    def __init__(
        self, graph: TFLiteGraph, accelerator: str, content: bytes | None = None
    ) -> None:
        check_accelerator(accelerator)
        self._accelerator = accelerator
        if not has_readable_ends(graph):
            raise RuntimeError(
                f"Inputs and outputs must be of {list(_TYPES)} to be run by "
                "CompiledModel. Received a file with others."
            )
        content = to_bytes(graph) if content is None else content
        error = ""
        with collected_messages() as messages:
            try:
                self._start(content, accelerator)
            except RuntimeError as problem:
                error = str(problem)
            if error:  # No traceback holds the model any more.
                self._free()
        if error:
            raise RuntimeError(_reason(accelerator, messages, error))
        adapters = [m[1] for line in messages if (m := _ADAPTER.search(line))]
        self.device = adapters[-1] if accelerator == "gpu" and adapters else ""

    def __enter__(self) -> CompiledRunner:
        """Returns the runner."""
        return self

    def __exit__(self, *_: object) -> None:
        """Frees the model."""
        with collected_messages():
            self._free()

    def _start(self, content: bytes, accelerator: str) -> None:
        """Loads the file."""
        self._environment = Environment.create()
        options = Options(
            _ACCELERATORS[accelerator],
            CpuOptions(num_threads=NUM_THREADS["xnnpack"]),  # As the interpreter's.
        )
        self._model = CompiledModel.from_buffer(
            content, environment=self._environment, options=options
        )
        self._make_buffers()

    def _free(self) -> None:
        """Frees what LiteRT holds, in this order."""
        for name in ("_inputs", "_outputs", "_model", "_environment"):
            self.__dict__.pop(name, None)

    def _make_buffers(self) -> None:
        """Makes the buffers of inputs and outputs; LiteRT prints when one is used."""
        model = self._model
        sources = model.get_input_tensor_details(SIGNATURE_KEY)
        self._inputs = {
            name: model.create_input_buffer_by_name(SIGNATURE_KEY, name)
            for name in sources
        }
        for name, details in sources.items():
            zeros = np.zeros(details["shape"], np.dtype(details["dtype"]))
            self._inputs[name].write(zeros)
        self._details = model.get_output_tensor_details(SIGNATURE_KEY)
        self._outputs = {
            name: model.create_output_buffer_by_name(SIGNATURE_KEY, name)
            for name in self._details
        }

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file, and returns all outputs by their signature names.

        Args:
            inputs: Arrays by signature name, all of the same batch size.

        Raises:
            RuntimeError: If LiteRT does not run the file, with its reasons.
        """
        with collected_messages() as messages:
            try:
                return one_by_one(self.run_one, inputs)
            except RuntimeError as problem:
                error = str(problem)
        raise RuntimeError(_reason(self._accelerator, messages, error))

    def run_one(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the file on inputs of its own batch size, and returns all outputs."""
        for name, array in inputs.items():
            self._inputs[name].write(array)
        self._model.run_by_name(SIGNATURE_KEY, self._inputs, self._outputs)
        return {name: self._read(name) for name in self._outputs}

    def _read(self, name: str) -> np.ndarray:
        """Returns an output."""
        details: dict[str, Any] = self._details[name]
        shape = details["shape"]
        values = self._outputs[name].read(math.prod(shape), np.dtype(details["dtype"]))
        return values.reshape(shape)


def runner_on(
    accelerator: str,
    graph: TFLiteGraph,
    *,
    kernels: str = "xnnpack",
    content: bytes | None = None,
) -> Runner | CompiledRunner:
    """Returns what runs a file: LiteRT's interpreter on the CPU, or an accelerator.

    Args:
        accelerator: One of `ACCELERATORS`.
        graph: The file's graph.
        kernels: One of `runtime.KERNELS`, on the CPU.
        content: The file's own bytes; None: `graph` as this library writes it.

    Raises:
        ValueError, RuntimeError: As for `CompiledRunner`.
    """
    if accelerator == "cpu":
        return Runner(graph, kernels, content)
    return CompiledRunner(graph, accelerator, content)


def _reason(accelerator: str, messages: list[str], error: str) -> str:
    """Returns why LiteRT does not run a file, from what it printed."""
    printed = "\n".join(messages)
    if accelerator == "gpu" and any(text in printed for text in _NO_GPU):
        return (
            'accelerator="gpu" needs a GPU that LiteRT can use, by a driver of Vulkan, '
            "Metal or Direct3D. Received: no such driver, or none that is new enough. "
            "Install one, or leave `accelerator` out."
        )
    refused = _refused_operators(messages)
    if refused:
        return (
            "The file must have only operators that LiteRT's GPU accelerator runs; it "
            "leaves others to the CPU. Received: "
            f"{' '.join(refused)}"
        )
    said = [found[1].strip() for line in messages if (found := _SAYS.match(line))]
    received = " ".join([error, *said])
    return (
        f"LiteRT must run the file on the {accelerator.upper()}. Received: {received}"
    )


def _refused_operators(messages: list[str]) -> list[str]:
    """Returns the lines that name the operators that a GPU does not run."""
    headings = [n for n, line in enumerate(messages) if _REFUSED in line]
    if not headings:
        return []
    lines = messages[headings[-1] + 1 :]
    return list(itertools.takewhile(lambda line: _SUMMARY not in line, lines))
