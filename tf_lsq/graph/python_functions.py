"""Reads Python functions, in `Lambda` layers and as activations, as models.

A function is called on Keras tensors, which record what it computes. What it computes
is then analyzed like the rest of the model.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import OpLambda, keras, rename_layer

_BATCH, _SIZE = 2, 8  # For axes of unknown size.
_CLOSE = 1e-5


def read_lambda(keras_node: Any) -> keras.Model | None:
    """Returns what one call of a `Lambda` computes, None if it cannot be read.

    Args:
        keras_node: The call.
    """
    layer = keras_node.layer
    if layer._fn_expects_training_arg or layer._fn_expects_mask_arg:
        return None

    def compute(*tensors: Any) -> Any:
        values = dict(zip(map(id, keras_node.keras_inputs), tensors, strict=True))
        args, kwargs = tf.nest.map_structure(
            lambda value: values.get(id(value), value),
            (keras_node.call_args, keras_node.call_kwargs),
        )
        inputs = [*args, *kwargs.values()][0]
        return layer.function(inputs, **layer.arguments)

    return read_function(compute, keras_node.keras_inputs)


def read_function(
    function: Callable[..., Any], tensors: Sequence[Any]
) -> keras.Model | None:
    """Returns a model that computes a Python function, None if it cannot be read.

    A function cannot be read if it does not work on Keras tensors, has variables, or
    computes something else when it is called again (random numbers).

    Args:
        function: A function of tensors.
        tensors: Keras tensors with the shapes and types of its arguments.
    """
    inputs = [
        keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype)
        for tensor in tensors
    ]
    try:
        model = keras.Model(inputs, function(*inputs))
    except Exception:  # The function is the user's: anything may happen.
        return None
    if model.weights or not computes(model, function):
        return None
    name_functions(model)
    return model


def name_functions(model: keras.Model) -> None:
    """Gives recorded functions the names they would have in a new process.

    Keras numbers them by how many it has recorded before. With their own numbers they
    have the same names whenever a function is read, so that patterns match.
    """
    counts: collections.Counter[str] = collections.Counter()
    for layer in model.layers:
        if isinstance(layer, OpLambda) and layer.symbol:
            base = f"tf.{layer.symbol}"
            number = counts[base]
            counts[base] += 1
            rename_layer(layer, f"{base}_{number}" if number else base)


def computes(model: Any, function: Callable[..., Any]) -> bool:
    """Returns whether a model computes a function, compared on random numbers.

    Args:
        model: A functional model of tf_keras or Keras 3.
        function: A function of as many tensors as the model has inputs.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        first, *sizes = tensor.shape
        shape = (first or _BATCH, *(_SIZE if size is None else size for size in sizes))
        values = tf.constant(rng.uniform(-2.0, 2.0, shape))
        arrays.append(tf.cast(values, tensor.dtype))
    try:
        expected = tf.nest.flatten(function(*arrays))
        found = tf.nest.flatten(model(arrays if len(arrays) > 1 else arrays[0]))
    except Exception:  # The function is the user's.
        return False
    pairs = zip(found, expected, strict=True)
    return all(_close(np.asarray(one), np.asarray(other)) for one, other in pairs)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Returns whether two outputs are equal up to float32 rounding."""
    if found.shape != expected.shape:
        return False
    return bool(np.allclose(found, expected, _CLOSE, _CLOSE, equal_nan=True))
