"""Reads and writes `.tflite` files as plain data; has TFLite's facts about operators.

Nothing here needs TensorFlow.
"""

from .flatbuffer import SIGNATURE_KEY, from_bytes, tensor_type, to_bytes
from .inspect import FileReport, inspect_tflite
from .packing import CONTAINERS, PACKED, SMALLEST_FIRST, num_packed_bytes
from .quantized_tensor import QuantizedTensor
from .releases import is_newer, newest
from .tflite_graph import (
    End,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    ends_of,
)
from .tflite_operators import first_release, op_version, runtime_of, xnnpack_has

__all__ = [
    "CONTAINERS",
    "PACKED",
    "SIGNATURE_KEY",
    "SMALLEST_FIRST",
    "End",
    "FileReport",
    "QuantizedTensor",
    "TFLiteGraph",
    "TFLiteOp",
    "TFLiteTensor",
    "TensorQuantization",
    "ends_of",
    "first_release",
    "from_bytes",
    "inspect_tflite",
    "is_newer",
    "newest",
    "num_packed_bytes",
    "op_version",
    "runtime_of",
    "tensor_type",
    "to_bytes",
    "xnnpack_has",
]
