"""Converts between a `TFLiteGraph` and the bytes of a `.tflite` file.

It writes the file directly, operator by operator.

Reference: tflite/schema/schema.fbs of https://github.com/google-ai-edge/LiteRT
"""

# The code that flatbuffers generates has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false, reportMissingTypeStubs=false

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from . import attached_files, faults, guards, packing, releases, tflite_operators
from .checked_bytes import READ_ERRORS, CheckedBytes
from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

IDENTIFIER = b"TFL3"
SIGNATURE_KEY = "serving_default"
_ALIGNMENT = 16  # schema.fbs requires it for buffers; some kernels rely on it.
_SCHEMA_VERSION = 3
_LARGEST_OLD_CODE = 127  # Larger codes do not fit the deprecated 8-bit field.
_ENUMS = {
    "padding": schema.Padding,
    "fused_activation_function": schema.ActivationFunctionType,
    "weights_format": schema.FullyConnectedOptionsWeightsFormat,
    "mode": schema.MirrorPadMode,
}
_DTYPES = {
    name: getattr(schema.TensorType, name.upper())
    for name in (
        *tflite_operators.DTYPES,
        *packing.PACKED,
        *("float16", "float64", "complex64", "bool", "int16", "int64"),
    )
}

# --- Writing -----------------------------------------------------------------


class _Numbers(dict[str, int]):
    """Indices of the tensors by name."""

    def __missing__(self, name: str) -> int:
        """Raises an error that names the missing tensor."""
        raise ValueError(
            "Operators and signatures must name tensors of the graph. "
            f"Received: {name!r}. Add it to `tensors`."
        )


class AlignedBuffer(schema.BufferT):
    """A buffer whose bytes have the alignment that schema.fbs requires.

    The generated Python code ignores `force_align`.
    """

    def Pack(self, builder: flatbuffers.Builder) -> int:
        """Writes the buffer.

        Args:
            builder: Builder of the file.
        """
        if self.data is not None:
            builder.Prep(_ALIGNMENT, len(self.data))
        return super().Pack(builder)


class _SharedQuantization(schema.QuantizationParametersT):
    """Quantization that writes equal zero points only once per file.

    They take eight bytes per channel, more than the codes of a small 4-bit kernel.

    Attributes:
        written: Zero points -> their offset in the file; shared by all tensors.
    """

    written: dict[tuple[int, ...], int]

    def Pack(self, builder: flatbuffers.Builder) -> int:
        """Writes the quantization.

        Args:
            builder: Builder of the file.
        """
        key = tuple(self.zeroPoint)
        if key not in self.written:
            self.written[key] = builder.CreateNumpyVector(np.array(key, np.int64))
        scale = builder.CreateNumpyVector(np.array(self.scale, np.float32))
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scale)
        schema.QuantizationParametersAddZeroPoint(builder, self.written[key])
        schema.QuantizationParametersAddQuantizedDimension(
            builder, self.quantizedDimension
        )
        return schema.QuantizationParametersEnd(builder)


def to_bytes(graph: TFLiteGraph) -> bytes:
    """Returns the bytes of the file; the same graph gives the same bytes.

    The bytes also contain the oldest TFLite release that computes the file right, and
    the attached files.

    Args:
        graph: Tensors, operators, inputs and outputs.

    Raises:
        ValueError: If the graph names a tensor that it does not have, uses an operator,
            option or type that this library does not write, or has operators that
            LiteRT computes wrongly, see `guards`.
    """
    content = rewritten(graph)
    guards.check(graph)
    return content


def rewritten(graph: TFLiteGraph) -> bytes:
    """Returns the bytes of a graph that was read from a file, whatever it computes.

    Args:
        graph: As for `to_bytes`, from the file of any tool.

    Raises:
        ValueError: If `TFLiteGraph` has something that this library does not write.
    """
    return _Writer(graph).content()


