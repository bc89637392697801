"""Finds the public functions and layer classes of TensorFlow and both Keras.

They are read from the modules themselves, so those of a new release are found.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator
from typing import Any

import keras as keras3
import tensorflow as tf

from tf_lsq._compat import keras

FRAMEWORKS = {"tf_keras": keras, "keras": keras3}
# Functions with these prefixes change the process; they do not compute.
_SETTERS = ("set_", "reset_", "clear_", "manual_", "register_", "load_", "import_")


@dataclasses.dataclass(frozen=True)
class Item:
    """A function or a layer class.

    Attributes:
        name: First public name, such as "tf.nn.relu6".
        framework: Whose tensors it is called on: "tf_keras" or "keras".
        is_layer: Whether it is a layer class.
        target: The function or the class.
        aliases: Its other public names.
    """

    name: str
    framework: str
    is_layer: bool
    target: Callable[..., Any] = dataclasses.field(compare=False, repr=False)
    aliases: tuple[str, ...] = ()

    @property
    def short_name(self) -> str:
        """The name without its module."""
        return self.name.rpartition(".")[2]

    @property
    def key(self) -> str:
        """A name that no other item has: Python's operators work in both Keras."""
        if self.name.startswith("operator."):
            return f"{self.name} ({self.framework})"
        return self.name


def items() -> list[Item]:
    """Returns all functions and layer classes, each object once per framework."""
    found: dict[tuple[str, int], Item] = {}
    for framework, name, is_layer, target in _public():
        key = (framework, id(target))
        if key in found:
            known = found[key]
            aliases = (*known.aliases, name)
            found[key] = dataclasses.replace(known, aliases=aliases)
        else:
            found[key] = Item(name, framework, is_layer, target)
    return list(found.values())


def _public() -> Iterator[tuple[str, str, bool, Any]]:
    """Yields framework, name, whether it is a layer class, and the object."""
    for framework, prefix, module in _function_modules():
        for name, value in _members(module):
            is_function = callable(value) and not isinstance(value, type)
            in_place = (
                module is operator
                and name.startswith("i")
                and ({name[1:], f"{name[1:]}_"} & set(dir(operator)))
            )
            if is_function and not (in_place or name.startswith(_SETTERS)):
                yield framework, f"{prefix}.{name}", False, value
    for framework, module in FRAMEWORKS.items():
        members = _members(module.layers)
        members.sort(key=_is_alias)  # A class is known by its own name.
        for name, value in members:
            is_layer = isinstance(value, type) and issubclass(
                value, module.layers.Layer
            )
            if is_layer and name != "InputLayer":
                yield framework, f"{framework}.layers.{name}", True, value


def _function_modules() -> Iterator[tuple[str, str, Any]]:
    """Yields framework, name and module of everything that holds functions."""
    for framework in FRAMEWORKS:
        yield framework, "operator", operator
    yield "tf_keras", "tf", tf
    yield "tf_keras", "tf.math", tf.math
    yield "tf_keras", "tf.nn", tf.nn
    yield "tf_keras", "tf.image", tf.image
    yield "tf_keras", "tf_keras.backend", keras.backend
    yield "tf_keras", "tf_keras.activations", keras.activations
    yield "keras", "keras.ops", keras3.ops
    yield "keras", "keras.ops.nn", keras3.ops.nn
    yield "keras", "keras.ops.numpy", keras3.ops.numpy
    yield "keras", "keras.ops.image", keras3.ops.image
    yield "keras", "keras.ops.linalg", keras3.ops.linalg
    yield "keras", "keras.activations", keras3.activations


def _is_alias(member: tuple[str, Any]) -> bool:
    """Returns whether a class has another name in its module."""
    name, value = member
    return getattr(value, "__name__", "") != name


def _members(module: Any) -> list[tuple[str, Any]]:
    """Returns the public members of a module."""
    names = [name for name in dir(module) if not name.startswith("_")]
    return [(name, getattr(module, name)) for name in names]
