"""Loads model files without running the code they contain."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import tf_lsq
from tf_lsq._compat import SafeMode, keras
from tf_lsq.graph import is_keras3_file, load_keras3

SUFFIXES = (".keras", ".h5")


def load_model(path: str | Path, *, unsafe: bool = False) -> keras.Model:
    """Loads a float or quantized model from a file.

    Args:
        path: A `.keras` or `.h5` file of tf_keras or Keras 3.
        unsafe: Whether to allow code in the file (of `Lambda` layers) to run. Only
            for files whose origin you trust.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is not a readable model, or contains code and `unsafe` is
            False.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES or path.is_dir():
        raise ValueError(
            f"A model must be a file that ends with one of {list(SUFFIXES)}. Received: "
            f"{str(path)!r}. Save it with `model.save('model.keras')`."
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    scope: Any = contextlib.nullcontext() if unsafe else SafeMode(True)
    try:
        with scope:
            if is_keras3_file(path):
                return tf_lsq.from_keras3(load_keras3(path, safe_mode=not unsafe))
            return keras.models.load_model(path, compile=False, safe_mode=not unsafe)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is not a readable model: {error}") from error
