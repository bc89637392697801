"""Releases of Python packages, each in an environment of its own."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import venv
from pathlib import Path

from tflite_export.file import LITERT, TENSORFLOW

from .installed import installed

LITERT_PACKAGE, TENSORFLOW_PACKAGE = "ai-edge-litert", "tensorflow-cpu"
_PYTHON = "bin/python"  # In an environment.


@dataclasses.dataclass(frozen=True)
class Release:
    """A release of a package.

    Attributes:
        package: Name of its package.
        version: Its version.
        numpy: What it needs of NumPy.
    """

    package: str
    version: str
    numpy: str = "numpy"

    @property
    def requirement(self) -> str:
        """The package with its version."""
        return f"{self.package}=={self.version}"

    @property
    def name(self) -> str:
        """What an app's developer calls it."""
        products = {LITERT_PACKAGE: LITERT, TENSORFLOW_PACKAGE: TENSORFLOW}
        return f"{products.get(self.package, self.package)} {self.version}"


def python_of(release: Release, cache: Path) -> Path:
    """Returns the Python of an environment with a release, which is made if missing.

    Args:
        release: The release.
        cache: Folder of all environments.

    Raises:
        RuntimeError: If a package cannot be had.
    """

    def install(folder: Path) -> None:
        venv.create(folder)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / _PYTHON)]
        packages = (release.requirement, release.numpy)
        subprocess.run([*pip, "install", "--quiet", *packages], check=True)

    needs = (
        f"{release.requirement} must be a package that `pip install` finds for "
        f"Python {sys.version_info.major}.{sys.version_info.minor}."
    )
    return installed(cache / release.requirement, install, needs) / _PYTHON


def numpy_of(python: Path) -> str:
    """Returns NumPy's version in an environment.

    Args:
        python: Its Python.
    """
    code = "import numpy; print(numpy.__version__)"
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True)
    return done.stdout.decode().strip()
