"""Reproduces how the kernels of LiteRT round, as functions of integer tensors.

There are two families, and both are reproduced bit for bit:

    xnnpack   the kernels of XNNPACK, which LiteRT uses wherever it can: they convert
              the int32 accumulator to float32, multiply it by a float32 ratio of
              scales and round once, half to even.
    builtin   TFLite's own kernels, where XNNPACK has none (INT4 convolutions, average
              pooling) or is switched off: a fixed-point multiplier and a shift, each
              of which rounds.

Fixed-point arithmetic uses int64 tensors, so that no product overflows.

References: https://github.com/google/XNNPACK (src/microparams-init.c,
src/qs8-requantization), tflite/kernels/internal/common.h and
tflite/kernels/internal/quantization_util.cc of https://github.com/google-ai-edge/LiteRT
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .rounding import MULTIPLIER_BITS, fixed_point

_ADD_BITS = 20  # By which codes are shifted before they are aligned.
_INT16_ADD_BITS = 15
_HALF_WORD = 16
_LARGEST_REDUCED = 2**15 - 1
_TABLE_SIZE = 256
_MEAN_VECTOR = 16


def float_requantize(acc: tf.Tensor, ratio: Any) -> tf.Tensor:
    """Returns ``acc * ratio`` with the rounding of XNNPACK, as float32.

    Args:
        acc: Accumulators, integers that fit 32 bits.
        ratio: float32, one for all or one per channel.
    """
    return tf.round(tf.cast(acc, tf.float32) * tf.constant(ratio, tf.float32))


def fixed_requantize(
    acc: tf.Tensor, multiplier: Any, exponent: Any, *, half_up: Any
) -> tf.Tensor:
    """Returns ``acc * multiplier * 2**(exponent - 31)``, rounded by TFLite's kernels.

    Both the product and the shift round to nearest.

    Args:
        acc: int64 accumulators that fit 32 bits.
        multiplier: From `fixed_point`, one for all or one per channel.
        exponent: From `fixed_point`, one for all or one per channel.
        half_up: Whether ties of the shift round up, as in ruy's matrix kernels; else
            away from zero, as in the elementwise kernels. One for all or one per
            channel.
    """
    exponent = np.asarray(exponent, np.int64)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    product = acc * tf.constant((1 << left) * np.asarray(multiplier, np.int64))
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    high = shift_right(product + (1 << (MULTIPLIER_BITS - 1)), MULTIPLIER_BITS)
    up = shift_right(high + half, right)
    if np.all(half_up):
        return up
    # The high half of a negative product is truncated towards zero.
    nudged = product + (1 - (1 << (MULTIPLIER_BITS - 1)))
    negative = -shift_right(-nudged, MULTIPLIER_BITS)
    high = tf.where(product >= 0, high, negative)
    magnitude = shift_right(tf.abs(high) + half, right)
    return tf.where(half_up, up, tf.sign(high) * magnitude)


def round_once(acc: tf.Tensor, multiplier: Any, exponent: Any) -> tf.Tensor:
    """Returns ``acc * multiplier * 2**(exponent - 31)``, rounded once, half up.

    As ruy's matrix kernels on arm64 do, and XNNPACK's products there.

    Args:
        acc: int64 accumulators that fit 32 bits.
        multiplier: From `fixed_point`, one for all or one per channel.
        exponent: From `fixed_point`, one for all or one per channel.
    """
    exponent = np.asarray(exponent, np.int64)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    product = acc * tf.constant((1 << left) * np.asarray(multiplier, np.int64))
    half = tf.constant(np.int64(1) << (MULTIPLIER_BITS - 1 + right))
    return shift_right(product + half, MULTIPLIER_BITS + right)


def round_wide(acc: tf.Tensor, multiplier: Any, exponent: Any) -> tf.Tensor:
    """Returns what `round_once` does, of accumulators that fit 48 bits.

    Args:
        acc: int64 accumulators.
        multiplier: From `fixed_point`, one for all or one per channel.
        exponent: From `fixed_point`, below 16; one for all or one per channel.
    """
    multiplier = tf.constant(np.asarray(multiplier, np.int64))
    shift = MULTIPLIER_BITS - np.asarray(exponent, np.int64)
    half = tf.constant(np.int64(1) << (shift - 1))
    high = shift_right(acc, _HALF_WORD)
    low = acc - high * (1 << _HALF_WORD)
    carried = shift_right(low * multiplier + half, _HALF_WORD)
    return shift_right(high * multiplier + carried, shift - _HALF_WORD)


def round_reduced(acc: tf.Tensor, multiplier: Any, exponent: Any) -> tf.Tensor:
    """Returns accumulators times a ratio of 16 bits, rounded once, half up.

    As TFLite's kernels for int16 inputs do; the ratio moves codes by one at most.

    Args:
        acc: int64 accumulators that fit 48 bits.
        multiplier: From `fixed_point`, one for all or one per channel.
        exponent: From `fixed_point`, below 15; one for all or one per channel.
    """
    multiplier = np.asarray(multiplier, np.int64)
    half = np.int64(1) << (_HALF_WORD - 1)
    reduced = np.minimum((multiplier + half) >> _HALF_WORD, _LARGEST_REDUCED)
    shift = MULTIPLIER_BITS - _HALF_WORD - np.asarray(exponent, np.int64)
    product = acc * tf.constant(reduced)
    return shift_right(product + tf.constant(np.int64(1) << (shift - 1)), shift)


def shift_right(values: tf.Tensor, bits: Any) -> tf.Tensor:
    """Returns the integers divided by a power of two, rounded down."""
    bits = tf.cast(tf.broadcast_to(bits, tf.shape(values)), tf.int64)
    return tf.bitwise.right_shift(values, bits)


def float_sum(
    first: tf.Tensor, second: tf.Tensor, scales: Any, sign: int = 1
) -> tf.Tensor:
    """Returns ``first + sign * second`` in output codes, rounded by XNNPACK.

    Args:
        first: int64 codes minus their zero point.
        second: int64 codes minus their zero point.
        scales: float32 scales of both inputs and of the output.
        sign: 1, or -1 for a difference.
    """
    ratios = [np.float32(scale) / np.float32(scales[2]) for scale in scales[:2]]
    shift = _ADD_BITS - (int(np.frexp(max(ratios))[1]) - 1)
    weights = [int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios]
    acc = first * weights[0] + second * (sign * weights[1]) + (1 << (shift - 1))
    return shift_right(acc, shift)


def fixed_sum(
    first: tf.Tensor,
    second: tf.Tensor,
    scales: Any,
    sign: int = 1,
    *,
    bits: int = _ADD_BITS,
    folded: bool = False,
) -> tf.Tensor:
    """Returns ``first + sign * second`` in output codes, rounded by TFLite's kernel.

    Args:
        first: int64 codes minus their zero point.
        second: int64 codes minus their zero point.
        scales: float32 scales of both inputs and of the output.
        sign: 1, or -1 for a difference.
        bits: By how many bits codes are shifted before they are aligned.
        folded: Whether the shift is part of the ratio that aligns them.
    """
    first_scale, second_scale, scale = (np.float64(np.float32(s)) for s in scales)
    double = 2.0 * max(first_scale, second_scale)

    def aligned(codes: tf.Tensor, own: np.float64) -> tf.Tensor:
        multiplier, exponent = fixed_point(own / double)
        if folded:
            exponent = exponent + bits
        else:
            codes = codes * (1 << bits)
        return fixed_requantize(codes, multiplier, exponent, half_up=False)

    acc = aligned(first, first_scale) + sign * aligned(second, second_scale)
    ratio = double / ((1 << bits) * scale)
    return fixed_requantize(acc, *fixed_point(ratio), half_up=False)


def int16_sum(
    first: tf.Tensor,
    second: tf.Tensor,
    scales: Any,
    sign: int = 1,
    *,
    vector: int = 0,
    one_at_a_time: bool = False,
) -> tf.Tensor:
    """Returns ``first + sign * second`` in output codes, rounded by int16's kernel.

    Args:
        first: int64 codes.
        second: int64 codes.
        scales: float32 scales of both inputs and of the output.
        sign: 1, or -1 for a difference.
        vector: How many codes the kernel computes at once, in another way, if both
            tensors have one shape; 0: none. The batch may decide on that: one example
            has the shape of a constant, and the last codes may not fill a vector.
        one_at_a_time: Whether the kernel gets one example at a time.
    """
    shifted = fixed_sum(first, second, scales, sign, bits=_INT16_ADD_BITS)
    if not vector or first.shape.rank != second.shape.rank:
        return shifted
    folded = fixed_sum(first, second, scales, sign, bits=_INT16_ADD_BITS, folded=True)
    own, other, whole = (_sizes(x, one_at_a_time) for x in (first, second, shifted))
    size = tf.reduce_prod(whole)
    places = tf.reshape(tf.range(size), whole)
    equal = tf.reduce_all(tf.equal(own, other))
    return tf.where(equal & (places < size // vector * vector), folded, shifted)


def _sizes(x: tf.Tensor, one_at_a_time: bool) -> tf.Tensor:
    """Returns the shape of a tensor as a kernel gets it."""
    shape: Any = tf.shape(x)
    return tf.concat([[1], shape[1:]], axis=0) if one_at_a_time else shape


def float_mean(
    acc: tf.Tensor,
    count: int,
    ratio: Any,
    zero_points: tuple[int, int],
    *,
    fused: bool = False,
) -> tf.Tensor:
    """Returns the mean of `count` codes in codes of the output, rounded by XNNPACK.

    Both zero points form one float32 number that is added before rounding.

    Args:
        acc: Sums of codes, including zero points.
        count: How many codes are in a sum.
        ratio: float32 scale of the input divided by that of the output.
        zero_points: Zero points of the input and of the output.
        fused: Whether the product is not rounded before the sum.

    Returns:
        float32 codes, including the zero point.
    """
    scale = np.float32(ratio) * np.float32(1.0 / count)
    zeros = np.float32(count * zero_points[0])
    if not fused:
        shift = np.float32(zero_points[1]) - zeros * scale
        return tf.round(tf.cast(acc, tf.float32) * scale + shift)
    # Products and sums of such float32 numbers are exact in float64.
    wide = np.float64(scale)
    shift = np.float64(np.float32(zero_points[1] - np.float64(zeros) * wide))
    return tf.round(tf.cast(tf.cast(acc, tf.float64) * wide + shift, tf.float32))


def fixed_mean(acc: tf.Tensor, count: int, ratio: Any) -> tf.Tensor:
    """Returns the mean of `count` codes in codes of the output, rounded by TFLite.

    Args:
        acc: int64 sums of codes minus their zero point.
        count: How many codes are in a sum.
        ratio: float64 scale of the input divided by that of the output.
    """
    multiplier, exponent = (int(part) for part in fixed_point(ratio))
    shift = min(count.bit_length() - 1, 32, MULTIPLIER_BITS + exponent)
    return fixed_requantize(
        acc, (multiplier << shift) // count, exponent - shift, half_up=False
    )


def away_sum(acc: tf.Tensor, count: int, ratio: Any, zero_point: int) -> tf.Tensor:
    """Returns the sum of `count` codes in codes of the output, rounded by TFLite.

    TFLite's kernel computes it in float32, and rounds ties away from zero.

    Args:
        acc: Sums of codes, including zero points.
        count: How many codes are in a sum.
        ratio: float32 scale of the input divided by that of the output.
        zero_point: Zero point of the input.

    Returns:
        float32 codes, without the zero point of the output.
    """
    shift = np.float32(-zero_point) * np.float32(ratio) * np.float32(count)
    total = tf.cast(acc, tf.float32) * tf.constant(ratio, tf.float32) + shift
    exact = tf.cast(total, tf.float64)  # Adding 0.5 is exact in float64 only.
    return tf.cast(tf.sign(exact) * tf.floor(tf.abs(exact) + 0.5), tf.float32)


def fixed_image_mean(
    acc: tf.Tensor, count: int, scales: Any, zero_points: tuple[int, int]
) -> tf.Tensor:
    """Returns the mean over height and width of images, keeping these axes.

    TFLite has a separate kernel for it. It rounds the input's zero point separately,
    so codes can be off by one; and it rounds channels in vectors of sixteen in one way,
    the remaining channels in another. Several threads share the channels evenly, and
    each makes its own vectors; here there is one.

    Args:
        acc: int64 sums of codes, including zero points, channels last.
        count: How many codes are in a sum.
        scales: float32 scale of the input and of the output.
        zero_points: Zero points of the input and of the output.

    Returns:
        int64 codes, including the zero point.
    """
    source, output = (np.float32(scale) for scale in scales)
    exact = np.float32(zero_points[0]) * source / output
    shift = int(exact + np.copysign(np.float32(0.5), exact))
    multiplier, exponent = fixed_point(
        np.float64(source / (np.float32(count) * output))
    )
    channels: Any = acc.shape[-1]
    half_up = np.arange(channels) < channels // _MEAN_VECTOR * _MEAN_VECTOR
    mean = fixed_requantize(acc, multiplier, exponent, half_up=half_up)
    return mean + (zero_points[1] - shift)


def rounded_average(acc: tf.Tensor, count: Any) -> tf.Tensor:
    """Returns the average of codes, ties away from zero, as in TFLite's pooling.

    Args:
        acc: int64 sums of codes, including zero points.
        count: How many codes are in each sum.
    """
    magnitude = (tf.abs(acc) + count // 2) // count
    return tf.sign(acc) * magnitude


def table_of_squares(
    scale: np.float32, zero_point: int, output_scale: np.float32, output_zero_point: int
) -> np.ndarray:
    """Returns what XNNPACK looks up for a product of a tensor with itself.

    The float32 square of every value is scaled, shifted and only then rounded.

    Args:
        scale: Scale of the input.
        zero_point: Its zero point.
        output_scale: Scale of the output.
        output_zero_point: Its zero point.

    Returns:
        For every int8 code of the input, an integer minus the output's zero point.
    """
    codes = np.arange(_TABLE_SIZE, dtype=np.float32) - _TABLE_SIZE // 2
    values = (codes - np.float32(zero_point)) * scale
    scaled = values * values * (np.float32(1.0) / output_scale)
    rounded = np.rint(scaled + np.float32(output_zero_point)).astype(np.int64)
    return rounded - output_zero_point


def look_up(codes: tf.Tensor, table: np.ndarray) -> tf.Tensor:
    """Returns ``table[code + 128]`` for int8 codes.

    Args:
        codes: int64 codes, -128 to 127.
        table: 256 integers.
    """
    if len(table) != _TABLE_SIZE:
        raise ValueError(f"`table` must have 256 entries. Received: {len(table)}.")
    return tf.gather(tf.constant(table, tf.int64), codes + _TABLE_SIZE // 2)


def bilinear(
    codes: tf.Tensor,
    size: tuple[int, int],
    source: tuple[int, int],
    family: str,
    *,
    align_corners: bool = False,
    half_pixel_centers: bool = True,
) -> tf.Tensor:
    """Resizes images by a kernel's fixed-point bilinear interpolation.

    Args:
        codes: int64 codes, including zero points, `[batch, height, width, channels]`.
        size: Height and width of the result.
        source: Height and width of `codes`.
        family: "xnnpack" or "builtin".
        align_corners: Whether the corner pixels keep their place.
        half_pixel_centers: Whether a pixel's value is at its center.
    """
    neighbours, sampling = _BILINEAR[family], (align_corners, half_pixel_centers)
    low, high, weight = neighbours(size[0], source[0], *sampling)
    rows = _blend(codes, low, high, weight[:, None, None], 1, family)
    low, high, weight = neighbours(size[1], source[1], *sampling)
    blended = _blend(rows, low, high, weight[:, None], 2, family)
    bits = 2 * _BILINEAR_BITS[family]
    half = 1 << (bits - 1)
    up = shift_right(blended + half, bits)
    if family == "xnnpack":
        return up
    return tf.where(blended > 0, up, -shift_right(half - blended, bits))


_BILINEAR_BITS = {"xnnpack": 11, "builtin": 10}


def _blend(
    codes: tf.Tensor, low: Any, high: Any, weight: Any, axis: int, family: str
) -> tf.Tensor:
    """Returns weighted neighbours along an axis, not divided by the weights' unit."""
    one = 1 << _BILINEAR_BITS[family]
    first, second = (tf.gather(codes, index, axis=axis) for index in (low, high))
    return first * tf.constant(one - weight) + second * tf.constant(weight)


