"""Reproduces the tables of 256 codes in which kernels look up a function.

LiteRT fills them in float32, whose rounding decides next to ties.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable

import numpy as np

_FAR = 2.0**20  # Beyond all codes.


def sigmoid(x: np.ndarray, family: str) -> np.ndarray:
    """Returns the logistic function of float32 numbers.

    Args:
        x: float32.
        family: "xnnpack": computed in float64, then rounded to float32. "builtin": each
            step rounded to float32.

    Reference: src/reference/unary-elementwise.cc of https://github.com/google/XNNPACK;
    tflite/kernels/activations.cc
    """
    with np.errstate(over="ignore"):  # As in the kernels: 1 / infinity is 0.
        powers = np.exp(-x.astype(np.float64))
        if family == "builtin":
            powers = powers.astype(np.float32)
    one = powers.dtype.type(1)
    return (one / (one + powers)).astype(np.float32)


def tanh(x: np.ndarray, *, own: bool) -> np.ndarray:
    """Returns the hyperbolic tangent of float32 numbers.

    Args:
        x: float32.
        own: Whether to call this machine's C library; else the nearest float32 number.
    """
    called = _of_c("tanhf") if own else None
    return called(x) if called else np.tanh(x.astype(np.float64)).astype(np.float32)


def elu(x: np.ndarray, *, own: bool) -> np.ndarray:
    """Returns the ELU of float32 numbers.

    Args:
        x: float32.
        own: As in `tanh`.
    """
    below = np.minimum(x, 0)
    called = _of_c("expm1f") if own else None
    powers = called(below) if called else np.expm1(below.astype(np.float64))
    return np.where(x < 0, powers, x).astype(np.float32)


def exp(x: np.ndarray, *, own: bool) -> np.ndarray:
    """Returns the exponential function of float32 numbers.

    Args:
        x: float32.
        own: As in `tanh`.
    """
    with np.errstate(over="ignore"):
        called = _of_c("expf") if own else None
        return called(x) if called else np.exp(x.astype(np.float64)).astype(np.float32)


def log(x: np.ndarray, *, own: bool) -> np.ndarray:
    """Returns the natural logarithm of float32 numbers, -infinity up to 0.

    Args:
        x: float32.
        own: As in `tanh`.
    """
    called = _of_c("logf") if own else None
    above = np.where(x > 0, x, np.float32(1))
    powers = called(above) if called else np.log(above.astype(np.float64))
    return np.where(x > 0, powers, -np.inf).astype(np.float32)


def gelu(x: np.ndarray, *, approximate: bool, own: bool) -> np.ndarray:
    """Returns the GELU of float32 numbers, each step rounded to float32.

    Args:
        x: float32.
        approximate: Whether it is the form with the hyperbolic tangent.
        own: As in `tanh`.

    Reference: tflite/kernels/internal/reference/gelu.h
    """
    half, one = np.float32(0.5), np.float32(1)
    if approximate:
        cubic = x + np.float32(0.044715) * x * x * x
        bend = tanh(np.float32(math.sqrt(2 / math.pi)) * cubic, own=own)
        return half * x * (one + bend)
    return half * x * _erfc(np.float32(-math.sqrt(0.5)) * x, own=own)


def _erfc(x: np.ndarray, *, own: bool) -> np.ndarray:
    """Returns the complementary error function of float32 numbers."""
    called = _of_c("erfcf") if own else None
    if called:
        return called(x)
    return np.array([math.erfc(value) for value in x.astype(np.float64)], np.float32)


def to_codes(
    values: np.ndarray, scale: np.float32, zero_point: int, family: str
) -> np.ndarray:
    """Returns float32 values as codes minus their zero point, not limited to int8.

    Args:
        values: float32.
        scale: float32.
        zero_point: Of the codes.
        family: "xnnpack": the zero point is added in float32, and ties go to even.
            "builtin": ties go away from zero, and the zero point is added then.
    """
    far = np.float32(_FAR)
    with np.errstate(over="ignore"):
        scaled = np.clip(values * (np.float32(1) / scale), -far, far)
    if family == "xnnpack":
        codes = np.rint(scaled + np.float32(zero_point)).astype(np.int64)
        return codes - zero_point
    # Adding 0.5 is exact in float64 only.
    away = np.copysign(np.floor(np.abs(scaled.astype(np.float64)) + 0.5), scaled)
    return away.astype(np.int64)


@functools.cache
def _of_c(name: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """Returns a function of this machine's C library; None if it does not have it."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # Windows has no such library.
        return None
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return lambda x: np.array([function(float(value)) for value in x], np.float32)
