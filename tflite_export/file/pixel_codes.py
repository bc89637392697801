"""Codes of pixels: what an input gets for each byte, and whether that is the byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import metadata
from .ends import UINT8_OFFSET, quantized_input
from .standard_metadata import Normalization
from .tflite_graph import End, TFLiteGraph

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


def codes_of_input(graph: TFLiteGraph, end: End) -> End | None:
    """Returns the codes of an input as uint8: its own, or those of its QUANTIZE.

    Args:
        graph: A file.
        end: One of its inputs.

    Returns:
        The input with that type and grid; None: there are no codes of 8 bits.
    """
    name: str | None = graph.inputs[end.name]
    if end.scale is None:
        name = quantized_input(graph, name)
    codes = None if name is None else graph.tensors[name]
    if codes is None or codes.quantization is None or codes.dtype not in _OFFSETS:
        return None
    grid = codes.quantization
    zero_point = grid.zero_point - _OFFSETS[codes.dtype]
    return End(end.name, "uint8", end.shape, float(grid.scale[0]), zero_point)


def pixel_inputs(
    graph: TFLiteGraph, described: Mapping[str, Any] | None = None
) -> list[str]:
    """Returns the inputs that are pixels.

    Args:
        graph: A file.
        described: How its integers were trained; None: as the file says.

    Raises:
        ValueError: If the description in the file cannot be read.
    """
    if described is None:
        described = metadata.read(graph) or {}
    pixels = {*metadata.pixel_tensors(described)}
    return [
        name
        for name, tensor in graph.inputs.items()
        if pixels & {tensor, quantized_input(graph, tensor)}
    ]


def form_of_pixels(graph: TFLiteGraph, end: End) -> Normalization | None:
    """Returns what bytes become in an input that is pixels: each byte is its code.

    Args:
        graph: A file.
        end: One of its inputs; whether it is pixels is not checked.

    Returns:
        The normalization; None: there are no codes of 8 bits.
    """
    codes = codes_of_input(graph, end)
    if codes is None or codes.scale is None or codes.zero_point is None:
        return None
    std = float(np.float32(1.0 / codes.scale))
    return Normalization((float(codes.zero_point),), (std,))


def contradiction(graph: TFLiteGraph, end: End, normalization: Normalization) -> str:
    """Returns how a normalization contradicts an input that is pixels, "" if it fits.

    Args:
        graph: A file.
        end: One of its inputs; whether it is pixels is not checked.
        normalization: How bytes are said to become its values.
    """
    codes = codes_of_input(graph, end)
    if codes is None or bytes_are_codes(codes, normalization):
        return ""
    return (
        f"the normalization {normalization}, but the file takes the pixels as "
        f"{form_of_pixels(graph, end)}"
    )
