"""What arm64 computes: by its matrix kernels on this machine, and under an emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm64.__main__ import differences
from arm64.userland import Userland
from harness import cases, tiny
from harness.installed import is_installed

from tflite_export.runtimes import find_runtime, this_machine
from tflite_export.runtimes.rounding import MATRIX_KINDS
from tflite_export.verification import probe_codes, twin_differences

ROOT = Path(__file__).parents[1]
USERLAND = ROOT / ".arm64"
# ruy's kernels without AVX round products of matrices as those for arm64 do.
_SCRIPT = """
import json
import numpy as np
import test_runtimes_arm64 as test
print(json.dumps(test.matrix_differences()))
"""


def matrix_differences():
    """Codes of matrix kernels that arm64's twin computes differently, by operator."""
    student, x = tiny.calibrated(tiny.residual, np.random.default_rng(0))
    built = tiny.built(student, "packed")
    codes = probe_codes(built.graph, built.frozen, [x], "builtin")
    found = twin_differences(
        built.frozen, codes, find_runtime("arm64").with_kernels("builtin")
    )
    nodes = built.frozen.by_name()
    return {
        name: count
        for name, count in found.items()
        if nodes[name].kind in MATRIX_KINDS and len(nodes[name].shape) == 4
    }


def test_the_matrix_kernels_of_arm64_round_once():
    """As ruy's do without AVX, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=os.environ | {"RUY_PATHS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 3 and not any(found.values())


@pytest.mark.skipif(this_machine().matrix == "once", reason="the same without AVX")
def test_those_of_this_machine_round_twice():
    assert any(matrix_differences().values())


@pytest.mark.skipif(
    not is_installed(USERLAND),
    reason="`make arm` has not set up the arm64 userland here",
)
def test_an_emulated_core_computes_the_codes_of_the_twin(tmp_path):
    wanted = ("layer_separable_4", "layer_conv_bn_relu_2", "function_square_8")
    chosen = [case for case in cases.conformance_cases() if case.name in wanted]
    assert len(chosen) == len(wanted)
    for case in chosen:
        cases.write_case(case, tmp_path, find_runtime("arm64"), examples=2)
    counts = differences(Userland(USERLAND), tmp_path, ["cortex-a53"], examples=2)
    assert sum(row["codes"] for row in counts.values()) > 1000
    assert not any(row["cortex-a53"] for row in counts.values())


@pytest.mark.slow
def test_emulated_cores_compute_the_codes_of_the_twin():
    """All files on all cores; sets up the userland, and fails without it."""
    subprocess.run(["make", "arm"], check=True, cwd=ROOT)
