"""What `make gpu` counts, and what it needs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gpu import __main__ as program
from gpu import measure, page, shapes, trained, vulkan
from harness import debian

from tflite_export.consumers import CONSUMERS, facts_of, judge
from tflite_export.consumers.gpu_conditions import MEASURED
from tflite_export.file import TFLiteGraph, TFLiteOp, TFLiteTensor

ROOT = Path(__file__).resolve().parents[1]


def test_a_package_that_cannot_be_had_is_an_error(tmp_path, monkeypatch):
    def unpack(*_):
        raise subprocess.CalledProcessError(100, ["apt-get", "update"])

    monkeypatch.setattr(debian, "unpack", unpack)
    with pytest.raises(RuntimeError, match=r"needs Debian 12's package .*apt-get"):
        vulkan.environment(tmp_path / "vulkan")
    assert not (tmp_path / "vulkan/complete").exists()


def test_shapes_are_files_that_the_cpu_runs(tmp_path):
    count = shapes.write_files(tmp_path, examples=1)
    labels = {
        one["operators"]
        for path in tmp_path.glob("*.json")
        for one in json.loads(path.read_text()).values()
    }
    assert len(list(tmp_path.glob("*.tflite"))) == count > 100
    assert shapes.WRONG < labels
    assert {"CONV_2D", "MAX_POOL_2D 1x1, strides", "CONV_2D, dilation"} < labels


@pytest.fixture
def written(tmp_path):
    """Files of three shapes, and a folder in which the GPU computed the CPU's codes."""
    folder, output = tmp_path / "files", tmp_path / "output"
    folder.mkdir()
    output.mkdir()
    shapes.write_files(folder, examples=1)
    for path in sorted(folder.glob("*.json"))[3:]:
        path.unlink()
    for path in folder.glob("*.json"):
        with np.load(path.with_suffix(".expected")) as file:
            codes = {"y": file["xnnpack/y"].astype(np.int16)}
        np.savez(output / f"{path.stem}.gpu.npz", **codes)
    return folder, output


def test_equal_codes_are_right(written):
    found = measure.count(*written)
    assert sum(count.codes for count in found.counts.values()) > 100
    assert not found.wrong and not found.refused
    assert "wrong" not in page.table(found)


@pytest.mark.parametrize(("by", "wrong"), [(1, 0), (2, 1)])
def test_codes_that_differ_by_more_than_one_are_wrong(by, wrong, written):
    folder, output = written
    path = sorted(output.glob("*.npz"))[0]
    with np.load(path) as file:
        codes = file["y"]
    codes.flat[7] += by
    np.savez(path, y=codes)
    found = measure.count(folder, output)
    assert sum(count.differ for count in found.counts.values()) == 1
    assert max(count.most for count in found.counts.values()) == by
    assert len(found.wrong) == wrong
    assert page.table(found).count("**wrong**") == wrong


def test_refused_files_are_counted_by_reason_without_names_of_tensors(written):
    folder, output = written
    for number, path in enumerate(sorted(output.glob("*.npz"))[:2]):
        path.unlink()
        path.with_suffix(".error").write_text(
            "The file must have only operators. Received: RESHAPE: Tensor dimensions "
            f"must be less than 5. tf.stack_{number}."
        )
    found = measure.count(folder, output)
    assert found.refused == {"RESHAPE: Tensor dimensions must be less than 5.": 2}


def test_news_fails_the_program(capsys):
    right = trained.Row("net", 10, 0.9, {"conv": 0.4, "pick": 0.9}, 1, 100)
    assert program._report([right], shapes.WRONG, []) == 0
    lost = trained.Row("net", 10, 0.9, {"conv": 0.4, "pick": 0.8}, 1, 100)
    assert program._report([lost], {"CONV_2D", *shapes.WRONG}, ["x"]) == 3
    assert program._report([right], set(), []) == len(shapes.WRONG)
    printed = capsys.readouterr().out
    assert "CONV_2D is wrong" in printed and "net loses accuracy" in printed
    assert "the rules of the consumer `gpu` misjudge x" in printed


def test_operators_that_no_page_has_are_not_known():
    rows = (ROOT / "docs/gpu.md").read_text().partition("## Operators")[2].splitlines()
    cells = [line.split("|")[1] for line in rows if line.startswith("| ")]
    named = {word for cell in cells for word in re.findall(r"[A-Z][A-Z_0-9]+", cell)}
    elsewhere = {"DEQUANTIZE", "MIRROR_PAD", "PADV2"}
    assert not named & elsewhere
    assert named | elsewhere == MEASURED


@pytest.mark.parametrize(
    ("dtype", "code", "verdict"),
    [
        ("int8", "TANH", "runs"),
        ("int8", "ARG_MIN", "not known"),
        ("float32", "TANH", "not known"),
    ],
)
def test_verdicts_on_operators(dtype, code, verdict):
    """No file with float layers was measured."""
    tensors = {name: TFLiteTensor(name, (1, 4), dtype) for name in "xy"}
    op = TFLiteOp(code, ["x"], ["y"], version=1)
    graph = TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"}, min_runtime="1.14.0")
    report = judge(facts_of(graph), CONSUMERS["gpu"])
    assert report.verdict == verdict
    assert (code in str(report)) == (verdict != "runs")


def test_files_that_no_rule_names_are_misjudged(written):
    """The third shape has a multiplier, and is wrong as the rules say."""
    folder, output = written
    first, second, third = sorted(output.glob("*.npz"))
    [line] = measure.misjudged(folder, output)
    assert line.startswith("shape_002 (runs): gpu             wrong because depthwise")
    _change_a_code(third)
    assert measure.misjudged(folder, output) == []
    _change_a_code(first)
    second.unlink()
    second.with_suffix(".error").write_text("no")
    found = measure.misjudged(folder, output)
    assert [line.partition(":")[0] for line in found] == [
        "shape_000 (wrong)",
        "shape_001 (refused)",
    ]


def _change_a_code(path):
    """Changes a code by two."""
    with np.load(path) as file:
        codes = file["y"]
    codes.flat[7] += 2
    np.savez(path, y=codes)


@pytest.mark.slow
def test_the_gpu_computes_what_the_page_says():
    """Sets up the software Vulkan, and fails without it."""
    command = ["make", "gpu", "GPU=--share 100 --images 100"]
    subprocess.run(command, check=True, cwd=ROOT)
