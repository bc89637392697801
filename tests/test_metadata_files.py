"""Labels and other metadata in files: by the exporter, by command, in others' files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from harness import tiny
from typer.testing import CliRunner

import tflite_export
from tf_lsq._compat import keras
from tflite_export import ModelInfo, Normalization, cli
from tflite_export.file import (
    attached_files,
    from_bytes,
    standard_metadata,
    to_bytes,
)

NAMES = ["cat", "dog", "hen", "cow", "größe"]
INFO = ModelInfo("Animals", "What it is.", "v2", "Anna", "MIT")
layers = keras.layers


@pytest.fixture(scope="module")
def student():
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    found, _ = tiny.calibrated(tiny.residual, np.random.default_rng(0))
    return found


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, ["metadata", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def plain(value):
    """The object tree of a file as plain data."""
    if hasattr(value, "__dict__"):
        return type(value).__name__, {k: plain(v) for k, v in vars(value).items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def without_metadata(content):
    """Everything in a file but its metadata."""
    flat, _ = attached_files.split(content)
    model = schema.ModelT.InitFromPackedBuf(bytearray(flat), 0)
    tree = plain(model)[1]
    named = {m.name: m.buffer for m in model.metadata}
    buffers = tree["buffers"]
    tree["metadata"] = {name: buffers[i] for name, i in named.items()}
    tree["buffers"] = [b for i, b in enumerate(buffers) if i not in named.values()]
    tree["metadata"].pop(b"TFLITE_METADATA", None)
    return tree


def outputs_of(content, x):
    interpreter = Interpreter(model_content=content)
    interpreter.resize_tensor_input(
        interpreter.get_input_details()[0]["index"], x.shape
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_output_details()
    return [interpreter.get_tensor(detail["index"]) for detail in found]


def test_the_exporter_writes_labels_and_texts(student, tmp_path):
    path, lines = tmp_path / "model.tflite", tmp_path / "labels.txt"
    lines.write_text("\n".join(NAMES))
    plain_path = tmp_path / "plain.tflite"
    tflite_export.export_model(student, plain_path)
    tflite_export.export_model(student, path, labels=lines, info=INFO)
    report = tflite_export.inspect_tflite(path)
    assert report.standard.labels == {"scores": tuple(NAMES)}
    assert report.standard.info == INFO and not report.damaged
    assert "output scores: probabilities of 5 labels, 'cat'" in str(report)
    tflite_export.verify_tflite(path, student, labels=NAMES)
    assert without_metadata(path.read_bytes()) == without_metadata(
        plain_path.read_bytes()
    )
    again = tmp_path / "again.tflite"
    tflite_export.export_model(student, again, labels=NAMES, info=INFO)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("metadata", ["full", "none"])
def test_metadata_written_afterwards_give_the_exporters_bytes(
    metadata, student, tmp_path
):
    path, later = tmp_path / "model.tflite", tmp_path / "later.tflite"
    tflite_export.export_model(
        student, path, labels=NAMES, info=INFO, metadata=metadata
    )
    tflite_export.export_model(student, later, metadata=metadata)
    tflite_export.write_metadata(later, labels=["a", "b", "c", "d", "e"])
    report = tflite_export.write_metadata(later, labels=NAMES, info=INFO)
    assert later.read_bytes() == path.read_bytes()
    [replaced] = report.replaced
    assert replaced == "replaced the labels of `scores`: ('a', 'b', 'c', 'd', 'e')"
    assert report.file_bytes == path.stat().st_size


def test_labels_that_do_not_fit_write_nothing(student, tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError) as e:
        tflite_export.export_model(student, path, labels=["a", "", "a"])
    for expected in ("3 labels", "[-1, 5]", "empty"):
        assert expected in str(e.value)
    assert not path.exists()
    tflite_export.export_model(student, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="3 labels"):
        tflite_export.write_metadata(path, labels=["a", "b", "c"])
    with pytest.raises(ValueError, match="Received: nothing"):
        tflite_export.write_metadata(path)
    assert path.read_bytes() == before


def test_other_labels_than_asked_are_no_verified_file(student, tmp_path):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, labels=NAMES)
    error = tflite_export.VerificationError
    with pytest.raises(error, match="labels of `scores`, expected"):
        tflite_export.verify_tflite(path, student, labels=[*reversed(NAMES)])
    graph = from_bytes(path.read_bytes())
    graph.files = {"other.txt": graph.files["labels.txt"]}
    path.write_bytes(to_bytes(graph))
    with pytest.raises(error, match=r"\['labels.txt'\] are named but not attached"):
        tflite_export.verify_tflite(path, student)
    assert tflite_export.inspect_tflite(path).damaged
    assert "WRONG in the standard metadata" in run(path, code=1)


def test_damaged_labels_are_refused(student, tmp_path):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, labels=NAMES)
    content = bytearray(path.read_bytes())
    content[content.rfind(b"dog")] ^= 1
    path.write_bytes(bytes(content))
    for function in (tflite_export.inspect_tflite, tflite_export.read_metadata):
        with pytest.raises(ValueError, match=r"Bad CRC-32 for file 'labels.txt'"):
            function(path)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        tflite_export.verify_tflite(path, student)


def test_the_c_source_has_the_labels(student, tmp_path):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, labels=NAMES)
    source, _ = tflite_export.write_c_source(path, tmp_path / "model.cc")
    written = re.findall(r"0x(..),", source.read_text())
    written = bytes(int(byte, 16) for byte in written)
    assert from_bytes(written).files == {"labels.txt": "\n".join(NAMES).encode()}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A file from TFLiteConverter, in float32, with two outputs in odd order."""
    keras.backend.clear_session()
    inputs = layers.Input((4, 4, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(inputs))
    outputs = {
        "zebra": layers.Dense(2, activation="sigmoid", name="zebra")(x),
        "ape": layers.Dense(3, name="ape")(x),
    }
    model = keras.Model(inputs, outputs)
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    path = tmp_path_factory.mktemp("foreign") / "foreign.tflite"
    path.write_bytes(content)
    return path


def test_files_of_other_tools_keep_everything_else(foreign, tmp_path, rng):
    out = tmp_path / "out.tflite"
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    before = foreign.read_bytes()
    graph = from_bytes(before)
    labels = {
        name: [f"{name} {i}" for i in range(graph.tensors[tensor].shape[-1])]
        for name, tensor in graph.outputs.items()
    }
    report = tflite_export.write_metadata(
        foreign,
        out,
        labels=labels,
        info=INFO,
        normalization=Normalization((0,), (255,)),
    )
    content = out.read_bytes()
    assert foreign.read_bytes() == before
    assert without_metadata(content) == without_metadata(before)
    assert report.standard.labels == {k: tuple(v) for k, v in labels.items()}
    assert set(report.standard.score_types.values()) == {"probabilities", "logits"}
    for one, other in zip(outputs_of(content, x), outputs_of(before, x), strict=True):
        np.testing.assert_array_equal(one, other)
    # Readers number the entries like the subgraph numbers its outputs.
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    shapes = [
        model.subgraphs[0].tensors[i].shape[-1] for i in model.subgraphs[0].outputs
    ]
    tree = standard_metadata.tree_of(from_bytes(content))
    entries = standard_metadata.entries_of(tree, "outputs")
    files = [entry["associated_files"][0]["name"] for entry in entries]
    attached = from_bytes(content).files
    assert [attached[name].count(b"\n") + 1 for name in files] == shapes


def test_a_file_of_another_tool_does_not_grow_when_it_is_written_again(
    foreign, tmp_path
):
    out = tmp_path / "out.tflite"
    tflite_export.write_metadata(foreign, out, info=INFO)
    once = out.read_bytes()
    tflite_export.write_metadata(out, info=INFO)
    assert out.read_bytes() == once
    report = tflite_export.write_metadata(out, info=ModelInfo(author="Ben"))
    assert report.replaced == ["replaced the author: 'Anna'"]


def test_constants_of_other_tools_files_stay_aligned(foreign, tmp_path):
    out = tmp_path / "out.tflite"
    tflite_export.write_metadata(foreign, out, info=INFO)
    content = out.read_bytes()
    constants = [t.data for t in from_bytes(content).tensors.values()]
    large = [one.tobytes() for one in constants if one is not None and one.size > 50]
    assert large and all(content.find(one) % 16 == 0 for one in large)


def test_the_command_writes_and_prints(foreign, student, tmp_path):
    path, out = tmp_path / "model.tflite", tmp_path / "out.tflite"
    lines = tmp_path / "labels.txt"
    lines.write_text("\n".join(NAMES))
    tflite_export.export_model(student, path)
    assert "no standard metadata" in run(path)
    run(
        path, "--labels", lines, "--name", "Animals", "--description", "What it is.",
        "--model-version", "v2", "--author", "Anna", "--license", "MIT",
        "--mean", 1, "--mean", 2, "--mean", 3, "--std", 255, "-o", out,
    )  # fmt: skip
    assert "no standard metadata" in run(path)
    found = json.loads(run(out, "--json"))["standard"]
    assert ModelInfo(**found["info"]) == INFO
    assert found["labels"] == {"scores": NAMES}
    assert found["normalization"]["image"] == {"mean": [1, 2, 3], "std": [255]}
    assert "replaced the author: 'Anna'" in run(out, "--author", "Ben")
    assert "(byte - [1, 2, 3]) / 255" in run(out)


def test_the_command_takes_labels_by_output(foreign, tmp_path):
    graph, out = from_bytes(foreign.read_bytes()), tmp_path / "out.tflite"
    options = []
    for name, tensor in graph.outputs.items():
        path = tmp_path / f"{name}.txt"
        size = graph.tensors[tensor].shape[-1]
        path.write_text("\n".join(f"{name} {i}" for i in range(size)))
        options += ["--labels", f"{name}={path}"]
    run(foreign, *options, "-o", out)
    assert len(tflite_export.read_metadata(out).standard.labels) == 2
    message = run(foreign, "--labels", tmp_path / "none.txt", "-o", out, code=3)
    assert "`--labels` must name their output" in message
    assert "None" in run(foreign, "--mean", 1, "-o", out, code=3)
    assert "must end with .tflite" in run(foreign, "--name", "a", "-o", "x.bin", code=2)
    run(foreign, "--score-type", "odds", code=2)
