"""Counts the bytes of files as the target's compiler, Vela, compresses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..file import TFLiteGraph, to_bytes
from ..targets import (
    VELA_MISSING,
    Target,
    check_options,
    check_vela,
    compile_with_vela,
)

COMPILER = "vela"


class CompiledBytes:
    """Counts compiled bytes, of whole files and of kernels.

    Vela does not report the bytes of one kernel. They are those by which a file shrinks
    if all codes of the kernel are 0, of which Vela stores next to nothing. Each kernel
    is measured once for each number of bits: its codes are the same in every file.

    Args:
        target: Name of the target.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._kernels: dict[tuple[str, int], int] = {}

    def file_bytes(self, content: bytes) -> int:
        """Returns the size of a compiled file.

        Args:
            content: The bytes of the file before.

        Raises:
            RuntimeError: If Vela is missing or refuses the file.
        """
        compiled = compile_with_vela(content, self._target)
        if compiled is None:
            raise RuntimeError(VELA_MISSING)
        return compiled.file_bytes

    def layer_bytes(
        self,
        graph: TFLiteGraph,
        file_bytes: int,
        kernels: Mapping[str, Sequence[str]],
        bits: Mapping[str, int],
    ) -> dict[str, int]:
        """Returns the compiled bytes of the kernels of each layer.

        Args:
            graph: A file.
            file_bytes: Its compiled size.
            kernels: Layer -> tensors with its codes.
            bits: Layer -> bits of its codes.
        """
        for layer, names in kernels.items():
            key = layer, bits[layer]
            if key not in self._kernels:
                without = self.file_bytes(to_bytes(_with_zeros(graph, names)))
                self._kernels[key] = max(0, file_bytes - without)
        return {layer: self._kernels[layer, bits[layer]] for layer in kernels}


def _with_zeros(graph: TFLiteGraph, names: Sequence[str]) -> TFLiteGraph:
    """Returns a graph in which some constants are 0."""
    tensors = dict(graph.tensors)
    for name in names:
        zeros = np.zeros_like(tensors[name].constant)
        tensors[name] = dataclasses.replace(tensors[name], data=zeros)
    return dataclasses.replace(graph, tensors=tensors)


def choose_storage(
    target: Target, storage: str | None
) -> tuple[str, CompiledBytes | None]:
    """Returns the storage of files, and what counts their bytes if they are compiled.

    Args:
        target: What the files will run on.
        storage: The requested storage; None: "packed" if the target has packed kernels,
            else "int8".

    Raises:
        ValueError: If the target refuses the storage.
        RuntimeError: If the target's compiler is not installed.
    """
    if storage is None:
        storage = "packed" if target.containers else "int8"
    check_options(target, storage=storage)
    if target.compiler != COMPILER:
        return storage, None
    check_vela(f"`suggest_bits` for {target.name!r}, which counts compiled bytes,")
    return storage, CompiledBytes(target.name)
