"""What consumers do with files: the rules agree with everything that was measured."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from consumers import page, programs
from consumers.cases import SPECS, graph_of
from consumers.measure import Outcome

import tflite_export
from tflite_export.consumers import CONSUMERS, facts_of, judge, judge_all
from tflite_export.consumers.runtimes import ALL_TYPES
from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    from_bytes,
    to_bytes,
)

PAGE = Path(__file__).resolve().parents[1] / "docs/consumers.md"
RESULTS = page.read_results(PAGE.with_suffix("") / "results.jsonl")


@functools.cache
def file_of(name):
    """What rules look at, read from the bytes of a file."""
    return facts_of(from_bytes(to_bytes(graph_of(name))))


def agree(verdict, outcome):
    """Whether a verdict says what a program does with a file."""
    if verdict == "not known":
        return True
    verdicts = {"refused": ["refused"], "wrong": ["wrong"]}
    return verdict in verdicts.get(outcome.kind, ["runs", "runs slowly"])


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=lambda one: one.name)
def test_rules_agree_with_what_was_measured(program):
    consumer, outcomes = program.rules(), RESULTS.outcomes[program.name]
    assert outcomes.keys() == SPECS.keys()
    differ = {
        name: (report.verdict, outcome)
        for name, outcome in outcomes.items()
        if not agree((report := judge(file_of(name), consumer)).verdict, outcome)
    }
    assert not differ


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=lambda one: one.name)
def test_all_verdicts_but_a_few_are_compared(program):
    """What is not known agrees with every measurement."""
    consumer = program.rules()
    unknown = {
        name for name in SPECS if judge(file_of(name), consumer).verdict == "not known"
    }
    unsaid = {"other_symmetric", "other_range"} if consumer.takes_images else set()
    unmeasured = {"sorted"} if consumer.name == "gpu" else set()
    assert unknown == {"newest_version"} | unsaid | unmeasured


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("runs", Outcome("no")),
        ("wrong", Outcome("no")),
        ("refused", Outcome(numbers=5)),
        ("refused", Outcome(numbers=5, differ=5, most=40)),
        ("runs", Outcome(numbers=5, differ=1, most=4)),
        ("runs slowly", Outcome(numbers=5, classes=10)),
        ("wrong", Outcome(numbers=5)),
    ],
)
def test_other_verdicts_do_not_agree(verdict, outcome):
    assert not agree(verdict, outcome)


def test_bytes_that_nothing_explains_may_be_right_or_wrong():
    """Two files with learned grids that say nothing; one was trained on its grid."""
    [program] = [p for p in programs.PROGRAMS if p.consumer == "mediapipe"]
    outcomes = RESULTS.outcomes[program.name]
    assert agree("wrong", outcomes["other_symmetric"])
    assert agree("runs", outcomes["other_range"])


def test_the_consumers_that_can_be_measured_here_were_measured():
    """The others run on phones only."""
    measured = {program.consumer for program in programs.PROGRAMS}
    assert measured == {one.name for one in CONSUMERS.values() if one.measured}
    assert CONSUMERS.keys() - measured == {"mlkit", "play_services", "ios"}
    for name in measured:
        versions = [p.release.version for p in programs.PROGRAMS if p.consumer == name]
        assert CONSUMERS[name].version == versions[-1]


def test_the_page_is_made_of_the_results():
    assert page.page(RESULTS) == PAGE.read_text()
    assert list(RESULTS.outcomes) == [program.name for program in programs.PROGRAMS]


def test_mediapipe_gives_the_labels_and_scores_of_the_twin():
    """Three ways to prepare images, in two storages."""
    assert len(RESULTS.trained) == 6
    for one in RESULTS.trained.values():
        assert (one.scores, one.differ, one.labels) == (10 * RESULTS.images, 0, 0)
        assert one.accuracy > 0.9


# --- Rules ---------------------------------------------------------------------------


def sum_in_int16():
    """A sum in int16, which was not measured with every program."""
    grid = TensorQuantization(np.float32([1e-3]), 0)
    names = ("first", "second", "sum")
    tensors = {name: TFLiteTensor(name, (1, 4), "int16", grid) for name in names}
    ends = {name: name for name in names}
    op = TFLiteOp("ADD", [*names[:2]], ["sum"], {"pot_scale_int16": False})
    return TFLiteGraph(tensors, [op], ends, {"sum": ends.pop("sum")})


def test_the_gpu_refuses_int16():
    report = judge(facts_of(sum_in_int16()), CONSUMERS["gpu"])
    assert report.verdict == "refused" and "int16 tensors" in str(report)


def test_every_rule_is_broken_by_a_file():
    """The newest releases have all operators, so an older one is judged, too."""
    older = {"LiteRT": "1.0.1", "TensorFlow Lite": "2.11.0", "": ""}
    for consumer in CONSUMERS.values():
        old = dataclasses.replace(consumer, release=older[consumer.product])
        found = {
            finding.rule
            for facts in (*map(file_of, SPECS), facts_of(sum_in_int16()))
            for one in (consumer, old)
            for finding in judge(facts, one).findings
        }
        assert found == {rule.name for rule in consumer.rules}, consumer.name


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=lambda one: one.name)
def test_rules_have_words_and_sources(consumer):
    assert consumer.title and consumer.source
    names = [rule.name for rule in consumer.rules]
    assert len(names) == len(set(names))
    for rule in consumer.rules:
        assert rule.expected and not rule.expected.endswith(".")
        assert rule.remedy or rule.effect in ("note", "unknown"), rule.name


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("dtype", ALL_TYPES)
def test_the_rules_on_types_are_those_that_an_export_chooses_from(consumer, dtype):
    graph = dataclasses.replace(graph_of("uint8_uint8"), ops=[])
    for tensor in (*graph.inputs.values(), *graph.outputs.values()):
        graph.tensors[tensor].dtype = dtype
        graph.tensors[tensor].quantization = None
    report = judge(facts_of(graph), consumer)
    broken = {finding.rule: finding.expected for finding in report.findings}
    for what, types in (
        ("input", consumer.input_types),
        ("output", consumer.output_types),
    ):
        found = broken.get(f"{what}_types", "")
        assert bool(found) == (dtype not in types)
        assert not found or all(name in found for name in types)


def test_findings_have_the_source_of_the_rule_or_else_of_the_consumer():
    report = judge(file_of("two_images"), CONSUMERS["mediapipe"])
    assert report.findings[0].source.endswith("image_tensor_specs.cc")
    report = judge(file_of("five_axes"), CONSUMERS["gpu"])
    assert report.findings[0].source == CONSUMERS["gpu"].source


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_file_with_pixels_and_labels_runs_everywhere(name):
    report = judge(file_of("pixels"), CONSUMERS[name])
    rules = [finding.rule for finding in report.findings]
    assert (report.verdict, rules) == ("runs", ["rounding"] if name == "gpu" else [])


@pytest.mark.parametrize("name", CONSUMERS)
def test_verdicts_say_what_they_rest_on(name):
    line = str(judge(file_of("pixels"), CONSUMERS[name]))
    documented = name in ("mlkit", "play_services", "ios")
    assert line.startswith(f"{name:<15} runs")
    assert line.endswith("runs by its documentation") == documented


@pytest.mark.parametrize(
    ("file", "consumer", "verdict", "reason"),
    [
        ("int8_int8", "mediapipe", "refused", "input `image` is int8"),
        ("int8_int8", "web", "refused", "output `scores` is int8"),
        (
            "learned_step",
            "mlkit",
            "wrong",
            "scale 0.019685 and the zero point 128, which were learned",
        ),
        ("normalized_otherwise", "mediapipe", "wrong", "another normalization in its"),
        ("normalized_as_codes", "mediapipe", "runs", "(no labels: `scores`)"),
        ("other_symmetric", "mlkit", "not known", "(byte - 128) / 50.8; not known"),
        ("other_range", "mediapipe", "not known", "/ 56.1; not known from the file"),
        ("uint8_float32", "mediapipe", "runs", "byte / 255, a usual form; the file"),
        ("bytes_as_values", "mlkit", "runs", "takes bytes as byte, a usual form"),
        ("int4_convolution", "web", "runs slowly", "1 CONV_2D int4"),
        ("int4_convolution", "gpu", "refused", "1 CONV_2D int4"),
        (
            "int4_dense",
            "gpu",
            "runs",
            "(codes may differ by one from the CPU's)",
        ),
        ("transposed_relu", "gpu", "refused", "1 TRANSPOSE_CONV v4"),
        ("five_axes", "gpu", "refused", "2 RESHAPE of 5 axes"),
        ("padded_vector", "gpu", "refused", "1 PAD of 2 axes"),
        ("symmetric_padding", "gpu", "refused", "1 MIRROR_PAD SYMMETRIC"),
        ("reversed_slice", "gpu", "refused", "STRIDED_SLICE with a negative stride"),
        ("dropped_axis", "gpu", "refused", "1 STRIDED_SLICE that drops an axis"),
        ("all_uint8", "gpu", "refused", "layers in uint8: fully_connected_5"),
        ("all_uint8", "tensorflow", "runs", ""),
        ("sorted", "gpu", "not known", "not measured: 1 TOPK_V2 float32/int32"),
        ("sorted", "compiled_model", "refused", "output `scores` of TOPK_V2"),
        ("sorted", "web", "wrong", "output `scores` of TOPK_V2"),
        ("in_int16", "tensorflow", "refused", "QUANTIZE from int8 to int16"),
        ("dense_of_an_image", "gpu", "wrong", "that flatten: fully_connected_4"),
        ("joined_axes", "gpu", "wrong", "that join axes: fully_connected_2"),
        ("joined_pixels", "gpu", "refused", "axes: fully_connected_1 to 64 rows"),
        ("uint8_int64", "tfjs_tflite", "wrong", "output `scores` is int64"),
        ("int4_dense", "tflite_runtime", "refused", "needs TensorFlow Lite 2.19.0"),
        ("int8_int8", "ios", "refused", "`image` is int8; output `scores` is int8"),
        ("int4_convolution", "ios", "runs slowly", "1 CONV_2D int4"),
        ("int4_dense", "ios", "refused", "needs TensorFlow Lite 2.19.0"),
        ("int2_dense", "ios", "refused", "needs TensorFlow Lite 2.21.0"),
        ("dense_zero_point", "ios", "not known", "a zero point in its kernel"),
        ("int4_dense", "play_services", "not known", "may not run 1 FULLY_CONNECTED"),
        (
            "strided_pointwise",
            "gpu",
            "wrong",
            "1x1 convolutions with strides: conv_2d_3",
        ),
        ("strided_pointwise", "compiled_model", "runs", ""),
        ("groups", "gpu", "wrong", "convolutions with groups: conv_2d_3"),
        ("depthwise_1x1", "gpu", "wrong", "1x1 convolutions: depthwise_conv_2d_2"),
        ("newest_version", "litert", "not known", "no release is known to run"),
        ("batch_of_2", "tflite_support", "refused", "the shape [2, 8, 8, 3]"),
        ("few_labels", "mediapipe", "refused", "3 labels"),
        ("normalization_of_two", "mediapipe", "refused", "2 numbers as mean and 2 as"),
    ],
)
def test_verdicts(file, consumer, verdict, reason):
    report = judge(file_of(file), CONSUMERS[consumer])
    assert report.verdict == verdict
    assert reason in str(report)
    assert str(report).startswith(f"{consumer:<15} {verdict}")


def test_all_offenders_are_named():
    report = judge(file_of("mixed_outputs"), CONSUMERS["tflite_support"])
    assert report.reasons == ["1 of 2 outputs are integers"]
    report = judge(file_of("two_images"), CONSUMERS["mediapipe"])
    assert report.reasons == ["it has 2 inputs"]
    graph = graph_of("int8_int8")
    for tensor in graph.inputs.values():
        graph.tensors[tensor].shape = (1, 8, 8, 1)
    report = judge(facts_of(graph), CONSUMERS["mediapipe"])
    assert {
        finding.rule for finding in report.findings if finding.effect != "note"
    } == {
        "input_types",
        "output_types",
        "color_image",
    }


def test_what_is_slow_is_no_reason_to_refuse():
    graph = graph_of("int4_convolution")
    graph.outputs = {"scores": "softmax"}  # In int8.
    report = judge(facts_of(graph), CONSUMERS["web"])
    assert [finding.effect for finding in report.findings] == ["refuses", "is slow"]
    assert report.reasons == ["output `scores` is int8"]


def test_the_worst_finding_decides():
    graph = graph_of("learned_step")
    graph.outputs = {"scores": "softmax"}  # In int8.
    report = judge(facts_of(graph), CONSUMERS["mediapipe"])
    assert report.verdict == "refused"
    assert [finding.effect for finding in report.findings][:2] == [
        "refuses",
        "is wrong",
    ]


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_versions_of_other_converters_are_known(version):
    graph = graph_of("transposed_relu")
    [op] = [op for op in graph.ops if op.code == "TRANSPOSE_CONV"]
    op.version = version
    report = judge(facts_of(graph), CONSUMERS["tflite_support"])
    assert report.verdict == "runs"
    older = dataclasses.replace(CONSUMERS["tflite_support"], release="2.2.1")
    found = [finding.rule for finding in judge(facts_of(graph), older).findings]
    assert ("operators" in found) == (version > 2)


@pytest.mark.parametrize("name", CONSUMERS)
def test_it_is_not_known_who_runs_custom_operators(name):
    """Converters leave them out of the oldest release that they write."""
    graph = graph_of("pixels")
    graph.min_runtime = "1.6.0"
    graph.ops[-2] = dataclasses.replace(
        graph.ops[-2], code="CUSTOM", custom="FlexSoftmax", version=1, options={}
    )
    report = judge(facts_of(from_bytes(to_bytes(graph))), CONSUMERS[name])
    assert report.verdict == "not known"
    assert "no release is known to run CUSTOM FlexSoftmax v1" in str(report)


@pytest.mark.parametrize("scale", [1 / 255, 1.0019 / 255, 0.9981 / 255])
def test_a_step_near_one_over_255_is_that_of_bytes(scale):
    assert judge(_with_scale(scale), CONSUMERS["mediapipe"]).verdict == "runs"


@pytest.mark.parametrize("scale", [1.0021 / 255, 0.9979 / 255, 0.5 / 255])
def test_a_step_at_which_a_byte_has_another_code_is_wrong(scale):
    """Half a code in 255 is 0.2 %."""
    assert judge(_with_scale(scale), CONSUMERS["mediapipe"]).verdict == "wrong"


def _with_scale(scale):
    """A file that says its input's step was learned."""
    graph = graph_of("learned_step")
    grid = dataclasses.replace(graph.tensors["image"].quantization, zero_point=0)
    grid.scale[:] = scale
    graph.tensors["image"].quantization = grid
    return facts_of(graph)


