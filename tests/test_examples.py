"""The examples run, on a few images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=500,
        cwd=ROOT,
    ).stdout


def test_quickstart(tmp_path):
    path = tmp_path / "model.tflite"
    shown = run(
        "quickstart.py", "--smoke", "--float-epochs", 1, "--epochs", 1, "--output", path
    )
    assert path.stat().st_size > 0
    for row in ("accuracy, float", "LSQ in TFLite", "post-training int8", "differ on"):
        assert row in shown


def test_quickstart_reads_tensorflow_datasets_offline(real_data, tmp_path):
    shown = run(
        "quickstart.py",
        *("--smoke", "--dataset", "fashion_mnist", "--data-dir", real_data / "tfds"),
        *("--float-epochs", 1, "--epochs", 1, "--output", tmp_path / "model.tflite"),
    )
    assert "fashion_mnist: 4-bit weights" in shown
