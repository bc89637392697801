"""Arguments of TensorFlow functions that functional code calls on Keras tensors.

`x + y`, `tf.nn.relu6(x)` or `x[:, 1:]` make Keras record the function and its
arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from .lowering import Call
from .nodes import Layer, Node

# Names of functions that compute the same -> how a call of one is lowered.
Rows: TypeAlias = Mapping[tuple[str, ...], Callable[[Call], Node | list[Node]]]


class Unsupported(Exception):
    """Raised by a lowering for arguments without an exact integer form."""


def bind_arguments(layer: Layer, args: Any, kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of a recorded function by name, defaults included."""
    bound = inspect.signature(layer.function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def constant(value: Any) -> np.ndarray:
    """Returns a constant argument as an array.

    Raises:
        Unsupported: If the model computes it.
    """
    if any(isinstance(part, Node | Unknown) for part in tf.nest.flatten(value)):
        raise Unsupported("the model computes an argument that must be constant")
    return np.asarray(value)


class Unknown:
    """Placeholder for an integer tensor, such as a shape, computed at run time."""


def tensor_argument(call: Call) -> Node:
    """Returns the first argument of a function that is a tensor of the model."""
    return next(v for v in call.arguments.values() if isinstance(v, Node))