def test_a_refusal_that_was_seen_decides():
    reason = "LiteRT must run the file on the CPU. Received: no memory"
    file = file_of("pixels")
    reports = judge_all(file, {"compiled_model": reason})
    found = {report.consumer: report.verdict for report in reports}
    assert {name for name in found if found[name] != "runs"} == {"compiled_model"}
    assert f"refused because {reason}" in "\n".join(map(str, reports))
    known = file_of("sorted")
    assert judge_all(known, {"compiled_model": reason}) == judge_all(known)


def test_ends_of_any_shape_are_judged():
    graph = graph_of("uint8_uint8")
    for tensor in graph.tensors.values():
        if tensor.data is None:
            tensor.shape = ()
    reports = {one.consumer: one for one in judge_all(facts_of(graph))}
    assert reports["mediapipe"].verdict == reports["mlkit"].verdict == "refused"


def test_descriptions_that_are_none_say_nothing():
    graph = graph_of("learned_step")
    described = {"format": 1, "tensors": {"image": None}}
    graph.metadata["tf_lsq"] = json.dumps(described).encode()
    report = judge(facts_of(graph), CONSUMERS["mediapipe"])
    assert report.verdict == "not known"


# --- Files ---------------------------------------------------------------------------


def test_inspect_has_a_table_of_consumers(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(to_bytes(graph_of("int4_convolution")))
    report = tflite_export.inspect_tflite(path)
    assert [one.consumer for one in report.consumers] == list(CONSUMERS)
    lines = str(report).splitlines()
    shown = lines[lines.index("consumers:") + 1 :]
    assert " ".join(" ".join(shown).split()) == " ".join(
        " ".join(str(one).split()) for one in report.consumers
    )
    assert max(map(len, shown)) <= 80
    names = [line.split()[0] for line in shown if line[2] != " "]
    assert names == list(CONSUMERS)
    [gpu] = [one for one in report.to_dict()["consumers"] if one["consumer"] == "gpu"]
    finding, _ = gpu["findings"]
    assert gpu["verdict"] == "refused"
    assert finding["remedy"] == 'Export with storage="int8".'
    assert finding.keys() >= {"expected", "found", "source", "effect", "rule"}


@pytest.mark.parametrize("path", sorted(PAGE.parents[1].glob("tests/*/*.tflite")))
def test_files_of_any_tool_are_judged(path):
    graph = from_bytes(path.read_bytes())
    assert [one.consumer for one in judge_all(facts_of(graph))] == list(CONSUMERS)
