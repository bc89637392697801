"""The layers of a model that stay in float and have no operator here.

TFLiteConverter converts all of them together: they are a model of their own, with the
tensors that other operators compute as its inputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from .._compat import keras
from .copying import copied
from .nodes import Layer, Node, class_name

# Share of the largest value by which float32 kernels may differ.
_TOLERANCE = 1e-3
# What MLIR prints about an operation that it cannot convert.
_OPERATIONS = re.compile(r"'(tf\.\w+)' op")


@dataclasses.dataclass(frozen=True, eq=False)
class FloatPart:
    """The layers that stay in float and have no operator here.

    Attributes:
        nodes: The operators of kind "foreign", in order.
        sources: The other operators whose outputs they read.
    """

    nodes: list[Node]
    sources: list[Node]

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> FloatPart:
        """Returns the part that consists of some of a graph's operators."""
        chosen = [node for node in nodes if node.kind == "foreign"]
        inside = set(chosen)
        read = dict.fromkeys(source for node in chosen for source in node.inputs)
        return cls(chosen, [source for source in read if source not in inside])

    @property
    def layer_names(self) -> dict[Node, str]:
        """Operator -> the name of its layer in the model."""
        names: dict[int, str] = {}
        return {
            node: names.setdefault(id(node.layer), f"layer_{len(names)}")
            for node in self.nodes
        }

    def model(self, batch: int | None) -> keras.Model:
        """Returns the part as a float32 model with the weights of its layers.

        Its inputs are "input_0", ... for the sources, its outputs "output_0", ... for
        the operators.

        Args:
            batch: The batch size, None for any.
        """
        inputs = [
            keras.Input(
                batch_shape=(batch, *source.shape[1:]),
                dtype=_plain_type(source.dtype),
                name=f"input_{number}",
            )
            for number, source in enumerate(self.sources)
        ]
        tensors = dict(zip(self.sources, inputs, strict=True))
        called: dict[Any, list[Any]] = {}
        copies: dict[str, tuple[Layer, Layer]] = {}
        names = self.layer_names
        for node in self.nodes:
            call, name = node.foreign_call, names[node]
            if call not in called:
                if name not in copies:
                    copies[name] = node.layer, _in_float32(node.layer, name)
                read = [tensors[source] for source in node.inputs]
                called[call] = call.outputs(copies[name][1], read)
            tensors[node] = called[call][node.output]
        for layer, copy in copies.values():
            copy.set_weights(layer.get_weights())
        outputs = [
            _End(name=f"output_{number}", dtype="float32")(tensors[node])
            for number, node in enumerate(self.nodes)
        ]
        return keras.Model(inputs, outputs, name="float_part")

    def convert(self, batch: int | None) -> bytes:
        """Returns the part as a TFLite file.

        Args:
            batch: The batch size, None for any.

        Raises:
            ValueError: If TFLite's own operators cannot express a layer; the error
                names all such layers.
        """
        content = _converted(self, batch)
        if isinstance(content, bytes):
            return content
        raise ValueError(
            "A layer that stays in float must have a form in TFLite's own operators. "
            "Received:\n  " + "\n  ".join(_offenders(self, content, batch).values())
        )


def try_float_part(nodes: Sequence[Node], *, dynamic_batch: bool) -> None:
    """Converts the layers that stay in float, and runs them once.

    Args:
        nodes: The operators of a model.
        dynamic_batch: Whether the file would have a dynamic batch size, if possible.

    Raises:
        ValueError: If TFLite's own operators cannot express a layer, or it cannot be
            copied.
    """
    part = FloatPart.of(nodes)
    if part.nodes:
        convert_float_part(part, dynamic_batch=dynamic_batch)


def convert_float_part(part: FloatPart, *, dynamic_batch: bool) -> tuple[bytes, bool]:
    """Converts the layers that stay in float; recurrent ones need a fixed batch of 1.

    Args:
        part: Layers.
        dynamic_batch: Whether the batch size may change at run time, if possible.

    Returns:
        The TFLite file, and whether its batch size is dynamic.

    Raises:
        ValueError: If TFLite's own operators cannot express a layer.
    """
    content = _converted(part, None) if dynamic_batch else None
    if isinstance(content, bytes):
        return content, True
    return part.convert(1), False


def _in_float32(layer: Layer, name: str) -> Layer:
    """Returns a copy of a layer that computes in float32, or in integers."""
    whole = not tf.as_dtype(layer.compute_dtype or "float32").is_floating
    return copied(layer, name=name, **({} if whole else {"dtype": "float32"}))


def _plain_type(dtype: tf.DType) -> tf.DType:
    """Returns the type in which a file holds a tensor."""
    return tf.float32 if dtype.is_floating else dtype


class _End(keras.layers.Layer):
    """Gives an output of the converted model its name."""

    def call(self, inputs: Any) -> Any:
        """Returns the input."""
        return tf.identity(inputs)


