"""Reproduces SOFTMAX as each runtime computes it.

TensorFlow operators on int64 tensors.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tensorflow as tf

from .arithmetic import shift_right
from .rounding import MULTIPLIER_BITS, fixed_point

_TABLE_SIZE = 256
_SOFTMAX_ONE = 2**16 - 1
_LARGEST = 2**31 - 1  # 1 in fixed point with 31 bits after the point.
_INPUT_BITS = 5  # Bits before the point of a difference of inputs.
_SUM_BITS = 12  # The same of the sum of exponentials.
# Bit of a difference -> e to the power of minus its value, 31 bits after the point.
_POWERS = {
    24: 1672461947,
    25: 1302514674,
    26: 790015084,
    27: 290630308,
    28: 39332535,
    29: 720401,
    30: 242,
}
_EXP_OF_MINUS_EIGHTH = 1895147668
_THIRD = 715827883
_48_OVER_17, _32_OVER_17 = 1515870810, 1010580540  # 29 bits after the point.


def compute(
    kind: Literal["floats", "integers", "fixed"],
    codes: tf.Tensor,
    scale: Any,
    output_scale: Any,
    beta: float = 1.0,
) -> tf.Tensor:
    """Returns a softmax over the last axis.

    Args:
        kind: How the runtime computes it, as its attribute `softmax`.
        codes: int64 codes, with any zero point.
        scale: float32 scale of the input.
        output_scale: float32 scale of the output; 1/256 if `kind` is "fixed".
        beta: Factor of the input.

    Returns:
        int64 codes minus the zero point of the output.
    """
    if kind == "fixed":
        return _fixed(codes, np.float64(scale) * np.float64(np.float32(beta)))
    scale = np.float32(scale) * np.float32(beta)
    return {"floats": _floats, "integers": _integers}[kind](codes, scale, output_scale)


def _floats(codes: tf.Tensor, scale: Any, output_scale: Any) -> tf.Tensor:
    """Computes a softmax as TFLite's kernel for x86-64 does.

    Exponentials are float32 numbers from a table, added one after the other.

    Reference: `Softmax` in tflite/kernels/internal/optimized/optimized_ops.h
    """
    powers = _looked_up(_float_exponentials(scale), codes)
    # `reduce_sum` adds several numbers at once, which rounds differently.
    total = tf.cumsum(powers, axis=-1)[..., -1:]
    shares = powers * _one_over(total * np.float32(output_scale))
    # Exact, since float64 holds the sum of a float32 number and 1/2.
    return tf.cast(tf.cast(shares, tf.float64) + 0.5, tf.int64)


def _integers(codes: tf.Tensor, scale: Any, output_scale: Any) -> tf.Tensor:
    """Computes a softmax as TFLite's kernel for arm64 does.

    Exponentials are 16-bit integers from a table, and the sum's reciprocal is a
    fixed-point number.

    Reference: `SoftmaxInt8LUT` in tflite/kernels/internal/optimized/optimized_ops.h
    """
    exponentials = _float_exponentials(scale) * np.float32(_SOFTMAX_ONE)
    table = (exponentials.astype(np.float64) + 0.5).astype(np.int64)
    powers = _looked_up(np.minimum(table, _SOFTMAX_ONE), codes)
    total = tf.cast(tf.reduce_sum(powers, axis=-1, keepdims=True), tf.float32)
    bits = tf.bitcast(_one_over(total * np.float32(output_scale)), tf.int32)
    # The 24 bits of its fraction are those of a 31-bit multiplier in [0.5, 1).
    fraction = tf.cast((bits & 0x7FFFFF) | 0x800000, tf.int64) * (1 << 7)
    right = 126 - tf.cast(tf.bitwise.right_shift(bits, 23), tf.int64)
    high = shift_right(powers * fraction + (1 << 30), MULTIPLIER_BITS)
    half = tf.bitwise.left_shift(tf.ones_like(right), right - 1)
    return shift_right(high + half, right)


def _fixed(codes: tf.Tensor, scale: Any) -> tf.Tensor:
    """Computes a softmax as TFLite's reference kernel does, on a grid of 1/256.

    Exponentials, their sum and its reciprocal are fixed-point numbers.

    Reference: tflite/kernels/internal/reference/softmax.h, and fixedpoint/fixedpoint.h
    of https://github.com/google/gemmlowp
    """
    table = _exponentials(scale)
    largest = tf.reduce_max(codes, axis=-1, keepdims=True)
    powers = tf.gather(table, largest - codes)
    parts = _divide_by_power(powers, _SUM_BITS)
    total = tf.reduce_sum(parts, axis=-1, keepdims=True)
    length = tf.cast(tf.math.log(tf.cast(total, tf.float64)) / np.log(2.0), tf.int64)
    # The logarithm may be rounded up to the next whole number.
    length = tf.where(tf.bitwise.right_shift(total, length) == 0, length - 1, length)
    headroom = (MULTIPLIER_BITS - 1) - length  # Bits above the sum, without the sign.
    normal = tf.bitwise.left_shift(total, headroom + 1) - (1 << MULTIPLIER_BITS)
    product = _product(_reciprocal(normal), powers)
    return _divide_by_power(product, _SUM_BITS - 1 - headroom + MULTIPLIER_BITS - 8)


def _looked_up(table: np.ndarray, codes: tf.Tensor) -> tf.Tensor:
    """Returns the entries of codes in a table that ends with the largest code's."""
    largest = tf.reduce_max(codes, axis=-1, keepdims=True)
    return tf.gather(tf.constant(table), codes - largest + (_TABLE_SIZE - 1))


