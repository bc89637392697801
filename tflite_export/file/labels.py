"""Labels of outputs: reads them from lists and files, checks and writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .tflite_graph import End

Labels = str | Path | Sequence[str]
_NAMED = 5


def read_labels(
    labels: Labels | Mapping[str, Labels] | None, outputs: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Returns the labels by output.

    Args:
        labels: Labels, or the path of a text file with one per line, for the only
            output; for several outputs, a dict by name of either; None: no labels.
        outputs: Names of the outputs. Those in a dict are not compared with them:
            `with_additions` names the unknown ones, with all other faults.

    Raises:
        ValueError: If several outputs need a dict, or a file is not text.
        TypeError: If they are something else.
        OSError: If a file cannot be read.
    """
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return {name: _listed(entry) for name, entry in labels.items()}
    if len(outputs) != 1:
        raise ValueError(
            f"`labels` must name their output, as there are {len(outputs)}. Pass a "
            f"dict of labels by name, with names among {list(outputs)}."
        )
    return {outputs[0]: _listed(labels)}


def _listed(labels: Labels) -> tuple[str, ...]:
    """Returns labels, or those of a text file."""
    if isinstance(labels, str | Path):
        return _of_file(Path(labels))
    try:
        return tuple(labels)
    except TypeError as error:
        raise TypeError(
            "`labels` must be a list of texts, or the path of a text file. Received: "
            f"{labels!r}."
        ) from error


def _of_file(path: Path) -> tuple[str, ...]:
    """Returns the lines of a text file, without a last empty one."""
    try:
        text = path.read_text("utf-8-sig")  # Some editors write a byte order mark.
    except UnicodeDecodeError as error:
        raise ValueError(
            f"A file of labels must be text in UTF-8. Received: {str(path)!r} with "
            f"{error}."
        ) from error
    return from_text(text)


def from_text(text: str) -> tuple[str, ...]:
    r"""Returns the lines of a text, without a last empty one.

    Example:
        >>> from_text("cat\ndog\n")
        ('cat', 'dog')
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def to_text(labels: Iterable[str]) -> bytes:
    """Returns labels as the content of a text file, one per line.

    Args:
        labels: Labels that `label_faults` has no objections to.
    """
    return "\n".join(labels).encode()


def label_faults(output: End, labels: Sequence[object]) -> list[str]:
    """Returns what is wrong with the labels of an output, all of it.

    Two classes may have one label: ImageNet has two called "crane".

    Args:
        output: The output.
        labels: Its labels, one for each index of the last axis.
    """
    faults: list[str] = []
    size = output.shape[-1] if len(output.shape) > 1 else math.nan
    if len(labels) != size:
        faults.append(
            f"{len(labels)} labels for the shape {list(output.shape)}, whose last axis "
            "must have one label for each index"
        )
    texts = [label for label in labels if isinstance(label, str)]
    others = [label for label in labels if not isinstance(label, str)]
    empty = [i for i, label in enumerate(labels) if label == ""]
    broken = [text for text in texts if "\n" in text or "\r" in text]
    for what, found in (
        ("not texts", others),
        ("empty, at the places", empty),
        ("with line breaks", broken),
    ):
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            faults.append(f"labels {what}: {found[:_NAMED]}{more}")
    return [f"`{output.name}`: {fault}" for fault in faults]
