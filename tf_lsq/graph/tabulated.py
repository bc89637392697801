"""Elementwise functions of one tensor that a file computes with a table of all codes.

To add one, add a row to `TABULATED`; users register theirs. An int8 tensor has 256
codes, so a table has the result of every one of them: whatever the function, the file
is exact.

A grid always has the value 0. Where a function has no finite result, or no finite
slope, there is one here all the same, so that training goes on: `finite` says which.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras

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


@dataclasses.dataclass(frozen=True)
class Tabulated:
    """An elementwise function of one tensor.

    Attributes:
        function: Computes it: a tensor, and settings as keyword arguments.
        range: As in `Kind`: "positive" if it is never negative, "inputs" if it is not
            where its input is not, else "signed"; or what returns it from settings.
        symbols: Names of TensorFlow functions that compute it, without settings.
        activations: Activation functions equal to it, without settings.
    """

    function: Function
    range: str | Callable[..., str] = "signed"
    symbols: tuple[str, ...] = ()
    activations: tuple[Function, ...] = ()

    def range_with(self, settings: Mapping[str, Any]) -> str:
        """Returns the range of its results, given its settings."""
        return self.range if isinstance(self.range, str) else self.range(**settings)


# --- Functions that TensorFlow does not have -----------------------------------


def _elu(x: Any, alpha: float) -> Any:
    """ELU with a factor: ``alpha * (exp(x) - 1)`` below 0."""
    return tf.nn.relu(x) + alpha * tf.math.expm1(tf.minimum(x, 0))


def _celu(x: Any, alpha: float) -> Any:
    """CELU: ``alpha * (exp(x / alpha) - 1)`` below 0."""
    return tf.nn.relu(x) + alpha * tf.math.expm1(tf.minimum(x, 0) / alpha)


def _mish(x: Any) -> Any:
    """Mish: ``x * tanh(softplus(x))``."""
    return x * tf.tanh(tf.math.softplus(x))


def _swish(x: Any, beta: float) -> Any:
    """Swish: ``x * sigmoid(beta * x)``."""
    return x * tf.sigmoid(beta * x)


def _squareplus(x: Any, b: float) -> Any:
    """Squareplus: ``(x + sqrt(x ** 2 + b)) / 2``."""
    return (x + tf.sqrt(tf.square(x) + b)) / 2


def _sparse_plus(x: Any) -> Any:
    """Sparse plus: 0 up to -1, x from 1 on, a parabola between."""
    return tf.where(x < 1, tf.square(tf.nn.relu(tf.minimum(x, 1) + 1)) / 4, x)


def _tanh_shrink(x: Any) -> Any:
    """Tanh shrink: ``x - tanh(x)``."""
    return x - tf.tanh(x)


def _soft_shrink(x: Any, threshold: float) -> Any:
    """Soft shrink: x moved towards 0 by the threshold."""
    return tf.nn.relu(x - threshold) - tf.nn.relu(-x - threshold)


def _hard_shrink(x: Any, threshold: float) -> Any:
    """Hard shrink: 0 up to the threshold on both sides, else x."""
    return tf.where(tf.abs(x) > threshold, x, tf.zeros_like(x))


def _threshold(x: Any, threshold: float, default: float) -> Any:
    """Threshold: x above the threshold, else a number."""
    return tf.where(x > threshold, x, tf.cast(default, x.dtype))


def _relu_from(x: Any, threshold: float, slope: float, max_value: float | None) -> Any:
    """Keras' ReLU with a threshold."""
    above = x if max_value is None else tf.minimum(x, tf.cast(max_value, x.dtype))
    return tf.where(x >= threshold, above, slope * (x - threshold))


def _range_from(threshold: float, slope: float, max_value: float | None) -> str:
    """Returns the range of `_relu_from`."""
    return "signed" if slope or threshold < 0 else "positive"


def _leaky_relu(x: Any, alpha: float) -> Any:
    """Leaky ReLU with any slope, as TensorFlow computes it."""
    return tf.nn.leaky_relu(x, alpha)


