"""Layers that add, or multiply by, a constant with several values per channel.

Positional embeddings and mean images have a value for every position. In a file they
are tensors with their own grid, so they have quantized weights as kernels do.
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
        **kwargs: Keras' layer arguments.
    """

    def __init__(
        self, shape: Sequence[int], *, trained: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"trainable": trained, **kwargs})
        self.shape, self.trained = tuple(shape), bool(trained)

    def build(self, input_shape: Any) -> None:
        """Creates the constant."""
        self.constant = self.add_weight(
            name="constant",
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
        return {**super().get_config(), "shape": self.shape, "trained": self.trained}


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
