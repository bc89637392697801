"""Exact full-integer TFLite files from models trained with `tf_lsq`."""

from .biases import round_biases
from .bit_search import suggest_bits
from .bit_suggestion import BitSuggestion
from .budget import BudgetError
from .check import CheckReport, check_model
from .export_report import ExportReport
from .html_report import write_html_report
from .inspect import FileReport, inspect_tflite
from .pipeline import export_model
from .quantized_tensor import QuantizedTensor
from .report import VerificationReport
from .twin import integer_twin
from .verify import VerificationError, verify_tflite

__all__ = [
    "BitSuggestion",
    "BudgetError",
    "CheckReport",
    "ExportReport",
    "FileReport",
    "QuantizedTensor",
    "VerificationError",
    "VerificationReport",
    "check_model",
    "export_model",
    "inspect_tflite",
    "integer_twin",
    "round_biases",
    "suggest_bits",
    "verify_tflite",
    "write_html_report",
]
