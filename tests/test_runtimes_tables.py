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
# Operators that only TFLite's own kernels have -> their options.
BUILTIN = {
    "EXP": {},
    "LOG": {},
    "GELU": {"approximate": False},
    "GELU tanh": {"approximate": True},
}
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
    op = TFLiteOp(code.split()[0], ["x"], ["y"], BUILTIN.get(code, {}))
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
    return to_codes(values, output_grid, kernels)


def to_codes(values, output_grid, kernels):
    scale, zero_point = output_grid
    codes = tables.to_codes(values, np.float32(scale), zero_point, kernels)
    return np.clip(codes + zero_point, -128, 127)


def builtin_values(code, grid, own=True):
    """What TFLite's own kernels compute for every code, before rounding."""
    x = (CODES - grid[1]).astype(np.float32) * np.float32(grid[0])
    if code.startswith("GELU"):
        return tables.gelu(x, **BUILTIN[code], own=own)
    return {"EXP": tables.exp, "LOG": tables.log}[code](x, own=own)


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


@pytest.mark.parametrize("code", GRIDS)
def test_the_other_rounding_gives_other_codes(code, rng):
    """The grids are close enough to ties to tell the kernels apart."""
    different = 0
    for _ in range(150):
        grids = grids_next_to_a_tie(code, rng)
        both = (modelled(code, *grids, kernels) for kernels in KERNELS)
        different += not np.array_equal(*both)
    assert different > 10


def test_the_sigmoid_of_other_kernels_gives_other_codes(rng):
    """What differs is only in which type a sigmoid is computed."""
    different = 0
    for _ in range(150):
        (scale, _), (output, zero_point) = grids_next_to_a_tie("LOGISTIC", rng)
        x = CODES.astype(np.float32) * scale
        values = (tables.sigmoid(x, kernels) for kernels in KERNELS)
        grid = np.float32(output), zero_point
        codes = (tables.to_codes(y, *grid, "builtin") for y in values)
        different += not np.array_equal(*codes)
    assert different > 10


@pytest.mark.parametrize("code", GRIDS)
def test_the_nearest_numbers_differ_by_one_code_at_most(code, rng):
    for _ in range(50):
        grids = grids_next_to_a_tie(code, rng)
        own = modelled(code, *grids, "builtin")
        nearest = modelled(code, *grids, "builtin", own=False)
        assert np.abs(own - nearest).max() <= 1


def builtin_grids(code, rng):
    """Grids of input and output for which one code is as close to a tie as can be."""
    zero_point = int(rng.integers(-128, 40))
    grid = np.float32(rng.uniform(0.005, 0.06)), zero_point
    value = 0.0
    while value == 0.0:
        above = int(rng.integers(zero_point + 1 if code == "LOG" else -128, 128))
        value = abs(builtin_values(code, grid)[above + 128])
    scale = np.float32(value / (int(rng.integers(0, 120)) + 0.5))
    if rng.random() < 0.5:
        scale = np.nextafter(scale, np.float32(rng.choice([0, 1])))
    return grid, (scale, int(rng.integers(-128, 40)))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("code", BUILTIN)
def test_tables_of_builtin_operators_next_to_ties(code, kernels, rng):
    other = 0
    for _ in range(150):
        grid, output_grid = builtin_grids(code, rng)
        found = run(code, grid, output_grid, kernels)
        values = builtin_values(code, grid)
        expected = to_codes(values, output_grid, "builtin")
        np.testing.assert_array_equal(found, expected)
        other += not np.array_equal(found, to_codes(values, output_grid, "xnnpack"))
    assert other > 10  # The grids are close enough to tell the roundings apart.


@pytest.mark.parametrize("code", BUILTIN)
def test_the_nearest_numbers_of_builtin_operators_differ_by_one_code(code, rng):
    for _ in range(50):
        grid, output_grid = builtin_grids(code, rng)
        both = (builtin_values(code, grid, own=own) for own in (True, False))
        own, nearest = (to_codes(values, output_grid, "builtin") for values in both)
        assert np.abs(own - nearest).max() <= 1


def test_logarithms_up_to_0_are_the_smallest_code():
    found = run("LOG", (0.1, 5), (0.05, 100), "builtin")
    assert (found[: 128 + 5 + 1] == -128).all() and found[-1] > 100


def test_powers_beyond_float32_are_the_largest_code():
    found = run("EXP", (1.0, 0), (0.05, -128), "builtin")
    np.testing.assert_array_equal(
        found, to_codes(builtin_values("EXP", (1.0, 0)), (0.05, -128), "builtin")
    )
    assert found[-1] == 127
