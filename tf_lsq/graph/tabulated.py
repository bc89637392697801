"""Elementwise functions of one tensor that a file computes with a table of all codes.

To add one, add a row to `TABULATED`; users register theirs. An int8 tensor has 256
codes, so a table has the result of every one of them: whatever the function, the file
is exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from . import elementwise as functions
from .elementwise import SMALLEST_OF_LOG, Function, finite


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


def _range_from(threshold: float, slope: float, max_value: float | None) -> str:
    """Returns the range of a ReLU with a threshold."""
    return "signed" if slope or threshold < 0 else "positive"


def _range_of_power(exponent: float) -> str:
    """Returns the range of a power."""
    odd = float(exponent).is_integer() and exponent % 2 == 1
    return "inputs" if odd else "positive"


def _math(
    name: str, function: Function | None = None, range: str = "signed"
) -> Tabulated:
    """Returns the row of a function of `tf.math` without settings."""
    original = getattr(tf.math, name)
    return Tabulated(function or original, range, (f"math.{name}",), (original,))


TABULATED: dict[str, Tabulated] = {
    # Activations.
    "celu": Tabulated(functions.celu, "inputs"),
    "elu_alpha": Tabulated(functions.elu, "inputs"),
    "hard_shrink": Tabulated(functions.hard_shrink, "inputs"),
    "leaky_relu": Tabulated(functions.leaky_relu),
    "log_sigmoid": _math("log_sigmoid"),
    "mish": Tabulated(functions.mish, activations=(keras.activations.mish,)),
    "relu_from": Tabulated(functions.relu_from, _range_from),
    "selu": Tabulated(
        tf.nn.selu,
        "inputs",
        ("nn.selu",),
        activations=(keras.activations.selu, tf.nn.selu),
    ),
    "soft_shrink": Tabulated(functions.soft_shrink, "inputs"),
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
    "sparse_plus": Tabulated(functions.sparse_plus, "positive"),
    "squareplus": Tabulated(functions.squareplus, "positive"),
    "swish_beta": Tabulated(functions.swish),
    "tanh_shrink": Tabulated(functions.tanh_shrink, "inputs"),
    "threshold": Tabulated(
        functions.threshold,
        lambda threshold, default: (
            "signed" if min(threshold, default) < 0 else "positive"
        ),
    ),
    # Powers.
    "cbrt": Tabulated(finite(functions.cbrt), "inputs"),
    "exponential": Tabulated(functions.exponential, "positive"),
    "power": Tabulated(functions.power, _range_of_power),
    "reciprocal": Tabulated(finite(functions.reciprocal)),
    "reciprocal_no_nan": _math(
        "reciprocal_no_nan", finite(tf.math.reciprocal_no_nan), "inputs"
    ),
    "rsqrt": _math("rsqrt", finite(tf.math.rsqrt, 0.0), "positive"),
    "rsqrt_from": Tabulated(finite(functions.rsqrt_from), "positive"),
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
    "logarithm": Tabulated(finite(functions.logarithm, SMALLEST_OF_LOG)),
    "sin": _math("sin"),
    "sinc": Tabulated(functions.sinc),
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
    # Others.
    "sign": _math("sign", range="inputs"),
}

# --- Custom functions ------------------------------------------------------------

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
