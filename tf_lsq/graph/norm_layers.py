"""Layers of normalizations: those that Keras 2 does not have, and parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .._compat import keras
from .float_layers import SettingsLayer, UnaryFunction


@keras.utils.register_keras_serializable(package="tf_lsq")
class RMSNormalization(keras.layers.Layer):
    """Divides by the root of the mean square, as Keras 3's layer of this name.

    Args:
        axis: Axis or axes of the mean, the last one by default.
        epsilon: Added to the mean.
        **kwargs: Keras' layer arguments.

    Reference: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019,
    https://arxiv.org/abs/1910.07467
    """

    def __init__(
        self, axis: int | Sequence[int] = -1, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.axis = [axis] if isinstance(axis, int) else sorted(axis)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        """Creates the factors, one per value that is averaged."""
        shape = tuple(input_shape)
        self.gamma = self.add_weight(
            "scale", [shape[axis] for axis in self.axis], initializer="ones"
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized tensor times the factors."""
        x = tf.cast(inputs, tf.float32)
        mean = tf.reduce_mean(tf.square(x), self.axis, keepdims=True)
        rank, axes = x.shape.rank, [axis % x.shape.rank for axis in self.axis]
        shape = [x.shape[axis] if axis in axes else 1 for axis in range(rank)]
        gamma = tf.reshape(tf.cast(self.gamma, tf.float32), shape)
        normalized = x * tf.math.rsqrt(mean + self.epsilon) * gamma
        return tf.cast(normalized, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        own = {"axis": self.axis, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.utils.register_keras_serializable(package="tf_lsq")
class L2Normalization(SettingsLayer):
    """Divides by the Euclidean norm: `tf.math.l2_normalize`.

    Args:
        axes: Axes of the norm.
        epsilon: Smallest square of the norm.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("axes", "epsilon")

    def __init__(self, axes: Sequence[int], epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes, self.epsilon = tuple(axes), float(epsilon)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the tensor with a norm of 1."""
        return tf.math.l2_normalize(inputs, self.axes, self.epsilon)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


@keras.utils.register_keras_serializable(package="tf_lsq")
class Lookup(UnaryFunction):
    """A function of a tensor whose codes are places in a table.

    Args:
        *args: Arguments of `UnaryFunction`.
        **kwargs: The same, and Keras' layer arguments.
    """


@keras.utils.register_keras_serializable(package="tf_lsq")
class SumOfSquares(SettingsLayer):
    """Returns the sum of squares over the last axes, which stay with size 1.

    Args:
        num_axes: How many axes.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("num_axes",)

    def __init__(self, num_axes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_axes = int(num_axes)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the sums."""
        axes = list(range(-self.num_axes, 0))
        return tf.reduce_sum(tf.square(inputs), axes, keepdims=True)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape with sizes of 1."""
        return (*tuple(input_shape)[: -self.num_axes], *(1,) * self.num_axes)
