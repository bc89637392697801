"""Convolutions with groups, computed by TensorFlow's own kernels.

Keras compiles every such convolution with XLA, because some of TensorFlow's kernels for
a CPU have no gradient for it. XLA's code for a CPU is slow: a training step of 3x3
kernels in 16 groups on 16 images of 28x28x64 took over 2 seconds, and 0.02 seconds with
oneDNN, see `benchmarks/grouped.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from .._compat import keras


def own_kernels(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns attributes with which a layer computes its groups without XLA.

    Args:
        layer: Any layer.

    Returns:
        Nothing for a layer without groups.
    """
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return {}

    def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if has_gradients(inputs.dtype.name):
            return layer_convolution(layer, inputs, kernel)
        parts = zip(
            tf.split(inputs, groups, axis=-1),
            tf.split(kernel, groups, axis=-1),
            strict=True,
        )
        return tf.concat([layer_convolution(layer, *part) for part in parts], axis=-1)

    # A layer with one group calls this method.
    return {"groups": 1, "convolution_op": convolve}


def layer_convolution(
    layer: keras.layers.Layer, inputs: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """Returns the convolution of a layer, with its strides, padding and dilations.

    Args:
        layer: A convolution.
        inputs: `[batch, ..., channels]`.
        kernel: `[..., channels of a group, filters]`.
    """
    return type(layer).convolution_op(layer, inputs, kernel)


@functools.cache
def has_gradients(dtype: str) -> bool:
    """Returns whether TensorFlow has gradients for grouped convolutions here.

    It has them on GPUs, and with oneDNN on CPUs: in float32 and bfloat16, in float16
    only on some.

    Args:
        dtype: Of inputs and kernel.
    """
    kernel = (1, 1, 2, 4)
    with tf.init_scope():  # It would pause a tape.
        images = tf.ones((1, 1, 1, 4), dtype)
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                input=images,
                filter_sizes=kernel,
                out_backprop=images,
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=images.shape,
                filter=tf.ones(kernel, dtype),
                out_backprop=images,
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
        except tf.errors.OpError:
            return False
    return True
