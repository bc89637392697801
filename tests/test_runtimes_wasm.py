"""What LiteRT.js computes in a browser, and where it rounds unlike other runtimes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from harness import cases, tiny
from test_runtimes_reductions import graph_of
from web.__main__ import count, must_not_differ, run
from web.browser import BUILDS, LiteRt
from web.measure import codes_of
from web.packages import PACKAGES

import tf_lsq
from tf_lsq._compat import keras
from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    to_bytes,
    with_uint8_ends,
)
from tflite_export.runtimes import arithmetic, find_runtime
from tflite_export.twin import twin_codes
from tflite_export.verification.values import file_inputs, input_codes

layers = keras.layers
WASM = find_runtime("wasm")


@pytest.fixture(scope="module")
def builds(running):
    """LiteRT.js in both builds."""
    return [LiteRt(running, PACKAGES, build) for build in BUILDS]


def as_uint8(codes):
    return (codes.astype(np.int16) + 128).astype(np.uint8)


def found_codes(litert, graph, inputs):
    """int8 codes of the outputs of a file with int8 ends."""
    changed = with_uint8_ends(graph)
    moved = {name: as_uint8(codes) for name, codes in inputs.items()}
    found = litert.run(to_bytes(changed), moved)
    return {end: codes_of(changed, end, values) for end, values in found.items()}


def test_int8_ends_are_refused(builds, rng):
    student, _ = tiny.calibrated(tiny.residual, rng)
    content = tiny.built(student).content
    with pytest.raises(RuntimeError, match="INT8 is not supported"):
        builds[0].run(content, {"image": np.zeros((1, 8, 8, 3), np.uint8)})


@pytest.mark.parametrize("bits", [4, 2])
def test_packed_convolutions_round_once_even_at_one_position(builds, bits, rng):
    inputs = layers.Input((6, 6, 3))
    x = tiny.conv_bn_relu(inputs, 16)
    x = layers.Conv2D(64, 6, activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    student = tf_lsq.quantize_model(
        tiny.randomize(model, rng), weight_bits=bits, activation_bits=8
    )
    x = rng.normal(0, 1, (100, 6, 6, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    built = tiny.built(student, "packed")
    names = [node.name for node in built.frozen.nodes if node.grid is not None]
    probe = built.graph.with_outputs(names)
    given = file_inputs(built.graph, built.frozen, [x])
    twins = [
        twin_codes(built.frozen, input_codes(built.frozen, [x]), runtime)
        for runtime in (WASM, dataclasses.replace(WASM, vectors_round_twice=True))
    ]
    for litert in builds:
        found = found_codes(litert, probe, given)
        once, twice = (
            sum((found[end] != twin[name]).sum() for end, name in probe.outputs.items())
            for twin in twins
        )
        assert once == 0 and twice > 0


def test_means_round_the_product_before_the_sum(builds, rng):
    count, told_apart = 12, 0
    codes = rng.integers(-128, 128, (64, 3, 4, 8)).astype(np.int8)
    acc = tf.reduce_sum(tf.cast(codes, tf.int64), axis=(1, 2), keepdims=True)
    for zeros in [(-17, 9), (5, -3), (-128, -128)] * 20:
        middle = int(np.median(np.abs(acc - count * zeros[0])))
        scale = np.float32(rng.uniform(0.01, 0.1))
        # The median is next to a tie.
        output = np.float32(scale * middle / (rng.integers(5, 60) + 0.5) / count)
        split, fused = (
            arithmetic.float_mean(acc, count, scale / output, zeros, fused=fused)
            for fused in (False, True)
        )
        if np.array_equal(split, fused):
            continue
        told_apart += 1
        grids = [(scale, zeros[0]), (output, zeros[1])]
        graph = graph_of("MEAN", codes.shape[1:], (1, 2), grids)
        for litert in builds:
            found = found_codes(litert, graph, {"x": codes})["y"]
            np.testing.assert_array_equal(found, np.clip(split, -128, 127))
    assert told_apart > 0


def test_elu_is_at_most_one_code_off_next_to_ties(builds, rng):
    """Its table comes from a C library, whose last bit is not modelled."""
    x = np.arange(-128, 128, dtype=np.float32)
    differ = []
    for scale in rng.uniform(0.003, 0.06, 20).astype(np.float32):
        values = np.where(x < 0, np.expm1((x * scale).astype(np.float64)), x * scale)
        # A value is half between two codes.
        output = np.float32(abs(values[rng.integers(0, 128)]) / 30.5)
        expected = np.clip(np.rint(values.astype(np.float32) / output), -128, 127)
        grids = [TensorQuantization(np.array([s]), 0) for s in (scale, output)]
        tensors = {
            name: TFLiteTensor(name, (1, 256), "int8", grid)
            for name, grid in zip("xy", grids, strict=True)
        }
        op = TFLiteOp("ELU", ["x"], ["y"])
        graph = TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"})
        codes = np.arange(-128, 128).astype(np.int8)[np.newaxis]
        for litert in builds:
            found = found_codes(litert, graph, {"x": codes})["y"]
            differ.append(np.abs(found - expected))
    assert np.max(differ) <= 1 and np.mean(differ) < 0.01


def test_a_browser_computes_the_codes_of_the_twin(running, tmp_path):
    wanted = ("layer_separable_4", "layer_softmax_2", "function_multiply_8")
    chosen = [case for case in cases.conformance_cases() if case.name in wanted]
    assert len(chosen) == len(wanted)
    for case in chosen:
        cases.write_case(case, tmp_path, WASM, 2, ["int8", "float32"])
    run(tmp_path, PACKAGES, running)
    counts = count(tmp_path)
    assert sum(row["codes"] for row in counts.values()) > 1000
    assert must_not_differ(counts) == 0
    # The twin of another runtime is told apart.
    other = tmp_path / "other"
    other.mkdir()
    for case in chosen:
        cases.write_case(case, other, find_runtime("x86-64"), 2, ["int8"])
    run(other, PACKAGES, running)
    assert must_not_differ(count(other)) > 0
