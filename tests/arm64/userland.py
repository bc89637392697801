"""An arm64 userland for LiteRT on x86-64, from packages: nothing is installed.

qemu's user mode runs Debian's Python for arm64 with the arm64 wheels of LiteRT and
NumPy. Everything is unpacked into one folder, without root rights.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

CORES = ("cortex-a53", "cortex-a76", "neoverse-n2")  # NEON; dot products; and i8mm.
_SUITE, _HOST_SUITE = "bookworm", "bookworm-backports"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        done = self.folder / "complete"
        if not done.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            _unpack(self.folder)
            done.touch()

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
    """Unpacks emulator, userland and wheels into a folder.

    Raises:
        RuntimeError: If a package cannot be had.
    """
    try:
        _unpack_packages("amd64", _HOST_SUITE, _HOST_PACKAGES, folder / "host")
        _unpack_packages("arm64", _SUITE, _PACKAGES.split(), folder / "root")
        _unpack_wheels(folder / "site")
    except (subprocess.CalledProcessError, OSError) as error:
        raise RuntimeError(
            "The arm64 userland needs packages of Debian 12 (`apt-get`, `dpkg`) and "
            f"arm64 wheels (`pip download`). Received: {error}."
        ) from error


def _unpack_packages(
    architecture: str, suite: str, names: tuple[str, ...] | list[str], target: Path
) -> None:
    """Unpacks Debian packages of an architecture, with package lists of its own."""
    with _temporary_folder() as work:
        for part in ("lists/partial", "archives/partial", "debs"):
            (work / part).mkdir(parents=True)
        (work / "status").touch()
        source = f"[arch={architecture} signed-by={_KEYS}] {_mirror()} {suite} main"
        (work / "sources.list").write_text(f"deb {source}\n")
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            "Dir::State": work,
            "Dir::State::lists": work / "lists",
            "Dir::State::status": work / "status",
            "Dir::Cache": work,
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Sandbox::User": _output("id", "-un"),
        }
        apt = ["apt-get", "-qq"]
        for name, value in settings.items():
            apt += ["-o", f"{name}={value}"]
        subprocess.run([*apt, "update"], check=True)
        subprocess.run([*apt, "download", *names], check=True, cwd=work / "debs")
        target.mkdir(parents=True)
        for package in sorted((work / "debs").glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, target], check=True)


def _unpack_wheels(target: Path) -> None:
    """Unpacks the arm64 wheels of the installed versions of LiteRT and NumPy."""
    pinned = [
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("ai-edge-litert", "numpy")
    ]
    platforms = [part for one in _PLATFORMS for part in ("--platform", one)]
    with _temporary_folder() as work:
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


def _mirror() -> str:
    """Returns the address of the Debian mirror that apt uses on this machine."""
    uris = _output("apt-get", "indextargets", "--format", "$(REPO_URI)").splitlines()
    return next(uri for uri in uris if "security" not in uri)


def _output(*command: str) -> str:
    """Returns what a command prints."""
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
