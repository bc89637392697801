"""Exact full-integer TFLite files from models trained with `tf_lsq`."""

from .biases import round_biases
from .check import CheckReport, check_model
from .pipeline import export_model
from .quantized_tensor import QuantizedTensor
from .report import ExportReport, VerificationReport
from .twin import integer_twin
from .verify import VerificationError, verify_tflite

__all__ = [
    "CheckReport",
    "ExportReport",
    "QuantizedTensor",
    "VerificationError",
    "VerificationReport",
    "check_model",
    "export_model",
    "integer_twin",
    "round_biases",
    "verify_tflite",
]
