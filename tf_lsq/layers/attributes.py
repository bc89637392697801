"""Attributes of layers that Keras must not track."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .._compat import keras
from .quantizers import Variables


class Untracked:
    """Holds variables where Keras does not look for them.

    Keras would save and count a variable once for `add_weight` and once more
    for each collection it finds in an attribute.
    """

    def __init__(self, variables: Variables) -> None:
        self.variables = variables


@contextlib.contextmanager
def replaced_attributes(
    layer: keras.layers.Layer, attributes: dict[str, Any]
) -> Iterator[None]:
    """Temporarily replaces attributes of `layer`, hidden from Keras' tracking.

    Args:
        layer: The layer.
        attributes: Values by name, also of methods of its class.
    """
    present = vars(layer)
    methods = {name for name in attributes if hasattr(type(layer), name)}
    original = {n: present[n] for n in attributes if n in present or n not in methods}
    present.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del present[name]
        present.update(original)
