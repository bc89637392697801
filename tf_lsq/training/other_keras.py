"""Optimizers, losses, metrics and schedules of one Keras for a model of the other.

Built-in objects have the same settings in tf_keras and Keras 3, and compute the same:
they are made again from their configuration.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._compat import is_keras3_object, keras

# Settings that only one Keras has, with the values that change nothing.
_NEUTRAL = {
    "jit_compile": (True, False),
    "is_legacy_optimizer": (False,),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
    "dtype": ("float32",),
    "name": (None,),
}
_REDUCTIONS = {"auto": "sum_over_batch_size"}


def as_tf_keras(value: Any) -> Any:
    """Returns arguments of `compile` with every object of Keras 3 replaced.

    Args:
        value: An object, or a list or dict of them; what is not of Keras 3 is returned
            as it is.

    Raises:
        ValueError: If an object has no equal in tf_keras.
    """
    return replaced(value, keras, {}, "tf_keras")


def replaced(
    value: Any, target: Any, own: Mapping[type, type], target_name: str
) -> Any:
    """Returns arguments of `compile` with every object of the other Keras replaced.

    Args:
        value: An object, or a list or dict of them.
        target: The module `keras` of the wanted Keras.
        own: Classes of this library for the other Keras -> for the wanted one.
        target_name: "tf_keras" or "Keras 3", for the message.

    Raises:
        ValueError: If an object has no equal.
    """
    if isinstance(value, Mapping):
        items = value.items()
        return {name: replaced(one, target, own, target_name) for name, one in items}
    if isinstance(value, list | tuple):
        return [replaced(one, target, own, target_name) for one in value]
    if not _is_of_other(value, to_keras3=target is not keras):
        return value
    try:
        return _made_again(value, target, own)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        given = getattr(value, "__name__", type(value).__name__)
        raise ValueError(
            f"The model is one of {target_name}, and so must be the objects that it is "
            f"compiled with. Received: {given} of the other Keras, which cannot be "
            f"replaced exactly ({error}). Create it with {target_name}."
        ) from error


def check_callbacks(callbacks: Any, *, of_keras3: bool) -> None:
    """Refuses callbacks that a model of the other Keras cannot call.

    Args:
        callbacks: The callbacks of a `fit`, flat.
        of_keras3: Whether the model is one of Keras 3.

    Raises:
        ValueError: If there are any.
    """
    foreign = sorted(
        type(one).__name__
        for one in callbacks
        if (is_keras3_object(one) and not of_keras3)
        or (of_keras3 and type(one).__module__.startswith("tf_keras."))
    )
    if foreign:
        own, other = ("keras", "tf_keras") if of_keras3 else ("tf_keras", "keras")
        raise ValueError(
            f"The callbacks of this model must be of {own}.callbacks. Received: "
            f"{foreign} of {other}.callbacks."
        )


def check_tensorboard(callbacks: Any) -> None:
    """Refuses a `TensorBoard` callback where the package is missing.

    Raises:
        ImportError: If it is.
    """
    wanted = any(type(one).__name__ == "TensorBoard" for one in callbacks)
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "The callback `TensorBoard` needs a package that is not installed: "
            "`pip install tensorboard`."
        )


def _is_of_other(value: Any, *, to_keras3: bool) -> bool:
    """Returns whether an object is of the Keras that the model is not of."""
    if callable(value) and hasattr(value, "__name__"):
        return value.__module__.startswith("tf_keras." if to_keras3 else "keras.")
    if not to_keras3:
        return is_keras3_object(value)
    return any(base.__module__.startswith("tf_keras.") for base in type(value).__mro__)


def _made_again(value: Any, target: Any, own: Mapping[type, type]) -> Any:
    """Returns the equal object of the wanted Keras.

    Raises:
        ValueError: If the object has a state or a setting that would be lost.
    """
    rooms = (target.optimizers, target.losses, target.metrics)
    if callable(value) and hasattr(value, "__name__"):
        return _named(value.__name__, rooms[1:])
    iterations = getattr(value, "iterations", None)
    if iterations is not None and int(iterations) > 0:
        raise ValueError("it has been used before")
    cls = own.get(type(value)) or vars(type(value)).get("tf_keras_class")
    if cls is None:
        module = type(value).__module__
        if not module.startswith(("keras.", "tf_keras.")) or ".legacy" in module:
            raise ValueError("its class is not one of Keras")
        cls = _named(type(value).__name__, (*rooms, target.optimizers.schedules))
    settings, known = _settings(value), _parameters(cls)
    defaults = {name: p.default for name, p in _parameters(type(value)).items()}
    unchanged = {n for n, v in settings.items() if n in defaults and v == defaults[n]}
    settings = {n: v for n, v in settings.items() if n in known or n not in unchanged}
    return _from_config(cls, settings, target)


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a class's constructor, by name."""
    return inspect.signature(cls.__init__).parameters


def _settings(value: Any) -> dict[str, Any]:
    """Returns the configuration of an object; that of some losses lacks settings."""
    return {**value.get_config(), **getattr(value, "_fn_kwargs", {})}


def _from_config(cls: Any, config: Mapping[str, Any], target: Any) -> Any:
    """Returns an object with the settings that the other Keras saved.

    Raises:
        ValueError: If a setting has no equal.
    """
    settings = {}
    for name, value in config.items():
        if name == "fn":  # The class says what it computes.
            continue
        settings[name] = value
        if isinstance(value, Mapping) and "class_name" in value:
            inner = _named(value["class_name"], (target.optimizers.schedules,))
            settings[name] = _from_config(inner, value["config"], target)
        elif name == "reduction":
            settings[name] = _REDUCTIONS.get(str(value), value)
        elif isinstance(value, np.generic):
            settings[name] = value.item()
    dropped = {n for n, v in settings.items() if v in _NEUTRAL.get(n, ())}
    kept = {name: value for name, value in settings.items() if name not in dropped}
    made = cls(**kept)
    found = _settings(made)
    lost = sorted(name for name in kept if name not in found)
    if lost:
        raise ValueError(f"it has no {lost}")
    return made


def _named(name: str, rooms: tuple[Any, ...]) -> Any:
    """Returns the class or function of a name.

    Raises:
        LookupError: If there is none.
    """
    for room in rooms:
        if hasattr(room, name):
            return getattr(room, name)
    raise LookupError(f"there is no {name}")
