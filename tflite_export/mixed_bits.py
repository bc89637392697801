"""A float model with bits of its own for every layer: the file it would become."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

import tf_lsq
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.graph import analyze
from tf_lsq.layers import LSQWrapper
from tf_lsq.policy import Override, first_and_last

from . import flatbuffer, metadata
from .containers import Storage
from .freeze import freeze_model
from .integerize import integerize
from .targets import TARGETS, check_graph
from .tflite_graph import TFLiteTensor

_SCALE_BYTES = 4


@dataclasses.dataclass(frozen=True)
class FileSize:
    """What a file takes.

    Attributes:
        file_bytes: Its size.
        layer_bytes: Layer -> bytes of its kernels, their biases and scales.
        layer_bits: Layer -> bits of its kernels.
    """

    file_bytes: int
    layer_bytes: dict[str, int]
    layer_bits: dict[str, int]


class MixedBits:
    """A float model whose layers get bits one by one.

    Args:
        model: The float model.
        examples: What it is calibrated with, one array per input.
        activation_bits: Bits of the inputs of layers with kernels; None: those of the
            kernel. The first and the last layer get 8.
        fixed: Overrides that come before what this class is asked for.
        storage: How codes are stored.
        **options: More options of `quantize_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        examples: list[np.ndarray],
        *,
        activation_bits: int | None,
        fixed: Mapping[str, Override],
        storage: Storage,
        **options: Any,
    ) -> None:
        self.model, self.examples, self.options = model, examples, options
        self._activation_bits, self._fixed = activation_bits, dict(fixed)
        self._storage = storage
        graph = analyze(model)
        kernels = [node for node in graph.nodes if node.properties.matmul]
        # Layers of the quantized model -> the user's.
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
        found: dict[str, Override] = {}
        # "conv" also means "model/conv", and of several patterns the last one counts.
        for layer in sorted(bits, key=lambda layer: layer.count("/")):
            pair = bits[layer], self.activation_bits(layer, bits[layer])
            found[re.escape(layer)] = pair[0] if pair[0] == pair[1] else pair
        free = {name: own for name, own in found.items() if name not in self._fixed}
        return {**free, **self._fixed}

    def whole(self) -> keras.Model:
        """Returns the quantized model with 8 bits everywhere, calibrated."""
        every = dict.fromkeys(map(re.escape, self.layers), lsq.MAX_NUM_BITS)
        free = {name: own for name, own in every.items() if name not in self._fixed}
        return self._student({**free, **self._fixed})

    def size(self, bits: Mapping[str, int]) -> FileSize:
        """Returns what the file takes, made as `export_model` makes it.

        Args:
            bits: Layer -> bits of its kernel.

        Raises:
            ValueError: If the model cannot be quantized, or the target refuses it.
        """
        student = self._student(self.overrides(bits))
        tf_lsq.round_biases(student)  # As `fit` ends.
        frozen = freeze_model(student, self._storage)
        graph = integerize(frozen)
        check_graph(graph, TARGETS[frozen.target])
        metadata.add_description(frozen, graph)
        size = FileSize(len(flatbuffer.to_bytes(graph)), {}, {})
        for node in frozen.nodes:
            wrapper = node.node.model_layer
            if not (isinstance(wrapper, LSQWrapper) and node.node.properties.matmul):
                continue
            layer = self.layer_names[wrapper.layer.name]
            constants = [f"{node.name}/weight", f"{node.name}/bias"]
            found = [graph.tensors[n] for n in constants if n in graph.tensors]
            before = size.layer_bytes.get(layer, 0)
            size.layer_bytes[layer] = before + sum(map(_num_bytes, found))
            size.layer_bits[layer] = wrapper.quantizer.num_bits
        return size

    def _student(self, overrides: Mapping[str, Override]) -> keras.Model:
        """Returns a quantized model, calibrated."""
        student = tf_lsq.quantize_model(self.model, overrides=overrides, **self.options)
        arrays: Any = dict(zip(student.input_names, self.examples, strict=True))
        tf_lsq.calibrate(student, arrays, num_examples=len(self.examples[0]))
        return student


def _num_bytes(tensor: TFLiteTensor) -> int:
    """Returns what a constant takes, its scales included."""
    scales = 0 if tensor.quantization is None else len(tensor.quantization.scale)
    return tensor.num_bytes + _SCALE_BYTES * scales
