"""The releases of LiteRT and TensorFlow Lite that run files."""

from __future__ import annotations

from harness.releases import LITERT_PACKAGE, TENSORFLOW_PACKAGE, Release

RELEASES = (
    Release(TENSORFLOW_PACKAGE, "2.12.1"),
    Release(TENSORFLOW_PACKAGE, "2.13.1"),
    Release("tflite-runtime", "2.14.0", "numpy<2"),  # Built for NumPy 1.
    *(
        Release(TENSORFLOW_PACKAGE, version)
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
    Release(LITERT_PACKAGE, "1.0.1", "numpy<2"),
    *(
        Release(LITERT_PACKAGE, version)
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
