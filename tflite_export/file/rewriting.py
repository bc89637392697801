"""Changes the metadata of a `.tflite` file of any tool, and nothing else in it."""

# The code that flatbuffers generates has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from . import attached_files, flatbuffer
from .tflite_graph import TFLiteGraph


def with_metadata(
    content: bytes, graph: TFLiteGraph, entries: Mapping[str, bytes]
) -> bytes:
    """Returns a file with other metadata and attached files.

    A file from this library has the bytes that its exporter would have written. The
    tables of other files are kept as they are, with all that the schema of the
    installed LiteRT knows.

    Args:
        content: The bytes of the file.
        graph: Its graph, with the attached files that it will have.
        entries: Name -> metadata; others stay.

    Raises:
        ValueError: If parts of the file lie outside its flatbuffer.
    """
    if _writes_again(graph, content):
        changed = dataclasses.replace(graph, metadata={**graph.metadata, **entries})
        return flatbuffer.rewritten(changed)
    model, _ = flatbuffer.object_tree(content)
    _check_is_whole(model)
    for name, entry in entries.items():
        _set_entry(model, name, entry)
    model.buffers = [_aligned(buffer) for buffer in model.buffers]
    return attached_files.join(flatbuffer.finished(model), graph.files)


def _writes_again(graph: TFLiteGraph, content: bytes) -> bool:
    """Returns whether this library writes the flatbuffer of a file, bit by bit."""
    try:
        written = flatbuffer.rewritten(dataclasses.replace(graph, files={}))
    except ValueError:
        return False
    return written == attached_files.split(content)[0]


def _check_is_whole(model: Any) -> None:
    """Raises an error if positions in the file would have to change."""
    outside = [i for i, buffer in enumerate(model.buffers) if buffer.offset > 1]
    operators = [op for graph in model.subgraphs for op in graph.operators or []]
    if outside or any(op.largeCustomOptionsOffset > 1 for op in operators):
        raise ValueError(
            "The constants and options of a file must lie in its flatbuffer for its "
            f"metadata to be changed. Received: buffers {outside} outside of it, as in "
            "files of more than 2 GB."
        )


def _set_entry(model: Any, name: str, entry: bytes) -> None:
    """Sets one entry of the metadata; the buffer of a former one is used again."""
    model.metadata = model.metadata or []
    for metadata in model.metadata:
        if metadata.name == name.encode():
            model.buffers[metadata.buffer] = _filled(entry)
            return
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = name, len(model.buffers)
    model.buffers.append(_filled(entry))
    model.metadata.append(metadata)


def _filled(data: bytes) -> Any:
    """Returns a buffer with these bytes."""
    buffer = flatbuffer.AlignedBuffer()
    buffer.data = np.frombuffer(data, np.uint8)
    return buffer


def _aligned(buffer: Any) -> Any:
    """Returns a buffer that is written with the alignment of the schema."""
    return flatbuffer.AlignedBuffer(data=buffer.data)
