"""TFLite's standard metadata: what apps and tools read of a file.

MediaPipe, ML Kit and Android Studio read from it what classes are called and how images
become inputs. It is a buffer of the file, and text files attached to the file.

Reference: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from . import labels as label_texts
from .metadata_format import Tree, decode, walk
from .metadata_schema import ROOT
from .tflite_graph import End, TFLiteGraph, ends_of

METADATA_NAME = "TFLITE_METADATA"
SCORE_TYPES = PROBABILITIES, LOGITS = ("probabilities", "logits")
PROBABILITY_STATS = {"max": [1.0], "min": [0.0]}
Numbers = float | Sequence[float] | np.ndarray
_SHOWN = 5
LABELS = "TENSOR_AXIS_LABELS"
INFO = ("name", "description", "version", "author", "license")
# The field of the subgraph's metadata for each kind of end.
ENTRIES = {"inputs": "input_tensor_metadata", "outputs": "output_tensor_metadata"}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model is; None: not said, or left as it is.

    Attributes:
        name: Its name.
        description: What it does.
        version: Its version, in any form.
        author: Who made it.
        license: Under which license it may be used.
    """

    name: str | None = None
    description: str | None = None
    version: str | None = None
    author: str | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        """Checks the types."""
        wrong = {k: v for k, v in self.said().items() if type(v) is not str}
        if wrong:
            raise TypeError(f"`ModelInfo` must hold texts. Received: {wrong}.")

    def said(self) -> dict[str, str]:
        """Returns what is not None."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


@dataclasses.dataclass(frozen=True, init=False)
class Normalization:
    """How bytes of pixels become real inputs: `(byte - mean) / std`.

    Attributes:
        mean: One number, or one per channel.
        std: The same, positive.

    Raises:
        ValueError: If they are none of these in float32, in which files store them; the
            error names them all.

    Example:
        >>> str(Normalization(mean=127.5, std=127.5))
        '(byte - 127.5) / 127.5'
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, mean: Numbers, std: Numbers) -> None:
        """Checks the numbers; a single one becomes a tuple."""
        numbers: dict[str, tuple[float, ...]] = {}
        problems: list[str] = []
        for name, given in (("mean", mean), ("std", std)):
            plain = _plain(given)
            if plain is None:
                problems.append(f"{name}={given!r}")
                continue
            numbers[name] = plain
            object.__setattr__(self, name, plain)
            if name == "std" and np.float32(min(plain)) <= 0.0:
                problems.append(f"std={given!r}, which must be positive")
        if not problems and len({len(one) for one in numbers.values()} - {1}) > 1:
            problems.append(f"mean={mean!r}, std={std!r} of different lengths")
        if problems:
            raise ValueError(
                "`Normalization` must have a `mean` and a positive `std`, each one "
                "finite number or one per channel, and both for the same channels. "
                f"Received: {'; '.join(problems)}."
            )

    def per_channel(self) -> Normalization:
        """Returns the same with as many numbers in `std` as in `mean`."""
        size = max(len(self.mean), len(self.std))
        mean, std = (
            one if len(one) == size else one * size for one in (self.mean, self.std)
        )
        return Normalization(mean, std)

    def stored(self) -> Normalization:
        """Returns the numbers as files store them: both per channel, in float32."""
        whole = self.per_channel()
        mean, std = (
            tuple(float(np.float32(value)) for value in values)
            for values in (whole.mean, whole.std)
        )
        return Normalization(mean, std)

    def __str__(self) -> str:
        """Returns the formula."""
        return f"(byte - {_numbers(self.mean)}) / {_numbers(self.std)}"


