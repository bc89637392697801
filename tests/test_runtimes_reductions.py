"""Sums and means of codes round as LiteRT's kernels do, also next to ties."""

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
from tflite_export.runtimes import KERNELS, Runner, arithmetic

# Shapes without the batch, and axes. The kernel of images, (1, 2) with kept axes, has
# its own model.
REDUCTIONS = [
    ((12,), (1,)),
    ((6, 5), (2,)),
    ((5, 6, 7), (3,)),
    ((5, 6, 7), (1, 3)),
    ((3, 4, 5, 6), (1, 4)),
    ((3, 4, 5, 6), (2, 3)),
]


def graph_of(code, shape, axes, grids):
    """A file of one reduction with kept axes."""
    quantized = [TensorQuantization(np.array([s], np.float32), z) for s, z in grids]
    shape = (1, *shape)
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    tensors = {
        "x": TFLiteTensor("x", shape, "int8", quantized[0], dynamic_batch=True),
        "y": TFLiteTensor("y", tuple(kept), "int8", quantized[1], dynamic_batch=True),
        "axes": TFLiteTensor("axes", (len(axes),), "int32", data=np.int32(axes)),
    }
    op = TFLiteOp(code, ["x", "axes"], ["y"], {"keep_dims": True})
    return TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"})


def run(code, codes, axes, grids, kernels):
    """What LiteRT computes for one reduction with kept axes."""
    graph = graph_of(code, codes.shape[1:], axes, grids)
    return Runner(graph, kernels).run({"x": codes})["y"].astype(np.int64)


def modelled(code, acc, count, grids, kernels):
    """What `arithmetic` computes, without limits."""
    (scale, zero), (output, zero_point) = grids
    ratio = np.float32(scale) / np.float32(output)
    raw = tf.constant(acc + count * zero)
    if kernels == "xnnpack":
        number, zeros = (count, zero) if code == "MEAN" else (1, count * zero)
        return arithmetic.float_mean(raw, number, ratio, (zeros, zero_point)).numpy()
    if code == "SUM":
        return arithmetic.away_sum(raw, count, ratio, zero).numpy() + zero_point
    exact = np.float64(scale) / np.float64(output)
    return arithmetic.fixed_mean(tf.constant(acc), count, exact).numpy() + zero_point


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("code", ["SUM", "MEAN"])
@pytest.mark.parametrize(("shape", "axes"), REDUCTIONS)
def test_reductions_next_to_ties(shape, axes, code, kernels, rng):
    codes = rng.integers(-40, 40, (128, *shape)).astype(np.int8)
    count = int(np.prod([shape[axis - 1] for axis in axes]))
    for zeros in ((0, 0), (-17, 9)):
        acc = codes.astype(np.int64).sum(axis=axes, keepdims=True) - count * zeros[0]
        # The scale for which the sum at the upper quartile is 33.5 codes.
        sums = np.sort(np.abs(acc).ravel())
        middle = max(int(sums[3 * len(sums) // 4]), 1)
        scale = np.float32(0.037)
        output = np.float32(scale * middle / 33.5 / (count if code == "MEAN" else 1))
        grids = [(scale, zeros[0]), (output, zeros[1])]
        found = run(code, codes, axes, grids, kernels)
        expected = np.clip(modelled(code, acc, count, grids, kernels), -128, 127)
        np.testing.assert_array_equal(found, expected)
