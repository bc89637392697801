"""Reproduces how TFLite's own kernels round, and computes biases that compensate.

They multiply an int32 accumulator by a ratio ``q * 2**-n``, q in [0.5, 1), in two
stages: the product with q is rounded to an integer, which is shifted by n bits and
rounded again. The first rounding moves every threshold between two output codes by
``0.5 / q`` accumulator units, in the same direction. XNNPACK rounds once.

NumPy only.

References: tflite/kernels/internal/common.h (`MultiplyByQuantizedMultiplier`) and
quantization_util.cc of https://github.com/google-ai-edge/LiteRT
"""

from __future__ import annotations

from typing import Any

import numpy as np

MULTIPLIER_BITS = 31
# TFLite's depthwise kernel rounds channels in vectors of eight in one way, and the
# remaining channels in another.
_VECTOR = 8
# Thresholds are off by at most one unit, so the best bias is close.
_OFFSETS = (0, -1, 1, -2, 2)
# How much less frequent the largest codes are than 0, as a power of e: outputs of
# layers are mostly small. On a keyword spotter 4 to 16 serve equally well.
_DECAY = 8.0
# Kinds of operators with a matrix kernel.
MATRIX_KINDS = ("conv", "dense", "pointwise")
# Those with a loop over single channels.
SCALAR_KINDS = ("grouped_conv",)


def fixed_point(ratio: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns (31-bit multiplier, exponent) of positive ratios, both int64.

    Args:
        ratio: float64, any shape.

    Example:
        >>> [int(part) for part in fixed_point(0.75)]
        [1610612736, 0]
    """
    fraction, exponent = np.frexp(np.asarray(ratio, np.float64))
    multiplier = np.floor(fraction * 2.0**MULTIPLIER_BITS + 0.5).astype(np.int64)
    carry = multiplier == 1 << MULTIPLIER_BITS
    return np.where(carry, multiplier // 2, multiplier), exponent + np.int64(carry)


def half_up_channels(kind: str, channels: int) -> np.ndarray:
    """Returns per channel whether ties of the shift round up, else away from zero.

    Args:
        kind: Kind of its kernel: of the operator, or "grouped_conv".
        channels: How many channels it has.

    Example:
        >>> half_up_channels("conv", 2), half_up_channels("depthwise", 2)
        (array([ True,  True]), array([False, False]))
    """
    if kind in SCALAR_KINDS:
        return np.zeros(channels, bool)
    whole = channels if kind in MATRIX_KINDS else channels // _VECTOR * _VECTOR
    return np.arange(channels) < whole


def compensate(
    bias: np.ndarray,
    ratio: np.ndarray,
    spacing: int,
    codes: tuple[int, int],
    half_up: np.ndarray,
) -> np.ndarray:
    """Returns the bias codes for which rounding twice most often equals rounding once.

    Without its bias, the accumulator is a multiple of `spacing`: the bias can be moved
    between two such sums until as many as possible are on the right side of the
    threshold next to them. Thresholds between small codes count more.

    Args:
        bias: Real bias per channel, in accumulator units.
        ratio: Output codes per accumulator unit, per channel.
        spacing: Distance of neighbouring accumulators, at least 1.
        codes: Smallest and largest output code, minus the zero point.
        half_up: See `half_up_channels`.

    Returns:
        int64 per channel, within 3 of `bias`.
    """
    multiplier, exponent = fixed_point(ratio)
    fraction = multiplier / 2.0**MULTIPLIER_BITS
    shift = np.where(exponent < 0, 0.5 / fraction, 0.0)[:, np.newaxis]
    crossed = np.arange(*codes) + 0.5
    moved = np.where(half_up[:, np.newaxis] | (crossed > 0), shift, -shift)
    thresholds = crossed / ratio[:, np.newaxis]
    wanted = np.ceil((thresholds - bias[:, np.newaxis]) / spacing)
    rounded = np.rint(bias)
    weights = np.exp(-_DECAY * np.abs(crossed) / (codes[1] - codes[0]))
    wrong = [
        np.abs(
            np.ceil((thresholds - moved - (rounded + offset)[:, np.newaxis]) / spacing)
            - wanted
        )
        @ weights
        for offset in _OFFSETS
    ]
    best = np.asarray(_OFFSETS)[np.argmin(wrong, axis=0)]
    return rounded.astype(np.int64) + best