@dataclasses.dataclass(frozen=True)
class StandardMetadata:
    """The standard metadata of a file.

    Attributes:
        info: What the model is.
        min_parser_version: The oldest version of the schema that has all of it.
        labels: Output -> labels.
        score_types: Output with labels -> one of `SCORE_TYPES`, "" if it is not said.
        normalization: Input -> how it is made of bytes.
        colors: Input that is an image -> "RGB" or "GRAYSCALE".
        files: Names of the attached files.
        problems: What is wrong with it, one sentence each.
        unnamed: Those of them that stop MediaPipe only: outputs without a name.
    """

    info: ModelInfo = dataclasses.field(default_factory=ModelInfo)
    min_parser_version: str = ""
    labels: dict[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict[str, tuple[str, ...]]
    )
    score_types: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    normalization: dict[str, Normalization] = dataclasses.field(
        default_factory=dict[str, Normalization]
    )
    colors: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    files: list[str] = dataclasses.field(default_factory=list[str])
    problems: list[str] = dataclasses.field(default_factory=list[str])
    unnamed: list[str] = dataclasses.field(default_factory=list[str])

    def facts(self) -> dict[str, Any]:
        """Returns each fact by a name of its own, to compare it with another's."""
        return facts(self.info, self.labels, self.normalization, self.score_types)

    def __str__(self) -> str:
        """Returns readable lines."""
        lines = [f"{name}: {text}" for name, text in self.info.said().items()]
        for name, color in self.colors.items():
            lines.append(f"input {name}: {color} image")
        for name, one in self.normalization.items():
            lines.append(f"input {name}: {one}")
        for name, labels in self.labels.items():
            shown = ", ".join(map(repr, labels[:_SHOWN]))
            more = ", ..." if len(labels) > _SHOWN else ""
            kind = self.score_types.get(name) or "scores"
            lines.append(
                f"output {name}: {kind} of {len(labels)} labels, {shown}{more}"
            )
        if self.files:
            lines.append(f"attached files: {', '.join(self.files)}")
        lines += [f"WRONG in the standard metadata: {text}" for text in self.problems]
        return "\n".join(lines)


def facts(
    info: ModelInfo,
    labels: Mapping[str, Sequence[str]],
    normalization: Mapping[str, Normalization],
    score_types: Mapping[str, str],
) -> dict[str, Any]:
    """Returns each fact of metadata by a name of its own.

    Args:
        info: What the model is.
        labels: Output -> labels.
        normalization: Input -> how it is made of bytes.
        score_types: Output -> one of `SCORE_TYPES`.
    """
    return {
        **info.said(),
        **{f"labels of `{name}`": tuple(one) for name, one in labels.items()},
        **{f"normalization of `{k}`": one.stored() for k, one in normalization.items()},
        **{f"score type of `{name}`": kind for name, kind in score_types.items()},
    }


def _plain(given: Any) -> tuple[float, ...] | None:
    """Returns one or several numbers as a tuple; None if they are no such numbers."""
    try:
        numbers = np.asarray(given)
    except ValueError:  # Of rows of several lengths.
        return None
    if numbers.dtype.kind not in "iuf" or numbers.ndim > 1 or not numbers.size:
        return None
    plain: list[float] = np.atleast_1d(numbers).astype(np.float64).tolist()
    largest = float(np.finfo(np.float32).max)
    fit = all(math.isfinite(one) and abs(one) <= largest for one in plain)
    return tuple(plain) if fit else None


def _numbers(values: tuple[float, ...]) -> str:
    """Returns one number, or several that differ in brackets."""
    texts = [f"{value:.8g}" for value in values]
    texts = texts[:1] if len({*texts}) == 1 else texts
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def tree_of(graph: TFLiteGraph) -> Tree:
    """Returns the standard metadata of a file as plain data, empty if it has none.

    Args:
        graph: The file's graph.

    Raises:
        ValueError: If they cannot be read.
    """
    content = graph.metadata.get(METADATA_NAME)
    return {} if content is None else decode(content)


def entries_of(tree: Tree, ends: str) -> list[Tree]:
    """Returns what metadata say of the inputs or outputs, in their order.

    Args:
        tree: The metadata.
        ends: "inputs" or "outputs".
    """
    subgraphs = cast("list[Tree]", tree.get("subgraph_metadata") or [{}])
    return subgraphs[0].get(ENTRIES[ends]) or []


def read(graph: TFLiteGraph) -> StandardMetadata | None:
    """Reads the standard metadata of a file; None if it has none.

    Args:
        graph: The file's graph.
    """
    if METADATA_NAME not in graph.metadata:
        return None
    try:
        tree = tree_of(graph)
    except ValueError as error:
        return StandardMetadata(files=[*graph.files], problems=[str(error)])
    inputs, outputs = (_described(tree, graph, what) for what in ENTRIES)
    normalization, unfit = _normalizations(inputs)
    labels = {
        end.name: label_texts.from_text(text)
        for end, entry in outputs
        if (text := _label_text(entry, graph)) is not None
    }
    return StandardMetadata(
        info=ModelInfo(**{name: tree.get(name) for name in INFO}),
        min_parser_version=tree.get("min_parser_version", ""),
        labels=labels,
        score_types={
            end.name: score_type(entry) for end, entry in outputs if end.name in labels
        },
        normalization=normalization,
        colors={end.name: color for end, entry in inputs if (color := _color(entry))},
        files=[*graph.files],
        problems=_problems(tree, graph) + unfit,
        unnamed=_unnamed(tree, graph),
    )


