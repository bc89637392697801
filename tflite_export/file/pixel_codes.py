"""Codes of pixels: what an input gets for each byte, and whether that is the byte."""

from __future__ import annotations

import numpy as np

from .ends import UINT8_OFFSET
from .standard_metadata import Normalization
from .tflite_graph import End

LARGEST_BYTE = 255
BYTES = np.arange(LARGEST_BYTE + 1, dtype=np.float32)
# What bytes become in the usual forms of images: themselves, from 0 to 1, from -1 to 1,
# and as TensorFlow's quantized MobileNets take them.
USUAL_FORMS = tuple(
    Normalization((mean,), (std,))
    for mean, std in ((0.0, 1.0), (0.0, 255.0), (127.5, 127.5), (128.0, 128.0))
)
# What is added to a byte that is a code.
_OFFSETS = {"uint8": 0, "int8": -UINT8_OFFSET}


def values_of_bytes(normalization: Normalization) -> np.ndarray:
    """Returns the real values of the bytes 0 to 255, float32 `[256, 1 or channels]`.

    Args:
        normalization: How bytes become values.
    """
    mean = np.array(normalization.mean, np.float32)
    std = np.array(normalization.std, np.float32)
    return (BYTES[:, np.newaxis] - mean) / std


def codes_of_bytes(end: End, normalization: Normalization) -> np.ndarray | None:
    """Returns the codes of the bytes 0 to 255 in an input, `[256, 1 or channels]`.

    They are those that snippets and the verifier compute, float32. None: the input has
    no grid of 8 bits.

    Args:
        end: An input.
        normalization: How bytes become the values that its codes stand for.
    """
    if end.scale is None or end.zero_point is None or end.dtype not in _OFFSETS:
        return None
    limits = np.iinfo(end.dtype)
    steps = values_of_bytes(normalization) / np.float32(end.scale)
    codes = np.rint(steps) + end.zero_point
    return np.clip(codes, limits.min, limits.max)


def bytes_are_codes(
    end: End, normalization: Normalization, *, tolerance: int = 0
) -> bool:
    """Returns whether bytes can be copied: each is its code, less by 128 in int8.

    Args:
        end: An input.
        normalization: How bytes become the values that its codes stand for.
        tolerance: By how much a code may be off.
    """
    codes = codes_of_bytes(end, normalization)
    if codes is None:
        return False
    off = codes - BYTES[:, np.newaxis] - _OFFSETS[end.dtype]
    return bool(np.abs(off).max() <= tolerance)
