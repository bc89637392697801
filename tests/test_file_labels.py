"""Labels are read from lists and files, and every fault in them is named."""

from __future__ import annotations

import pytest

from tflite_export.file import End, read_labels
from tflite_export.file.labels import from_text, label_faults, to_text

NAMES = ["cat", "dog", "größe"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_files_of_all_systems_give_the_same_labels(ending, last, mark, tmp_path):
    text = ending.join(NAMES) + (ending if last else "")
    path = tmp_path / "labels.txt"
    path.write_bytes(mark + text.encode())
    assert read_labels(path, ["scores"]) == {"scores": tuple(NAMES)}
    assert read_labels(str(path), ["scores"]) == {"scores": tuple(NAMES)}


def test_labels_are_given_as_a_list_or_by_output(tmp_path):
    assert read_labels(None, ["a", "b"]) == {}
    assert read_labels(NAMES, ["a"]) == {"a": tuple(NAMES)}
    path = tmp_path / "labels.txt"
    path.write_text("x\ny\n")
    assert read_labels({"a": NAMES, "b": path}, ["a", "b"]) == {
        "a": tuple(NAMES),
        "b": ("x", "y"),
    }


def test_labels_must_name_an_output(tmp_path):
    with pytest.raises(ValueError, match=r"there are 2.*'a', 'b'"):
        read_labels(NAMES, ["a", "b"])
    # Unknown names are faults of a file, named with its others.
    assert read_labels({"c": NAMES}, ["a"]) == {"c": tuple(NAMES)}
    with pytest.raises(TypeError, match=r"list of texts.*3"):
        read_labels(3, ["a"])
    path = tmp_path / "labels.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="UTF-8"):
        read_labels(path, ["a"])


def test_labels_survive_as_text():
    assert from_text(to_text(NAMES).decode()) == tuple(NAMES)


def test_all_faults_of_labels_are_named_at_once():
    end = End("scores", "int8", (-1, 4), 0.1, 0)
    assert label_faults(end, ["a", "b", "a", "d"]) == []
    [count, types, empty, broken] = label_faults(end, ["a", "", "b\nc", 7, "a", ""])
    assert "6 labels for the shape [-1, 4]" in count
    assert "not texts: [7]" in types
    assert "empty, at the places: [1, 5]" in empty
    assert "line breaks: ['b\\nc']" in broken
    assert all(fault.startswith("`scores`: ") for fault in (count, broken))


def test_many_offenders_are_counted():
    end = End("scores", "int8", (-1, 9), 0.1, 0)
    assert "[0, 1, 2, 3, 4] and 4 more" in label_faults(end, [""] * 9)[0]


@pytest.mark.parametrize("shape", [(-1,), (), (1,)])
def test_an_output_without_an_axis_of_classes_has_no_labels(shape):
    assert label_faults(End("found", "int32", shape, None, None), ["a"])
