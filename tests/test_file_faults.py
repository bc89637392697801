"""Releases that compute wrong codes: the data, and what reports say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from consumers.cases import graph_of
from harness import tiny
from years import hand_built, page

import tf_lsq
from tf_lsq._compat import keras
from tflite_export.file import FAULTS, flatbuffer, least_releases, runtime_of
from tflite_export.file.faults import claimed_release

RESULTS = Path(__file__).resolve().parents[1] / "docs/runtimes/results.jsonl"
MEASURED = page.read_results(RESULTS)[1]


def calibrated(model, rng):
    """A quantized model whose steps have values."""
    student = tf_lsq.quantize_model(tiny.randomize(model, rng))
    x = rng.normal(0, 1, (8, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student


def wrong(count):
    """Whether codes are off by more than a rounding."""
    return count.most > 1


@pytest.mark.parametrize("release", MEASURED)
def test_faults_are_those_that_were_measured(release):
    product, _, number = release.rpartition(" ")
    found = {
        operators
        for (_, operators), count in MEASURED[release].counts.items()
        if wrong(count) and operators != "whole file"  # Roundings add up there.
    }
    counts = MEASURED[release].counts.items()
    known = {operators for (_, operators), count in counts if count.codes}
    named = {
        fault.name
        for fault in FAULTS
        if any(span.has(product, number) for span in fault.spans)
        # Most files in int16 start with a QUANTIZE that older releases refuse.
        if not fault.refused and fault.name in known
    }
    assert found == named


@pytest.mark.parametrize("release", MEASURED)
def test_every_file_runs_that_reports_promise(release):
    assert MEASURED[release].promised == []


@pytest.mark.parametrize("release", MEASURED)
def test_no_file_ends_the_process(release):
    assert MEASURED[release].crashes == []


def test_the_newest_release_computes_what_the_twin_does():
    newest = list(MEASURED.values())[-1]
    assert newest.default == "xnnpack"
    assert all(count.differ == count.refused == 0 for count in newest.counts.values())


def test_faults_are_known_by_release_and_end():
    for fault in FAULTS:
        for span in fault.spans:
            assert span.has(span.product, span.first)
            assert span.has(span.product, span.last)
            assert not (span.fixed and span.has(span.product, span.fixed))


@pytest.mark.parametrize("make", [hand_built.batch_matmul, hand_built.fully_connected])
def test_a_use_without_the_fault_is_not_named(make, rng):
    assert "wrong" not in runtime_of(make(0, rng))


def claim(graph):
    """The release that a file's metadata claim to need."""
    model, _ = flatbuffer.object_tree(flatbuffer.to_bytes(graph))
    [entry] = [m for m in model.metadata if m.name == b"min_runtime_version"]
    return bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()


@pytest.mark.parametrize(
    ("zero_point", "release"),
    [(0, "1.14.0"), (5, "")],  # No TensorFlow Lite applies the zero point.
)
def test_a_file_claims_no_release_that_computes_it_wrongly(zero_point, release, rng):
    graph = hand_built.fully_connected(zero_point, rng)
    assert claim(graph) == claimed_release(graph) == release
    assert claim(flatbuffer.from_bytes(flatbuffer.to_bytes(graph))) == release


def test_a_claim_is_the_oldest_release_that_computes_the_file_right(rng):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, tf.reduce_sum(inputs, [1, 2]))
    graph = tiny.built(calibrated(model, rng)).graph
    assert claim(graph) == "2.13.1"
    found = flatbuffer.from_bytes(flatbuffer.to_bytes(graph))
    assert claim(found) == "2.13.1" and runtime_of(found) == runtime_of(graph)


def test_a_file_names_the_releases_that_compute_it_wrongly(rng):
    graph = hand_built.batch_matmul(5, rng)
    assert runtime_of(graph) == (
        "TensorFlow Lite 2.3.0, LiteRT 1.0 or newer; wrong in TensorFlow Lite 2.21.0 "
        "(BATCH_MATMUL with a zero point in its second factor), LiteRT 2.0.2 to 2.1.2 "
        "(BATCH_MATMUL with a zero point in its second factor)"
    )


def test_the_least_runtime_is_one_that_computes_right(rng):
    graph = hand_built.fully_connected(5, rng)
    assert least_releases(graph) == {"LiteRT": "2.1.5"}
    assert runtime_of(graph) == (
        "LiteRT 2.1.5 or newer; wrong in TensorFlow Lite 2.21.0 and older "
        "(FULLY_CONNECTED with a zero point in its kernel)"
    )
    graph = hand_built.fully_connected(0, rng)
    assert runtime_of(graph) == "TensorFlow Lite 1.14.0, LiteRT 1.0 or newer"


def test_a_trained_sum_needs_a_release_that_computes_it_right(rng):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, tf.reduce_sum(inputs, [1, 2]))
    text = runtime_of(tiny.built(calibrated(model, rng)).graph)
    assert text == "TensorFlow Lite 2.13.1, LiteRT 1.0 or newer"


@pytest.mark.parametrize(
    ("name", "tensorflow", "litert"),
    [
        ("narrow_attention", "2.3.0", "1.0"),
        ("wide_attention", "", "2.1.4"),
        ("norm_in_int8", "2.13.0", "1.0"),
        ("norm_in_int16", "", "2.1.3"),
        ("dense_in_int16", "", "2.1.3"),
        ("table", "2.8.0", "1.0"),
        ("gelu", "2.9.0", "1.0"),
        ("exp", "2.13.0", "1.0"),  # 2.12.1 refuses it.
        ("log", "2.15.0", "1.0"),
        ("groups", "2.9.0", "1.0"),
    ],
)
def test_the_least_releases_of_newer_forms(name, tensorflow, litert):
    expected = {"TensorFlow Lite": tensorflow, "LiteRT": litert}
    expected = {product: least for product, least in expected.items() if least}
    assert least_releases(graph_of(name)) == expected


def test_unknown_releases_are_not_named(rng):
    graph = hand_built.batch_matmul(5, rng)
    graph.ops[-1].code = "POW"  # This library has no row for it.
    assert runtime_of(graph) == ""
    graph = hand_built.fully_connected(0, rng)
    graph.ops[-1].version = 99
    assert runtime_of(graph) == ""


def test_no_release_is_known_to_run_custom_operators(rng):
    """Converters leave them out of the oldest release that they write."""
    graph = hand_built.fully_connected(0, rng)
    graph.min_runtime = "1.6.0"
    [op] = graph.ops[-1:]
    op.code, op.custom, op.version, op.options = "CUSTOM", "FlexErf", 1, {}
    assert runtime_of(graph) == ""


def test_a_trained_model_has_no_fault(rng):
    text = runtime_of(tiny.built(calibrated(tiny.residual(), rng)).graph)
    assert text == "TensorFlow Lite 1.14.0, LiteRT 1.0 or newer"
