"""Reads and writes `.tflite` files as plain data; has TFLite's facts about operators.

Nothing here needs TensorFlow.
"""

from .ends import with_uint8_ends
from .faults import FAULTS, faults_of, least_releases, runtime_of
from .flatbuffer import SIGNATURE_KEY, from_bytes, tensor_type, to_bytes
from .inspect import FileReport, inspect_tflite
from .packing import CONTAINERS, PACKED, SMALLEST_FIRST, num_packed_bytes
from .quantized_tensor import QuantizedTensor
from .releases import LITERT, TENSORFLOW, is_newer, newest
from .tflite_graph import (
    End,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    ends_of,
)
from .tflite_operators import first_release, op_version, xnnpack_has

__all__ = [
    "CONTAINERS",
    "FAULTS",
    "LITERT",
    "PACKED",
    "SIGNATURE_KEY",
    "SMALLEST_FIRST",
    "TENSORFLOW",
    "End",
    "FileReport",
    "QuantizedTensor",
    "TFLiteGraph",
    "TFLiteOp",
    "TFLiteTensor",
    "TensorQuantization",
    "ends_of",
    "faults_of",
    "first_release",
    "from_bytes",
    "inspect_tflite",
    "is_newer",
    "least_releases",
    "newest",
    "num_packed_bytes",
    "op_version",
    "runtime_of",
    "tensor_type",
    "to_bytes",
    "with_uint8_ends",
    "xnnpack_has",
]
