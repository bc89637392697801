"""SwiftShader, a Vulkan driver in software, from a package: nothing is installed.

Debian packages it with Chromium, and with the loader that applications find it by.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

from harness import debian
from harness.folders import temporary_folder
from harness.installed import installed

_SUITE, _PACKAGE = "bookworm", "chromium-common"
_NEEDS = (
    f"The software Vulkan needs Debian 12's package `{_PACKAGE}` for amd64 "
    "(`apt-get`, `dpkg`)."
)
_FILES = ("libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json")


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment variables of a process that uses the driver.

    Args:
        folder: Where it is unpacked, if it is not there yet.

    Raises:
        RuntimeError: If the package cannot be had.
    """
    folder = installed(folder, _unpack, _NEEDS)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "VK_ICD_FILENAMES": str(folder / "vk_swiftshader_icd.json"),
    }


def version(folder: Path) -> str:
    """Returns the name and version of the driver.

    Args:
        folder: Where `environment` unpacked it.
    """
    return f"SwiftShader of {_PACKAGE} {(folder / 'version').read_text()}"


def _unpack(folder: Path) -> None:
    """Unpacks the driver's files into a folder."""
    with temporary_folder() as work:
        debian.unpack("amd64", _SUITE, (_PACKAGE,), work / "root")
        changes = work / f"root/usr/share/doc/{_PACKAGE}/changelog.Debian.gz"
        first = gzip.decompress(changes.read_bytes()).decode().splitlines()[0]
        (folder / "version").write_text(first.split()[1].strip("()"))
        for name in _FILES:
            shutil.move(work / "root/usr/lib/chromium" / name, folder / name)
