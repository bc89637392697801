"""Writes TFLite's standard metadata into a graph; merges them with those it has."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import labels as label_texts
from .metadata_format import Tree, encode
from .pixel_codes import LARGEST_BYTE, contradiction, pixel_inputs
from .score_types import score_type_of, tensor_with_grid
from .standard_metadata import (
    ENTRIES,
    LABELS,
    LOGITS,
    METADATA_NAME,
    PROBABILITIES,
    PROBABILITY_STATS,
    SCORE_TYPES,
    ModelInfo,
    Normalization,
    attached_names,
    entries_of,
    facts,
    is_normalization,
    label_file,
    read,
    tree_of,
)
from .tflite_graph import End, TFLiteGraph, ends_of

_COLORS = {3: "RGB", 1: "GRAYSCALE"}  # Channels -> what they are.
_IMAGE_AXES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Additions:
    """What to write into the standard metadata of a file.

    Attributes:
        info: What the model is.
        labels: Output -> labels, one for each index of the last axis.
        normalization: Input -> how it is made of bytes; for images only.
        score_types: Output with labels -> one of `SCORE_TYPES`; others have those that
            the file computes.
    """

    info: ModelInfo = dataclasses.field(default_factory=ModelInfo)
    labels: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=dict[str, Sequence[str]]
    )
    normalization: Mapping[str, Normalization] = dataclasses.field(
        default_factory=dict[str, Normalization]
    )
    score_types: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Checks the types of `info` and of normalizations."""
        if type(self.info) is not ModelInfo:
            raise TypeError(f"`info` must be a `ModelInfo`. Received: {self.info!r}.")
        others = {
            name: one
            for name, one in self.normalization.items()
            if type(one) is not Normalization
        }
        if others:
            raise TypeError(
                "Each `normalization` must be a `Normalization(mean, std)`. Received: "
                f"{others}."
            )

    def __bool__(self) -> bool:
        """Returns whether there is something to write."""
        return bool(self.facts())

    def facts(self) -> dict[str, Any]:
        """Returns what to write, as `StandardMetadata.facts` will name it."""
        return facts(self.info, self.labels, self.normalization, self.score_types)


def with_additions(graph: TFLiteGraph, additions: Additions) -> TFLiteGraph:
    """Returns a graph with additions to its standard metadata and attached files.

    What the additions do not say stays as it is.

    Args:
        graph: The file's graph.
        additions: What to write.

    Raises:
        ValueError: If they do not fit the file, or the metadata that it has cannot be
            read or kept; the message names every cause.
    """
    _check(graph, additions)
    tree = tree_of(graph)
    _write_info(tree, additions.info)
    inputs, outputs = (_entries(tree, graph, what) for what in ENTRIES)
    for end, entry in inputs:
        _describe_input(entry, end, additions.normalization.get(end.name))
    for end, entry in outputs:
        entry["name"] = entry.get("name") or end.name
        entry.setdefault("content", {"content_properties": ("FeatureProperties", {})})
        if end.name in additions.labels or end.name in additions.score_types:
            found = score_type_of(graph, graph.outputs[end.name])
            kind = additions.score_types.get(end.name, found)
            entry["stats"] = _score_stats(graph, end, kind)
    files = _write_labels(tree, outputs, additions.labels, graph.files)
    metadata = {**graph.metadata, METADATA_NAME: encode(tree)}
    return dataclasses.replace(graph, metadata=metadata, files=files)


def is_image(shape: Sequence[int | None]) -> bool:
    """Returns whether a shape is that of images, `[batch, height, width, 1 or 3]`."""
    return len(shape) == _IMAGE_AXES and shape[-1] in _COLORS


def additions_missing(graph: TFLiteGraph, additions: Additions) -> list[str]:
    """Returns which additions a file does not have, one sentence each.

    Args:
        graph: The file's graph, read from its bytes.
        additions: What was to be written.
    """
    found = read(graph)
    if found is None:
        return ["it has no standard metadata"]
    there = found.facts()
    return [
        f"its standard metadata have {there.get(what)!r} for the {what}, expected "
        f"{wanted!r}"
        for what, given in additions.facts().items()
        if there.get(what) != (wanted := given or None)  # Empty texts are removed.
    ]


# --- Checks ------------------------------------------------------------------


def _check(graph: TFLiteGraph, additions: Additions) -> None:
    """Raises an error that names everything that does not fit the file."""
    inputs = {end.name: end for end in ends_of(graph, graph.inputs)}
    outputs = {end.name: end for end in ends_of(graph, graph.outputs)}
    faults: list[str] = []
    for what, given, ends in (
        ("labels", additions.labels, outputs),
        ("normalization", additions.normalization, inputs),
        ("score types", additions.score_types, outputs),
    ):
        unknown = sorted(given.keys() - ends.keys())
        if unknown:
            faults.append(f"{what} for {unknown}, but the file has {sorted(ends)}")
    for name, labels in additions.labels.items():
        faults += (
            label_texts.label_faults(outputs[name], labels) if name in outputs else []
        )
    for name, one in additions.normalization.items():
        if name in inputs:
            faults += _normalization_faults(graph, inputs[name], one)
    for name, kind in additions.score_types.items():
        faults += _score_faults(graph, additions, name, kind) if name in outputs else []
    if faults:
        listed = "\n  ".join(faults)
        raise ValueError(f"The metadata must fit the file. Received:\n  {listed}")


