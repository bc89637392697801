"""The integers that quantizers may use."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

MIN_NUM_BITS, MAX_NUM_BITS = 2, 8
# Activations may have more bits than kernels: integers of more than 8 bits are int16.
MAX_ACTIVATION_BITS = 16
_MAX_INT16 = 2**15 - 1


@dataclasses.dataclass(frozen=True)
class IntegerRange:
    """The integers that a quantizer may use, both ends included.

    Attributes:
        q_min: Smallest integer, at most 0 (an int, or a scalar tensor if the
            data decides whether values are signed).
        q_max: Largest integer, at least 1 (an int or a scalar tensor).
    """

    q_min: Any
    q_max: Any

    def __post_init__(self) -> None:
        """Checks the bounds where they are plain integers."""
        if tf.is_tensor(self.q_min) or tf.is_tensor(self.q_max):
            return
        if self.q_min > 0 or self.q_max < 1:
            raise ValueError(
                "An integer range must have `q_min` <= 0 and `q_max` >= 1. "
                f"Received: q_min={self.q_min}, q_max={self.q_max}."
            )


def counted_together(integers: IntegerRange) -> int:
    """Returns how many neighbouring integers statistics count as one.

    There are at most 256 counts, as 8 bits have integers.

    Args:
        integers: A range of plain integers.

    Example:
        >>> counted_together(IntegerRange(-128, 127))
        1
        >>> counted_together(IntegerRange(-32768, 32767))
        256
    """
    return -(-(int(integers.q_max) - int(integers.q_min) + 1) // 2**MAX_NUM_BITS)


def check_num_bits(
    num_bits: Any, name: str = "num_bits", most: int = MAX_NUM_BITS
) -> int:
    """Returns `num_bits` as an int if LSQ supports it.

    Args:
        num_bits: Bits of one integer.
        name: Name of the caller's argument, for the message.
        most: Largest number of bits.

    Raises:
        ValueError: If `num_bits` is not an integer from 2 to `most`.
    """
    if (
        isinstance(num_bits, bool)
        or not isinstance(num_bits, int | np.integer)
        or not MIN_NUM_BITS <= num_bits <= most
    ):
        raise ValueError(
            f"`{name}` must be an integer from {MIN_NUM_BITS} to {most}. "
            f"Received: {name}={num_bits!r}."
        )
    return int(num_bits)


def weight_range(num_bits: int) -> IntegerRange:
    """Returns the integers of a weight: signed, `-2^(b-1) .. 2^(b-1)-1`.

    Eight bits are narrow, -127..127: TFLite's specification of int8 weights
    has no -128.

    Example:
        >>> weight_range(4)
        IntegerRange(q_min=-8, q_max=7)
        >>> weight_range(8)
        IntegerRange(q_min=-127, q_max=127)

    References:
        Esser et al., Section 2; TFLite 8-bit quantization specification.
    """
    check_num_bits(num_bits)
    half = 2 ** (num_bits - 1)
    return IntegerRange(-half if num_bits < MAX_NUM_BITS else 1 - half, half - 1)


def activation_range(num_bits: int, *, signed: bool) -> IntegerRange:
    """Returns the integers of an activation: all `2^b` of them, as far as int16 goes.

    Args:
        num_bits: Bits of one integer, 2 to 16. Unsigned integers of 16 bits end at
            32767, the largest int16.
        signed: Whether the values can be negative.

    Example:
        >>> activation_range(4, signed=False)
        IntegerRange(q_min=0, q_max=15)
        >>> activation_range(16, signed=False)
        IntegerRange(q_min=0, q_max=32767)

    References:
        Esser et al., Section 2.
    """
    check_num_bits(num_bits, most=MAX_ACTIVATION_BITS)
    if signed:
        return IntegerRange(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return IntegerRange(0, min(2**num_bits - 1, _MAX_INT16))