def _converted(part: FloatPart, batch: int | None) -> bytes | str:
    """Returns the TFLite file of a part, or what is wrong with it, in one line."""
    printed: list[str] = []
    try:
        model = part.model(batch)
        with _captured_stderr(printed):
            content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
            _compare(content, part, model)
    except Exception as error:  # Converters raise whatever they like.
        text = "\n".join([str(error), *printed])
        names = sorted(set(_OPERATIONS.findall(text)))
        if names:
            return f"TFLite has no form of {', '.join(names)}"
        return _cause(error)
    return content


def _cause(error: Exception) -> str:
    """Returns the line of an error that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    # Keras puts the layer, which has a number for a name, before the cause.
    wrapped = len(lines) > 1 and lines[0].startswith("Exception encountered when")
    return lines[wrapped].strip() if lines else type(error).__name__


def _offenders(part: FloatPart, problem: str, batch: int | None) -> dict[str, str]:
    """Returns the layers that cannot be converted: what is wrong by layer's name.

    A part that can be converted only in halves is described as one.

    Args:
        part: A part that cannot be converted.
        problem: What is wrong with it.
        batch: The batch size, None for any.
    """
    if len(part.nodes) == 1:
        return {part.nodes[0].origin: _described(part.nodes[0], problem)}
    middle = len(part.nodes) // 2
    found: dict[str, str] = {}
    for nodes in (part.nodes[:middle], part.nodes[middle:]):
        half = FloatPart.of(nodes)
        content = _converted(half, batch)
        if not isinstance(content, bytes):
            found |= _offenders(half, content, batch)
    return found or {"": f"{_names(part.nodes)}: {problem}"}


def _compare(content: bytes, part: FloatPart, model: keras.Model) -> None:
    """Compares a file with the model that it was converted from, on random numbers.

    Rounding in float32 adds up over many layers. Where the results differ, every layer
    is compared on what the file computes in front of it.

    Raises:
        ValueError: If the file has loops or a state, the runtime refuses it, or it
            computes something else.
    """
    file = schema.ModelT.InitFromPackedBuf(content, 0)
    if len(file.subgraphs) > 1:
        raise ValueError("TFLite runs it as a loop, which files from here do not have")
    if any(tensor.isVariable for tensor in file.subgraphs[0].tensors):
        raise ValueError("TFLite's form of it keeps its state from one run to the next")
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    runner, rng = interpreter.get_signature_runner(), np.random.default_rng(0)
    arrays = {
        name: rng.uniform(0.0, 2.0, detail["shape"]).astype(detail["dtype"])
        for name, detail in runner.get_input_details().items()
    }
    found = runner(**arrays)
    read = {
        tensor.name: arrays.get(tensor.name, np.zeros((1, *tensor.shape[1:])))
        for tensor in model.inputs
    }
    inputs = list(read.values()) if read else []
    expected = tf.nest.flatten(model(inputs, training=False))
    pairs = [(found[f"output_{n}"], values) for n, values in enumerate(expected)]
    if not all(_are_close(*pair) for pair in pairs):
        _compare_layers(part, model, read, found)


def _compare_layers(
    part: FloatPart,
    model: keras.Model,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
) -> None:
    """Compares each layer with what a file computes from the same numbers.

    Args:
        part: The layers.
        model: `part.model(batch)`.
        inputs: Inputs of the file by name.
        outputs: Outputs of the file by name.

    Raises:
        ValueError: If a layer computes something else.
    """
    values = {s: inputs[f"input_{number}"] for number, s in enumerate(part.sources)}
    values |= {n: outputs[f"output_{number}"] for number, n in enumerate(part.nodes)}
    for node, name in part.layer_names.items():
        read = [tf.convert_to_tensor(values[source]) for source in node.inputs]
        layer = model.get_layer(name)
        expected = node.foreign_call.outputs(layer, read, training=False)[node.output]
        if not _are_close(values[node], expected):
            raise ValueError(
                "TFLite computes something else than Keras on the same input"
            )


def _are_close(found: Any, expected: Any) -> bool:
    """Returns whether two outputs are equal up to float32 rounding."""
    found, expected = np.asarray(found), np.asarray(expected)
    largest = np.abs(expected, dtype=np.float64).max(
        initial=0.0, where=np.isfinite(expected)
    )
    return found.shape == expected.shape and np.allclose(
        found, expected, 0.0, _TOLERANCE * max(largest, 1e-6), equal_nan=True
    )


@contextlib.contextmanager
def _captured_stderr(lines: list[str]) -> Iterator[None]:
    """Collects what C++ code prints to standard error, instead of printing it."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            file.seek(0)
            lines.append(file.read().decode(errors="replace"))


def _described(node: Node, problem: str) -> str:
    """Returns a layer with what is wrong, and what to do."""
    remedy = "remove it from the model, and run it before or after the file"
    if isinstance(node.layer, keras.layers.RNN | keras.layers.Bidirectional):
        remedy = "build it with `unroll=True`, which needs a static length"
    return f"`{node.origin}` ({class_name(node.layer)}): {problem}; {remedy}"


def _names(nodes: Sequence[Node]) -> str:
    """Returns the names of layers, each once."""
    return ", ".join(dict.fromkeys(f"`{node.origin}`" for node in nodes))
