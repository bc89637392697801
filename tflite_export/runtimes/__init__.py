"""Runs files under LiteRT, and reproduces the rounding of each set of kernels."""

from . import arithmetic, softmax, tables
from .litert import Runner, start
from .rounding import MATRIX_KINDS, compensate, fixed_point, half_up_channels
from .runtime import KERNELS, RUNTIMES, Runtime, find_runtime, this_machine

__all__ = [
    "KERNELS",
    "MATRIX_KINDS",
    "RUNTIMES",
    "Runner",
    "Runtime",
    "arithmetic",
    "compensate",
    "find_runtime",
    "fixed_point",
    "half_up_channels",
    "softmax",
    "start",
    "tables",
    "this_machine",
]