def _float_neighbours(
    size: int, source: int, align_corners: bool, half_pixel_centers: bool
) -> tuple[Any, Any, Any]:
    """Returns (lower, upper neighbour, 11-bit weight of the upper), as XNNPACK does."""
    less = int(align_corners and size > 1)
    ratio = np.float32(source - less) / np.float32(size - less)
    position = np.arange(size, dtype=np.float32)
    if half_pixel_centers:
        position = (position + np.float32(0.5)) * ratio - np.float32(0.5)
    else:
        position = position * ratio
    position = np.clip(position, 0, source - 1)
    low = np.floor(position).astype(np.int64)
    weight = np.rint((position - low) * 2.0 ** _BILINEAR_BITS["xnnpack"])
    return low, np.minimum(low + 1, source - 1), weight.astype(np.int64)


def _fixed_neighbours(
    size: int, source: int, align_corners: bool, half_pixel_centers: bool
) -> tuple[Any, Any, Any]:
    """Returns (lower, upper neighbour, 10-bit weight of the upper), as TFLite does."""
    bits, less = _BILINEAR_BITS["builtin"], int(align_corners and size > 1)
    ratio = (((source - less) << bits) + (size - less) // 2) // (size - less)
    position = np.arange(size) * ratio
    if half_pixel_centers:
        position += ratio // 2 - (1 << (bits - 1))
    low = np.maximum(position >> bits, 0)
    high = np.clip(-(-position >> bits), 0, source - 1)
    return low, high, position - (low << bits)


_BILINEAR = {"xnnpack": _float_neighbours, "builtin": _fixed_neighbours}
