"""An arm64 userland for LiteRT on x86-64, from packages: nothing is installed.

qemu's user mode runs Debian's Python for arm64 with the arm64 wheels of LiteRT and
NumPy. Everything is unpacked into one folder, without root rights.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from harness import debian
from harness.folders import temporary_folder
from harness.installed import installed

CORES = ("cortex-a53", "cortex-a76", "neoverse-n2")  # NEON; dot products; and i8mm.
_NEEDS = (
    "The arm64 userland needs packages of Debian 12 (`apt-get`, `dpkg`) and arm64 "
    "wheels (`pip download`)."
)
_SUITE, _HOST_SUITE = "bookworm", "bookworm-backports"
_HOST_PACKAGES = ("qemu-user",)
_PACKAGES = """libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5
    libssl3 libuuid1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"""
_WHEELS = ("flatbuffers", "typing_extensions", "protobuf", "tqdm", "backports.strenum")
_PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux2014_aarch64",
)


class Userland:
    """Python for arm64 with LiteRT, under an emulator.

    Args:
        folder: Where it is unpacked, if it is not there yet.

    Raises:
        RuntimeError: If a package cannot be had.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = installed(folder, _unpack, _NEEDS)

    def command(self, core: str, *arguments: str) -> list[str]:
        """Returns the command that runs Python on a core.

        Args:
            core: A core that qemu knows, such as one of `CORES`.
            *arguments: Arguments of Python.
        """
        root = self.folder / "root"
        emulator = self.folder / "host/usr/bin/qemu-aarch64"
        python = root / "usr/bin/python3.11"
        parts = (emulator, "-cpu", core, "-L", root, python, "-B", *arguments)
        return [str(part) for part in parts]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of such a command."""
        return {**os.environ, "PYTHONPATH": str(self.folder / "site")}

    def run(self, core: str, *arguments: str) -> str:
        """Runs Python on a core, and returns what it printed.

        Raises:
            CalledProcessError: If it fails.
        """
        done = subprocess.run(
            self.command(core, *arguments),
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout


def _unpack(folder: Path) -> None:
    """Unpacks emulator, userland and wheels into a folder."""
    debian.unpack("amd64", _HOST_SUITE, _HOST_PACKAGES, folder / "host")
    debian.unpack("arm64", _SUITE, _PACKAGES.split(), folder / "root")
    _unpack_wheels(folder / "site")


def _unpack_wheels(target: Path) -> None:
    """Unpacks the arm64 wheels of the installed versions of LiteRT and NumPy."""
    pinned = [
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("ai-edge-litert", "numpy")
    ]
    platforms = [part for one in _PLATFORMS for part in ("--platform", one)]
    with temporary_folder() as work:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary=:all:", "--python-version", "3.11"),
                *("--disable-pip-version-check", "--dest", work),
                *platforms,
                *pinned,
                *_WHEELS,
            ],
            check=True,
        )
        for wheel in work.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(target)
