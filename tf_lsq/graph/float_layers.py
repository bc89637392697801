"""Float layers that Keras does not have, or does not save unchanged.

The graph analysis replaces `tf.reduce_mean`, `tf.abs` and the like with these layers,
so that a quantized model consists of named layers that can be saved and loaded.
`moving_layers` has those that move values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from .._compat import keras
from .unary import function_of

_REDUCTIONS = {
    "mean": tf.reduce_mean,
    "sum": tf.reduce_sum,
    "max": tf.reduce_max,
    "min": tf.reduce_min,
}
# Reduction -> the kind of its operator.
REDUCED_KINDS = {
    "mean": "mean",
    "sum": "sum",
    "max": "reduce_max",
    "min": "reduce_min",
}


class SettingsLayer(keras.layers.Layer):
    """A layer without weights, defined by the settings in `_settings`."""

    _settings: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        settings = {name: getattr(self, name) for name in self._settings}
        return {**super().get_config(), **settings}


@keras.utils.register_keras_serializable(package="tf_lsq")
class HardSigmoid(SettingsLayer):
    """Returns ``clip(slope * x + 0.5, 0, 1)``.

    Args:
        slope: 0.2 for Keras 2's `hard_sigmoid`, 1/6 for Keras 3's and for
            MobileNetV3's ``relu6(x + 3) / 6``.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("slope",)

    def __init__(self, slope: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slope = float(slope)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns a value from 0 to 1, shape of `inputs`."""
        return tf.clip_by_value(self.slope * inputs + 0.5, 0.0, 1.0)


@keras.utils.register_keras_serializable(package="tf_lsq")
class ScaledSoftmax(SettingsLayer):
    """Returns ``softmax(beta * x)`` over the last axis.

    Args:
        beta: A positive factor, as 1 / sqrt(d) in attention.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("beta",)

    def __init__(self, beta: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta = float(beta)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns positive values whose sum is 1, shape of `inputs`."""
        return tf.nn.softmax(self.beta * inputs)


@keras.utils.register_keras_serializable(package="tf_lsq")
class Clip(SettingsLayer):
    """Limits values.

    Args:
        low: Smallest value, None without one.
        high: Largest value, None without one.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("low", "high")

    def __init__(self, low: float | None, high: float | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the limited values, shape of `inputs`."""
        if self.low is not None:
            inputs = tf.maximum(inputs, tf.cast(self.low, inputs.dtype))
        if self.high is not None:
            inputs = tf.minimum(inputs, tf.cast(self.high, inputs.dtype))
        return inputs


@keras.utils.register_keras_serializable(package="tf_lsq")
class Reduction(SettingsLayer):
    """Returns the mean, the sum, the maximum or the minimum over axes.

    Args:
        reduction: "mean", "sum", "max" or "min".
        axes: Axes, counted from 1 after the batch axis.
        keepdims: Whether the axes stay, with size 1.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("reduction", "axes", "keepdims")

    def __init__(
        self, reduction: str, axes: Sequence[int], keepdims: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"`reduction` must be one of {list(_REDUCTIONS)}. "
                f"Received: {reduction!r}."
            )
        self.reduction, self.keepdims = reduction, bool(keepdims)
        self.axes = tuple(axes)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the reduced tensor."""
        reduce = _REDUCTIONS[self.reduction]
        return reduce(inputs, axis=self.axes, keepdims=self.keepdims)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape without the axes, or with size 1 there."""
        kept = [
            1 if axis in self.axes else size
            for axis, size in enumerate(input_shape)
            if self.keepdims or axis not in self.axes
        ]
        return tuple(kept)


@keras.utils.register_keras_serializable(package="tf_lsq")
class ArgMax(SettingsLayer):
    """Returns the index of the largest value along an axis, the first if several are.

    Args:
        axis: Axis, counted from 1 after the batch axis.
        output_type: "int32" or "int64".
        **kwargs: Keras' layer arguments.
    """

    _settings = ("axis", "output_type")

    def __init__(self, axis: int, output_type: str = "int64", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis, self.output_type = int(axis), output_type

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the indices, shape of `inputs` without the axis."""
        return tf.argmax(inputs, self.axis, tf.as_dtype(self.output_type))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape without the axis."""
        return (*input_shape[: self.axis], *input_shape[self.axis + 1 :])


@keras.utils.register_keras_serializable(package="tf_lsq")
class UnaryFunction(SettingsLayer):
    """Applies a function to ``scale * x + offset`` of every value.

    Args:
        function: A key of `unary.UNARY` or `tabulated.TABULATED`.
        settings: Its settings.
        scale: See above.
        offset: See above.
        in_float: Whether the user left it in float.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("function", "settings", "scale", "offset", "in_float")

    def __init__(
        self,
        function: str,
        settings: Mapping[str, Any] | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        in_float: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        function_of(function)
        self.function, self.settings = function, dict(settings or {})
        self.scale, self.offset, self.in_float = scale, offset, in_float

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the values of the function, shape of `inputs`."""
        if (self.scale, self.offset) != (1.0, 0.0):
            inputs = inputs * self.scale + self.offset
        return function_of(self.function)(inputs, **self.settings)


@keras.utils.register_keras_serializable(package="tf_lsq")
class SynchronizedBatchNormalization(keras.layers.BatchNormalization):
    """A batch norm over the batch of all replicas, including in its copies.

    Keras leaves `synchronized` out of a layer's config, so a copied or loaded layer
    would have the statistics of one replica.

    Args:
        **kwargs: Settings of `keras.layers.BatchNormalization`, by name.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(synchronized=True, **kwargs)
