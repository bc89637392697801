"""Releases of LiteRT and TensorFlow Lite, each in an environment of its own."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tflite_export.file import LITERT, TENSORFLOW

_LITERT, _TENSORFLOW = "ai-edge-litert", "tensorflow-cpu"


@dataclasses.dataclass(frozen=True)
class Release:
    """A release of a runtime.

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
        products = {_LITERT: LITERT, _TENSORFLOW: TENSORFLOW}
        return f"{products.get(self.package, self.package)} {self.version}"


RELEASES = (
    Release(_TENSORFLOW, "2.12.1"),
    Release(_TENSORFLOW, "2.13.1"),
    Release("tflite-runtime", "2.14.0", "numpy<2"),  # Built for NumPy 1.
    *(
        Release(_TENSORFLOW, version)
        for version in (
            "2.14.1",
            "2.15.1",
            "2.16.2",
            "2.17.1",
            "2.18.1",
            "2.19.1",
            "2.20.0",
            "2.21.0",
        )
    ),
    Release(_LITERT, "1.0.1", "numpy<2"),
    *(
        Release(_LITERT, version)
        for version in (
            *("1.1.2", "1.2.0", "1.3.0", "1.4.0", "2.0.2", "2.0.3"),
            *("2.1.0", "2.1.1", "2.1.2", "2.1.3", "2.1.4", "2.1.5", "2.1.6"),
            *("2.2.0", "2.3.0"),
        )
    ),
)


def find_release(requirement: str) -> Release:
    """Returns a release by its requirement, such as "ai-edge-litert==2.1.0".

    Raises:
        ValueError: If it is not among `RELEASES`.
    """
    known = {release.requirement: release for release in RELEASES}
    if requirement not in known:
        raise ValueError(
            f"Releases must be among {list(known)}. Received: {requirement!r}."
        )
    return known[requirement]


def python_of(release: Release, cache: Path) -> Path:
    """Returns the Python of an environment with a release, which is made if missing.

    Args:
        release: The release.
        cache: Folder of all environments.

    Raises:
        RuntimeError: If a package cannot be had.
    """
    folder = cache.resolve() / release.requirement
    python, done = folder / "bin/python", folder / "complete"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    try:
        subprocess.run([*pip, release.requirement, release.numpy], check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise RuntimeError(
            f"{release.requirement} must be a package that `pip install` finds for "
            f"Python {sys.version_info.major}.{sys.version_info.minor}. "
            f"Received: {error}."
        ) from error
    done.touch()
    return python


def numpy_of(python: Path) -> str:
    """Returns NumPy's version in an environment.

    Args:
        python: Its Python.
    """
    code = "import numpy; print(numpy.__version__)"
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True)
    return done.stdout.decode().strip()
