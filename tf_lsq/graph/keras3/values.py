"""Operations of Keras 3 that compute every value by itself: arithmetic, activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..._compat import import_keras3, keras
from ..float_layers import HardSigmoid, UnaryFunction
from .recorder import (
    Recorder,
    Row,
    numeric,
    recorded,
    require,
)

HARD_SIGMOID_SLOPE = 1 / 6  # Keras 2's is 0.2.


def _arithmetic(function: Callable[..., Any]) -> Row:
    """Returns the row of a function of two tensors of the output's type."""

    def row(record: Recorder, x: Any, y: Any) -> Any:
        return record(function, *_matched(record, record.dtype, x, y))

    return row


def _comparison(function: Callable[..., Any]) -> Row:
    """Returns the row of a function that compares two tensors."""

    def row(record: Recorder, x: Any, y: Any) -> Any:
        types = [getattr(value, "dtype", type(value)) for value in (x, y)]
        types = [t.name if isinstance(t, tf.DType) else t for t in types]
        dtype = import_keras3().backend.result_type(*types)
        return record(function, *_matched(record, dtype, x, y))

    return row


def _matched(record: Recorder, dtype: str, *values: Any) -> list[Any]:
    """Returns operands as one type."""
    return [
        record.cast(f"cast_{number}", value, dtype)
        for number, value in enumerate(values, start=1)
    ]


def _where(record: Recorder, condition: Any, x: Any, y: Any) -> Any:
    """Chooses between two tensors, value by value."""
    require(x is not None and y is not None, "it returns indices, as many as it finds")
    condition = record.cast("condition", condition, "bool")
    return record(tf.where, condition, *_matched(record, record.dtype, x, y))


def _round(record: Recorder, x: Any) -> Any:
    """Rounding to whole numbers."""
    decimals = record.operation.decimals
    require(decimals == 0, f"TensorFlow does not round to {decimals} decimals")
    return record(tf.round, x)


def _relu(record: Recorder, x: Any) -> Any:
    """A ReLU with options."""
    operation = record.operation

    def make(name: str) -> keras.layers.Layer:
        return keras.layers.ReLU(
            operation.max_value,
            operation.negative_slope,
            operation.threshold,
            name=name,
        )

    return record.layer("", make)(x)


def _elementwise(function: str, **settings: Any) -> Row:
    """Returns the row of a function of one tensor that TensorFlow does not have.

    Args:
        function: A key of `tabulated.TABULATED`.
        **settings: Its settings; names are those of attributes of the operation.
    """

    def row(record: Recorder, x: Any) -> Any:
        x = record.cast("cast", x, record.dtype)
        values = {
            name: float(getattr(record.operation, value))
            if isinstance(value, str)
            else value
            for name, value in settings.items()
        }
        return record.layer(
            "", lambda name: UnaryFunction(function, values, name=name)
        )(x)

    return row


def _elu(record: Recorder, x: Any) -> Any:
    """ELU."""
    if record.operation.alpha == 1:
        return record(tf.nn.elu, x)
    return _elementwise("elu_alpha", alpha="alpha")(record, x)


def _angle(unit: float) -> Row:
    """Returns the row of an angle in another unit."""

    def row(record: Recorder, x: Any) -> Any:
        return record(tf.multiply, record.cast("cast", x, record.dtype), unit)

    return row


def _glu(record: Recorder, x: Any) -> Any:
    """One half of the channels, times the sigmoid of the other."""
    halves = record.part("split", tf.split, x, 2, record.operation.axis)
    gate = record.part("gate", tf.nn.sigmoid, halves[1])
    return record(tf.multiply, halves[0], gate)


def _sparse_sigmoid(record: Recorder, x: Any) -> Any:
    """``clip(0.5 * x + 0.5, 0, 1)``."""
    return record.layer("", lambda name: HardSigmoid(0.5, name=name))(x)


def _hard_sigmoid(record: Recorder, x: Any) -> Any:
    """``relu6(x + 3) / 6``."""
    return record.layer("", _hard_sigmoid_layer)(x)


def _hard_sigmoid_layer(name: str) -> keras.layers.Layer:
    """Returns the layer of a hard sigmoid."""
    return HardSigmoid(HARD_SIGMOID_SLOPE, name=name)


def _hard_silu(record: Recorder, x: Any) -> Any:
    """``x * hard_sigmoid(x)``."""
    gate = record.layer("_hard_sigmoid", _hard_sigmoid_layer)(x)
    multiply = record.layer("", lambda name: keras.layers.Multiply(name=name))
    return multiply([x, gate])


def _hard_tanh(record: Recorder, x: Any) -> Any:
    """Limits of -1 and 1."""
    return record(tf.clip_by_value, x, -1.0, 1.0)


def _clip(record: Recorder, x: Any) -> Any:
    """Limits."""
    operation = record.operation
    x = record.cast("cast", x, record.dtype)
    return record(tf.clip_by_value, x, operation.x_min, operation.x_max)


def _like(function: Callable[..., Any]) -> Row:
    """Returns the row of zeros or ones of a tensor's shape."""

    def row(record: Recorder, x: Any, dtype: Any = None) -> Any:
        return record(function, x, dtype=record.dtype)

    return row


