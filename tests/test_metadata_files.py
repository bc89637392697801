"""Labels and other metadata in files: by the exporter, by command, in others' files."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from harness import tiny
from typer.testing import CliRunner

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import ModelInfo, Normalization, cli
from tflite_export.demo.pixels import read_picture
from tflite_export.file import (
    Additions,
    attached_files,
    from_bytes,
    metadata,
    standard_metadata,
    to_bytes,
    with_additions,
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


def test_the_message_names_every_cause(student, tmp_path):
    path = tmp_path / "model.tflite"
    labels = {"nope": NAMES, "scores": ["a"]}
    with pytest.raises(ValueError) as e:
        tflite_export.export_model(student, path, labels=labels)
    for expected in ("labels for ['nope']", "1 labels"):
        assert expected in str(e.value)
    assert not path.exists()
    tflite_export.export_model(student, path)
    with pytest.raises(ValueError) as e:
        tflite_export.write_metadata(
            path,
            labels=labels,
            normalization=Normalization((1, 2), 1),
            score_type={"odd": "odds"},
        )
    for expected in (
        "labels for ['nope'], but the file has ['scores']",
        "1 labels",
        "2 numbers as mean, expected 1 or 3",
        "score types for ['odd']",
    ):
        assert expected in str(e.value)


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


def test_compressed_labels_are_reported_and_stored_again(student, tmp_path):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, labels=NAMES)
    stored = path.read_bytes()
    flat, files = attached_files.split(stored)
    content = io.BytesIO(flat)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", files["labels.txt"])
    path.write_bytes(content.getvalue())
    report = tflite_export.inspect_tflite(path)
    assert report.standard.labels == {"scores": tuple(NAMES)}
    assert "['labels.txt'] are compressed" in report.standard.problems[0]
    [found] = [one for one in report.consumers if one.consumer == "mediapipe"]
    assert found.verdict == "refused"
    tflite_export.write_metadata(path, info=ModelInfo(license=""))
    assert path.read_bytes() == stored


def test_the_c_source_has_the_labels(student, tmp_path):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, labels=NAMES)
    source, _ = tflite_export.write_c_source(path, tmp_path / "model.cc")
    written = re.findall(r"0x(..),", source.read_text())
    written = bytes(int(byte, 16) for byte in written)
    assert from_bytes(written).files == {"labels.txt": "\n".join(NAMES).encode()}


# --- Normalizations of pixels --------------------------------------------------------

WRONG = Normalization((127.5,), (127.5,))


@pytest.fixture(scope="module")
def of_pixels():
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    pixels = tf_lsq.Pixels(128, 127)
    found, _ = tiny.calibrated(tiny.residual, rng, inputs=pixels)
    return found


def with_normalization(path, one):
    """Writes a normalization into a file, whatever its description says."""
    graph = from_bytes(path.read_bytes())
    others = {**graph.metadata}
    others.pop(metadata.METADATA_NAME, None)
    graph = dataclasses.replace(graph, metadata=others)
    changed = with_additions(graph, Additions(normalization={"image": one}))
    described = from_bytes(path.read_bytes()).metadata
    entries = {**described, **changed.metadata}
    path.write_bytes(to_bytes(dataclasses.replace(changed, metadata=entries)))


@pytest.mark.parametrize("described", ["full", "hash"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_a_normalization_that_contradicts_the_pixels_is_refused(
    dtype, described, of_pixels, tmp_path
):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(
        of_pixels, path, input_type=dtype, metadata=described, verbose=False
    )
    before = path.read_bytes()
    message = r"\(byte - 127.5\) / 127.5, but .* pixels as \(byte - 128\) / 127"
    with pytest.raises(ValueError, match=message):
        tflite_export.write_metadata(path, normalization=WRONG)
    assert path.read_bytes() == before
    same = Normalization((128.0,) * 3, (127.0,) * 3)
    tflite_export.write_metadata(path, normalization=same)
    tflite_export.verify_tflite(path, of_pixels)


@pytest.mark.parametrize("described", ["full", "hash", "none"])
def test_another_normalization_than_the_models_is_no_verified_file(
    described, of_pixels, tmp_path
):
    path = tmp_path / "model.tflite"
    tflite_export.export_model(of_pixels, path, metadata=described, verbose=False)
    given = {"storage": "int8"} if described == "none" else {}
    tflite_export.verify_tflite(path, of_pixels, **given)
    with_normalization(path, WRONG)
    error = tflite_export.VerificationError
    with pytest.raises(error, match=r"`image`: .* metadata have .* 127.5, but"):
        tflite_export.verify_tflite(path, of_pixels, **given)


@pytest.mark.parametrize("described", ["full", "hash"])
@pytest.mark.parametrize(
    ("dtype", "verdict"), [("uint8", "runs"), ("float32", "wrong")]
)
def test_readers_believe_the_pixels_before_a_normalization(
    dtype, verdict, described, of_pixels, tmp_path
):
    path = tmp_path / "model.tflite"
    types = {"input_type": dtype, "output_type": "float32"}
    tflite_export.export_model(
        of_pixels, path, labels=NAMES, verbose=False, metadata=described, **types
    )
    right = read_picture(from_bytes(path.read_bytes()), None, None)
    with_normalization(path, WRONG)
    report = tflite_export.inspect_tflite(path)
    [found] = [one for one in report.consumers if one.consumer == "mediapipe"]
    assert found.verdict == verdict
    assert ("takes the pixels as (byte - 128) / 127" in str(found)) == (
        verdict == "wrong"
    )
    assert read_picture(from_bytes(path.read_bytes()), None, None) == right


def test_a_replaced_normalization_is_named_in_full(foreign, tmp_path):
    out = tmp_path / "out.tflite"
    first = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    tflite_export.write_metadata(foreign, out, normalization=first)
    report = tflite_export.write_metadata(out, normalization=WRONG)
    [replaced] = report.replaced
    assert "(byte - [123.675, 116.28, 103.53]) / [58.395, 57.1" in replaced


# --- Files of other tools ------------------------------------------------------------


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
    assert found["normalization"]["image"] == {"mean": [1, 2, 3], "std": [255] * 3}
    assert "replaced the author: 'Anna'" in run(out, "--author", "Ben")
    assert "(byte - [1, 2, 3]) / 255" in run(out)
    assert "replaced the license: 'MIT'" in run(out, "--license=")
    assert "license" not in run(out)
    run(out, "--license=")  # It has none to remove.


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
