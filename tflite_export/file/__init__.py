"""Reads and writes `.tflite` files as plain data; has TFLite's facts about operators.

Nothing here needs TensorFlow.
"""

from .ends import (
    UINT8_OFFSET,
    as_int8,
    as_uint8,
    quantized_input,
    with_uint8_ends,
)
from .faults import FAULTS, faults_of, least_releases, runtime_of
from .flatbuffer import SIGNATURE_KEY, from_bytes, rewritten, tensor_type, to_bytes
from .labels import Labels, label_faults, read_labels
from .metadata_additions import (
    Additions,
    additions_missing,
    is_image,
    with_additions,
)
from .packing import CONTAINERS, PACKED, SMALLEST_FIRST, num_packed_bytes
from .pixel_codes import (
    USUAL_FORMS,
    bytes_are_codes,
    codes_of_bytes,
    codes_of_input,
    contradiction,
    form_of_pixels,
    pixel_inputs,
    values_of_bytes,
)
from .quantized_tensor import QuantizedTensor
from .releases import LITERT, TENSORFLOW, is_newer, litert_release, newest
from .rewriting import with_metadata
from .score_types import score_function
from .standard_metadata import (
    SCORE_TYPES,
    ModelInfo,
    Normalization,
    StandardMetadata,
)
from .tflite_graph import (
    CUSTOM,
    End,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    ends_of,
)
from .tflite_operators import (
    OPERATORS,
    first_release,
    in_int16,
    op_version,
    xnnpack_has,
)

__all__ = [
    "CONTAINERS",
    "CUSTOM",
    "FAULTS",
    "LITERT",
    "OPERATORS",
    "PACKED",
    "SCORE_TYPES",
    "SIGNATURE_KEY",
    "SMALLEST_FIRST",
    "TENSORFLOW",
    "UINT8_OFFSET",
    "USUAL_FORMS",
    "Additions",
    "End",
    "Labels",
    "ModelInfo",
    "Normalization",
    "QuantizedTensor",
    "StandardMetadata",
    "TFLiteGraph",
    "TFLiteOp",
    "TFLiteTensor",
    "TensorQuantization",
    "additions_missing",
    "as_int8",
    "as_uint8",
    "bytes_are_codes",
    "codes_of_bytes",
    "codes_of_input",
    "contradiction",
    "ends_of",
    "faults_of",
    "first_release",
    "form_of_pixels",
    "from_bytes",
    "in_int16",
    "is_image",
    "is_newer",
    "label_faults",
    "least_releases",
    "litert_release",
    "newest",
    "num_packed_bytes",
    "op_version",
    "pixel_inputs",
    "quantized_input",
    "read_labels",
    "rewritten",
    "runtime_of",
    "score_function",
    "tensor_type",
    "to_bytes",
    "values_of_bytes",
    "with_additions",
    "with_metadata",
    "with_uint8_ends",
    "xnnpack_has",
]
