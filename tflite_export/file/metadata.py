"""Reads how a file's integers were trained, from JSON in its metadata.

Anyone who receives the file can read the learned steps there, and check whether the
codes are still those that were exported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from .tflite_graph import TFLiteGraph

METADATA_NAME = "tf_lsq"
FORMAT = 1
# What a file says about how its integers were trained.
CONTENTS = ("full", "hash", "none")
# What `verify_tflite` needs to build the file again.
_SETTINGS = ("format", "storage", "bias_grid", "input_type", "output_type")
_NOT_HASHED = ("versions",)


def encode(described: dict[str, Any], contents: str) -> dict[str, bytes]:
    """Returns a description as the metadata of a file.

    Args:
        described: Plain data.
        contents: "full"; "hash": the settings of the export, which inputs are pixels,
            and the SHA-256 of the rest; or "none".
    """
    if contents == "none":
        return {}
    described = hashed(described) if contents == "hash" else described
    return {METADATA_NAME: json.dumps(described, sort_keys=True).encode()}


def hashed(described: dict[str, Any]) -> dict[str, Any]:
    """Returns a description with a SHA-256 in place of what is not needed to read it.

    The settings and the names of inputs that are pixels stay. The SHA-256 is that of
    all but the versions.

    Args:
        described: Plain data.
    """
    rest = {key: value for key, value in described.items() if key not in _NOT_HASHED}
    content = json.dumps(rest, sort_keys=True).encode()
    settings = {key: described[key] for key in _SETTINGS if key in described}
    if pixels := pixel_tensors(described):
        settings["pixels"] = pixels
    return {**settings, "sha256": hashlib.sha256(content).hexdigest()}


def pixel_tensors(described: Mapping[str, Any]) -> list[str]:
    """Returns the tensors that are pixels, sorted.

    Args:
        described: What `read` returns.
    """
    tensors: Mapping[str, Any] = described.get("tensors", {})
    found = [
        name
        for name, entry in tensors.items()
        if isinstance(entry, dict) and "pixels" in entry
    ]
    return sorted({*found, *described.get("pixels", ())})


def read(graph: TFLiteGraph) -> dict[str, Any] | None:
    """Reads the description in a file; None if it has none.

    Args:
        graph: The file's graph.

    Returns:
        What `encode` wrote; without tensors if it is only a hash.

    Raises:
        ValueError: If the description cannot be read.
    """
    content = graph.metadata.get(METADATA_NAME)
    if content is None:
        return None
    try:
        described = _object(json.loads(content))
        if described["format"] != FORMAT:
            raise ValueError(f"its format is {described['format']}, expected {FORMAT}")
        if "sha256" not in described:
            _object(described["tensors"])
        _check_names(described.get("pixels", []))
        return described
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The metadata {METADATA_NAME!r} of the file must be a JSON object that "
            f"`export_model` wrote. Received: {type(error).__name__}: {error}."
        ) from error


def _object(value: Any) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        TypeError: If it is another value.
    """
    if not isinstance(value, dict):
        raise TypeError(f"it has {value!r} in place of an object")
    return cast("dict[str, Any]", value)


def _check_names(value: Any) -> None:
    """Raises an error unless a value is a list of names.

    Raises:
        TypeError: If it is another value.
    """
    names = cast("list[Any]", value)
    if not isinstance(value, list) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"it has {value!r} in place of a list of names")


def code_hash(codes: np.ndarray) -> str:
    """Returns the SHA-256 of codes, as int8 in their order.

    Args:
        codes: Integers that fit int8.
    """
    return hashlib.sha256(np.ascontiguousarray(codes, np.int8).tobytes()).hexdigest()
