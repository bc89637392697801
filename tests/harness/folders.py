"""Folders for the files of a run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def kept_folder(kept: Path | None) -> Iterator[Path]:
    """The folder for files: one that is kept, or one that is removed afterwards."""
    if kept is None:
        with temporary_folder() as folder:
            yield folder
    else:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
