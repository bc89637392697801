"""The only module that uses private APIs of Keras 3.

It works with any version of Keras 3 that TensorFlow accepts. Nothing here imports
Keras 3: it is handed objects of it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf


def stored(variable: Any) -> Any:
    """Returns the TensorFlow variable that holds the value of a Keras 3 variable."""
    return getattr(variable, "_value", variable)


def share_storage(variable: Any, storage: tf.Variable, path: str) -> None:
    """Makes a Keras 3 variable hold its value in a variable that exists already."""
    variable._value = storage
    read_only = isinstance(getattr(type(variable), "path", None), property)
    setattr(variable, "_path" if read_only else "path", path)


def take_any_arguments(layer: Any) -> None:
    """Lets the calls of a Keras 3 layer pass structures of tensors and constants on."""
    layer._convert_input_args = False
    layer._allow_non_tensor_positional_args = True


def exclude_from_weight_decay(
    optimizer: Any, is_excluded: Callable[[Any], bool]
) -> None:
    """Keeps weight decay of a Keras 3 optimizer away from some variables.

    What the user excluded stays so. The method is replaced on the instance, so an
    optimizer of any class keeps its class, and is saved unchanged.
    """

    def use_weight_decay(self: Any, variable: Any) -> bool:
        return not is_excluded(variable) and type(self)._use_weight_decay(
            self, variable
        )

    _replace(optimizer, "_use_weight_decay", use_weight_decay)


def split_clipping(
    optimizer: Any,
    is_apart: Callable[[Any], bool],
    bound: Callable[[Any], tf.Tensor] | None,
) -> None:
    """Makes a Keras 3 optimizer clip the gradients of some variables separately.

    See `_compat.split_clipping`.
    """

    def apply(self: Any, grads: Sequence[Any], variables: Sequence[Any]) -> Any:
        # Keras' own method does not know whose gradients it clips.
        vars(self)["_clipped"] = [is_apart(variable) for variable in variables]
        return type(self)._backend_apply_gradients(self, grads, variables)

    def clip_gradients(self: Any, grads: Sequence[Any]) -> list[Any]:
        apart = vars(self)["_clipped"]
        others = [g for g, alone in zip(grads, apart, strict=True) if not alone]
        others = iter(type(self)._clip_gradients(self, others) if others else [])
        limit = bound(self.learning_rate)  # type: ignore[misc]
        return [
            tf.clip_by_value(g, -limit, limit) if alone else next(others)
            for g, alone in zip(grads, apart, strict=True)
        ]

    methods = {"_backend_apply_gradients": apply, "_clip_gradients": clip_gradients}
    for name, method in methods.items():
        _replace(optimizer, name, None if bound is None else method)


def _replace(optimizer: Any, name: str, method: Callable[..., Any] | None) -> None:
    """Replaces a method of one object; None: it has its class's method again."""
    vars(optimizer).pop(name, None)
    if method is not None:
        vars(optimizer)[name] = types.MethodType(method, optimizer)


def slots_of(optimizer: Any, variable: tf.Variable) -> Iterator[tuple[str, Any]]:
    """Yields the slots that a Keras 3 optimizer has for a variable, with their names.

    Args:
        optimizer: A Keras 3 optimizer.
        variable: The variable that holds the value.
    """
    known = [stored(one) for one in getattr(optimizer, "_trainable_variables", [])]
    place = next((i for i, one in enumerate(known) if one is variable), None)
    if place is None:
        return
    for name, slots in vars(optimizer).items():
        is_slots = isinstance(slots, list) and len(slots) == len(known)
        is_slots = is_slots and name not in ("_variables", "_trainable_variables")
        if is_slots and hasattr(slots[place], "assign"):
            yield name, slots[place]


def is_built(optimizer: Any) -> bool:
    """Returns whether a Keras 3 optimizer has its variables."""
    return bool(optimizer.built)


def compiled_loss(model: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """Returns the loss that a Keras 3 model was compiled with, None without one.

    Regularizers are not part of it.
    """
    loss = compiled_loss_of(model)
    return None if loss is None else loss(y, y_pred, sample_weight)


def compiled_loss_of(model: Any) -> Any:
    """Returns what computes the loss of a Keras 3 model, None without one."""
    return getattr(model, "_compile_loss", None)
