"""Reads Python functions of Keras 3 models: those of `Lambda` layers, and activations.

A function is called on Keras tensors, which record what it computes.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..._compat import import_keras3, keras
from .. import python_functions


def read_function(function: Callable[..., Any], tensors: Sequence[Any]) -> Any:
    """Returns a model that computes a function, None if it cannot be read.

    A function cannot be read if it works on the tensors of neither Keras, or computes
    something else when it is called again (random numbers).

    Args:
        function: A function of tensors.
        tensors: Keras tensors with the shapes and types of its arguments.

    Returns:
        A functional model of Keras 3 for a function that calls `keras.ops`; one of
        tf_keras for a function that calls TensorFlow.
    """
    with import_keras3().StatelessScope():  # Keeps the states of random numbers.
        model = _read_by_keras3(function, tensors)
        if model is not None:
            return model
        if isinstance(function, import_keras3().layers.Layer):
            return None  # TensorFlow would see its variables as constants.
        model = python_functions.read_function(function, tensors)
    # Keras stores the names of layers when it creates a model, and they have changed.
    return None if model is None else keras.Model(model.inputs, model.outputs)


def _read_by_keras3(function: Callable[..., Any], tensors: Sequence[Any]) -> Any:
    """Returns a Keras 3 model that computes a function, None if there is none."""
    keras3 = import_keras3()
    inputs = [
        keras3.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype)
        for tensor in tensors
    ]
    try:
        model = keras3.Model(inputs, function(*inputs))
    except Exception:  # The function is the user's: anything may happen.
        return None
    if model.weights or not python_functions.computes(model, function):
        return None
    _name_operations(model)
    return model


def _name_operations(model: Any) -> None:
    """Gives recorded operations the names they would have in a new process."""
    counts: collections.Counter[str] = collections.Counter()
    for operation in model.operations:
        if isinstance(operation, import_keras3().layers.Layer):
            continue
        base = re.sub(r"_\d+$", "", operation.name)
        operation.name = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1
