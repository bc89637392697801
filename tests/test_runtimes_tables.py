"""Tables of functions are those that LiteRT fills, also next to ties."""

from __future__ import annotations

import numpy as np
import pytest

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
)
from tflite_export.runtimes import KERNELS, Runner, tables

CODES = np.arange(-128, 128)
# Code of the operator -> its scale and zero point, if TFLite prescribes them.
GRIDS = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0), "ELU": None}
INVERSES = {
    "LOGISTIC": lambda y: np.log(y / (1 - y)),
    "TANH": np.arctanh,
    "ELU": np.log1p,
}


def run(code, grid, output_grid, kernels):
    """What LiteRT computes for every code."""

    def tensor(name, scale, zero_point):
        quantization = TensorQuantization(np.array([scale], np.float32), zero_point)
        return TFLiteTensor(name, (1, 256), "int8", quantization, dynamic_batch=True)

    tensors = {"x": tensor("x", *grid), "y": tensor("y", *output_grid)}
    op = TFLiteOp(code, ["x"], ["y"], {})
    graph = TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"})
    found = Runner(graph, kernels).run({"x": CODES[np.newaxis].astype(np.int8)})
    return found["y"][0].astype(np.int64)


def modelled(code, grid, output_grid, kernels, own=True):
    """What `tables` computes, limited to int8."""
    values = (CODES - grid[1]).astype(np.float32) * np.float32(grid[0])
    values = {
        "LOGISTIC": lambda: tables.sigmoid(values, kernels),
        "TANH": lambda: tables.tanh(values, own=own),
        "ELU": lambda: tables.elu(values, own=own),
    }[code]()
    scale, zero_point = output_grid
    codes = tables.to_codes(values, np.float32(scale), zero_point, kernels)
    return np.clip(codes + zero_point, -128, 127)


def grids_next_to_a_tie(code, rng):
    """Grids of input and output for which one code is as close to a tie as can be."""
    scale, zero_point = GRIDS[code] or (
        np.float32(rng.uniform(0.005, 0.05)),
        int(rng.integers(-100, 0)),
    )
    low, high = (-0.95 / scale, -1) if code == "ELU" else (-127 - zero_point, 126)
    half = (int(rng.integers(max(low, -120), high)) + 0.5) * scale
    if code == "LOGISTIC":
        half = (int(rng.integers(1, 255)) + 0.5) * scale
    place = np.float64(INVERSES[code](np.float64(half)))
    code_of_tie = np.sign(place) * int(rng.integers(1, 128))
    own_scale = np.float32(place / code_of_tie)
    toward = np.float32(rng.choice([0, 1]))
    own_scale = own_scale if rng.random() < 0.5 else np.nextafter(own_scale, toward)
    return (own_scale, 0), (scale, zero_point)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("code", GRIDS)
def test_tables_next_to_ties(code, kernels, rng):
    for _ in range(150):
        grids = grids_next_to_a_tie(code, rng)
        found = run(code, *grids, kernels)
        np.testing.assert_array_equal(found, modelled(code, *grids, kernels))


def test_other_kernels_fill_other_tables(rng):
    """The ties are close enough to tell the models apart."""
    different = {code: 0 for code in GRIDS}
    for code in GRIDS:
        for _ in range(150):
            grids = grids_next_to_a_tie(code, rng)
            first = modelled(code, *grids, "builtin")
            second = modelled(code, *grids, "xnnpack", own=False)
            different[code] += int((first != second).sum())
    assert all(different.values())


@pytest.mark.parametrize("code", GRIDS)
def test_the_nearest_numbers_differ_by_one_code_at_most(code, rng):
    for _ in range(50):
        grids = grids_next_to_a_tie(code, rng)
        own = modelled(code, *grids, "builtin")
        nearest = modelled(code, *grids, "builtin", own=False)
        assert np.abs(own - nearest).max() <= 1