def _normalization_faults(
    graph: TFLiteGraph, end: End, normalization: Normalization
) -> list[str]:
    """Returns what is wrong with the normalization of an input."""
    if not is_image(end.shape):
        return [
            f"`{end.name}`: a normalization for the shape {list(end.shape)}, which is "
            "not that of images with 1 or 3 channels"
        ]
    faults: list[str] = []
    for what, values in (("mean", normalization.mean), ("std", normalization.std)):
        if len(values) not in (1, end.shape[-1]):
            expected = f"expected 1 or {end.shape[-1]}"
            faults.append(f"{len(values)} numbers as {what}, {expected}")
    if not faults and end.name in pixel_inputs(graph):
        faults += filter(None, [contradiction(graph, end, normalization)])
    return [f"`{end.name}`: {fault}" for fault in faults]


def _score_faults(
    graph: TFLiteGraph, additions: Additions, name: str, kind: str
) -> list[str]:
    """Returns what is wrong with the score type of an output."""
    faults: list[str] = []
    if kind not in SCORE_TYPES:
        faults.append(f"the score type {kind!r}, expected one of {list(SCORE_TYPES)}")
    elif kind == LOGITS and score_type_of(graph, graph.outputs[name]) == PROBABILITIES:
        faults.append("the score type 'logits', but it ends in a softmax or sigmoid")
    entries = dict(
        zip(graph.outputs, entries_of(tree_of(graph), "outputs"), strict=False)
    )
    if name not in additions.labels and label_file(entries.get(name, {})) is None:
        faults.append("a score type, but it has no labels")
    return [f"`{name}`: {fault}" for fault in faults]


# --- Tables ------------------------------------------------------------------


def _write_info(tree: Tree, info: ModelInfo) -> None:
    """Sets the texts of a model; empty ones are removed."""
    for name, text in info.said().items():
        tree[name] = text
        if not text:
            del tree[name]


def _entries(tree: Tree, graph: TFLiteGraph, what: str) -> list[tuple[End, Tree]]:
    """Returns the inputs or outputs of a file with their metadata, added if missing.

    Raises:
        ValueError: If there are metadata of more or fewer ends than the file has.
    """
    ends = ends_of(graph, getattr(graph, what))
    subgraphs = tree.setdefault("subgraph_metadata", [])
    if not subgraphs:
        subgraphs.append({})
    entries: list[Tree] = subgraphs[0].setdefault(ENTRIES[what], [])
    if not entries:
        entries.extend({} for _ in ends)
    if len(entries) != len(ends):
        raise ValueError(
            f"The standard metadata of the file must describe its {len(ends)} {what}. "
            f"Received metadata of {len(entries)}. Ask the writer of the file."
        )
    return [*zip(ends, entries, strict=True)]


def _describe_input(entry: Tree, end: End, normalization: Normalization | None) -> None:
    """Says whether an input is an image, and how it is made of bytes."""
    entry["name"] = entry.get("name") or end.name
    # One channel may also be a spectrogram, unless it is made of bytes.
    colors = _COLORS if normalization is not None else {3: _COLORS[3]}
    color = colors.get(end.shape[-1], "") if is_image(end.shape) else ""
    properties: tuple[str, Tree] = ("FeatureProperties", {})
    if color:
        properties = ("ImageProperties", {"color_space": color})
    if normalization is None:
        entry.setdefault("content", {"content_properties": properties})
        return
    entry["content"] = {"content_properties": properties}
    units = [u for u in entry.get("process_units", []) if not is_normalization(u)]
    normalization = normalization.per_channel()
    mean, std = map(np.array, (normalization.mean, normalization.std))
    options = {"mean": [*map(float, mean)], "std": [*map(float, std)]}
    units.append({"options": ("NormalizationOptions", options)})
    entry["process_units"] = units
    ends = np.sort([(byte - mean) / std for byte in (0, LARGEST_BYTE)], axis=0)
    entry["stats"] = {"max": ends[1].tolist(), "min": ends[0].tolist()}


def _score_stats(graph: TFLiteGraph, end: End, kind: str) -> Tree:
    """Returns the smallest and largest score of an output."""
    if kind == PROBABILITIES:
        return PROBABILITY_STATS
    tensor = tensor_with_grid(graph, graph.outputs[end.name])
    if tensor is None or tensor.quantization is None:
        return {}
    grid, limits = tensor.quantization, np.iinfo(tensor.dtype)
    codes = (int(limits.min), int(limits.max))
    low, high = ((code - grid.zero_point) * grid.scale[0] for code in codes)
    return {"max": [float(high)], "min": [float(low)]}


# --- Labels ------------------------------------------------------------------


def _write_labels(
    tree: Tree,
    outputs: list[tuple[End, Tree]],
    labels: Mapping[str, Sequence[str]],
    files: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Names the files of labels in metadata; returns all files to attach.

    Former labels, in all languages, are replaced; their files are removed unless
    something else names them.
    """
    former: set[str] = set()
    for end, entry in outputs:
        if end.name in labels:
            named = entry.get("associated_files", [])
            old = [file for file in named if file.get("type") == LABELS]
            entry["associated_files"] = [file for file in named if file not in old]
            former |= {file.get("name", "") for file in old}
    unused = former - {*attached_names(tree)}
    attached = {name: file for name, file in files.items() if name not in unused}
    for end, entry in outputs:
        if end.name in labels:
            stem = "labels" if len(outputs) == 1 else f"labels_{_safe(end.name)}"
            name = _free_name(stem, attached)
            attached[name] = label_texts.to_text(labels[end.name])
            file = {"name": name, "description": "One label per line.", "type": LABELS}
            entry["associated_files"].append(file)
    return attached


def _safe(name: str) -> str:
    """Returns a name with no other characters than letters, digits and _."""
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


def _free_name(stem: str, taken: Mapping[str, Any]) -> str:
    """Returns the name of a text file that is not taken."""
    names = [f"{stem}.txt", *(f"{stem}_{i}.txt" for i in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)
