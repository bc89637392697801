"""The report of an export: integers in use, other storages, latency, page, snippets."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import (
    code_statistics,
    containers,
    float_graph,
    freeze,
    latency,
    verify,
)
from tflite_export.export_report import Latency
from tflite_export.integerize import integerize
from tflite_export.snippets import snippets_of

layers = keras.layers


def student_of(build, rng, bits=4, **options):
    model = tiny.randomize(build(), rng)
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, **options
    )
    x = rng.uniform(-1, 1, (80, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    return student, x


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A report with data and latencies, its model and data."""
    keras.backend.clear_session()
    rng = np.random.default_rng(0)
    student, x = student_of(tiny.pre_activation, rng)
    path = tmp_path_factory.mktemp("exported") / "model.tflite"
    report = tflite_export.export_model(
        student,
        path,
        storage="packed",
        data=(x, rng.integers(0, 5, len(x))),
        benchmark=True,
        verbose=False,
    )
    return report, student, x


# --- Statistics ----------------------------------------------------------------------


def test_codes_of_a_kernel_are_counted(rng):
    student, _ = student_of(tiny.residual, rng, bits=2)
    wrapper = student.get_layer("quant_conv2d_1")
    kernel = np.zeros(wrapper.kernel.shape, np.float32)
    kernel.flat[:6] = [-3, -2.4, -1, 0.6, 1.4, 1.6]
    wrapper.kernel.assign(kernel)
    wrapper.step_variables["unit"].assign(1.0)
    wrapper.step_variables["step"].assign(1.0)
    found = code_statistics.kernel_statistics(wrapper)
    # By hand: codes -2, -2, -1, 1, 1, 1; beyond -2.5 and 1.5 are -3 and 1.6.
    assert (found.q_min, found.q_max, found.num_bits) == (-2, 1, 2)
    assert found.counts == [2, 1, kernel.size - 6, 3]
    assert found.clipped == 2 / kernel.size
    assert found.step == 1
    assert found.dead_levels == 0


def test_negative_values_of_an_unsigned_point_are_not_clipped(rng):
    student, _ = student_of(tiny.residual, rng, bits=2)
    point = student.get_layer("quantize_re_lu_1")
    step = float(point.step.numpy())
    values = np.array([-5, 0, 0.4, 1, 3.4, 3.6]) * step
    found = code_statistics.activation_statistics(
        point, np.array([0, 0, 0, 1, 3, 3]), values
    )
    assert (found.q_min, found.q_max) == (0, 3)
    assert found.counts == [3, 1, 0, 2]
    assert found.dead_levels == 1
    assert found.clipped == pytest.approx(1 / 6)


def test_the_best_step_has_the_least_error(exported):
    report, student, _ = exported
    for layer in report.layers:
        if layer.statistics is None:
            continue
        wrapper = next(
            x for x in student.layers if x.name == f"quant_{_owner(student, layer)}"
        )
        kernel, bounds = wrapper.kernel.numpy(), layer.statistics

        def error(step, kernel=kernel, bounds=bounds):
            codes = np.clip(np.rint(kernel / step), bounds.q_min, bounds.q_max)
            return np.mean((codes * step - kernel) ** 2)

        best = error(bounds.mse_step)
        for factor in (0.8, 0.9, 1.1, 1.25):
            assert best <= error(bounds.mse_step * factor)


def _owner(student, layer):
    """Returns the Keras layer of an operator's kernel."""
    node = freeze.freeze_model(student).by_name()[layer.name]
    return node.layer.name


def test_every_point_is_counted_once_with_all_its_codes(exported):
    report, student, _ = exported
    counted = [p for p in report.verification.points if p.statistics]
    for point in counted:
        assert sum(point.statistics.counts) == point.num_codes
    points = [
        layer
        for layer in student.layers
        if type(layer).__name__ == "QuantizationPoint"
        and not isinstance(layer.input.node.layer, layers.InputLayer)
    ]
    assert len(counted) == len(points)


@pytest.mark.parametrize("target", ["phone", "symmetric"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_statistics_of_signed_points_are_of_the_real_values(
    bits, target, rng, tmp_path
):
    inputs = layers.Input((6,), name="x")
    signed = layers.Dense(16, name="signed")(inputs)
    x = layers.Dense(8, activation="relu", name="relu")(signed)
    model = tiny.randomize(keras.Model(inputs, layers.Dense(3)(x)), rng)
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, target=target
    )
    x = rng.normal(size=(64, 6)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    point = student.get_layer("quantize_signed")
    point.step_variables["unit"].assign(point.step_variables["unit"] * 0.5)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", data=x, verbose=False
    )
    # What Keras sees in front of the points.
    for name in ("signed", "relu"):
        point = student.get_layer(f"quantize_{name}")
        values = keras.Model(student.inputs, point.input).predict(x, verbose=0)
        expected = code_statistics.activation_statistics(
            point, np.zeros(values.shape, np.int64), values
        )
        found = {
            p.statistics.step: p.statistics
            for p in report.verification.points
            if p.statistics is not None
        }[expected.step]
        assert found.q_min == expected.q_min
        assert found.clipped == pytest.approx(expected.clipped, abs=0.01)
        assert found.mse_step == pytest.approx(expected.mse_step, rel=0.05)
        assert sum(found.counts) == values.size


def test_a_point_of_the_input_is_not_counted_behind_a_pad(rng, tmp_path):
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(inputs)
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(x))
    student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(3)(x)))
    x = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", data=x, verbose=False
    )
    found = {p.name: p.statistics for p in report.verification.points}
    assert found["pad"] is None and found["conv"] is not None