def _power(x: Any, exponent: float) -> Any:
    """``x ** exponent``; a power that is not whole has no negative base."""
    low = -math.inf if float(exponent).is_integer() else 0.0
    power = finite(lambda x: tf.pow(x, tf.cast(exponent, x.dtype)), low)
    return power(x)


def _range_of_power(exponent: float) -> str:
    """Returns the range of `_power`."""
    odd = float(exponent).is_integer() and exponent % 2 == 1
    return "inputs" if odd else "positive"


def _cbrt(x: Any) -> Any:
    """Cube root."""
    return tf.sign(x) * tf.pow(tf.abs(x), tf.cast(1 / 3, x.dtype))


def _sinc(x: Any) -> Any:
    """``sin(pi * x) / (pi * x)``, 1 at 0."""
    angle = math.pi * tf.where(x == 0, tf.ones_like(x), x)
    return tf.where(x == 0, tf.ones_like(x), tf.sin(angle) / angle)


def _logarithm(x: Any, base: float) -> Any:
    """Logarithm to any base."""
    return tf.math.log(x) / math.log(base)


def _exponential(x: Any, base: float) -> Any:
    """``base ** x``."""
    return tf.exp(x * math.log(base))


def _reciprocal(x: Any, numerator: float) -> Any:
    """``numerator / x``."""
    return numerator * tf.math.reciprocal(x)


# --- The table -----------------------------------------------------------------


def _math(
    name: str, function: Function | None = None, range: str = "signed"
) -> Tabulated:
    """Returns the row of a function of `tf.math` without settings."""
    original = getattr(tf.math, name)
    return Tabulated(function or original, range, (f"math.{name}",), (original,))


TABULATED: dict[str, Tabulated] = {
    # Activations.
    "celu": Tabulated(_celu, "inputs"),
    "elu_alpha": Tabulated(_elu, "inputs"),
    "hard_shrink": Tabulated(_hard_shrink, "inputs"),
    "leaky_relu": Tabulated(_leaky_relu),
    "log_sigmoid": _math("log_sigmoid"),
    "mish": Tabulated(_mish, activations=(keras.activations.mish,)),
    "relu_from": Tabulated(_relu_from, _range_from),
    "selu": Tabulated(
        tf.nn.selu,
        "inputs",
        ("nn.selu",),
        activations=(keras.activations.selu, tf.nn.selu),
    ),
    "soft_shrink": Tabulated(_soft_shrink, "inputs"),
    "softplus": Tabulated(
        tf.math.softplus,
        "positive",
        ("math.softplus",),
        activations=(keras.activations.softplus, tf.math.softplus),
    ),
    "softsign": Tabulated(
        tf.nn.softsign,
        "inputs",
        ("nn.softsign",),
        activations=(keras.activations.softsign, tf.nn.softsign),
    ),
    "sparse_plus": Tabulated(_sparse_plus, "positive"),
    "squareplus": Tabulated(_squareplus, "positive"),
    "swish_beta": Tabulated(_swish),
    "tanh_shrink": Tabulated(_tanh_shrink, "inputs"),
    "threshold": Tabulated(
        _threshold,
        lambda threshold, default: (
            "signed" if min(threshold, default) < 0 else "positive"
        ),
    ),
    # Powers.
    "cbrt": Tabulated(finite(_cbrt), "inputs"),
    "exponential": Tabulated(_exponential, "positive"),
    "power": Tabulated(_power, _range_of_power),
    "reciprocal": Tabulated(finite(_reciprocal)),
    "reciprocal_no_nan": _math(
        "reciprocal_no_nan", finite(tf.math.reciprocal_no_nan), "inputs"
    ),
    "rsqrt": _math("rsqrt", finite(tf.math.rsqrt, 0.0), "positive"),
    "sqrt": _math("sqrt", finite(tf.sqrt, 0.0), "positive"),
    # Exponential functions, hyperbolas, circles.
    "acos": _math("acos", finite(tf.acos, -1.0, 1.0), "positive"),
    "acosh": _math("acosh", finite(tf.acosh, 1.0), "positive"),
    "asin": _math("asin", finite(tf.asin, -1.0, 1.0), "inputs"),
    "asinh": _math("asinh", range="inputs"),
    "atan": _math("atan", range="inputs"),
    "atanh": _math("atanh", finite(tf.atanh, -1.0, 1.0), "inputs"),
    "cos": _math("cos"),
    "cosh": _math("cosh", range="positive"),
    "expm1": _math("expm1", range="inputs"),
    "log1p": _math("log1p", finite(tf.math.log1p, SMALLEST_OF_LOG - 1), "inputs"),
    "logarithm": Tabulated(finite(_logarithm, SMALLEST_OF_LOG)),
    "sin": _math("sin"),
    "sinc": Tabulated(_sinc),
    "sinh": _math("sinh", range="inputs"),
    "tan": _math("tan", finite(tf.tan)),
    # Statistics.
    "bessel_i0": _math("bessel_i0", range="positive"),
    "erf": _math("erf", range="inputs"),
    "erfc": _math("erfc", range="positive"),
    "erfinv": _math("erfinv", finite(tf.math.erfinv, -1.0, 1.0), "inputs"),
    "ndtri": _math("ndtri", finite(tf.math.ndtri, 0.0, 1.0)),
    "digamma": _math("digamma", finite(tf.math.digamma)),
    "lgamma": _math("lgamma", finite(tf.math.lgamma)),
    "sign": _math("sign", range="inputs"),
}


