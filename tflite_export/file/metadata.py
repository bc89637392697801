"""Reads how a file's integers were trained, from JSON in its metadata.

Anyone who receives the file can read the learned steps there, and check whether the
codes are still those that were exported.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from .tflite_graph import TFLiteGraph

METADATA_NAME = "tf_lsq"
FORMAT = 1


def read(graph: TFLiteGraph) -> dict[str, Any] | None:
    """Reads the description in a file; None if it has none.

    Args:
        graph: The file's graph.

    Raises:
        ValueError: If the description cannot be read.
    """
    content = graph.metadata.get(METADATA_NAME)
    if content is None:
        return None
    try:
        described = json.loads(content)
        if described["format"] != FORMAT or not isinstance(described["tensors"], dict):
            raise ValueError(f"its format is {described['format']}, expected {FORMAT}")
        return described
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The metadata {METADATA_NAME!r} of the file must be a JSON object that "
            f"`export_model` wrote. Received: {type(error).__name__}: {error}."
        ) from error


def code_hash(codes: np.ndarray) -> str:
    """Returns the SHA-256 of codes, as int8 in their order.

    Args:
        codes: Integers that fit int8.
    """
    return hashlib.sha256(np.ascontiguousarray(codes, np.int8).tobytes()).hexdigest()
