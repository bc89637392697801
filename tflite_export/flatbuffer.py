"""`TFLiteGraph` <-> the bytes of a `.tflite` file.

The file is written directly, operator by operator, with the smallest operator
versions that cover what is used: phones with an old runtime and the Edge TPU
compiler refuse versions that are newer than they need to be.

References: tflite/schema/schema.fbs and tflite/tools/versioning/op_version.cc of
https://github.com/google-ai-edge/LiteRT
"""

from __future__ import annotations

import re
import struct
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

IDENTIFIER = b"TFL3"
SIGNATURE_KEY = "serving_default"
_SCHEMA_VERSION = 3
_LARGEST_OLD_CODE = 127  # Larger codes do not fit the deprecated 8-bit field.
_READ_ERRORS = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    MemoryError,
    OverflowError,
)

# Operator -> (options table, version in float, version in int8).
_OPS: dict[str, tuple[str | None, int, int]] = {
    "ADD": ("AddOptions", 1, 2),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 1, 2),
    "CONCATENATION": ("ConcatenationOptions", 1, 2),
    "CONV_2D": ("Conv2DOptions", 1, 3),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 1, 3),
    "DEQUANTIZE": ("DequantizeOptions", 1, 2),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 1, 4),
    "MAX_POOL_2D": ("Pool2DOptions", 1, 2),
    "MEAN": ("ReducerOptions", 1, 2),
    "MUL": ("MulOptions", 1, 2),
    "PAD": ("PadOptions", 1, 2),
    "QUANTIZE": ("QuantizeOptions", 1, 1),
    "REDUCE_MAX": ("ReducerOptions", 1, 2),
    "RELU": (None, 1, 2),
    "RELU6": (None, 1, 2),
    "RESHAPE": ("ReshapeOptions", 1, 1),
    "SOFTMAX": ("SoftmaxOptions", 1, 2),
}
_ENUMS = {
    "padding": schema.Padding,
    "fused_activation_function": schema.ActivationFunctionType,
    "weights_format": schema.FullyConnectedOptionsWeightsFormat,
}
_DTYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
}


