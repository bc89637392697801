"""Codes of pixels: what an input gets for each byte, and whether that is the byte."""

from __future__ import annotations

import numpy as np

from .standard_metadata import Normalization
from .tflite_graph import End

BYTES = np.arange(256, dtype=np.float32)
# What is added to a byte that is a code.
_OFFSETS = {"uint8": 0, "int8": -128}


def values_of_bytes(one: Normalization) -> np.ndarray:
    """Returns the real values of the bytes 0 to 255, float32 `[256, 1 or channels]`.

    Args:
        one: How bytes become values.
    """
    mean, std = np.array(one.mean, np.float32), np.array(one.std, np.float32)
    return (BYTES[:, np.newaxis] - mean) / std


def codes_of_bytes(end: End, one: Normalization) -> np.ndarray | None:
    """Returns the codes of the bytes 0 to 255 in an input, `[256, 1 or channels]`.

    They are those that snippets and the verifier compute, float32. None: the input has
    no grid of 8 bits.

    Args:
        end: An input.
        one: How bytes become the values that its codes stand for.
    """
    if end.scale is None or end.zero_point is None or end.dtype not in _OFFSETS:
        return None
    limits = np.iinfo(end.dtype)
    codes = np.rint(values_of_bytes(one) / np.float32(end.scale)) + end.zero_point
    return np.clip(codes, limits.min, limits.max)


def bytes_are_codes(end: End, one: Normalization, *, tolerance: int = 0) -> bool:
    """Returns whether bytes can be copied: each is its code, less by 128 in int8.

    Args:
        end: An input.
        one: How bytes become the values that its codes stand for.
        tolerance: By how much a code may be off.
    """
    codes = codes_of_bytes(end, one)
    if codes is None:
        return False
    off = codes - BYTES[:, np.newaxis] - _OFFSETS[end.dtype]
    return bool(np.abs(off).max() <= tolerance)
