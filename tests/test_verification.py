"""The verifier rejects files that do not compute the trained integers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from harness import tiny

import tflite_export
from tf_lsq._compat import keras
from tflite_export import build, verification
from tflite_export.file import (
    TFLiteOp,
    TFLiteTensor,
    flatbuffer,
    metadata,
)
from tflite_export.runtimes import find_runtime
from tflite_export.targets import TARGETS
from tflite_export.twin import twin_codes
from tflite_export.verification.points import predict_points

layers = keras.layers


SWAPPED = ("re_lu_1", "batch_normalization_2")


def flip_a_code(graph):
    tensor = graph.tensors["re_lu_1/weight"]
    tensor.data = tensor.data.copy()
    tensor.data.flat[5] ^= 1


def change_a_scale(graph):
    tensor = graph.tensors["re_lu_1"]
    scale = np.nextafter(tensor.quantization.scale, np.float32(np.inf))
    tensor.quantization = dataclasses.replace(tensor.quantization, scale=scale)


def change_a_zero_point(graph):
    tensor = graph.tensors["re_lu_1"]
    tensor.quantization = dataclasses.replace(tensor.quantization, zero_point=119)


def add_a_float_tensor(graph):
    name = "re_lu_1/values"
    graph.tensors[name] = TFLiteTensor(name, (1, 8, 8, 8), "float32")
    graph.ops.append(TFLiteOp("DEQUANTIZE", ["re_lu_1"], [name]))


def change_a_bias(graph):
    tensor = graph.tensors["re_lu_1/bias"]
    tensor.data = tensor.data + np.int32(1)


def swap_two_layers(graph):
    first, second = (op for op in graph.ops if op.outputs[0] in SWAPPED)
    first.inputs[1:], second.inputs[1:] = second.inputs[1:], first.inputs[1:]


def change_an_activation(graph):
    graph.ops[0].options["fused_activation_function"] = "NONE"


def add_an_option(graph):
    """Sets an option that this library leaves at its default."""
    op = next(op for op in graph.ops if op.code == "FULLY_CONNECTED")
    op.options["keep_num_dims"] = True


def raise_a_version(graph):
    graph.ops[0].version = 5


def drop_an_operator(graph):
    graph.ops.pop(1)


def rename_an_output(graph):
    graph.outputs = {"other": next(iter(graph.outputs.values()))}


def describe(graph, change):
    found = json.loads(graph.metadata[metadata.METADATA_NAME])
    change(found)
    graph.metadata[metadata.METADATA_NAME] = json.dumps(found).encode()


def lie_about_a_step(graph):
    describe(graph, lambda found: found["tensors"]["re_lu_1"].update(step=0.5))


def lie_about_the_target(graph):
    describe(graph, lambda found: found.update(target="edgetpu"))


CORRUPTIONS = {
    flip_a_code: "re_lu_1/weight.*1 of",
    change_a_scale: "re_lu_1`: scale",
    change_a_zero_point: "re_lu_1`: scale or zero point",
    add_a_float_tensor: "re_lu_1/values` is a float tensor",
    change_a_bias: "re_lu_1/bias",
    swap_two_layers: "reads.*expected",
    change_an_activation: "fused_activation_function",
    add_an_option: "keep_num_dims is True, expected False",
    raise_a_version: "CONV_2D has version 5, expected 3",
    drop_an_operator: "its operators are",
    rename_an_output: "its outputs are",
    lie_about_a_step: "re_lu_1`: its metadata is .*0.5",
    lie_about_the_target: "metadata has 'edgetpu' for 'target'",
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__)
def test_corrupted_files_are_rejected(corrupt, exported):
    student, path, _ = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    corrupt(graph)
    path.write_bytes(flatbuffer.rewritten(graph))
    with pytest.raises(
        tflite_export.VerificationError, match=CORRUPTIONS[corrupt]
    ) as e:
        tflite_export.verify_tflite(path, student)
    assert e.value.mismatches


@pytest.mark.parametrize(
    "content", [None, b"", b"[1]", b'{"format": 2}', b"[" * 100_000, b"\xff"]
)
def test_files_without_readable_metadata_are_refused(content, exported):
    student, path, _ = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    graph.metadata = {} if content is None else {metadata.METADATA_NAME: content}
    path.write_bytes(flatbuffer.to_bytes(graph))
    with pytest.raises(ValueError, match="metadata"):
        tflite_export.verify_tflite(path, student)


def test_a_file_with_other_weights_is_rejected(exported):
    student, path, _ = exported
    kernel = student.get_layer("conv2d_1").kernel
    kernel.assign(kernel * -1)
    with pytest.raises(tflite_export.VerificationError, match="re_lu_1/weight"):
        tflite_export.verify_tflite(path, student)


@pytest.mark.parametrize("corrupt", [change_a_zero_point, change_a_bias])
def test_wrong_arithmetic_is_detected_at_the_points(corrupt, exported):
    """The check on data finds the error without the structural check."""

    student, path, x = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    if corrupt is change_a_bias:
        tensor = graph.tensors["re_lu_1/bias"]
        tensor.data = tensor.data + np.int32(100_000)
    else:
        corrupt(graph)
    frozen = tiny.built(student).frozen
    with pytest.raises(tflite_export.VerificationError, match="a code differs by"):
        codes = verification.probe_codes(graph, frozen, [x])
        verification.compare_points(frozen, codes, "file")


def test_bytes_that_only_the_runtime_reads_are_checked(exported):
    student, path, _ = exported
    content = bytearray(path.read_bytes())
    # By hand: the version of the schema, 3, is the last field before the vectors.
    at = next(i for i in range(20, 100, 4) if content[i : i + 4] == b"\3\0\0\0")
    content[at] = 4
    path.write_bytes(content)
    with pytest.raises(tflite_export.VerificationError, match="LiteRT does not load"):
        tflite_export.verify_tflite(path, student)


def test_truncated_files_are_rejected(exported):
    student, path, _ = exported
    content = path.read_bytes()
    for share in range(0, 50):
        path.write_bytes(content[: len(content) * share // 50])
        with pytest.raises(
            (ValueError, tflite_export.VerificationError), match=r"file|equal"
        ):
            tflite_export.verify_tflite(path, student)


def test_files_that_are_not_models_are_rejected(exported, tmp_path):
    student, path, _ = exported
    path.write_bytes(b"not a model, but long enough to look at")
    with pytest.raises(ValueError, match="identifier"):
        tflite_export.verify_tflite(path, student)
    with pytest.raises(FileNotFoundError):
        tflite_export.verify_tflite(tmp_path / "missing.tflite", student)


def test_files_that_fail_verification_do_not_replace_old_ones(exported, monkeypatch):
    student, path, _ = exported
    before = path.read_bytes()

    def corrupt(graph):
        content = to_bytes(graph)
        return content.replace(
            graph.tensors["re_lu_1/weight"].data.tobytes(),
            np.roll(graph.tensors["re_lu_1/weight"].data, 1).tobytes(),
        )

    to_bytes = flatbuffer.to_bytes
    monkeypatch.setattr(build, "to_bytes", corrupt)
    with pytest.raises(tflite_export.VerificationError, match="re_lu_1/weight"):
        tflite_export.export_model(student, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# --- Predictions -------------------------------------------------------------------


def predicted(rng, target, path, **options):
    """A report with data of a packed file, and what it is about."""
    student, x = tiny.calibrated(tiny.residual, rng, target=target)
    y = rng.integers(0, 5, len(x))
    report = tflite_export.export_model(
        student, path, data=(x, y), verbose=False, **options
    )
    return student, x, y, report


@pytest.mark.parametrize("target", ["phone", "tflm"])
def test_predictions_are_what_the_twin_computes(target, rng, tmp_path):
    path = tmp_path / "model.tflite"
    student, x, y, report = predicted(rng, target, path, storage="packed")
    found = report.verification.prediction
    assert found.runtime == TARGETS[target].runtime
    scores = {
        storage: tflite_export.integer_twin(student, storage=storage).predict(x)
        for storage in ("packed", "int8")
    }
    choices = {storage: one.argmax(axis=-1) for storage, one in scores.items()}
    assert found.tflite_accuracy == (choices["packed"] == y).mean()
    wanted = student.predict(x).argmax(axis=-1)
    best = scores["packed"].max(axis=-1)  # Classes may have equal codes.
    for share, other in (
        (found.top1_agreement, wanted),
        (found.int8_agreement, choices["int8"]),
    ):
        assert share == (scores["packed"][np.arange(len(x)), other] == best).mean()
    assert f"predicted for {found.runtime}" in str(report)


@pytest.mark.parametrize("target", ["phone", "tflm"])
def test_predicted_tensors_are_compared_with_the_training_graph(target, rng, tmp_path):
    path = tmp_path / "model.tflite"
    student, x, _, report = predicted(rng, target, path, storage="packed")
    frozen = tiny.built(student, "packed").frozen
    inputs = verification.input_codes(frozen, [x[: verification.BATCH_SIZE]])
    codes = twin_codes(frozen, inputs, find_runtime(TARGETS[target].runtime))
    expected = {
        point.name: (point.num_codes, point.off_by_one)
        for point in verification.compare_points(frozen, codes, "file")
    }
    points = report.verification.prediction.points
    assert {p.name: (p.num_codes, p.off_by_one) for p in points} == expected
    measured = {p.name: p.off_by_one for p in report.verification.points}
    assert measured != {p.name: p.off_by_one for p in points}
    again = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert again.prediction.points == points


@pytest.mark.parametrize("target", ["edgetpu", "symmetric"])
def test_nothing_is_predicted_where_the_rounding_is_unknown(target, rng, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Flatten()(tiny.conv_bn_relu(inputs))
    model = keras.Model(inputs, layers.Dense(5)(x))
    student, x = tiny.calibrated(lambda: model, rng, bits=8, target=target)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", data=x, verbose=False
    )
    assert report.verification.prediction is None
    assert "predicted for" not in str(report)


def test_a_code_that_will_be_off_by_more_than_one_is_refused(rng, monkeypatch):
    """The file is right on this machine; the other runtime adds 2 to a tensor."""
    student, x = tiny.calibrated(tiny.residual, rng)
    frozen = tiny.built(student).frozen
    graph = tiny.built(student).graph
    codes = verification.probe_codes(graph, frozen, [x])
    measured = verification.compare_points(frozen, codes, "file")

    def wrong(frozen, codes, runtime):
        computed = twin_codes(frozen, codes, runtime)
        name = next(node.name for node in frozen.nodes if node.kind == "add")
        return computed | {name: np.maximum(computed[name], -126) - 2}

    monkeypatch.setattr("tflite_export.verification.points.twin_codes", wrong)
    with pytest.raises(tflite_export.VerificationError, match="file on arm64"):
        predict_points(frozen, codes, measured, find_runtime("arm64"), "file")
