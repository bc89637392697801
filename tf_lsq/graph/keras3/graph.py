"""The graph of a Keras 3 model, and of its twin."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from ..._compat import keras
from .arguments import is_tensor

Call: TypeAlias = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class CallTwin:
    """The twin of a layer or operation.

    Attributes:
        call: Takes the arguments of a call in Keras 3, with tensors of TensorFlow.
        inner: The twin of a nested model.
        runs_keras3: Whether it runs the Keras 3 layer or operation itself.
    """

    call: Call
    inner: ModelTwin | None = None
    runs_keras3: bool = False


@dataclasses.dataclass(frozen=True)
class ModelTwin:
    """The twin of a functional model.

    Attributes:
        original: The functional Keras 3 model.
        model: Its twin.
        steps: The calls in Keras 3, in order, without inputs, and their twins.
        tensors: Symbolic tensors of Keras 3, by id -> of the twin.
        constant: Returns a constant argument in Keras 3 as the twins receive it.
    """

    original: Any
    model: keras.Model
    steps: list[tuple[Any, CallTwin]]
    tensors: dict[int, Any]
    constant: Callable[[Any], Any]


def functional(model: Any) -> Any:
    """Returns the functional Keras 3 model that a model is, None if it is another."""
    model = getattr(model, "_functional", model)
    overridden = any(
        "call" in vars(cls)
        for cls in type(model).__mro__
        if not cls.__module__.startswith("keras.")
    )
    return model if hasattr(model, "_nodes_by_depth") and not overridden else None


def nodes_of_keras3(model: Any) -> list[Any]:
    """Returns the calls of a functional model, in order."""
    by_depth = model._nodes_by_depth
    return [
        node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]
    ]


def placeholder(node: Any) -> CallTwin:
    """Returns a twin with outputs of the right shapes, so that the rest is checked."""
    shapes = [[size or 1 for size in tensor.shape] for tensor in node.output_tensors]
    zeros = keras.layers.Lambda(lambda _: [tf.zeros(shape) for shape in shapes])

    def call(*args: Any, **kwargs: Any) -> Any:
        return zeros([x for x in tf.nest.flatten((args, kwargs)) if is_tensor(x)])

    return CallTwin(call)


def reason_of(error: Exception) -> str:
    """Returns what an error of Keras says, without the arguments that it appends."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    text = re.split(r"(?:Call a|A)rguments received", text)[0]
    return text.strip().rpartition("\n")[2].strip()
