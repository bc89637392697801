"""Files for TFLite Micro: they load, compute what the twin does, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tree_sitter
import tree_sitter_cpp
from harness import cases, micro, tiny
from tflite_micro.python.tflite_micro.runtime import Interpreter

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import verification
from tflite_export.file import from_bytes, metadata, to_bytes
from tflite_export.reports import micro_snippet
from tflite_export.runtimes import find_runtime
from tflite_export.targets import (
    NOT_MEASURED,
    TARGETS,
    find_violations,
    measure_arena,
)
from tflite_export.targets.tflm_arena import ALIGNMENT
from tflite_export.twin import twin_codes
from tflite_export.verification import input_codes
from tflite_export.verification.values import file_inputs

layers = keras.layers
TFLM = TARGETS["tflm"]
EXAMPLES = 4
ALL = [
    *cases.conformance_cases(target="tflm"),
    *cases.network_cases(target="tflm"),
    *cases.random_cases(40, target="tflm"),
]
LOAD = """
from tflite_micro.python.tflite_micro.runtime import Interpreter
content = open({path!r}, "rb").read()
Interpreter.from_bytes(content, arena_size={size}).invoke()
"""
SHARE = 29  # Of which the default suite runs one.


def compare(case):
    """Runs the files of a case, and compares every tensor with the twin's."""
    student, x = case.make()
    for storage in case.storages:
        built = tiny.built(student, storage)
        if any(node.is_float for node in built.frozen.nodes):
            continue
        broken = {v.rule.name for v in find_violations(built.graph, TFLM)}
        if broken:
            assert broken <= {"four_axes", "five_axes"}
            with pytest.raises(RuntimeError):
                micro.load(to_bytes(built.graph))
            continue
        nodes = [n.name for n in built.frozen.nodes if n.grid is not None]
        probe = built.graph.with_outputs(nodes)
        examples = [x[:EXAMPLES]]
        found = micro.run(probe, file_inputs(built.graph, built.frozen, examples))
        inputs = input_codes(built.frozen, examples)
        expected = twin_codes(built.frozen, inputs, find_runtime("tflm"))
        different = {
            tensor: count
            for name, tensor in probe.outputs.items()
            if (count := int((found[name] != expected[tensor]).sum()))
        }
        assert not different, (case.name, storage)


@pytest.mark.parametrize("case", ALL[::SHARE], ids=lambda case: case.name)
def test_the_twin_computes_the_codes_of_tflite_micro(case):
    compare(case)


@pytest.mark.parametrize("axes", [5, 6])
def test_transpositions_of_too_many_axes_are_refused(axes, rng, tmp_path):
    shape = (*[2] * (axes - 2), 64 >> (axes - 2))
    inputs = layers.Input((8,))
    x = layers.Reshape(shape, name="split")(layers.Dense(64, name="dense")(inputs))
    x = layers.Permute((2, 1, *range(3, axes)), name="moved")(x)
    student = tf_lsq.quantize_model(keras.Model(inputs, x), target="tflm")
    tf_lsq.calibrate(student, rng.normal(size=(8, 8)).astype(np.float32))
    content = to_bytes(tiny.built(student).graph)
    if axes == 5:
        micro.load(content)
        return
    with pytest.raises(RuntimeError, match="failed to allocate"):
        micro.load(content)
    with pytest.raises(ValueError, match="`moved`"):
        tflite_export.export_model(student, tmp_path / "model.tflite")


