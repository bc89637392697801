"""Verifies that a file computes what its model was trained to compute."""

from .end_to_end import BATCH_SIZE, compare_end_to_end
from .points import compare_points, probe_codes, twin_differences
from .values import input_codes
from .verify import rebuild, verify_content, verify_on_data, verify_tflite

__all__ = [
    "BATCH_SIZE",
    "compare_end_to_end",
    "compare_points",
    "input_codes",
    "probe_codes",
    "rebuild",
    "twin_differences",
    "verify_content",
    "verify_on_data",
    "verify_tflite",
]
