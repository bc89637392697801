"""`write_metadata`: labels and other standard metadata for existing `.tflite` files."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from .atomic_file import check_writable, write_atomically
from .file import (
    Additions,
    Labels,
    ModelInfo,
    Normalization,
    StandardMetadata,
    TFLiteGraph,
    additions_missing,
    from_bytes,
    read_labels,
    standard_metadata,
    with_additions,
    with_metadata,
)

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class MetadataReport:
    """The standard metadata of a file, and what they replace.

    Attributes:
        path: The file.
        file_bytes: Its size.
        standard: Its standard metadata; None if it has none.
        replaced: What the file had before and has no more, one sentence each.
    """

    path: str
    file_bytes: int
    standard: StandardMetadata | None
    replaced: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Returns readable lines."""
        lines = [f"{self.path}: {self.file_bytes} bytes"]
        text = "no standard metadata" if self.standard is None else str(self.standard)
        return "\n".join([*lines, text, *self.replaced])


def read_metadata(path: str | Path) -> MetadataReport:
    """Reads the standard metadata of a `.tflite` file of any tool.

    Args:
        path: The file.

    Raises:
        ValueError: If the file cannot be read.
        OSError: If `path` cannot be opened.
    """
    content = Path(path).read_bytes()
    standard = standard_metadata.read(from_bytes(content))
    return MetadataReport(str(path), len(content), standard, [])


def write_metadata(
    path: str | Path,
    output: str | Path | None = None,
    *,
    labels: Labels | Mapping[str, Labels] | None = None,
    info: ModelInfo | None = None,
    normalization: Normalization | Mapping[str, Normalization] | None = None,
    score_type: str | Mapping[str, str] | None = None,
) -> MetadataReport:
    """Writes labels and other standard metadata into a `.tflite` file of any tool.

    MediaPipe, ML Kit and Android Studio read them. What is not given stays as it is in
    the file; operators, tensors and constants do in any case.

    Args:
        path: The file.
        output: The file to write; None: `path` itself, atomically.
        labels: What the classes of the only output are called, in the order of its last
            axis: a list, or the path of a text file with one per line; for several
            outputs a dict by name of either. They replace labels in all languages.
        info: Name, description, version, author and license of the model.
        normalization: How the only input is made of bytes of pixels; for several
            inputs a dict by name. It must be the one of a file that says itself that
            its input is pixels. A file with `metadata="none"` does not: a wrong one is
            then found by `verify_tflite` only.
        score_type: "probabilities" or "logits", for the only output with labels; for
            several a dict by name. None: "probabilities" if the file computes the
            output by a softmax or sigmoid.

    Returns:
        The metadata that the file now has, and what they replace.

    Raises:
        ValueError: If something does not fit the file, nothing is given, or the file
            cannot be read; the message names every cause. Nothing is written then.
        TypeError: If labels, texts or normalizations are of another type.
        OSError: If a file cannot be read or written.
    """
    target = Path(path if output is None else output)
    check_writable(target)
    content = Path(path).read_bytes()
    graph = from_bytes(content)
    additions = Additions(
        info=ModelInfo() if info is None else info,
        labels=read_labels(labels, [*graph.outputs]),
        normalization=_by_name("normalization", normalization, [*graph.inputs]),
        score_types=_by_name("score_type", score_type, [*graph.outputs]),
    )
    if not additions:
        raise ValueError(
            "Something must be given to write: `labels`, `info`, `normalization` or "
            "`score_type`. Received: nothing."
        )
    changed = _written(content, graph, additions)
    before, after = (
        standard_metadata.read(from_bytes(one)) for one in (content, changed)
    )
    write_atomically(target, changed)
    return MetadataReport(str(target), len(changed), after, _replaced(before, after))


def _written(content: bytes, graph: TFLiteGraph, additions: Additions) -> bytes:
    """Returns the bytes of a file with additions, which are read again."""
    described = with_additions(graph, additions)
    name = standard_metadata.METADATA_NAME
    entries = {name: described.metadata[name]}
    files = dataclasses.replace(graph, files=described.files)
    changed = with_metadata(content, files, entries)
    found = from_bytes(changed)
    faults = standard_metadata.problems(found) + additions_missing(found, additions)
    if faults:
        listed = "\n  ".join(faults)
        raise ValueError(f"The metadata of the file must be whole. Found:\n  {listed}")
    return changed


def _by_name(
    what: str, value: T | Mapping[str, T] | None, names: list[str]
) -> dict[str, T]:
    """Returns values by name; one for the only name may come without it."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, T]", value))
    if len(names) != 1:
        raise ValueError(
            f"`{what}` must be a dict by name, with names among {names}. Received: "
            f"{value!r}."
        )
    return {names[0]: value}


def _replaced(
    before: StandardMetadata | None, after: StandardMetadata | None
) -> list[str]:
    """Returns what a file had and has no more, one sentence each."""
    had = {} if before is None else before.facts()
    has = {} if after is None else after.facts()
    return [
        f"replaced the {what}: {_shown(had[what])}"
        for what in had
        if had[what] != has.get(what)
    ]


def _shown(fact: Any) -> str:
    """Returns a fact of metadata; of many labels the first."""
    return str(fact) if isinstance(fact, Normalization) else reprlib.repr(fact)
