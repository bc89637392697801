"""Exports a float model with separate bits for every layer, to measure its size."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import tf_lsq
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.data import first_examples
from tf_lsq.graph import analyze
from tf_lsq.policy import Override, first_and_last

from ..build import BuiltFile, FileSettings, build_file
from ..file import TFLiteTensor
from ..freezing import FrozenNode, QuantizedKernel, Storage, read_model
from ..targets import TARGETS, check_graph
from .compiled import CompiledBytes

_SCALE_BYTES = 4


@dataclasses.dataclass(frozen=True)
class FileSize:
    """The sizes of a file; as compiled, where the target has a compiler.

    Attributes:
        file_bytes: Size of the whole file.
        layer_bytes: Layer -> bytes of its kernels, their biases and scales; as
            compiled, those of the kernels.
        layer_bits: Layer -> bits of its kernels.
    """

    file_bytes: int
    layer_bytes: dict[str, int]
    layer_bits: dict[str, int]


class MixedBits:
    """A float model with separate bits for each layer.

    Args:
        model: The float model.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`.
        num_examples: How many of the first examples to calibrate with.
        activation_bits: Bits of the inputs of layers with kernels; None: those of the
            kernel. The first and the last layer get 8.
        fixed: Overrides that take precedence over the bits that this class is given.
        storage: How codes are stored.
        compiled: Counts the bytes of compiled files; None: of files as exported.
        **options: Other options of `quantize_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Any,
        num_examples: int,
        *,
        activation_bits: int | None,
        fixed: Mapping[str, Override],
        storage: Storage,
        compiled: CompiledBytes | None = None,
        **options: Any,
    ) -> None:
        self.model, self._options = model, options
        self._activation_bits, self._fixed = activation_bits, dict(fixed)
        self._storage, self._compiled = storage, compiled
        graph = analyze(model)
        self.examples = first_examples(data, list(model.input_names), num_examples)
        kernels = [node for node in graph.nodes if node.properties.matmul]
        # Layers of the quantized model -> the user's layers.
        self.layer_names = {node.layer_name: node.origin for node in kernels}
        self.layers = list(dict.fromkeys(self.layer_names.values()))
        self._ends = {node.origin for node in first_and_last(graph)}

    def activation_bits(self, layer: str, weight_bits: int) -> int:
        """Returns the bits of a layer's input.

        Args:
            layer: Name of the user's layer.
            weight_bits: Bits of its kernel.
        """
        if layer in self._ends:
            return lsq.MAX_NUM_BITS
        return weight_bits if self._activation_bits is None else self._activation_bits

    def overrides(self, bits: Mapping[str, int]) -> dict[str, Override]:
        """Returns the overrides that give layers these bits.

        Args:
            bits: Layer -> bits of its kernel.
        """
        pairs = {
            layer: (own, self.activation_bits(layer, own))
            for layer, own in bits.items()
        }
        return self._patterns(pairs)

    def whole(self) -> keras.Model:
        """Returns the quantized model with 8 bits everywhere, calibrated."""
        most = lsq.MAX_NUM_BITS
        return self._student(self._patterns(dict.fromkeys(self.layers, (most, most))))

    def size(self, bits: Mapping[str, int]) -> FileSize:
        """Returns the sizes of the file that `export_model` would write.

        Where the target has a compiler, they are those of the compiled file.

        Args:
            bits: Layer -> bits of its kernel.

        Raises:
            ValueError: If the model cannot be quantized, or the target refuses it.
        """
        student = self._student(self.overrides(bits))
        tf_lsq.round_biases(student)  # As at the end of `fit`.
        built = build_file(read_model(student), FileSettings(self._storage))
        check_graph(built.graph, TARGETS[built.frozen.target])
        kernels: dict[str, list[FrozenNode]] = {}
        layer_bits: dict[str, int] = {}
        for node in built.frozen.nodes:
            kernel = node.trained.kernel
            if not (node.trained.matmul and isinstance(kernel, QuantizedKernel)):
                continue
            layer = self.layer_names[kernel.layer]
            kernels.setdefault(layer, []).append(node)
            layer_bits[layer] = kernel.num_bits
        return self._sizes(built, kernels, layer_bits)

    def _sizes(
        self,
        built: BuiltFile,
        kernels: Mapping[str, list[FrozenNode]],
        layer_bits: dict[str, int],
    ) -> FileSize:
        """Returns the sizes of a file, given the operators of each layer."""
        if self._compiled is None:
            tensors = built.graph.tensors
            layer_bytes = {
                layer: sum(
                    _num_bytes(tensors[name])
                    for node in nodes
                    for part in node.parts
                    for name in (f"{part}/weight", f"{part}/bias")
                    if name in tensors
                )
                for layer, nodes in kernels.items()
            }
            return FileSize(len(built.content), layer_bytes, layer_bits)
        file_bytes = self._compiled.file_bytes(built.content)
        names = {
            layer: [f"{part}/weight" for node in nodes for part in node.parts]
            for layer, nodes in kernels.items()
        }
        layer_bytes = self._compiled.layer_bytes(
            built.graph, file_bytes, names, layer_bits
        )
        return FileSize(file_bytes, layer_bytes, layer_bits)

    def _patterns(self, pairs: Mapping[str, tuple[int, int]]) -> dict[str, Override]:
        """Returns the bits of kernels and inputs as overrides, the fixed ones last."""
        patterns: dict[str, Override] = {}
        # "conv" also matches "model/conv", and the last of several matches counts.
        for layer in sorted(pairs, key=lambda layer: layer.count("/")):
            weight, activation = pairs[layer]
            pattern = re.escape(layer)
            if pattern not in self._fixed:
                patterns[pattern] = (
                    weight if weight == activation else (weight, activation)
                )
        return {**patterns, **self._fixed}

    def _student(self, overrides: Mapping[str, Override]) -> keras.Model:
        """Returns a calibrated quantized model."""
        student = tf_lsq.quantize_model(
            self.model, overrides=overrides, **self._options
        )
        arrays: Any = dict(zip(student.input_names, self.examples, strict=True))
        tf_lsq.calibrate(student, arrays, num_examples=len(self.examples[0]))
        return student


def _num_bytes(tensor: TFLiteTensor) -> int:
    """Returns the bytes of a constant, including its scales."""
    scales = 0 if tensor.quantization is None else len(tensor.quantization.scale)
    return tensor.num_bytes + _SCALE_BYTES * scales
