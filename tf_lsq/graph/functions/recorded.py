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

from ..lowering import Call
from ..nodes import Node

# Names of functions that compute the same -> how a call of one is lowered.
Rows: TypeAlias = Mapping[tuple[str, ...], Callable[[Call], Node | list[Node]]]


class Unsupported(Exception):
    """Raised by a lowering for arguments without an exact integer form."""


class BatchMoved(Unsupported):
    """Raised by the lowering of a call after which another axis is first, or again."""


def bind_arguments(
    function: Callable[..., Any], args: Any, kwargs: Any
) -> dict[str, Any]:
    """Returns the arguments of a function by name, defaults included."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def constant(value: Any) -> np.ndarray:
    """Returns a constant argument as an array.

    Raises:
        Unsupported: If the model computes it, or training changes it.
    """
    for part in tf.nest.flatten(value):
        if is_trained(part):
            raise Unsupported(trained_argument(part))
    return weight(value)


def weight(value: Any) -> np.ndarray:
    """Returns an argument that becomes a layer's weight as an array.

    Args:
        value: A constant, or a variable; see `is_trained`.

    Raises:
        Unsupported: If the model computes it.
    """
    for part in tf.nest.flatten(value):
        if isinstance(part, Node):
            raise Unsupported("the model computes an argument that must be constant")
    return np.asarray(value)


def is_trained(value: Any) -> bool:
    """Returns whether an argument is a variable that training changes."""
    is_variable = isinstance(value, tf.Variable)
    return is_variable and value.trainable and value.dtype.is_floating


def trained_argument(variable: tf.Variable) -> str:
    """Returns why a function cannot take a trainable variable as an argument."""
    return (
        f"it would turn the trainable variable {variable.name!r} into a constant; "
        "multiply by it in a custom layer, and leave that in float with `overrides`"
    )


def with_equal_ranks(x: Any, y: Any) -> tuple[Any, Any]:
    """Returns the operands of an elementwise function.

    TensorFlow aligns the last axes of two tensors, and Keras' layers the first.

    Raises:
        Unsupported: If they are tensors with different numbers of axes.
    """
    if isinstance(x, Node) and isinstance(y, Node) and len(x.shape) != len(y.shape):
        raise Unsupported(
            "its two tensors must have the same number of axes, received "
            f"{len(x.shape)} and {len(y.shape)}; reshape one of them"
        )
    return x, y


def tensor_argument(call: Call) -> Node:
    """Returns the first argument of a function that is a tensor of the model.

    Raises:
        Unsupported: If there is none.
    """
    for value in call.arguments.values():
        if isinstance(value, Node):
            return value
    raise Unsupported("it must read a tensor of the model")
