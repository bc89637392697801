"""Float layers for products of two tensors, which Keras does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .._compat import keras
from .float_layers import SettingsLayer


@keras.utils.register_keras_serializable(package="tf_lsq")
class MatMul(SettingsLayer):
    """Returns the products of the matrices in the last two axes of two tensors.

    Args:
        transpose_first: Whether the matrices of the first tensor are transposed.
        transpose_second: Whether those of the second are.
        **kwargs: Keras' layer arguments.
    """

    _settings = ("transpose_first", "transpose_second")

    def __init__(
        self,
        transpose_first: bool = False,
        transpose_second: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.transpose_first = bool(transpose_first)
        self.transpose_second = bool(transpose_second)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns ``[..., n, m]`` for ``[..., n, k]`` and ``[..., k, m]``."""
        first, second = inputs
        return tf.matmul(
            first,
            second,
            transpose_a=self.transpose_first,
            transpose_b=self.transpose_second,
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the products; other axes are broadcast."""
        first, second = (tuple(shape) for shape in input_shape)
        batch = tf.broadcast_static_shape(
            tf.TensorShape(first[:-2]), tf.TensorShape(second[:-2])
        )
        rows = first[-1 if self.transpose_first else -2]
        columns = second[-2 if self.transpose_second else -1]
        return (*tuple(batch), rows, columns)


@keras.utils.register_keras_serializable(package="tf_lsq")
class Einsum(SettingsLayer):
    """Returns the sum of products of two tensors that an equation describes.

    tf_keras does not load what it has recorded of `tf.einsum`.

    Args:
        equation: As for `tf.einsum`, such as "bqhd,bkhd->bhqk".
        **kwargs: Keras' layer arguments.
    """

    _settings = ("equation",)

    def __init__(self, equation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.equation = str(equation)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the sum of products."""
        return tf.einsum(self.equation, *inputs)