def problems(graph: TFLiteGraph) -> list[str]:
    """Returns what is wrong with the standard metadata of a file, one sentence each.

    Args:
        graph: The file's graph.
    """
    found = read(graph)
    return [] if found is None else found.problems


def _described(tree: Tree, graph: TFLiteGraph, what: str) -> list[tuple[End, Tree]]:
    """Returns the inputs or outputs of a file with what metadata say of them."""
    ends = ends_of(graph, getattr(graph, what))
    return [*zip(ends, entries_of(tree, what), strict=False)]


def _normalizations(
    inputs: list[tuple[End, Tree]],
) -> tuple[dict[str, Normalization], list[str]]:
    """Returns the normalizations that metadata say of inputs, and what is unfit."""
    found: dict[str, Normalization] = {}
    unfit: list[str] = []
    for end, entry in inputs:
        units = [u for u in entry.get("process_units", []) if is_normalization(u)]
        for unit in units[:1]:
            _, options = unit["options"]
            mean, std = options.get("mean", []), options.get("std", [])
            try:
                found[end.name] = Normalization(mean, std)
            except ValueError as error:
                unfit.append(f"the normalization of `{end.name}`: {error}")
    return found, unfit


def is_normalization(unit: Tree) -> bool:
    """Returns whether a process unit is a normalization.

    Args:
        unit: A "ProcessUnit".
    """
    kind, _ = unit.get("options", ("", {}))
    return kind == "NormalizationOptions"


def score_type(entry: Tree) -> str:
    """Returns which of `SCORE_TYPES` metadata say of an output; "": nothing.

    Args:
        entry: A "TensorMetadata".
    """
    if "stats" not in entry:
        return ""
    return PROBABILITIES if entry["stats"] == PROBABILITY_STATS else LOGITS


def label_file(entry: Tree) -> str | None:
    """Returns the name of the file with the labels of an output; None: it has none.

    Of several languages, readers use the file without one.

    Args:
        entry: A "TensorMetadata".
    """
    files = [f for f in entry.get("associated_files", []) if f.get("type") == LABELS]
    plain = [file for file in files if not file.get("locale")]
    return (plain or files)[0].get("name", "") if files else None


def _label_text(entry: Tree, graph: TFLiteGraph) -> str | None:
    """Returns the text of the labels of an output; None: it is not there."""
    name = label_file(entry)
    content = None if name is None else graph.files.get(name)
    return None if content is None else content.decode(errors="replace")


def _color(entry: Tree) -> str:
    """Returns the colors of an image, "" for other inputs."""
    content = entry.get("content", {})
    kind, properties = content.get("content_properties", ("", {}))
    return properties.get("color_space", "") if kind == "ImageProperties" else ""


def attached_names(tree: Tree) -> list[str]:
    """Returns the names of the files that metadata say are attached.

    Args:
        tree: The metadata.
    """
    tables = [value for kind, value in walk(ROOT, tree) if kind == "AssociatedFile"]
    return [table.get("name", "") for table in tables]


def _unnamed(tree: Tree, graph: TFLiteGraph) -> list[str]:
    """Returns which outputs have no name in the metadata."""
    return [
        f"the entry of `{end.name}` has no name: MediaPipe crashes"
        for end, entry in _described(tree, graph, "outputs")
        if not entry.get("name")
    ]


def _problems(tree: Tree, graph: TFLiteGraph) -> list[str]:
    """Returns where metadata, the attached files and the graph do not fit."""
    found: list[str] = []
    missing = sorted({*attached_names(tree)} - graph.files.keys())
    if missing:
        found.append(
            f"the files {missing} are named but not attached; attached are "
            f"{sorted(graph.files)}"
        )
    if graph.compressed_files:
        found.append(
            f"the attached files {graph.compressed_files} are compressed: readers on "
            "phones need them stored, as any change by `tf-lsq metadata` does"
        )
    for what in ENTRIES:
        ends, entries = len(getattr(graph, what)), len(entries_of(tree, what))
        if entries not in (0, ends):
            found.append(f"it describes {entries} {what}, but the file has {ends}")
    found += _unnamed(tree, graph)
    for end, entry in _described(tree, graph, "outputs"):
        text = _label_text(entry, graph)
        if text is not None:
            found += label_texts.label_faults(end, label_texts.from_text(text))
    return found
