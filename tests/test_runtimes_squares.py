"""Products of a tensor with itself are what LiteRT computes, also next to ties."""

from __future__ import annotations

import numpy as np
import pytest

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
)
from tflite_export.runtimes import Runner, arithmetic

CODES = np.arange(-128, 128)


def run(scale, zero_point, output_scale, output_zero_point, activation):
    """What XNNPACK computes for every code."""

    def tensor(name, scale, zero_point):
        grid = TensorQuantization(np.array([scale], np.float32), zero_point)
        return TFLiteTensor(name, (1, 256), "int8", grid, dynamic_batch=True)

    tensors = {
        "x": tensor("x", scale, zero_point),
        "y": tensor("y", output_scale, output_zero_point),
    }
    op = TFLiteOp("MUL", ["x", "x"], ["y"], {"fused_activation_function": activation})
    graph = TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"})
    found = Runner(graph, "xnnpack").run({"x": CODES[np.newaxis].astype(np.int8)})
    return found["y"][0].astype(np.int64)


@pytest.mark.parametrize("activation", ["NONE", "RELU"])
@pytest.mark.parametrize("zero_point", [0, -37])
@pytest.mark.parametrize("output_zero_point", [0, 124, -128])
def test_squares_next_to_ties(zero_point, output_zero_point, activation, rng):
    for number in range(40):
        scale = np.float32(rng.uniform(0.01, 0.1))
        output_scale = np.float32(rng.uniform(0.01, 2))
        if number % 2:  # Ratios of few bits make ties.
            ratio = rng.integers(1, 64) / 2.0 ** rng.integers(8, 14)
            output_scale = np.float32(scale * scale / np.float32(ratio))
        grids = (scale, zero_point, output_scale, output_zero_point)
        expected = arithmetic.table_of_squares(*grids) + output_zero_point
        found = run(*grids, activation)
        np.testing.assert_array_equal(found, np.clip(expected, -128, 127))
