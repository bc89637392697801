"""The programs that run files: a release, and how it is called."""

from __future__ import annotations

import dataclasses

from harness.releases import LITERT_PACKAGE, TENSORFLOW_PACKAGE, Release

from tflite_export.consumers import CONSUMERS, Consumer
from tflite_export.demo import VERSION


class NpmRelease(Release):
    """A release of a package for JavaScript."""

    @property
    def requirement(self) -> str:
        """The package with its version, as npm has it."""
        return f"{self.package}@{self.version}"


@dataclasses.dataclass(frozen=True)
class Program:
    """A release of a consumer.

    Attributes:
        consumer: Name of the consumer.
        call: How `runner_of` and `run_consumer` call it.
        release: Its package.
        operators: Release whose operators it has; "": that of the consumer.
    """

    consumer: str
    call: str
    release: Release
    operators: str = ""

    @property
    def name(self) -> str:
        """The consumer with the package."""
        return f"{self.consumer}, {self.release.requirement}"

    @property
    def classifies(self) -> bool:
        """Whether it makes the input of an image, and answers with classes."""
        return CONSUMERS[self.consumer].takes_images

    @property
    def in_browser(self) -> bool:
        """Whether it runs in Chromium."""
        return isinstance(self.release, NpmRelease)

    def rules(self) -> Consumer:
        """Returns the consumer as this release is."""
        newest = CONSUMERS[self.consumer]
        if not self.operators:
            return newest
        version = self.release.version
        return dataclasses.replace(newest, version=version, release=self.operators)


def _interpreter(
    consumer: str, package: str, version: str, numpy: str = "numpy"
) -> Program:
    """Returns a release of an interpreter."""
    return Program(consumer, "interpreter", Release(package, version, numpy), version)


PROGRAMS = (
    Program("mediapipe", "mediapipe", Release("mediapipe", "1.2.3")),
    Program(
        "tflite_support",
        "tflite_support",
        Release("tflite-support", "0.4.4", "numpy<2"),  # Built for NumPy 1.
    ),
    Program("compiled_model", "compiled_model", Release(LITERT_PACKAGE, "2.3.0")),
    Program("gpu", "gpu", Release(LITERT_PACKAGE, "2.3.0")),
    Program("web", "litert_js", NpmRelease("@litertjs/core", VERSION)),
    Program(
        "tfjs_tflite",
        "tfjs_tflite",
        NpmRelease("@tensorflow/tfjs-tflite", "0.0.1-alpha.10"),
    ),
    _interpreter("litert", LITERT_PACKAGE, "1.0.1", "numpy<2"),
    _interpreter("litert", LITERT_PACKAGE, "1.4.0"),
    _interpreter("litert", LITERT_PACKAGE, "2.1.0"),
    _interpreter("litert", LITERT_PACKAGE, "2.3.0"),
    _interpreter("tflite_runtime", "tflite-runtime", "2.14.0", "numpy<2"),
    _interpreter("tensorflow", TENSORFLOW_PACKAGE, "2.18.1"),
    _interpreter("tensorflow", TENSORFLOW_PACKAGE, "2.19.1"),
    _interpreter("tensorflow", TENSORFLOW_PACKAGE, "2.20.0"),
    _interpreter("tensorflow", TENSORFLOW_PACKAGE, "2.21.0"),
)


def find_program(name: str) -> Program:
    """Returns a program by its name, such as "mediapipe, mediapipe==1.2.3".

    Raises:
        ValueError: If there is none.
    """
    known = {program.name: program for program in PROGRAMS}
    if name not in known:
        raise ValueError(f"Programs must be among {list(known)}. Received: {name!r}.")
    return known[name]
