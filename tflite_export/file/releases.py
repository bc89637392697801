"""Compares releases of TFLite and LiteRT by their numbers."""

from __future__ import annotations

from collections.abc import Iterable

TENSORFLOW, LITERT = "TensorFlow Lite", "LiteRT"
RUNTIME_METADATA = "min_runtime_version"
_RUNTIME_BYTES = 16  # The field has this size in the files of every tool.


def litert_release(release: str) -> str:
    """Returns the LiteRT release that corresponds to a TensorFlow release.

    LiteRT has its own version numbers. Its first release has the kernels of TensorFlow
    2.18, the next has those of 2.19, and 2.1 is the first with INT2.

    Args:
        release: First TensorFlow release that runs a file.

    Example:
        >>> litert_release("2.12.0"), litert_release("2.21.0")
        ('1.0', '2.1')
    """
    litert = "1.1" if is_newer(release, "2.18.1") else "1.0"
    return "2.1" if is_newer(release, "2.20.0") else litert


def runtime_metadata(release: str) -> bytes:
    """Returns a release in the format of a file's metadata.

    Args:
        release: From `faults.claimed_release`; "" if unknown.
    """
    return release.encode().ljust(_RUNTIME_BYTES, b"\0")


def is_newer(release: str, limit: str) -> bool:
    """Returns whether a release is newer than a limit; unknown releases are.

    Args:
        release: Such as "2.9.0", or "" if unknown.
        limit: Such as "2.5.0", or "" for none.

    Example:
        >>> is_newer("2.11.0", "2.5.0"), is_newer("1.14.0", "2.5.0"), is_newer("9", "")
        (True, False, False)
    """
    if not limit:
        return False
    return not release or newest([release, limit]) != limit


def newest(releases: Iterable[str]) -> str:
    """Returns the newest of some releases, "" if there are none.

    Example:
        >>> newest(["1.14.0", "", "1.9.0"])
        '1.14.0'
    """
    known = [release for release in releases if release]
    return max(known, key=lambda text: [*map(int, text.split("."))], default="")
