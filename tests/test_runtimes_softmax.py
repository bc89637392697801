"""Softmax in floating point is what LiteRT computes, next to ties and in graphs too."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
)
from tflite_export.runtimes import Runner, find_runtime, softmax, this_machine

OUTPUT_SCALE = np.float32(1 / 256)
ROWS = 500


def tensor(name, size, scale, zero_point):
    grid = TensorQuantization(np.array([scale], np.float32), zero_point)
    return TFLiteTensor(name, (ROWS, size), "int8", grid)


def in_graph(kind, scale):
    return tf.function(lambda x: softmax.compute(kind, x, scale, OUTPUT_SCALE))


@pytest.mark.skipif(
    this_machine().softmax != "floats", reason="this processor computes in integers"
)
@pytest.mark.parametrize("size", [2, 3, 4, 7, 10, 1000])
def test_it_is_what_litert_computes(size, rng):
    for scale in rng.uniform(0.01, 0.2, 10).astype(np.float32):
        codes = rng.integers(-128, 128, (ROWS, size))
        tensors = {
            "x": tensor("x", size, scale, 0),
            "y": tensor("y", size, OUTPUT_SCALE, -128),
        }
        op = TFLiteOp("SOFTMAX", ["x"], ["y"], {"beta": 1.0})
        graph = TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"})
        found = Runner(graph, "builtin").run({"x": codes.astype(np.int8)})["y"]
        twin = in_graph("floats", scale)(tf.constant(codes))
        expected = np.minimum(twin.numpy(), 255) - 128
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["x86-64", "arm64"])
def test_graphs_compute_what_tensorflow_computes_at_once(name, rng):
    kind = find_runtime(name).softmax
    codes = tf.constant(rng.integers(-128, 128, (20_000, 4)))
    for scale in rng.uniform(0.01, 0.2, 5).astype(np.float32):
        at_once = softmax.compute(kind, codes, scale, OUTPUT_SCALE)
        np.testing.assert_array_equal(in_graph(kind, scale)(codes), at_once)