def finished(model: Any) -> bytes:
    """Returns the bytes of a file's object tree.

    Args:
        model: A `schema.ModelT`.
    """
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class _Writer:
    """Writes one graph; collects its buffers and the versions of its operators."""

    def __init__(self, graph: TFLiteGraph) -> None:
        self._graph = graph
        self._index = _Numbers({name: i for i, name in enumerate(graph.tensors)})
        self._buffers = [schema.BufferT()]
        self._codes: dict[tuple[str, int, str], int] = {}
        self._zero_points: dict[tuple[int, ...], int] = {}

    def content(self) -> bytes:
        """Returns the bytes of the file."""
        model = schema.ModelT()
        model.version = _SCHEMA_VERSION
        model.description = self._graph.description
        model.subgraphs = [self._subgraph()]
        model.operatorCodes = [_operator_code(*code) for code in self._codes]
        model.signatureDefs = [self._signature()]
        metadata = dict(self._graph.metadata)
        if self._codes:
            runtime = faults.claimed_release(self._graph)
            metadata[releases.RUNTIME_METADATA] = releases.runtime_metadata(runtime)
        model.metadata = [self._metadata(*entry) for entry in metadata.items()]
        model.buffers = self._buffers
        return attached_files.join(finished(model), self._graph.files)

    def _subgraph(self) -> Any:
        """Returns the subgraph."""
        graph = self._graph
        subgraph = schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = [self._tensor(t) for t in graph.tensors.values()]
        subgraph.inputs = [self._index[name] for name in graph.inputs.values()]
        subgraph.outputs = [self._index[name] for name in graph.outputs.values()]
        subgraph.operators = [self._operator(op) for op in graph.ops]
        return subgraph

    def _buffer(self, data: bytes) -> int:
        """Adds a separate buffer and returns its index."""
        buffer = AlignedBuffer()
        buffer.data = np.frombuffer(data, np.uint8)
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _tensor(self, tensor: TFLiteTensor) -> Any:
        """Returns a tensor for the file."""
        _check_tensor(tensor)
        written = schema.TensorT()
        written.name = tensor.name
        written.shape = list(tensor.shape)
        written.type = _DTYPES[tensor.dtype]
        if tensor.data is not None:
            data = tensor.data.tobytes()
            if tensor.dtype in packing.PACKED:
                data = packing.pack(tensor.data, tensor.dtype)
            written.buffer = self._buffer(data)
        if tensor.dynamic_batch:
            written.shapeSignature = [-1, *tensor.shape[1:]]
        if tensor.quantization is not None:
            written.quantization = self._quantization(tensor.quantization)
        return written

    def _quantization(self, quantization: TensorQuantization) -> Any:
        """Returns the quantization of a tensor for the file."""
        written = _SharedQuantization()
        written.written = self._zero_points
        written.scale = quantization.scale.tolist()
        written.zeroPoint = [quantization.zero_point] * len(quantization.scale)
        written.quantizedDimension = quantization.axis
        return written

    def _operator(self, op: TFLiteOp) -> Any:
        """Returns an operator for the file."""
        written = schema.OperatorT()
        written.inputs = [self._index[name] if name else -1 for name in op.inputs]
        written.outputs = [self._index[name] for name in op.outputs]
        version = tflite_operators.op_version(op, self._graph)
        code = op.code, version, op.custom
        number = self._codes.setdefault(code, len(self._codes))
        written.opcodeIndex = number
        table = op.table
        if not table and (op.version is None or op.code in tflite_operators.OPERATORS):
            table = tflite_operators.row_of(op.code).options
        if table:
            written.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            written.builtinOptions = getattr(schema, f"{table}T")()
        for name, value in op.options.items():
            _write_option(op, written.builtinOptions, name, value)
        if op.custom_options:
            written.customOptions = np.frombuffer(op.custom_options, np.uint8)
        return written

    def _signature(self) -> Any:
        """Returns the signature with the user's input and output names."""
        signature = schema.SignatureDefT()
        signature.signatureKey = SIGNATURE_KEY
        signature.inputs = self._ends(self._graph.inputs)
        signature.outputs = self._ends(self._graph.outputs)
        return signature

    def _ends(self, ends: dict[str, str]) -> list[Any]:
        """Returns the inputs or outputs of the signature."""
        written: list[Any] = []
        for name, tensor in ends.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, self._index[tensor]
            written.append(entry)
        return written

    def _metadata(self, name: str, data: bytes) -> Any:
        """Returns a metadata entry for the file."""
        entry = schema.MetadataT()
        entry.name = name
        entry.buffer = self._buffer(data)
        return entry


def _check_tensor(tensor: TFLiteTensor) -> None:
    """Raises an error if a tensor's type or constant cannot be written."""
    if tensor.dtype not in _DTYPES:
        raise ValueError(
            f"Types must be among {sorted(_DTYPES)}. Received: {tensor.dtype} for "
            f"`{tensor.name}`."
        )
    values = tensor.data
    dtype = "int8" if tensor.dtype in packing.PACKED else tensor.dtype
    if values is not None and (
        values.dtype != np.dtype(dtype) or values.shape != tuple(tensor.shape)
    ):
        raise ValueError(
            f"The constant of `{tensor.name}` must be {dtype} "
            f"{tuple(tensor.shape)}. Received: {values.dtype} {values.shape}."
        )