# --- Other storages ------------------------------------------------------------------


def test_other_storages_are_compared(exported, tmp_path):
    report, student, x = exported
    assert [other.storage for other in report.storages] == ["int8", "auto"]
    for other in report.storages:
        path = tmp_path / f"{other.storage}.tflite"
        again = tflite_export.export_model(student, path, storage=other.storage)
        assert again.file_bytes == other.file_bytes
        own, theirs = (
            verify.probe_codes(
                integerize(frozen), frozen, [x[: verify.BATCH_SIZE]], "xnnpack"
            )
            for frozen in (
                freeze.freeze_model(student, containers.Storage(name))
                for name in ("packed", other.storage)
            )
        )
        common = own.keys() & theirs.keys()
        assert own.keys() - common == {n for n in own if n.endswith("_x15")}
        common -= {"image"}  # No operator makes it.
        different = sum(int((own[name] != theirs[name]).sum()) for name in common)
        assert other.different_codes == different > 0
        assert other.num_codes == sum(own[name].size for name in common)


def test_storages_of_the_same_bytes_do_not_differ(rng, tmp_path):
    student, x = student_of(tiny.residual, rng, bits=8)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", storage="packed", data=x, verbose=False
    )
    assert [other.different_codes for other in report.storages] == [0, 0]
    assert [other.top1_agreement for other in report.storages] == [1, 1]


# --- Latency -------------------------------------------------------------------------


@pytest.mark.parametrize("build", [tiny.residual, tiny.pre_activation])
def test_the_float_graph_is_the_same_network(build, rng):
    student, x = student_of(build, rng, bits=8)
    frozen = freeze.freeze_model(student)
    graph = float_graph.float_graph(integerize(frozen), frozen)
    assert {op.code for op in graph.ops}.isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    assert not [t.name for t in graph.tensors.values() if t.dtype == "int8"]
    [found] = verify.Runner(graph).run({"image": x}).values()
    expected = student.predict(x, verbose=0)
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_a_low_bit_network_in_float_has_no_requantizing_operators(rng):
    student, _ = student_of(tiny.pre_activation, rng, bits=2)
    frozen = freeze.freeze_model(student)
    integers = integerize(frozen)
    floats = float_graph.float_graph(integers, frozen)
    extra = [n for n in frozen.nodes if n.kind in ("quantize", "clip_high", "clip_low")]
    assert len(integers.ops) - len(floats.ops) == len(extra)


def test_operators_of_a_file_run_by_themselves(rng):
    student, x = student_of(tiny.residual, rng)
    frozen = freeze.freeze_model(student, containers.Storage("packed"))
    graph = integerize(frozen)
    codes = verify.probe_codes(graph, frozen, [x], "builtin")
    op = next(op for op in graph.ops if "re_lu_1/weight" in op.inputs)
    widening = graph.producers()[op.inputs[0]]
    assert op.inputs[0].endswith("_x15")
    for ops in ([op], [widening, op]):
        alone = verify.Runner(float_graph.operators_alone(graph, ops), "builtin")
        [found] = alone.run({"input_0": codes[ops[0].inputs[0]]}).values()
        np.testing.assert_array_equal(found, codes["re_lu_1"])
    found = latency._kernel_operators(graph, frozen)
    assert found["re_lu_1"] == [widening, op]


def test_latencies_are_measured_for_the_file_and_every_kernel(exported):
    report, _, _ = exported
    found = [report.latency, *(layer.latency for layer in report.layers)]
    for one in found:
        assert min(one.own, one.int8, one.float32) > 0
    packed = {layer.name for layer in report.layers if layer.container != "int8"}
    assert packed
    for layer in report.layers:
        if layer.name not in packed:
            assert layer.latency.own == layer.latency.int8
    assert "XNNPACK" in report.latency_setting
    assert str(report.latency) in str(report)


def test_medians_are_of_the_calls_that_were_made():
    calls = []
    times = latency._side_by_side([lambda: calls.append(0), lambda: calls.append(1)])
    assert len(times) == 2
    assert calls == [0, 1] * (latency.ROUNDS + 3)
    assert str(Latency(3.0, 1.0, 2.0)) == "3.000 ms (3.00 x int8, 1.50 x float32)"


# --- The page ------------------------------------------------------------------------


