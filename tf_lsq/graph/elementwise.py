"""Elementwise functions that TensorFlow does not have, or that are not always finite.

A grid always has the value 0. Where a function has no finite result, or no finite
slope, there is one here all the same, so that training goes on: `finite` says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# What infinity is replaced by: finite in float32, and beyond any grid.
INFINITE = 2.0**100
# The smallest number that has a logarithm here: near that of Keras' own losses (1e-7),
# and the least that float32 can add to -1.
SMALLEST_OF_LOG = 2.0**-23
Function = Callable[..., Any]


def infinite(dtype: Any) -> float:
    """Returns what infinity is replaced by in tensors of a type."""
    return min(INFINITE, float(tf.as_dtype(dtype).max))


def finite(
    function: Function, low: float = -math.inf, high: float = math.inf
) -> Function:
    """Returns a function with a finite result and a finite slope everywhere.

    Args:
        function: Of one tensor, with settings as keyword arguments.
        low: Smaller values count as this one.
        high: Larger values count as this one.

    Returns:
        The function. Where its result is infinite, it is `infinite`, with its sign,
        which saturates at the end of any grid; where its slope is not finite, the slope
        is 0, as outside of the limits. Both zeros are the positive one.
    """

    def limited(x: Any, **settings: Any) -> Any:
        @tf.custom_gradient
        def compute(x: tf.Tensor) -> Any:
            x = tf.where(x == 0, tf.zeros_like(x), x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(tf.clip_by_value(x, low, high), **settings)
            slope: Any = tape.gradient(y, x)
            slope = tf.where(tf.math.is_finite(slope), slope, 0)
            end = infinite(y.dtype)
            ends = tf.where(y < 0, tf.cast(-end, y.dtype), tf.cast(end, y.dtype))
            y = tf.where(tf.math.is_finite(y), y, ends)
            return y, lambda upstream: upstream * slope

        return compute(tf.convert_to_tensor(x))

    return limited


def elu(x: Any, alpha: float) -> Any:
    """ELU with a factor: ``alpha * (exp(x) - 1)`` below 0."""
    return tf.nn.relu(x) + alpha * tf.math.expm1(tf.minimum(x, 0))


def celu(x: Any, alpha: float) -> Any:
    """CELU: ``alpha * (exp(x / alpha) - 1)`` below 0."""
    return tf.nn.relu(x) + alpha * tf.math.expm1(tf.minimum(x, 0) / alpha)


def mish(x: Any) -> Any:
    """Mish: ``x * tanh(softplus(x))``."""
    return x * tf.tanh(tf.math.softplus(x))


def swish(x: Any, beta: float) -> Any:
    """Swish: ``x * sigmoid(beta * x)``."""
    return x * tf.sigmoid(beta * x)


def squareplus(x: Any, b: float) -> Any:
    """Squareplus: ``(x + sqrt(x ** 2 + b)) / 2``."""
    return (x + tf.sqrt(tf.square(x) + b)) / 2


def sparse_plus(x: Any) -> Any:
    """Sparse plus: 0 up to -1, x from 1 on, a parabola between."""
    return tf.where(x < 1, tf.square(tf.nn.relu(tf.minimum(x, 1) + 1)) / 4, x)


def tanh_shrink(x: Any) -> Any:
    """Tanh shrink: ``x - tanh(x)``."""
    return x - tf.tanh(x)


def soft_shrink(x: Any, threshold: float) -> Any:
    """Soft shrink: x moved towards 0 by the threshold."""
    return tf.nn.relu(x - threshold) - tf.nn.relu(-x - threshold)


def hard_shrink(x: Any, threshold: float) -> Any:
    """Hard shrink: 0 up to the threshold on both sides, else x."""
    return tf.where(tf.abs(x) > threshold, x, tf.zeros_like(x))


def threshold(x: Any, threshold: float, default: float) -> Any:
    """Threshold: x above the threshold, else a number."""
    return tf.where(x > threshold, x, tf.cast(default, x.dtype))


def relu_from(x: Any, threshold: float, slope: float, max_value: float | None) -> Any:
    """Keras' ReLU with a threshold."""
    above = x if max_value is None else tf.minimum(x, tf.cast(max_value, x.dtype))
    return tf.where(x >= threshold, above, slope * (x - threshold))


def leaky_relu(x: Any, alpha: float) -> Any:
    """Leaky ReLU with any slope, as TensorFlow computes it."""
    return tf.nn.leaky_relu(x, alpha)


def power(x: Any, exponent: float) -> Any:
    """``x ** exponent``; a power that is not whole has no negative base."""
    low = -math.inf if float(exponent).is_integer() else 0.0
    return finite(lambda x: tf.pow(x, tf.cast(exponent, x.dtype)), low)(x)


def rsqrt_from(x: Any, least: float) -> Any:
    """``1 / sqrt(x)``, where smaller values count as the least."""
    return tf.math.rsqrt(tf.maximum(x, tf.cast(least, x.dtype)))


def cbrt(x: Any) -> Any:
    """Cube root."""
    return tf.sign(x) * tf.pow(tf.abs(x), tf.cast(1 / 3, x.dtype))


def sinc(x: Any) -> Any:
    """``sin(pi * x) / (pi * x)``, 1 at 0."""
    angle = math.pi * tf.where(x == 0, tf.ones_like(x), x)
    return tf.where(x == 0, tf.ones_like(x), tf.sin(angle) / angle)


def logarithm(x: Any, base: float) -> Any:
    """Logarithm to any base."""
    return tf.math.log(x) / math.log(base)


def exponential(x: Any, base: float) -> Any:
    """``base ** x``."""
    return tf.exp(x * math.log(base))


def reciprocal(x: Any, numerator: float) -> Any:
    """``numerator / x``."""
    return numerator * tf.math.reciprocal(x)
