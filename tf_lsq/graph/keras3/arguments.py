"""Arguments of a call in Keras 3, stored in a model of tf_keras."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..._compat import import_keras3, in_safe_mode, keras

_SLOT = "tensor"


def pack_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, str | None]:
    """Returns what a `Keras3Layer` is called with, for the arguments of its operation.

    Args:
        args: Positional arguments: tensors of tf_keras, and constants.
        kwargs: Keyword arguments, likewise.

    Returns:
        Inputs, and the `arguments` of the call; None if the inputs are all.

    Raises:
        ValueError: If Keras 3 cannot store a constant.
    """
    tensors = [x for x in tf.nest.flatten((args, kwargs)) if is_tensor(x)]
    if len(args) == 1 and not kwargs and len(tensors) == len(tf.nest.flatten(args)):
        return args[0], None
    numbers = {id(tensor): number for number, tensor in enumerate(tensors)}

    def packed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: packed(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(packed(part) for part in value)
        return {_SLOT: numbers[id(value)]} if id(value) in numbers else value

    stored = import_keras3().saving.serialize_keras_object(
        {"args": packed(list(args)), "kwargs": packed(dict(kwargs))}
    )
    return tensors if len(tensors) > 1 else tensors[0], json.dumps(stored)


def is_tensor(value: Any) -> bool:
    """Returns whether a value is a tensor, of a model or with values."""
    return tf.is_tensor(value) or isinstance(value, keras.__internal__.KerasTensor)


def unpack_arguments(
    arguments: str, tensors: list[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments that `pack_arguments` stored.

    Args:
        arguments: What it returned.
        tensors: The tensors of the call.

    Returns:
        Positional and keyword arguments.
    """

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            if list(value) == [_SLOT]:
                return tensors[value[_SLOT]]
            return {name: filled(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(filled(part) for part in value)
        return value

    stored = import_keras3().saving.deserialize_keras_object(
        json.loads(arguments), safe_mode=in_safe_mode()
    )
    return filled(stored["args"]), filled(stored["kwargs"])