def mixed(per_channel_dense):
    """Layers whose packed kernels differ between targets."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(16, 1, activation="relu", name="pointwise")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(8, use_bias=not per_channel_dense, name="dense")(x)
    if per_channel_dense:
        x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(layers.ReLU()(x)))


def exported(bits, rng, path, *, per_channel_dense=True, **options):
    student, x = tiny.calibrated(
        lambda: mixed(per_channel_dense), rng, bits=bits, target="tflm"
    )
    report = tflite_export.export_model(
        student, path, storage="packed", verbose=False, **options
    )
    return student, x, report


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_kernels_are_those_that_tflite_micro_has(bits, rng, tmp_path):
    _, _, report = exported(bits, rng, tmp_path / "model.tflite")
    stored = {layer.name: (layer.container, layer.remark) for layer in report.layers}
    missing = "no int2 for {} on tflm" if bits == 2 else ""
    for name, code in (
        ("pointwise", "CONV_2D"),
        ("depthwise", "DEPTHWISE_CONV_2D"),
    ):
        assert stored[name] == ("int4", missing.format(code))
    container, remark = stored["dense"]
    assert container == "int8"
    assert remark.endswith("int4 must have one scale for all channels")
    assert report.operators["FULLY_CONNECTED"] == 2
    micro.load((tmp_path / "model.tflite").read_bytes())


def test_a_dense_kernel_with_one_scale_is_packed(rng, tmp_path):
    path = tmp_path / "model.tflite"
    _, _, report = exported(4, rng, path, per_channel_dense=False)
    [dense] = [layer for layer in report.layers if layer.name == "dense"]
    assert (dense.container, dense.remark) == ("int4", "")
    interpreter = micro.load(path.read_bytes())
    interpreter.set_input(np.zeros((1, 8, 8, 3), np.int8), 0)
    interpreter.invoke()


def graph_for(target, storage, bits, rng):
    student, _ = tiny.calibrated(lambda: mixed(True), rng, bits=bits, target=target)
    return tiny.built(student, storage).graph


@pytest.mark.parametrize("bits", [2, 4])
def test_files_that_tflite_micro_would_refuse_are_refused(bits, rng):
    graph = graph_for("phone", "packed", bits, rng)
    broken = {v.rule.name for v in find_violations(graph, TFLM) if v.rule.refused}
    assert broken == {"static_shapes", "packed_matrix"}
    with pytest.raises(RuntimeError):
        micro.load(to_bytes(graph))


def test_an_unknown_operator_is_refused(rng):
    graph = graph_for("tflm", "int8", 8, rng)
    graph.ops[-1].code = "GELU"
    [found] = find_violations(graph, TFLM)
    assert found.rule.name == "supported_operator" and "GELU" in str(found)


def test_biases_make_up_for_two_roundings(rng):
    """Between two tensors of 4 bits, no code is off; with rounded biases some are."""
    off = []
    for target in ("tflm", "phone"):
        keras.backend.clear_session()
        student, x = tiny.calibrated(
            tiny.residual, np.random.default_rng(0), bits=4, target=target
        )
        built = tiny.built(student)
        inputs = input_codes(built.frozen, [x])
        codes = twin_codes(built.frozen, inputs, find_runtime("tflm"))
        reports = verification.compare_points(built.frozen, codes, "file")
        off.append({report.name: report.off_by_one for report in reports}["re_lu_1"])
    assert off[0] == 0 < off[1]


@pytest.mark.parametrize("contents", ["hash", "none"])
def test_files_with_little_metadata_are_verified(contents, rng, tmp_path):
    path = tmp_path / "model.tflite"
    student, _, full = exported(4, rng, path)
    report = tflite_export.export_model(
        student, path, storage="packed", metadata=contents
    )
    assert report.file_bytes < full.file_bytes - 1000
    if contents == "none":
        with pytest.raises(ValueError, match="In the second case, pass the"):
            tflite_export.verify_tflite(path, student)
        tflite_export.verify_tflite(path, student, storage="packed")
        with pytest.raises(tflite_export.VerificationError):
            tflite_export.verify_tflite(path, student, storage="int8")
        return
    tflite_export.verify_tflite(path, student)
    with pytest.raises(ValueError, match="`storage` must be 'packed', as in"):
        tflite_export.verify_tflite(path, student, storage="int8")
    content = path.read_bytes()
    written = json.loads(from_bytes(content).metadata["tf_lsq"])["sha256"]
    path.write_bytes(content.replace(written.encode(), written[::-1].encode()))
    with pytest.raises(tflite_export.VerificationError, match="for 'sha256'"):
        tflite_export.verify_tflite(path, student)


def test_ends_without_a_scale_need_metadata(rng, tmp_path):
    inputs = layers.Input((4,))
    scores = layers.Dense(3)(inputs)
    model = keras.Model(inputs, tf.argmax(scores, axis=-1))
    student = tf_lsq.quantize_model(model, target="tflm")
    tf_lsq.calibrate(student, rng.normal(size=(8, 4)))
    with pytest.raises(ValueError, match='must be "full" or "hash"'):
        tflite_export.export_model(student, tmp_path / "m.tflite", metadata="none")
    assert not (tmp_path / "m.tflite").exists()


def test_the_arena_is_the_smallest(rng, tmp_path):
    path = tmp_path / "model.tflite"
    _, _, report = exported(4, rng, path)
    content, size = path.read_bytes(), report.arena_bytes
    assert f"arena                {size} bytes" in str(report)
    assert size % ALIGNMENT == 0
    Interpreter.from_bytes(content, arena_size=size).invoke()
    # A smaller one may crash the process, so it is tried in another.
    for smaller, fits in ((0, True), (ALIGNMENT, False)):
        tried = LOAD.format(path=str(path), size=size - smaller)
        done = subprocess.run([sys.executable, "-c", tried], capture_output=True)
        assert (done.returncode == 0) == fits
    with pytest.raises(RuntimeError, match="must load the file"):
        measure_arena(to_bytes(graph_for("phone", "packed", 4, rng)))


def test_without_the_wheel_the_report_says_so(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("tflite_export.targets.tflm_arena.PACKAGE", "no_such_package")
    _, _, report = exported(4, rng, tmp_path / "model.tflite")
    assert report.arena_bytes is None and NOT_MEASURED in str(report)
    assert "#error" in report.snippets["cpp"]


def test_the_snippet_has_the_operators_and_the_arena(rng, tmp_path):
    _, _, report = exported(4, rng, tmp_path / "model.tflite")
    code = report.snippets["cpp"]
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_cpp.language()))
    assert not parser.parse(code.encode()).root_node.has_error, code
    methods = re.findall(r"resolver\.(\w+)\(\);", code)
    assert len(methods) == len(report.operators)
    assert {"AddConv2D", "AddDepthwiseConv2D", "AddFullyConnected"} <= set(methods)
    assert f"MicroMutableOpResolver<{len(methods)}>" in code
    assert f"kArenaSize = {report.arena_bytes};" in code


def test_the_snippet_avoids_words_of_the_language(rng):
    inputs = layers.Input((4,), name="register")
    names = ("nullptr", "kTfLiteOk", "out.1")
    outputs = [layers.Dense(2, name=name)(inputs) for name in names]
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs), target="tflm")
    tf_lsq.calibrate(student, rng.normal(size=(8, 4)))
    code = micro_snippet(tiny.built(student).graph, "m.tflite", ["AddAdd"], 1)
    for variable in ("register_", "nullptr_", "kTfLiteOk_", "out_1"):
        assert f"float* {variable}" in code


def test_a_c_source_has_the_bytes_of_the_file(rng, tmp_path):
    path = tmp_path / "model.tflite"
    exported(4, rng, path)
    source, header = tflite_export.write_c_source(path, tmp_path / "net.cc", name="net")
    text = source.read_text()
    assert text.startswith('#include "net.h"\n') and "alignas(16)" in text
    content = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text))
    assert content == path.read_bytes()
    assert f"net_size = {len(content)};" in text
    for name in ("net[]", "net_size"):
        assert f"{name};" in header.read_text()


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("net.c", "net", "must end with"),
        ("net.cc", "1net", "must consist of letters"),
        ("net.cc", "int", "not be a keyword"),
    ],
)
def test_other_c_sources_are_refused(source, name, expected, rng, tmp_path):
    path = tmp_path / "model.tflite"
    exported(4, rng, path)
    with pytest.raises(ValueError, match=expected):
        tflite_export.write_c_source(path, tmp_path / source, name=name)
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]


def test_the_twin_is_a_keras_model(rng):
    """End to end, with the softmax that TFLite Micro has."""
    student, x = tiny.calibrated(tiny.residual, rng, target="tflm")
    built = tiny.built(student)
    found = micro.run(built.graph, file_inputs(built.graph, built.frozen, [x]))
    expected = tflite_export.integer_twin(student).predict(x, verbose=0)
    [codes] = found.values()
    np.testing.assert_array_equal((codes + 128.0) / 256, expected)


def test_metadata_with_more_than_a_hash_is_refused(rng, tmp_path):
    """Else a changed description with a hash beside it would not be compared."""
    path = tmp_path / "model.tflite"
    student, _, _ = exported(4, rng, path)
    graph = from_bytes(path.read_bytes())
    described = json.loads(graph.metadata["tf_lsq"])
    described["sha256"] = metadata.hashed(described)["sha256"]
    for entry in described["tensors"].values():
        entry["bits"] = 2
    graph.metadata["tf_lsq"] = json.dumps(described).encode()
    path.write_bytes(to_bytes(graph))
    with pytest.raises(tflite_export.VerificationError, match="'tensors'"):
        tflite_export.verify_tflite(path, student)


@pytest.mark.parametrize(
    "content",
    [
        '["sha256"]',
        '"sha256"',
        "[]",
        "null",
        "{}",
        '{"format": 1, "sha256": "", "pixels": 1}',
        '{"format": 1, "sha256": "", "pixels": ["x", 1]}',
    ],
)
def test_metadata_that_is_no_description_is_refused(content, rng, tmp_path):
    path = tmp_path / "model.tflite"
    student, _, _ = exported(4, rng, path)
    graph = from_bytes(path.read_bytes())
    graph.metadata["tf_lsq"] = content.encode()
    path.write_bytes(to_bytes(graph))
    for read in (
        lambda: tflite_export.verify_tflite(path, student),
        lambda: tflite_export.inspect_tflite(path),
    ):
        with pytest.raises(ValueError, match="must be a JSON object"):
            read()


def test_one_grid_for_all_storages_leaves_dense_kernels_one_scale(rng, tmp_path):
    path = tmp_path / "model.tflite"
    options = {"per_channel_dense": False, "bias_grid": "packed"}
    _, _, report = exported(4, rng, path, **options)
    [dense] = [layer for layer in report.layers if layer.name == "dense"]
    assert dense.container == "int4"
    micro.load(path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_twin_computes_the_codes_of_tflite_micro_everywhere(case):
    compare(case)
