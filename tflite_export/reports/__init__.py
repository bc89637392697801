"""Reports of verification and export: objects that print well, and HTML pages."""

from .code_statistics import activation_statistics, kernel_statistics
from .export_report import ExportReport, Latency, LayerReport, StorageReport
from .latency import describe_setting, measure_latency, processor
from .snippets import micro_snippet, snippet_refusal, snippets_of
from .templating import render
from .verification_report import (
    CodeStatistics,
    OutputReport,
    PointReport,
    Prediction,
    VerificationReport,
)

__all__ = [
    "CodeStatistics",
    "ExportReport",
    "Latency",
    "LayerReport",
    "OutputReport",
    "PointReport",
    "Prediction",
    "StorageReport",
    "VerificationReport",
    "activation_statistics",
    "describe_setting",
    "kernel_statistics",
    "measure_latency",
    "micro_snippet",
    "processor",
    "render",
    "snippet_refusal",
    "snippets_of",
]
