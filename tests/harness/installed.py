"""Folders of packages that tests need, each installed once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

_MARKER = "complete"  # Is written last; its text says what is installed.


def is_installed(folder: Path, wanted: str = "") -> bool:
    """Returns whether a folder has what is wanted.

    Args:
        folder: The folder.
        wanted: As for `installed`.
    """
    marker = folder / _MARKER
    return marker.exists() and marker.read_text() == wanted


def installed(
    folder: Path, install: Callable[[Path], None], needs: str, wanted: str = ""
) -> Path:
    """Returns a folder, whole, which is filled if it does not have what is wanted.

    Args:
        folder: The folder.
        install: Fills it when it is empty.
        needs: What that needs: the first sentence of the error.
        wanted: What it installs, if that may change; a folder that has something else
            is filled again.

    Raises:
        RuntimeError: If a package, or a program that fetches it, cannot be had.
    """
    folder = folder.resolve()
    if is_installed(folder, wanted):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        install(folder)
    except (subprocess.CalledProcessError, OSError) as error:
        raise RuntimeError(f"{needs} Received: {error}.") from error
    (folder / _MARKER).write_text(wanted)
    return folder


def npm_install(folder: Path, *packages: str) -> None:
    """Installs packages for JavaScript into a folder.

    Args:
        folder: Gets `node_modules`.
        *packages: With their versions.

    Raises:
        CalledProcessError: If a package cannot be had.
        OSError: If `npm` is missing.
    """
    npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", folder]
    subprocess.run([*npm, *packages], check=True)