def op_version(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the smallest operator version that covers this use.

    Args:
        op: The operator.
        graph: The graph that holds its tensors.

    Raises:
        ValueError: If this library does not know the operator.
    """
    if op.code not in _OPS:
        raise ValueError(
            f"Operators must be among {sorted(_OPS)}. Received: {op.code}."
        )
    _, in_float, in_int8 = _OPS[op.code]
    if op.code == "MUL" and _rescale(op, graph) >= 1.0:
        return 3
    if graph.tensors[op.inputs[0]].dtype == "int8":
        return 5 if op.options.get("keep_num_dims") else in_int8
    if op.options.get("keep_num_dims"):
        return 5
    dilation = {op.options.get(f"dilation_{axis}_factor", 1) for axis in "hw"}
    if op.code == "DEPTHWISE_CONV_2D" and dilation != {1}:
        return 2
    return in_float


def _rescale(op: TFLiteOp, graph: TFLiteGraph) -> float:
    """Returns the factor between the product of two codes and the output's code."""
    found = [graph.tensors[name].quantization for name in (*op.inputs, *op.outputs)]
    if None in found:
        return 0.0
    first, second, output = (float(q.scale[0]) for q in found)
    return first * second / output


# --- Writing -----------------------------------------------------------------


def to_bytes(graph: TFLiteGraph) -> bytes:
    """Returns the bytes of the file; the same graph gives the same bytes."""
    model = schema.ModelT()
    model.version = _SCHEMA_VERSION
    model.description = graph.description
    model.buffers = [schema.BufferT()]
    index = {name: number for number, name in enumerate(graph.tensors)}
    model.operatorCodes = []
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    subgraph.tensors = [_write_tensor(t, model) for t in graph.tensors.values()]
    subgraph.inputs = [index[name] for name in graph.inputs.values()]
    subgraph.outputs = [index[name] for name in graph.outputs.values()]
    codes: dict[tuple[str, int], int] = {}
    subgraph.operators = [
        _write_op(op, op_version(op, graph), codes, index) for op in graph.ops
    ]
    model.operatorCodes = [_write_code(code, version) for code, version in codes]
    model.subgraphs = [subgraph]
    model.signatureDefs = [_write_signature(graph, index)]
    model.metadata = [_write_metadata(k, v, model) for k, v in graph.metadata.items()]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _add_buffer(model: Any, data: bytes) -> int:
    """Adds a buffer of its own and returns its number."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _write_tensor(tensor: TFLiteTensor, model: Any) -> Any:
    """Returns a tensor for the file."""
    made = schema.TensorT()
    made.name = tensor.name
    made.shape = list(tensor.shape)
    made.type = _DTYPES[tensor.dtype]
    made.buffer = 0 if tensor.data is None else _add_buffer(
        model, np.ascontiguousarray(tensor.data).tobytes()
    )
    if tensor.dynamic_batch:
        made.shapeSignature = [-1, *tensor.shape[1:]]
    if tensor.quantization is not None:
        quantization = schema.QuantizationParametersT()
        scale = tensor.quantization.scale
        quantization.scale = scale.tolist()
        quantization.zeroPoint = [tensor.quantization.zero_point] * len(scale)
        quantization.quantizedDimension = tensor.quantization.axis
        made.quantization = quantization
    return made


def _write_op(
    op: TFLiteOp, version: int, codes: dict[tuple[str, int], int], index: dict[str, int]
) -> Any:
    """Returns an operator for the file."""
    made = schema.OperatorT()
    made.opcodeIndex = codes.setdefault((op.code, version), len(codes))
    made.inputs = [index[name] if name else -1 for name in op.inputs]
    made.outputs = [index[name] for name in op.outputs]
    table = _OPS[op.code][0]
    if table is not None:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        made.builtinOptions = getattr(schema, f"{table}T")()
        for name, value in op.options.items():
            if name in _ENUMS:
                value = getattr(_ENUMS[name], value)
            setattr(made.builtinOptions, _camel(name), value)
    return made


def _write_code(code: str, version: int) -> Any:
    """Returns an operator code for the file."""
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, code)
    made.deprecatedBuiltinCode = min(made.builtinCode, _LARGEST_OLD_CODE)
    made.version = version
    return made


def _write_signature(graph: TFLiteGraph, index: dict[str, int]) -> Any:
    """Returns the signature with the user's input and output names."""

    def entries(ends: dict[str, str]) -> list[Any]:
        made = []
        for name, tensor in ends.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index[tensor]
            made.append(entry)
        return made

    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE_KEY
    signature.inputs = entries(graph.inputs)
    signature.outputs = entries(graph.outputs)
    return signature


def _write_metadata(name: str, data: bytes, model: Any) -> Any:
    """Returns a metadata entry for the file."""
    made = schema.MetadataT()
    made.name = name
    made.buffer = _add_buffer(model, data)
    return made


# --- Reading -----------------------------------------------------------------


def from_bytes(data: bytes) -> TFLiteGraph:
    """Returns the graph of a file, written by this library or another tool.

    Args:
        data: The bytes of a `.tflite` file with one subgraph.

    Raises:
        ValueError: If the bytes are no readable file, or hold something that
            `TFLiteGraph` cannot express.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ValueError(
            f"The file must be a .tflite file (identifier {IDENTIFIER!r}). "
            f"Received {len(data)} bytes that start with {bytes(data[:8])!r}."
        )
    try:
        model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
        return _read_model(model)
    except _READ_ERRORS as error:
        raise ValueError(
            "The file is not a readable .tflite file: it is truncated, corrupted, or "
            f"uses what this reader does not know ({type(error).__name__}: {error})."
        ) from error


def _read_model(model: Any) -> TFLiteGraph:
    """Converts the object tree of a file."""
    [subgraph] = model.subgraphs
    names = _unique_names(subgraph.tensors)
    tensors = {
        name: _read_tensor(name, tensor, model)
        for name, tensor in zip(names, subgraph.tensors, strict=True)
    }
    inputs = {names[i]: names[i] for i in _ints(subgraph.inputs)}
    outputs = {names[i]: names[i] for i in _ints(subgraph.outputs)}
    for signature in model.signatureDefs or []:
        inputs = {_text(e.name): names[e.tensorIndex] for e in signature.inputs}
        outputs = {_text(e.name): names[e.tensorIndex] for e in signature.outputs}
    return TFLiteGraph(
        tensors=tensors,
        ops=[_read_op(op, model, names) for op in subgraph.operators or []],
        inputs=inputs,
        outputs=outputs,
        metadata={
            _text(entry.name): _buffer(model, entry.buffer)
            for entry in model.metadata or []
        },
        description=_text(model.description),
    )


def _ints(values: Any) -> list[int]:
    """Returns a vector of the file as integers."""
    return [] if values is None else [int(value) for value in values]


def _text(value: Any) -> str:
    """Returns a string of the file."""
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _unique_names(tensors: list[Any]) -> list[str]:
    """Returns tensor names; empty or repeated ones get their number."""
    names: list[str] = []
    seen: set[str] = set()
    for number, tensor in enumerate(tensors):
        name = _text(tensor.name)
        if not name or name in seen:
            name = f"{name}#{number}"
        seen.add(name)
        names.append(name)
    return names


def _buffer(model: Any, number: int) -> bytes:
    """Returns the bytes of a buffer."""
    data = model.buffers[number].data
    return b"" if data is None else np.asarray(data, np.uint8).tobytes()


def _read_tensor(name: str, tensor: Any, model: Any) -> TFLiteTensor:
    """Converts one tensor."""
    dtype = _name_of(schema.TensorType, tensor.type).lower()
    shape = tuple(_ints(tensor.shape))
    data = _buffer(model, tensor.buffer) if tensor.buffer else b""
    values = None
    if data:
        if dtype not in _DTYPES:
            raise ValueError(f"`{name}` has constants of type {dtype}")
        values = np.frombuffer(data, dtype).reshape(shape)
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
    for attribute, value in vars(op.builtinOptions or object).items():
        if attribute.startswith("_") or callable(value):
            continue
        name = _snake(attribute)
        if name in _ENUMS:
            value = _name_of(_ENUMS[name], value)
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        options[name] = value
    return TFLiteOp(
        _name_of(schema.BuiltinOperator, number),
        [names[i] if i >= 0 else "" for i in _ints(op.inputs)],
        [names[i] for i in _ints(op.outputs)],
        options,
    )


def _name_of(enum: type, value: int) -> str:
    """Returns the name of an enum's value."""
    for name, number in vars(enum).items():
        if number == value and not name.startswith("_"):
            return name
    raise ValueError(f"{value} is no {enum.__name__}")


def _camel(name: str) -> str:
    """Returns the attribute of the schema's object for a field."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _snake(attribute: str) -> str:
    """Returns the field for an attribute of the schema's object."""
    return re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), attribute)
