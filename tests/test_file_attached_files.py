"""Files attached to a `.tflite` file: a ZIP archive after the flatbuffer."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from ai_edge_litert.interpreter import Interpreter
from test_file_flatbuffer import fully_connected

from tflite_export.file import attached_files, flatbuffer

FILES = {"labels.txt": b"cat\ndog", "größe.txt": bytes(range(256)), "empty.txt": b""}
FLAT = flatbuffer.to_bytes(fully_connected())


def archive(method=zipfile.ZIP_STORED, comment=b"", names=("a", "b"), offset=0):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as written:
        for name in names:
            written.writestr(name, b"x" * 100)
        written.comment = comment
    return FLAT + b"\0" * offset + content.getvalue()


def test_attached_files_are_read_back_and_have_no_time():
    content = attached_files.join(FLAT, FILES)
    assert attached_files.split(content) == (FLAT, FILES)
    assert content == attached_files.join(FLAT, FILES)
    with zipfile.ZipFile(io.BytesIO(content)) as read:
        assert read.testzip() is None
        for entry in read.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.compress_type == zipfile.ZIP_STORED


def test_without_files_nothing_is_attached():
    assert attached_files.join(FLAT, {}) == FLAT
    assert attached_files.split(FLAT) == (FLAT, {})


def test_a_graph_keeps_its_files_and_runs():
    graph = fully_connected()
    graph.files = FILES
    content = flatbuffer.to_bytes(graph)
    assert flatbuffer.from_bytes(content).files == FILES
    assert flatbuffer.to_bytes(flatbuffer.from_bytes(content)) == content
    Interpreter(model_content=content).allocate_tensors()


@pytest.mark.parametrize("comment", [b"", b"a comment"])
@pytest.mark.parametrize("offset", [0, 5])
def test_archives_of_other_tools_are_read(comment, offset):
    flat, files = attached_files.split(archive(comment=comment, offset=offset))
    assert flat == FLAT + b"\0" * offset
    assert files == {"a": b"x" * 100, "b": b"x" * 100}


def test_bytes_that_only_look_like_the_end_of_an_archive_are_no_archive():
    content = FLAT + b"PK\5\6" + b"\0" * 16 + struct.pack("<H", 9)
    assert attached_files.split(content) == (content, {})


def change(content, what):
    """Damages one byte of the archive."""
    changed = bytearray(content)
    places = {
        "content": content.rfind(b"xxxx"),
        "header": content.find(b"PK\3\4"),
        "directory": content.find(b"PK\1\2"),
        "place of the directory": len(content) - 5,
    }
    changed[places[what]] ^= 0x55
    return bytes(changed)


@pytest.mark.parametrize(
    "what", ["content", "header", "directory", "place of the directory"]
)
def test_damaged_archives_are_refused(what):
    with pytest.raises(ValueError, match="must be a readable ZIP archive"):
        flatbuffer.from_bytes(change(archive(), what))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_readers_would_not_take_are_refused():
    with pytest.raises(ValueError, match=r"\['a', 'b'\] are encrypted, or compressed"):
        attached_files.split(archive(zipfile.ZIP_BZIP2))
    with pytest.raises(ValueError, match=r"more than one file .* \['a'\]"):
        attached_files.split(archive(names=("a", "a")))


def test_compressed_files_are_read_and_named():
    content = archive(zipfile.ZIP_DEFLATED)
    files = {"a": b"x" * 100, "b": b"x" * 100}
    assert attached_files.split(content) == (FLAT, files)
    assert attached_files.compressed(content) == ["a", "b"]
    assert attached_files.compressed(archive()) == attached_files.compressed(FLAT) == []
    graph = flatbuffer.from_bytes(content)
    assert (graph.files, graph.compressed_files) == (files, ["a", "b"])
    assert flatbuffer.to_bytes(graph) == attached_files.join(FLAT, files)


def test_compressed_files_may_not_fill_the_memory():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("zeros", bytes(2**26 + 1))
    with pytest.raises(ValueError, match="larger than 64 MiB"):
        attached_files.split(FLAT + content.getvalue())


def test_files_that_overlap_are_refused():
    content = bytearray(archive(names=[f"{i:03}" for i in range(50)]))
    first = content.find(b"PK\3\4") - len(FLAT)
    at = -1
    while (at := content.find(b"PK\1\2", at + 1)) >= 0:
        content[at + 20 : at + 28] = struct.pack("<II", 5000, 5000)
        content[at + 42 : at + 46] = struct.pack("<I", first)
    with pytest.raises(ValueError, match="larger than the archive"):
        attached_files.split(bytes(content))