class _Page(HTMLParser):
    """Checks that elements are closed, and gathers what a page refers to."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.references, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.references += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(report, path):
    tflite_export.write_html_report(report, path)
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page, " ".join(page.text)


def test_the_page_is_whole_and_needs_nothing_else(exported, tmp_path):
    report, _, _ = exported
    page, text = page_of(report, tmp_path / "report.html")
    assert page.references == []
    assert "script" not in page.seen
    counted = [p for p in report.verification.points if p.statistics]
    trained = [layer for layer in report.layers if layer.statistics]
    plots = 4
    assert page.seen.count("svg") == len(counted) + len(trained) + plots
    for layer in report.layers:
        assert layer.name in text
    for expected in (f"{report.file_bytes:,}", "int4", "Latency", "import TensorFlow"):
        assert expected in text


def test_the_page_of_a_report_without_data_says_what_is_missing(rng, tmp_path):
    student, _ = student_of(tiny.residual, rng)
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    page, text = page_of(report, tmp_path / "report.html")
    assert "Exported without data" in text and "Latency was not measured" in text
    assert page.seen.count("svg") == 1


def test_names_cannot_break_the_page(exported, tmp_path):
    report, _, _ = exported
    name = "<script>alert(1)</script>"
    renamed = dataclasses.replace(report.layers[0], name=name, remark="<b>")
    changed = dataclasses.replace(report, layers=[renamed, *report.layers[1:]])
    page, text = page_of(changed, tmp_path / "report.html")
    assert "script" not in page.seen and "b" not in page.seen[-40:]
    assert name in text


def test_the_page_is_written_where_it_can_be(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="directory of `path` must exist"):
        tflite_export.write_html_report(exported[0], tmp_path / "none" / "report.html")


def test_the_report_is_plain_data(exported):
    found = json.loads(json.dumps(exported[0].to_dict()))
    assert found["layers"][2]["statistics"]["num_bits"] == 4
    assert found["storages"][0]["storage"] == "int8"
    assert set(found["snippets"]) == {"python", "kotlin", "swift"}


def test_what_is_out_of_the_ordinary_is_noted(exported, tmp_path):
    report, _, _ = exported
    layer = dataclasses.replace(
        report.layers[0], remark="why", constant_channels=2, bias_error=0.15
    )
    notes = "why; 2 constant channels; its bias moves outputs by up to 0.15 codes"
    assert layer.notes == notes
    assert dataclasses.replace(report.layers[0], bias_error=0.01).notes == ""
    changed = dataclasses.replace(report, layers=[layer])
    _, text = page_of(changed, tmp_path / "report.html")
    assert notes in text and notes in str(changed)


# --- Snippets ------------------------------------------------------------------------


def odd_names():
    """Two inputs and outputs with names that are no identifiers."""
    inputs = [layers.Input((4,), name=name) for name in ("class", "x$1")]
    x = layers.Dense(6, activation="relu")(layers.Concatenate()(inputs))
    outputs = [layers.Dense(3, name="1st")(x), layers.Dense(2, name="found")(x)]
    return keras.Model(inputs, outputs, name="odd")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_the_python_snippet_computes_what_the_file_does(
    dtype, rng, tmp_path, monkeypatch
):
    student = tf_lsq.quantize_model(odd_names())
    data = [rng.normal(size=(32, 4)).astype(np.float32) for _ in range(2)]
    tf_lsq.calibrate(student, data)
    tf_lsq.round_biases(student)
    path = tmp_path / "odd.tflite"
    report = tflite_export.export_model(
        student, path, input_type=dtype, output_type=dtype
    )
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(report.snippets["python"], scope)
    found = scope["predict"](*data)
    expected = tflite_export.integer_twin(student).predict(data, verbose=0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


GRAMMARS = {"kotlin": tree_sitter_kotlin, "swift": tree_sitter_swift}


@pytest.mark.parametrize("language", GRAMMARS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_snippets_for_phones_are_well_formed(language, dtype, rng):
    student = tf_lsq.quantize_model(odd_names())
    tf_lsq.calibrate(student, [rng.normal(size=(32, 4)) for _ in range(2)])
    frozen = freeze.freeze_model(student)
    graph = integerize(frozen, input_type=dtype, output_type=dtype)
    code = snippets_of(graph, 'a "file".tflite')[language]
    parser = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language].language()))
    assert not parser.parse(code.encode()).root_node.has_error, code
    assert parser.parse(f"{code} }}{{".encode()).root_node.has_error
    for tensor in (*graph.inputs.values(), *graph.outputs.values()):
        grid = graph.tensors[tensor].quantization
        if grid is not None:
            assert str(grid.scale[0]) in code


def test_a_snippet_of_one_input_and_output_is_short(exported):
    for language, code in exported[0].snippets.items():
        lines = [line for line in code.splitlines() if line.strip()]
        imports = [line for line in lines if re.match("import|from", line)]
        assert len(lines) - len(imports) <= 16, language
