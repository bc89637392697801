"""Runtimes as data: what rounds twice, where, and what this machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness import tiny

import tflite_export
from tflite_export.runtimes import find_runtime, this_machine

ARM64, X86_64, TFLM = map(find_runtime, ("arm64", "x86-64", "tflm"))


@pytest.mark.parametrize(
    ("kernel", "positions", "twice"),
    [
        ((8, 4), 1, True),
        ((2, 2, 2, 4), 1, True),
        ((7, 4), 1, False),
        ((8, 3), 1, False),
        ((8, 4), 2, False),
    ],
)
def test_arm64_rounds_products_with_a_vector_twice(kernel, positions, twice):
    assert ARM64.rounds_twice("dense", kernel, positions) == twice
    for runtime in (X86_64, TFLM):
        assert runtime.rounds_twice("dense", kernel, positions)


def test_depthwise_kernels_round_twice_everywhere():
    for runtime in (ARM64, X86_64, TFLM):
        assert runtime.rounds_twice("depthwise", (3, 3, 8), 16)


def test_ties_of_shifts_round_up_in_vectors():
    assert ARM64.half_up("depthwise", 9).tolist() == [True] * 8 + [False]
    assert ARM64.half_up("conv", 3).all()
    assert not TFLM.half_up("conv", 3).any()


@pytest.mark.parametrize(("paths", "matrix"), [("1", "once"), ("10", "twice")])
@pytest.mark.skipif(this_machine().matrix == "once", reason="the same without AVX")
def test_the_environment_decides_which_kernels_this_machine_has(paths, matrix):
    code = "from tflite_export.runtimes import this_machine as t; print(t().matrix)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RUY_PATHS": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[-1] == matrix


def test_an_unknown_runtime_is_refused_with_the_list(rng):
    student, _ = tiny.calibrated(tiny.residual, rng)
    with pytest.raises(
        ValueError, match=r"one of \['arm64', 'x86-64', 'wasm', 'tflm'\]"
    ):
        tflite_export.integer_twin(student, runtime="arm")
    with pytest.raises(ValueError, match="`kernels` must be one of"):
        tflite_export.integer_twin(student, kernels="fast")
