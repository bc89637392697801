"""Latencies of files, and of the float network they are compared with."""

from __future__ import annotations

import numpy as np
import pytest
from harness import tiny

from tflite_export import verification
from tflite_export.reports import Latency, float_graph, latency
from tflite_export.runtimes import Runner


@pytest.mark.parametrize("build", [tiny.residual, tiny.pre_activation])
def test_the_float_graph_is_the_same_network(build, rng):
    student, x = tiny.calibrated(build, rng, bits=8)
    built = tiny.built(student)
    graph = float_graph.float_graph(built.graph, built.frozen)
    assert {op.code for op in graph.ops}.isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    assert not [t.name for t in graph.tensors.values() if t.dtype == "int8"]
    [found] = Runner(graph).run({"image": x}).values()
    expected = student.predict(x, verbose=0)
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_a_low_bit_network_in_float_has_no_requantizing_operators(rng):
    student, _ = tiny.calibrated(tiny.pre_activation, rng, bits=2)
    built = tiny.built(student)
    frozen, integers = built.frozen, built.graph
    floats = float_graph.float_graph(integers, frozen)
    extra = [n for n in frozen.nodes if n.kind in ("quantize", "clip_high", "clip_low")]
    assert len(integers.ops) - len(floats.ops) == len(extra)


def test_operators_of_a_file_run_in_isolation(rng):
    student, x = tiny.calibrated(tiny.residual, rng)
    built = tiny.built(student, "packed")
    frozen, graph = built.frozen, built.graph
    codes = verification.probe_codes(graph, frozen, [x], "builtin")
    op = next(op for op in graph.ops if "re_lu_1/weight" in op.inputs)
    widening = graph.producers()[op.inputs[0]]
    assert op.inputs[0].endswith("_x15")
    for ops in ([op], [widening, op]):
        alone = Runner(float_graph.operators_alone(graph, ops), "builtin")
        [found] = alone.run({"input_0": codes[ops[0].inputs[0]]}).values()
        np.testing.assert_array_equal(found, codes["re_lu_1"])
    found = latency._kernel_operators(graph, frozen)
    assert found["re_lu_1"] == [widening, op]


def test_latencies_are_measured_for_the_file_and_every_kernel(exported_report):
    report, _, _ = exported_report
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


def test_latencies_are_measured_in_alternating_calls():
    calls = []
    times = latency._side_by_side([lambda: calls.append(0), lambda: calls.append(1)])
    assert len(times) == 2
    assert calls == [0, 1] * (latency.ROUNDS + 3)
    assert str(Latency(3.0, 1.0, 2.0)) == "3.000 ms (3.00 x int8, 1.50 x float32)"


def test_an_int8_file_on_a_shared_bias_grid_is_not_taken_for_the_plain_one(rng):
    student, _ = tiny.calibrated(tiny.residual, rng)
    plain, shared = (
        tiny.built(student, "int8", grid).graph for grid in ("own", "packed")
    )
    assert latency._equal(plain, plain)
    assert not latency._equal(plain, shared)
    assert len(shared.ops) > len(plain.ops)  # It widens, as the packed file does.
