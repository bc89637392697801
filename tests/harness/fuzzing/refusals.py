"""Judges an error that a user would see: does it name the layer and a remedy?"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

MAX_LINE = 700
NO_FORM = "TFLite"  # A refusal for good says that TFLite has no form.
_SCREEN = re.compile(r"loc\(|\bmlir\b|#map|Traceback|\bat 0x[0-9a-f]{6,}")
_OVERRIDES = re.compile(r"overrides=(\{.*?\})")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An error of the kind that users are promised.

    Attributes:
        layers: Names of the layers that it refuses, in order.
        message: Its text.
    """

    layers: tuple[str, ...]
    message: str

    @property
    def is_final(self) -> bool:
        """Whether it says that TFLite has no form of the layers."""
        return NO_FORM in self.message.partition("\n")[2]

    @property
    def overrides(self) -> dict[str, str]:
        """The option that it prints as its remedy, else the layers left in float."""
        printed = _OVERRIDES.search(self.message)
        if printed:
            return ast.literal_eval(printed[1])
        return {re.escape(name): "float" for name in self.layers}

    @property
    def reasons(self) -> str:
        """Its lines for layers."""
        lines = self.message.splitlines()
        return "\n".join(line.strip() for line in lines if _NAMED.match(line))


_NAMED = re.compile(r"\s+`([^`]+)`")


def read_refusal(error: BaseException, model: Any) -> Refusal | str:
    """Returns what an error refuses, or what is wrong with the error.

    Args:
        error: What `quantize_model` raised.
        model: The float model.
    """
    text = str(error)
    if not isinstance(error, ValueError | TypeError):
        return "a bare Python error"
    names = set(layer_names(model))
    lines = text.splitlines()
    named = [found[1] for line in lines if (found := _NAMED.match(line))]
    layers = tuple(dict.fromkeys(name for name in named if _is_known(name, names)))
    if not layers:
        return "an error that names no layer"
    # The first line, one per layer, and a last one with the remedy.
    if _SCREEN.search(text) or len(lines) > len(named) + 2 or _is_long(lines[1:]):
        return "an error of more than a line per layer"
    return Refusal(layers, text)


def _is_known(name: str, names: set[str]) -> bool:
    """Returns whether a name is that of a layer, or of a function that it calls."""
    parts = name.split("/")
    return any("/".join(parts[:end]) in names for end in range(1, len(parts) + 1))


def _is_long(lines: list[str]) -> bool:
    """Returns whether a line is longer than one reads."""
    return any(len(line) > MAX_LINE for line in lines)


def layer_names(model: Any) -> Iterator[str]:
    """Yields the names of layers and recorded functions, with their paths."""
    for operation in getattr(model, "operations", None) or model.layers:
        yield operation.name
        if hasattr(operation, "layers"):
            yield from (f"{operation.name}/{name}" for name in layer_names(operation))
