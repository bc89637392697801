"""Runs files under LiteRT, and reproduces the rounding of each set of kernels."""

from . import arithmetic, softmax, tables
from .compiled import (
    ACCELERATORS,
    CompiledRunner,
    check_accelerator,
    has_readable_ends,
    runner_on,
)
from .litert import Runner, start
from .rounding import MATRIX_KINDS, compensate, fixed_point, half_up_channels
from .runtime import KERNELS, RUNTIMES, Runtime, find_runtime, this_machine

__all__ = [
    "ACCELERATORS",
    "KERNELS",
    "MATRIX_KINDS",
    "RUNTIMES",
    "CompiledRunner",
    "Runner",
    "Runtime",
    "arithmetic",
    "check_accelerator",
    "compensate",
    "find_runtime",
    "fixed_point",
    "half_up_channels",
    "has_readable_ends",
    "runner_on",
    "softmax",
    "start",
    "tables",
    "this_machine",
]
