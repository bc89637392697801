"""Exact full-integer TFLite files from models trained with `tf_lsq`.

Names are loaded on first use: code that only reads files does not need TensorFlow.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .bits import BitSuggestion, suggest_bits
    from .c_source import write_c_source
    from .check import CheckReport, check_model
    from .demo import Spectrogram, write_demo
    from .errors import BudgetError, VerificationError
    from .file import ModelInfo, Normalization, QuantizedTensor
    from .freezing import round_biases
    from .inspection import FileReport, inspect_tflite
    from .metadata_files import MetadataReport, read_metadata, write_metadata
    from .pipeline import export_model
    from .reports import ExportReport, VerificationReport
    from .reports.html_report import write_html_report
    from .twin import integer_twin
    from .verification import verify_tflite

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bits": ["BitSuggestion", "suggest_bits"],
        "c_source": ["write_c_source"],
        "check": ["CheckReport", "check_model"],
        "demo": ["Spectrogram", "write_demo"],
        "errors": ["BudgetError", "VerificationError"],
        "file": ["ModelInfo", "Normalization", "QuantizedTensor"],
        "freezing": ["round_biases"],
        "inspection": ["FileReport", "inspect_tflite"],
        "metadata_files": ["MetadataReport", "read_metadata", "write_metadata"],
        "pipeline": ["export_model"],
        "reports": ["ExportReport", "VerificationReport"],
        "reports.html_report": ["write_html_report"],
        "twin": ["integer_twin"],
        "verification": ["verify_tflite"],
    },
)

__all__ = [
    "BitSuggestion",
    "BudgetError",
    "CheckReport",
    "ExportReport",
    "FileReport",
    "MetadataReport",
    "ModelInfo",
    "Normalization",
    "QuantizedTensor",
    "Spectrogram",
    "VerificationError",
    "VerificationReport",
    "check_model",
    "export_model",
    "inspect_tflite",
    "integer_twin",
    "read_metadata",
    "round_biases",
    "suggest_bits",
    "verify_tflite",
    "write_c_source",
    "write_demo",
    "write_html_report",
    "write_metadata",
]
