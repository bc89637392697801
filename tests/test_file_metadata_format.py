"""TFLite's standard metadata are written and read like MediaPipe's own code does."""

from __future__ import annotations

import json
from pathlib import Path

import flatbuffers
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tflite_export.file import metadata_format, metadata_schema

DATA = Path(__file__).parent / "data"
# Written by MediaPipe 1.2.3's own code, with all tables, see make_metadata.py.
OFFICIAL = (DATA / "metadata.bin").read_bytes()


def as_lists(value):
    """Plain data as JSON has them."""
    return json.loads(json.dumps(value))


def test_all_tables_of_mediapipe_are_read():
    tree = json.loads((DATA / "metadata.json").read_text())
    found = metadata_format.decode(OFFICIAL)
    assert as_lists(found) == tree
    visited = {kind for kind, _ in metadata_format.walk(metadata_schema.ROOT, found)}
    assert visited >= metadata_schema.TABLES.keys()


def test_what_is_written_is_read_back():
    tree = metadata_format.decode(OFFICIAL)
    [subgraph] = tree["subgraph_metadata"]
    subgraph["custom_metadata"] = [{"name": "odd", "data": bytes(range(33))}]
    content = metadata_format.encode(tree)
    assert metadata_format.decode(content) == tree
    assert content == metadata_format.encode(tree)
    assert content.find(bytes(range(33))) % 16 == 0


@pytest.mark.parametrize(
    ("subgraph", "version"),
    [
        ({}, "1.0.0"),
        ({"output_tensor_groups": []}, "1.2.0"),
        ({"associated_files": [{"type": "VOCABULARY"}]}, "1.0.1"),
        ({"custom_metadata": [], "input_process_units": []}, "1.5.0"),
    ],
)
def test_the_version_of_the_parser_follows_from_what_is_used(subgraph, version):
    tree = {"subgraph_metadata": [subgraph], "min_parser_version": "9.9"}
    found = metadata_format.decode(metadata_format.encode(tree))
    assert found["min_parser_version"] == version


def test_newer_fields_are_read_over_but_never_lost(monkeypatch):
    content = metadata_format.encode({"name": "a", "author": "b"})
    fields = metadata_schema.TABLES["ModelMetadata"]
    older = {name: fields[name] for name in ("name", "description", "version")}
    monkeypatch.setitem(metadata_schema.TABLES, "ModelMetadata", older)
    tree = metadata_format.decode(content)
    assert tree["name"] == "a"
    with pytest.raises(ValueError, match="newer fields cannot be changed"):
        metadata_format.encode(tree)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"Values of ColorSpaceType must be .*'BGR'"):
        properties = ("ImageProperties", {"color_space": "BGR"})
        content = {"content_properties": properties}
        entry = {"content": content}
        metadata_format.encode(
            {"subgraph_metadata": [{"input_tensor_metadata": [entry]}]}
        )


def vector(builder, element, size):
    """A vector that holds one table many times."""
    builder.StartVector(4, size, 4)
    for _ in range(size):
        builder.PrependUOffsetTRelative(element)
    return builder.EndVector()


def table(builder, num_slots, slot, value):
    builder.StartObject(num_slots)
    builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def test_small_files_with_endless_tables_are_refused():
    builder = flatbuffers.Builder(0)
    builder.StartObject(7)
    tensor = builder.EndObject()
    subgraph = table(builder, 10, 2, vector(builder, tensor, 30_000))
    root = table(builder, 8, 3, vector(builder, subgraph, 30_000))
    builder.Finish(root, file_identifier=b"M001")
    with pytest.raises(ValueError, match="more than 4 times its bytes"):
        metadata_format.decode(bytes(builder.Output()))


def test_small_files_with_endless_texts_are_refused():
    builder = flatbuffers.Builder(0)
    text = builder.CreateString("x" * 100_000)
    tensor = table(builder, 7, 2, vector(builder, text, 100_000))
    subgraph = table(builder, 10, 2, vector(builder, tensor, 1))
    root = table(builder, 8, 3, vector(builder, subgraph, 1))
    builder.Finish(root, file_identifier=b"M001")
    with pytest.raises(ValueError, match="more than 4 times its bytes"):
        metadata_format.decode(bytes(builder.Output()))


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_metadata_are_read_or_refused(data):
    content = bytearray(OFFICIAL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 5))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    size = data.draw(st.sampled_from([len(content), *range(0, len(content), 97)]))
    try:
        metadata_format.decode(bytes(content[:size]))
    except ValueError as error:
        assert "must be readable" in str(error)
