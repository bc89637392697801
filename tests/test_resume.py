"""Killed training runs resume as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("harness") / "resumed.py"


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """The states of three training runs: uninterrupted, restored, loaded."""
    folder = tmp_path_factory.mktemp("resumed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    codes = [
        subprocess.run(
            [sys.executable, str(SCRIPT), str(folder), how],
            env=environment,
            timeout=300,
        ).returncode
        for how in ("killed", "compared")
    ]
    assert codes == [-signal.SIGKILL, 0]
    names = ("whole", "restored", "loaded")
    return {name: dict(np.load(folder / f"{name}.npz")) for name in names}


@pytest.mark.parametrize("name", ["restored", "loaded"])
def test_a_killed_training_run_resumes_bit_for_bit(name, states):
    whole, resumed = dict(states["whole"]), dict(states[name])
    assert whole.pop("epochs").tolist() == [0, 1, 2, 3]
    assert resumed.pop("epochs").tolist() == [2, 3]
    assert whole["slot 0"] == 16  # Iterations; the other slots follow.
    assert len([key for key in whole if key.startswith("slot")]) > 30
    assert list(resumed) == list(whole)
    for key, value in whole.items():
        np.testing.assert_array_equal(resumed[key], value, err_msg=key)