def tensor_type(dtype: str) -> int:
    """Returns the number of a type in the schema, which some options hold.

    Args:
        dtype: Such as "int32".
    """
    return int(_DTYPES[dtype])


def _write_option(op: TFLiteOp, options: Any, name: str, value: Any) -> None:
    """Sets one field of the options table; None means no activation."""
    allowed = (
        [] if options is None else sorted(_snake(field) for field in vars(options))
    )
    if name not in allowed:
        raise ValueError(
            f"Options of {op.code} must be among {allowed}. Received: {name!r}."
        )
    if name in _ENUMS:
        value = "NONE" if value is None else value
        members = [key for key in vars(_ENUMS[name]) if not key.startswith("_")]
        if value not in members:
            raise ValueError(
                f"`{name}` of {op.code} must be among {members}. Received: {value!r}."
            )
        value = getattr(_ENUMS[name], value)
    setattr(options, _camel(name), value)


def _operator_code(code: str, version: int, custom: str) -> Any:
    """Returns an operator code for the file."""
    written = schema.OperatorCodeT()
    written.builtinCode = getattr(schema.BuiltinOperator, code)
    written.deprecatedBuiltinCode = min(written.builtinCode, _LARGEST_OLD_CODE)
    written.version = version
    written.customCode = custom or None
    return written


# --- Reading -----------------------------------------------------------------


def from_bytes(data: bytes) -> TFLiteGraph:
    """Reads the graph of a file, written by this library or another tool.

    `metadata` does not contain the oldest release that runs the file: it follows from
    the operators, and `to_bytes` writes it again.

    Args:
        data: The bytes of a `.tflite` file with one subgraph.

    Raises:
        ValueError: If the bytes are not a readable file, or contain something that
            `TFLiteGraph` cannot represent.
    """
    model, files = object_tree(data)
    packed = attached_files.compressed(data) if files else []
    try:
        graph = _read_model(model)
        return dataclasses.replace(graph, files=files, compressed_files=packed)
    except READ_ERRORS as error:
        raise _unreadable(data, error) from error


