"""Layers that add, or multiply by, a constant with several values.

Positional embeddings and mean images have a value for every position. In a file they
are tensors with their own grid, so they have quantized weights as kernels do. Constants
of channels need no grid: they become scales and biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .._compat import keras


class _Constant(keras.layers.Layer):
    """A layer with a constant.

    Args:
        shape: Shape of the constant, with as many axes as the input; the batch has
            size 1, and others may.
        trained: Whether it is trained.
        weight_name: Name of its variable.
        **kwargs: Keras' layer arguments.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        trained: bool = False,
        weight_name: str = "constant",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": trained, **kwargs})
        self.shape, self.trained = tuple(shape), bool(trained)
        self.weight_name = weight_name

    def build(self, input_shape: Any) -> None:
        """Creates the constant."""
        self.constant = self.add_weight(
            name=self.weight_name,
            shape=self.shape,
            initializer="zeros",
            trainable=self.trained,
        )
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of input and constant, broadcast."""
        sizes = zip(tuple(input_shape)[1:], self.shape[1:], strict=True)
        return (input_shape[0], *(own if size == 1 else size for size, own in sizes))

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        names = ("shape", "trained", "weight_name")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own}


@keras.utils.register_keras_serializable(package="tf_lsq")
class AddConstant(_Constant):
    """Adds a constant."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the sum."""
        return inputs + tf.cast(self.constant, inputs.dtype)


@keras.utils.register_keras_serializable(package="tf_lsq")
class MultiplyConstant(_Constant):
    """Multiplies by a constant."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the product."""
        return inputs * tf.cast(self.constant, inputs.dtype)


@keras.utils.register_keras_serializable(package="tf_lsq")
class ChannelScaling(keras.layers.Layer):
    """Multiplies every channel by a trained factor, and adds a trained summand.

    Args:
        scale: Whether there are factors, `gamma`.
        center: Whether there are summands, `beta`.
        **kwargs: Keras' layer arguments.
    """

    def __init__(self, *, scale: bool = True, center: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale, self.center = bool(scale), bool(center)
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, input_shape: Any) -> None:
        """Creates the factors and summands, `[channels]`."""
        shape = (tuple(input_shape)[-1],)
        if self.scale:
            self.gamma = self.add_weight("gamma", shape, initializer="ones")
        if self.center:
            self.beta = self.add_weight("beta", shape, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns ``gamma * inputs + beta``."""
        if self.gamma is not None:
            inputs = inputs * tf.cast(self.gamma, inputs.dtype)
        if self.beta is not None:
            inputs = inputs + tf.cast(self.beta, inputs.dtype)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        own = {"scale": self.scale, "center": self.center}
        return {**super().get_config(), **own}
