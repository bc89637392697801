"""Unpacks Debian packages by name into a folder, without root rights."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .folders import temporary_folder

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpack(
    architecture: str, suite: str, names: tuple[str, ...] | list[str], target: Path
) -> None:
    """Unpacks packages of an architecture, with package lists of its own.

    Args:
        architecture: Debian's name of it, such as "arm64".
        suite: Debian's release, such as "bookworm".
        names: The packages; those that they depend on are not unpacked.
        target: A folder that does not exist yet.

    Raises:
        CalledProcessError: If a package cannot be had.
        OSError: If `apt-get` or `dpkg` is missing.
    """
    with temporary_folder() as work:
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


def _mirror() -> str:
    """Returns the address of the Debian mirror that apt uses on this machine."""
    uris = _output("apt-get", "indextargets", "--format", "$(REPO_URI)").splitlines()
    return next(uri for uri in uris if "security" not in uri)


def _output(*command: str) -> str:
    """Returns what a command prints."""
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
