"""Packs integer codes into the bytes of TFLite's INT4 and INT2 tensors, and unpacks.

NumPy only. Codes are in the order of the tensor, the first one in the lowest bits of a
byte; the last byte is padded with zeros.

Reference: tflite/kernels/internal/portable_tensor_utils.h of
https://github.com/google-ai-edge/LiteRT (`UnpackPackedIntToInt8`)
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Container:
    """A type that stores the codes of a weight in the file.

    Attributes:
        num_bits: Bits of one stored code.
        low: Smallest code.
        high: Largest code.
    """

    num_bits: int
    low: int
    high: int


# int8 weights have no -128, see TFLite's quantization specification.
CONTAINERS = {
    "int8": Container(8, -127, 127),
    "int4": Container(4, -8, 7),
    "int2": Container(2, -2, 1),
}
PACKED = ("int4", "int2")
SMALLEST_FIRST = ("int2", "int4", "int8")


def num_packed_bytes(num_codes: int, container: str) -> int:
    """Returns the size of packed codes in bytes.

    Args:
        num_codes: How many codes.
        container: A key of `CONTAINERS`.

    Example:
        >>> [num_packed_bytes(5, name) for name in ("int8", "int4", "int2")]
        [5, 3, 2]
    """
    return -(-num_codes * CONTAINERS[container].num_bits // 8)


def pack(codes: np.ndarray, container: str) -> bytes:
    """Returns codes as the bytes of a packed tensor.

    Args:
        codes: Integers, any shape.
        container: "int4" or "int2".

    Raises:
        ValueError: If a code does not fit.

    Example:
        >>> pack(np.array([1, -1, 2]), "int4").hex()
        'f102'
    """
    limits = CONTAINERS[container]
    flat = np.asarray(codes).reshape(-1)
    if flat.size and not (limits.low <= flat.min() and flat.max() <= limits.high):
        raise ValueError(
            f"Codes stored as {container} must be from {limits.low} to {limits.high}. "
            f"Received codes from {flat.min()} to {flat.max()}."
        )
    per_byte = 8 // limits.num_bits
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    padded[: flat.size] = flat.astype(np.int8).view(np.uint8) & _mask(limits)
    shifted = padded.reshape(-1, per_byte) << _shifts(limits)
    return np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8).tobytes()


def unpack(data: bytes, num_codes: int, container: str) -> np.ndarray:
    """Returns the codes of a packed tensor, int8, flat.

    Args:
        data: The bytes of the tensor.
        num_codes: How many codes it contains.
        container: "int4" or "int2".

    Raises:
        ValueError: If there are more or fewer bytes than the codes need, or the last
            byte is not padded with zeros.

    Example:
        >>> unpack(bytes.fromhex("f102"), 3, "int4").tolist()
        [1, -1, 2]
    """
    limits = CONTAINERS[container]
    expected = num_packed_bytes(num_codes, container)
    if len(data) != expected:
        raise ValueError(
            f"{num_codes} codes stored as {container} must have {expected} bytes. "
            f"Received: {len(data)}."
        )
    fields = np.frombuffer(data, np.uint8)[:, np.newaxis] >> _shifts(limits)
    fields = (fields & _mask(limits)).reshape(-1).astype(np.int8)
    if fields[num_codes:].any():
        raise ValueError("The last byte of packed codes must be padded with zeros.")
    sign = np.int8(1 << (limits.num_bits - 1))
    return ((fields ^ sign) - sign)[:num_codes]


def _mask(container: Container) -> np.uint8:
    """Returns the bit mask of one code."""
    return np.uint8((1 << container.num_bits) - 1)


def _shifts(container: Container) -> np.ndarray:
    """Returns the bit offsets of the codes in one byte."""
    return np.arange(0, 8, container.num_bits, dtype=np.uint8)
