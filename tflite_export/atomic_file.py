"""Writes files atomically: complete, or not at all.

Devices and pipes, such as `/dev/null`, are written to and stay what they are.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def check_writable(path: Path) -> None:
    """Checks that a path can be written, before any work is done.

    Args:
        path: The file that will be written.

    Raises:
        OSError: If `path` is a directory, or its directory is missing or read-only.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must be a file. Received the directory {str(path)!r}."
        )
    if _is_special(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"`path` must be writable. Received: {str(path)!r}.")
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The directory of `path` must exist. Received: {str(path)!r}."
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"The directory of `path` must be writable. Received: {str(path)!r}."
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file atomically, replacing an existing one.

    Args:
        path: The file; or a device or a pipe, which is not replaced.
        content: All its bytes.

    Raises:
        OSError: If it cannot be written; no partial file is left in that case.
    """
    if _is_special(path):
        path.write_bytes(content)
        return
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_default_mode())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _is_special(path: Path) -> bool:
    """Returns whether a path is a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _default_mode() -> int:
    """Returns the mode that `open` would give a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
