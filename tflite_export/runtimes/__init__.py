"""How each runtime computes: its rounding, and LiteRT itself."""

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
