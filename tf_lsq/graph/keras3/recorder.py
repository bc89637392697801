"""Records the TensorFlow functions that compute an operation of Keras 3.

The last function has the name of the operation, so that messages and patterns use the
user's names; those before it have names derived from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..._compat import OpLambda, SlicingOpLambda
from .arguments import is_tensor


class NoTwin(Exception):
    """Says why a layer or operation of Keras 3 has no twin in tf_keras."""


class Recorder:
    """Records functions for one operation; a second call records the same layers.

    Attributes:
        operation: The Keras 3 operation.
        dtype: Type of its first output, in this call.
    """

    def __init__(self, operation: Any, unique: Callable[[str], str]) -> None:
        self.operation, self.dtype = operation, "float32"
        self._unique = unique
        self._layers: dict[str, Any] = {}

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Records the function that computes the output."""
        return self._record("", function, args, kwargs)

    def part(
        self, label: str, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Records a function before the last one.

        Args:
            label: What it does; unique in the operation.
            function: A public function of TensorFlow.
            *args: Its arguments: tensors of tf_keras, and constants.
            **kwargs: Likewise.
        """
        return self._record(f"_{label}", function, args, kwargs)

    def layer(self, label: str, make: Callable[[str], Any]) -> Any:
        """Returns a layer for part of the operation, "" for the last one.

        Args:
            label: What it does; unique in the operation.
            make: Creates the layer with a name.
        """
        if label not in self._layers:
            name = self.operation.name
            name = self._unique(f"{name}{label}") if label else name
            self._layers[label] = make(name)
        return self._layers[label]

    def cast(self, label: str, value: Any, dtype: str) -> Any:
        """Returns a tensor or constant as another type."""
        if not is_tensor(value):
            array = np.asarray(value, tf.as_dtype(dtype).as_numpy_dtype)
            # A number is stored as it is written.
            return array.item() if dtype == "float32" and not array.ndim else array
        if dtype_of(value) == dtype:
            return value
        return self.part(label, tf.cast, value, dtype)

    def _record(
        self, label: str, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Records one function."""
        slices = function is tf.__operators__.getitem
        kind = SlicingOpLambda if slices else OpLambda
        layer = self.layer(label, lambda name: kind(function, name=name))
        return layer(*args, **kwargs)


# Records an operation that is called on tensors and constants.
Row: TypeAlias = Callable[..., Any]


def dtype_of(value: Any) -> str:
    """Returns the name of a tensor's or an array's type."""
    return tf.as_dtype(value.dtype).name


def settings_of(record: Recorder, attributes: dict[str, str]) -> dict[str, Any]:
    """Returns arguments of a function, given the attributes that hold them."""
    operation = record.operation
    return {name: getattr(operation, value) for name, value in attributes.items()}


def recorded(function: Callable[..., Any], **attributes: str) -> Row:
    """Returns the row of an operation that is one function of TensorFlow.

    Args:
        function: A public function of TensorFlow.
        **attributes: Its keyword arguments, each with the attribute of the operation
            that holds its value.
    """

    def row(record: Recorder, *args: Any) -> Any:
        return record(function, *args, **settings_of(record, attributes))

    return row


def numeric(function: Callable[..., Any], **attributes: str) -> Row:
    """Returns the row of a function of one tensor that has the output's type.

    Keras 3 computes most functions of integers in float, or in int32.
    """

    def row(record: Recorder, x: Any) -> Any:
        x = record.cast("cast", x, record.dtype)
        return record(function, x, **settings_of(record, attributes))

    return row


def require(condition: Any, reason: str) -> None:
    """Refuses to record an operation.

    Raises:
        NoTwin: If the condition is false.
    """
    if not condition:
        raise NoTwin(reason)
