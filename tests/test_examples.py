"""The examples run, on a few images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_paper_tables_resume_and_say_what_did_not_run(real_data, tmp_path):
    output = tmp_path / "tables"
    options = ("--smoke", "--data-dir", real_data / "tfds", "--output", output)
    options += ("--models", tmp_path / "models", "--only")
    run("paper_tables.py", *options, "^fashion/0/(float|2 distilled)$")
    shown = run("paper_tables.py", *options, "^(fashion/0/float|ratio/2)$")
    assert "--- ratio/2" in shown and "--- fashion" not in shown
    found = json.loads((output / "results.json").read_text())
    assert set(found) == {"fashion/0/float", "fashion/0/2 distilled", "ratio/2"}
    assert {"test", "train", "tflite", "machine"} <= set(found["fashion/0/2 distilled"])
    text = output.with_suffix(".md").read_text()
    assert "| 3/3 | not run | not run | not run | not run |" in text
    assert not [line for line in text.splitlines() if "{" in line]
    assert (output / "ratios.svg").exists()
