"""Runs files under LiteRT, and reproduces the rounding of each set of kernels."""

from . import arithmetic
from .litert import KERNELS, Runner, start
from .rounding import compensate, fixed_point, half_up_channels

__all__ = [
    "KERNELS",
    "Runner",
    "arithmetic",
    "compensate",
    "fixed_point",
    "half_up_channels",
    "start",
]