_CUSTOM = "custom>"  # Begins the names of rows that users add.


def register_elementwise(function: Function, *, nonnegative: bool = False) -> Function:
    """Registers a custom elementwise function, which becomes a table in the file.

    As an activation, or in a `Lambda` layer, the function is one operator then, and
    exact whatever it computes. Without registration it is read, and each TensorFlow
    function that it calls is an operator with a learned step after it: less exact, and
    often slower. A saved quantized model refers to the function by its name: register
    it before you load one.

    A custom layer without weights can decompose into an `Activation` with a registered
    function, see `register_layer`.

    Args:
        function: Takes a float tensor and returns one of the same shape, each value
            computed from the value at the same place; of TensorFlow functions that
            take float64 as well. It must be finite where the model uses it.
        nonnegative: Whether its result is never negative: then all codes stand for
            values from 0 on.

    Returns:
        The function.

    Raises:
        ValueError: If it has no name, or does not compute each value by itself.

    Example:
        >>> import tensorflow as tf
        >>> @register_elementwise
        ... def bent_identity(x):
        ...     return (tf.sqrt(x * x + 1.0) - 1.0) / 2.0 + x
    """
    name = function.__name__
    if not name.isidentifier():
        raise ValueError(f"`function` must have a name. Received: {name!r}.")
    x = tf.constant([[-1.5, -0.25, 0.0], [0.75, 1.0, 3.0]], tf.float64)
    one_by_one = [function(value) for value in tf.unstack(tf.reshape(x, [-1]))]
    result = tf.convert_to_tensor(function(x))
    same = result.shape == x.shape and result.dtype == x.dtype
    if not same or not np.allclose(
        tf.reshape(result, [-1]), one_by_one, 1e-12, 1e-12, equal_nan=True
    ):
        raise ValueError(
            f"`{name}` must compute each value of a float64 tensor by itself. "
            f"Received: {result!r} for {x!r}."
        )
    reach = "positive" if nonnegative else "signed"
    row = Tabulated(function, reach, activations=(function,))
    TABULATED[f"{_CUSTOM}{name}"] = row
    return function


def is_registered(function: Any) -> bool:
    """Returns whether a function is one that `register_elementwise` registered."""
    return any(
        function is row.function
        for name, row in TABULATED.items()
        if name.startswith(_CUSTOM)
    )