def _one_hot(record: Recorder, x: Any) -> Any:
    """Ones at the indices, zeros elsewhere."""
    operation = record.operation
    require(not operation.sparse, "its output is sparse")
    require(record.dtype != "bool", "its output is boolean")
    return record(
        tf.one_hot, x, operation.num_classes, axis=operation.axis, dtype=record.dtype
    )


_UNARY = {
    "Absolute": tf.abs,
    "Fabs": tf.abs,
    "Arccos": tf.acos,
    "Arccosh": tf.acosh,
    "Arcsin": tf.asin,
    "Arcsinh": tf.asinh,
    "Arctan": tf.atan,
    "Arctanh": tf.atanh,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Cosh": tf.cosh,
    "Erf": tf.math.erf,
    "Erfc": tf.math.erfc,
    "Erfinv": tf.math.erfinv,
    "Exp": tf.exp,
    "Expm1": tf.math.expm1,
    "Floor": tf.floor,
    "I0": tf.math.bessel_i0,
    "Log": tf.math.log,
    "Log1p": tf.math.log1p,
    "LogSigmoid": tf.math.log_sigmoid,
    "Negative": tf.negative,
    "Reciprocal": tf.math.reciprocal,
    "Relu": tf.nn.relu,
    "Relu6": tf.nn.relu6,
    "Rsqrt": tf.math.rsqrt,
    "Selu": tf.nn.selu,
    "Sigmoid": tf.nn.sigmoid,
    "Sign": tf.sign,
    "Silu": tf.nn.silu,
    "Sin": tf.sin,
    "Sinh": tf.sinh,
    "Softplus": tf.math.softplus,
    "Softsign": tf.nn.softsign,
    "Sqrt": tf.sqrt,
    "Square": tf.square,
    "Tan": tf.tan,
    "Tanh": tf.nn.tanh,
}
_BINARY = {
    "Add": tf.add,
    "Arctan2": tf.math.atan2,
    "Divide": tf.divide,
    "DivideNoNan": tf.math.divide_no_nan,
    "FloorDivide": tf.math.floordiv,
    "Maximum": tf.maximum,
    "Minimum": tf.minimum,
    "Mod": tf.math.floormod,
    "Multiply": tf.multiply,
    "Power": tf.pow,
    "Subtract": tf.subtract,
    "TrueDivide": tf.divide,
}
_COMPARISONS = {
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterEqual": tf.greater_equal,
    "Less": tf.less,
    "LessEqual": tf.less_equal,
    "NotEqual": tf.not_equal,
}
_LOGICAL = {
    "LogicalAnd": tf.logical_and,
    "LogicalOr": tf.logical_or,
    "LogicalXor": tf.math.logical_xor,
}
VALUE_ROWS: dict[str, Row] = {
    **{name: numeric(function) for name, function in _UNARY.items()},
    **{name: _arithmetic(function) for name, function in _BINARY.items()},
    **{name: _comparison(function) for name, function in _COMPARISONS.items()},
    **{name: _arithmetic(function) for name, function in _LOGICAL.items()},
    "Array": lambda record, x: record(tf.cast, x, record.dtype),
    "Cbrt": _elementwise("cbrt"),
    "Celu": _elementwise("celu", alpha="alpha"),
    "Cast": lambda record, x: record(tf.cast, x, record.dtype),
    "Clip": _clip,
    "ConvertToTensor": lambda record, x: record(tf.cast, x, record.dtype),
    "Copy": recorded(tf.identity),
    "Deg2rad": _angle(math.pi / 180),
    "Elu": _elu,
    "Exp2": _elementwise("exponential", base=2.0),
    "Gelu": numeric(tf.nn.gelu, approximate="approximate"),
    "Glu": _glu,
    "HardShrink": _elementwise("hard_shrink", threshold="threshold"),
    "HardSigmoid": _hard_sigmoid,
    "HardSilu": _hard_silu,
    "HardTanh": _hard_tanh,
    "Isfinite": recorded(tf.math.is_finite),
    "Isinf": recorded(tf.math.is_inf),
    "Isnan": recorded(tf.math.is_nan),
    "LeakyRelu": numeric(tf.nn.leaky_relu, alpha="negative_slope"),
    "Log10": _elementwise("logarithm", base=10.0),
    "Log2": _elementwise("logarithm", base=2.0),
    "LogSoftmax": numeric(tf.nn.log_softmax, axis="axis"),
    "LogicalNot": recorded(tf.logical_not),
    "OneHot": _one_hot,
    "OnesLike": _like(tf.ones_like),
    "ReLU": _relu,
    "Rad2deg": _angle(180 / math.pi),
    "Round": _round,
    "Sinc": _elementwise("sinc"),
    "SoftShrink": _elementwise("soft_shrink", threshold="threshold"),
    "Softmax": numeric(tf.nn.softmax, axis="axis"),
    "SparsePlus": _elementwise("sparse_plus"),
    "SparseSigmoid": _sparse_sigmoid,
    "Squareplus": _elementwise("squareplus", b="b"),
    "StopGradient": recorded(tf.stop_gradient),
    "TanhShrink": _elementwise("tanh_shrink"),
    "Threshold": _elementwise(
        "threshold", threshold="threshold", default="default_value"
    ),
    "Where": _where,
    "ZerosLike": _like(tf.zeros_like),
}