def _float_exponentials(scale: Any) -> np.ndarray:
    """Returns exponentials of minus 255 to 0 times a scale, rounded to float32."""
    steps = np.arange(_TABLE_SIZE, dtype=np.float32) - np.float32(_TABLE_SIZE - 1)
    # NumPy's exponential of float32 depends on the processor.
    return np.exp((np.float32(scale) * steps).astype(np.float64)).astype(np.float32)


def _one_over(x: tf.Tensor) -> tf.Tensor:
    """Returns the reciprocal of float32 numbers, rounded to the nearest.

    In float64, because TensorFlow's graphs approximate that of float32.
    """
    return tf.cast(1 / tf.cast(x, tf.float64), tf.float32)


def _exponentials(scale: Any) -> tf.Tensor:
    """Returns exponentials of minus 0 to 255 times a scale, as `_exponential`."""
    real = np.float64(scale) * 2.0 ** (MULTIPLIER_BITS - _INPUT_BITS)
    multiplier, shift = (int(part) for part in fixed_point(min(real, float(_LARGEST))))
    limit = ((1 << _INPUT_BITS) - 1) * 2.0 ** (MULTIPLIER_BITS - _INPUT_BITS)
    reach = int(np.floor(limit / 2.0**shift))
    differences = np.arange(_TABLE_SIZE, dtype=np.int64)
    shifted = tf.constant(-np.minimum(differences, reach) << shift)
    table = _exponential(_product(shifted, tf.constant(multiplier, tf.int64)))
    return tf.where(differences <= reach, table, tf.zeros_like(table))


def _exponential(x: tf.Tensor) -> tf.Tensor:
    """Returns e to the power of numbers of at most 0.

    Args:
        x: With 26 bits after the point.

    Returns:
        With 31 bits after the point.
    """
    quarter = 1 << 24
    part = tf.bitwise.bitwise_and(x, tf.constant(quarter - 1, x.dtype)) - quarter
    rest = part - x
    # A Taylor series around -1/8.
    x1 = part * (1 << _INPUT_BITS) + (1 << 28)
    x2 = _product(x1, x1)
    x3, x4 = _product(x2, x1), _product(x2, x2)
    third = tf.constant(_THIRD, tf.int64)
    higher = _product(_divide_by_power(x4, 2) + x3, third) + x2
    center = tf.constant(_EXP_OF_MINUS_EIGHTH, tf.int64)
    result = center + _product(center, x1 + _divide_by_power(higher, 1))
    for bit, power in _POWERS.items():
        has = tf.bitwise.bitwise_and(rest, tf.constant(1 << bit, rest.dtype)) != 0
        result = tf.where(has, _product(result, tf.constant(power, tf.int64)), result)
    return tf.where(x == 0, tf.constant(_LARGEST, tf.int64), result)


def _reciprocal(x: tf.Tensor) -> tf.Tensor:
    """Returns ``1 / (1 + x)`` for numbers from 0 to 1, 31 bits after the point."""
    both = x + _LARGEST
    half = tf.where(both >= 0, both + 1, both - 1) // 2
    guess = _48_OVER_17 + _product(half, tf.constant(-_32_OVER_17, tf.int64))
    for _ in range(3):  # Newton's method, 29 bits after the point.
        error = (1 << 29) - _product(half, guess)
        guess = guess + _product(guess, error) * 4
    return tf.minimum(guess * 2, _LARGEST)


def _product(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns ``x * y / 2**31``, rounded half away from zero below 0 and up above."""
    product = x * y
    up = shift_right(product + (1 << 30), MULTIPLIER_BITS)
    down = -shift_right(-(product + 1 - (1 << 30)), MULTIPLIER_BITS)
    return tf.where(product >= 0, up, down)


def _divide_by_power(x: tf.Tensor, bits: Any) -> tf.Tensor:
    """Returns ``x / 2**bits``, rounded half away from zero."""
    bits = tf.cast(bits, tf.int64)
    half = tf.bitwise.left_shift(tf.ones_like(bits), bits - 1)
    magnitude = shift_right(tf.abs(x) + half, bits)
    return tf.sign(x) * magnitude