def object_tree(data: bytes) -> tuple[Any, dict[str, bytes]]:
    """Reads the object tree of a file, and the files attached to it.

    Args:
        data: The bytes of a `.tflite` file.

    Returns:
        A `schema.ModelT`; and name -> content.

    Raises:
        ValueError: If the bytes are not a readable file.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ValueError(
            "This is not a readable .tflite file: it must have the identifier "
            f"{IDENTIFIER!r}. Received {len(data)} bytes that start with "
            f"{bytes(data[:8])!r}. Check the path and the download."
        )
    flat, files = attached_files.split(data)
    try:
        return schema.ModelT.InitFromPackedBuf(CheckedBytes(flat), 0), files
    except READ_ERRORS as error:
        raise _unreadable(data, error) from error


def _unreadable(data: bytes, error: Exception) -> ValueError:
    """Returns the error for a file that cannot be read."""
    return ValueError(
        "This is not a readable .tflite file: it is truncated, corrupted, or uses "
        f"what this reader does not support ({type(error).__name__}: {error}). "
        f"Received {len(data)} bytes. Check the download."
    )


def _read_model(model: Any) -> TFLiteGraph:
    """Converts the object tree of a file."""
    if len(model.subgraphs) != 1:
        raise ValueError(f"it has {len(model.subgraphs)} subgraphs, expected 1")
    [subgraph] = model.subgraphs
    names = _unique_names(subgraph.tensors)
    tensors = {
        name: _read_tensor(name, tensor, model)
        for name, tensor in zip(names, subgraph.tensors, strict=True)
    }
    inputs = {name: name for name in _at(names, subgraph.inputs)}
    outputs = {name: name for name in _at(names, subgraph.outputs)}
    for signature in model.signatureDefs or []:
        inputs = _read_ends(signature.inputs, names, subgraph.inputs)
        outputs = _read_ends(signature.outputs, names, subgraph.outputs)
    metadata = {_text(m.name): _buffer(model, m.buffer) for m in model.metadata or []}
    runtime = metadata.pop(releases.RUNTIME_METADATA, b"")
    return TFLiteGraph(
        tensors=tensors,
        ops=[_read_op(op, model, names) for op in subgraph.operators or []],
        inputs=inputs,
        outputs=outputs,
        metadata=metadata,
        description=_text(model.description),
        min_runtime=runtime.rstrip(b"\0").decode(),
    )


def _read_ends(entries: Any, names: list[str], order: Any) -> dict[str, str]:
    """Returns the inputs or outputs of a signature: their names and tensors.

    They are in the order of the subgraph, as runtimes and metadata number them.
    """
    places = {number: place for place, number in reversed([*enumerate(_ints(order))])}
    entries = sorted(
        entries or [], key=lambda entry: places.get(entry.tensorIndex, len(places))
    )
    return {_text(entry.name): names[entry.tensorIndex] for entry in entries}


def _at(names: list[str], numbers: Any) -> list[str]:
    """Returns the tensors with these indices; -1 stands for an omitted one."""
    indices = _ints(numbers)
    if min(indices, default=0) < -1:
        raise IndexError(f"{min(indices)} is not a tensor")
    return [names[number] if number >= 0 else "" for number in indices]


def _ints(values: Any) -> list[int]:
    """Returns a vector of the file as integers."""
    return [] if values is None else [int(value) for value in values]


def _text(value: Any) -> str:
    """Returns a string of the file."""
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _unique_names(tensors: list[Any]) -> list[str]:
    """Returns tensor names; adds the index to empty or repeated ones."""
    names: list[str] = []
    seen: set[str] = set()
    for number, tensor in enumerate(tensors):
        name = _text(tensor.name)
        while not name or name in seen:
            name = f"{name}#{number}"
        seen.add(name)
        names.append(name)
    return names


def _buffer(model: Any, number: int) -> bytes:
    """Returns the bytes of a buffer."""
    buffer = model.buffers[number]
    if buffer.offset or buffer.size:
        raise ValueError(f"buffer {number} is outside the flatbuffer")
    return _bytes(buffer.data)


def _bytes(values: Any) -> bytes:
    """Returns a vector of the file as bytes."""
    return b"" if values is None else np.asarray(values, np.uint8).tobytes()


def _read_tensor(name: str, tensor: Any, model: Any) -> TFLiteTensor:
    """Converts one tensor."""
    if tensor.isVariable or tensor.sparsity is not None or tensor.externalBuffer:
        raise ValueError(f"`{name}` is a variable, sparse or outside the file")
    dtype = _name_of(schema.TensorType, tensor.type).lower()
    shape = tuple(_ints(tensor.shape))
    if min(shape, default=0) < 0:
        raise ValueError(f"`{name}` has the shape {shape}")
    data = _buffer(model, tensor.buffer) if tensor.buffer else b""
    values = None
    if data:
        if dtype not in _DTYPES:
            raise ValueError(f"`{name}` has constants of type {dtype}")
        if dtype in packing.PACKED:
            data = packing.unpack(data, math.prod(shape), dtype).tobytes()
        stored = "int8" if dtype in packing.PACKED else dtype
        values = np.frombuffer(data, stored).reshape(shape)
    signature = _ints(tensor.shapeSignature)
    return TFLiteTensor(
        name,
        shape,
        dtype,
        _read_quantization(name, tensor.quantization),
        data=values,
        dynamic_batch=bool(signature) and signature[0] == -1,
    )


def _read_quantization(name: str, found: Any) -> TensorQuantization | None:
    """Converts the quantization of one tensor."""
    if found is None or found.scale is None or len(found.scale) == 0:
        return None
    zero_points = set(_ints(found.zeroPoint)) or {0}
    if len(zero_points) > 1:
        raise ValueError(f"`{name}` has several zero points: {sorted(zero_points)}")
    return TensorQuantization(
        np.asarray(found.scale, np.float32),
        zero_points.pop(),
        int(found.quantizedDimension),
    )


def _read_op(op: Any, model: Any, names: list[str]) -> TFLiteOp:
    """Converts one operator."""
    code = model.operatorCodes[op.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    options = {}
    fields = {} if op.builtinOptions is None else vars(op.builtinOptions)
    for attribute, value in fields.items():
        name = _snake(attribute)
        if name in _ENUMS:
            value = _name_of(_ENUMS[name], value)
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        options[name] = value
    return TFLiteOp(
        _name_of(schema.BuiltinOperator, number),
        _at(names, op.inputs),
        _at(names, op.outputs),
        options,
        version=int(code.version),
        table=type(op.builtinOptions).__name__.removesuffix("T") if fields else "",
        custom=_text(code.customCode),
        custom_options=_bytes(op.customOptions),
    )


def _name_of(enum: type, value: int) -> str:
    """Returns the name of an enum's value."""
    for name, number in vars(enum).items():
        if number == value and not name.startswith("_"):
            return name
    raise ValueError(f"{value} is not a value of {enum.__name__}")


def _camel(name: str) -> str:
    """Returns the attribute of the schema object for a field."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _snake(attribute: str) -> str:
    """Returns the field for an attribute of the schema object."""
    return re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), attribute)
