"""The verifier rejects files that do not compute the trained integers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from harness import tiny

import tflite_export
from tf_lsq._compat import keras
from tflite_export import build
from tflite_export.file import (
    TFLiteOp,
    TFLiteTensor,
    flatbuffer,
    metadata,
)

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
    path.write_bytes(flatbuffer.to_bytes(graph))
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
    from tflite_export import verification

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
