"""The examples run on a few images."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples"))

from datasets import Images, training_batches  # noqa: E402
from ethos_u import resnet8  # noqa: E402


def finished(script, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=500,
        cwd=ROOT,
    )


def run(script, *arguments):
    return finished(script, *arguments).stdout


def test_the_quickstart_writes_a_file_and_prints_its_rows(tmp_path):
    path = tmp_path / "model.tflite"
    done = finished(
        "quickstart.py", "--smoke", "--float-epochs", 1, "--epochs", 1, "--output", path
    )
    assert done.stderr == ""
    assert path.stat().st_size > 0
    for row in (
        "accuracy, float",
        "accuracy, TFLite on",
        "accuracy, predicted for arm64",
        "post-training int8",
        "differ on",
    ):
        assert row in done.stdout


def test_the_quickstart_reads_tensorflow_datasets_offline(real_data, tmp_path):
    shown = run(
        "quickstart.py",
        *("--smoke", "--dataset", "fashion_mnist", "--data-dir", real_data / "tfds"),
        *("--float-epochs", 1, "--epochs", 1, "--output", tmp_path / "model.tflite"),
    )
    assert "fashion_mnist: 4-bit weights" in shown


def test_the_ethos_u_example_compiles_and_writes_its_document(tmp_path):
    path = tmp_path / "ethos_u.md"
    shown = run(
        "ethos_u.py",
        *("--networks", "ResNet-8", "--targets", "ethos-u55-128", "--bits", 8, 2),
        *("--output", path),
    )
    assert shown.splitlines()[-2].startswith("| 2/2 |")
    for text in ("## ResNet-8, ethos-u55-128", "Shared_Sram", "with Vela 5."):
        assert text in path.read_text()


@pytest.mark.slow
def test_mixed_bits_are_trained_within_the_bytes_of_one_width(real_data, tmp_path):
    model, output = tmp_path / "float.keras", tmp_path / "ethos_u_bits.md"
    resnet8().save(model)
    options = ("--smoke", "--float-model", model, "--data-dir", real_data / "tfds")
    options += ("--epochs", 1, "--seeds", 0, "--budgets", "3/8", "--candidates", 2, 3)
    options += ("--models", tmp_path, "--output", output)
    run("ethos_u_bits.py", *options)
    text = output.read_text()
    assert not [line for line in text.splitlines() if "{" in line]
    for row in ("| uniform 3/8 | 8 |", "| mixed | 8 |", "| mixed, 8 |"):
        assert row in text
    # A second run trains nothing.
    trained = {path: path.stat().st_mtime for path in tmp_path.glob("*.keras")}
    output.unlink()
    run("ethos_u_bits.py", *options)
    assert output.read_text() == text
    assert trained == {path: path.stat().st_mtime for path in tmp_path.glob("*.keras")}


SMALL_RUN = ("--smoke", "--images", 8, "--tests", 32, "--networks")


def test_a_keyword_spotter_is_compared_on_runtimes_and_rows_are_kept(tmp_path):
    output = tmp_path / "runtimes.md"
    options = (*SMALL_RUN, "ds_cnn", "--models", tmp_path, "--output", output)
    run("runtimes.py", *options)
    text = output.read_text()
    assert not [line for line in text.splitlines() if "{" in line]
    for files in ("int8 | int8", "int8 | packed", "packed | packed"):
        assert f"| DS-CNN | 4 | {files} |" in text
    for files in ("8 | phone | int8", "4 | tflm | int8", "2 | tflm | packed"):
        assert f"| {files} |" in text
    output.unlink()
    assert run("runtimes.py", *options).startswith("# Accuracy")
    assert output.read_text() == text


@pytest.mark.slow
def test_all_networks_are_compared_on_runtimes(real_data, tmp_path):
    options = (*SMALL_RUN, "residual", "mobilenet_v2", "--models", tmp_path)
    shown = run("runtimes.py", *options, "--data-dir", real_data / "tfds")
    for network, bits in itertools.product(("residual", "MobileNetV2 0.35"), (4, 2)):
        assert f"| {network} | {bits} | packed | packed |" in shown


def epoch(data):
    found = list(data.as_numpy_iterator())
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def test_training_batches_flip_and_shift_each_image_independently():
    x = np.random.default_rng(0).integers(1, 256, (640, 5, 4, 2)).astype(np.uint8)
    images = Images(x, np.arange(640), x[:0], np.arange(0))
    found, labels = epoch(training_batches(images, 3, batch_size=128, pad=1, scale=2))
    assert found.dtype == np.float32 and sorted(labels) == list(range(640))
    padded = np.pad(x / 2, [(0, 0), (1, 1), (1, 1), (0, 0)])[labels]
    shown = np.zeros(len(x), int)
    for flip, down, right in itertools.product((1, -1), range(3), range(3)):
        columns = slice(right, right + 4)
        candidate = padded[:, :, ::flip][:, down : down + 5, columns]
        same = (candidate == found).all(axis=(1, 2, 3))
        assert same.sum() > 10  # 640 / 18 is about 36.
        shown += same
    assert (shown == 1).all()


def test_training_batches_repeat_with_the_seed_and_change_every_epoch():
    x = np.random.default_rng(0).integers(0, 256, (64, 5, 4, 1)).astype(np.uint8)
    images = Images(x, np.arange(64), x[:0], np.arange(0))
    first, again = (training_batches(images, 7, batch_size=8, pad=2) for _ in range(2))
    epochs = [epoch(first), epoch(first)]
    for one, two in zip(epochs, [epoch(again), epoch(again)], strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
    (x_one, y_one), (x_two, y_two) = epochs
    assert (y_one != y_two).any()
    assert (x_one[np.argsort(y_one)] != x_two[np.argsort(y_two)]).any()
    _, other = epoch(training_batches(images, 8, batch_size=8, pad=2))
    assert (y_one != other).any()


@pytest.mark.slow
def test_paper_tables_resume_and_list_what_did_not_run(real_data, tmp_path):
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
    # Retrained float networks are identical; different ones are refused.
    shutil.rmtree(tmp_path / "models")
    assert "--- ratio/3" in run("paper_tables.py", *options, "^ratio/3$")
    shutil.rmtree(tmp_path / "models")
    found["fashion/0/float"]["test"] += 0.01
    (output / "results.json").write_text(json.dumps(found))
    with pytest.raises(subprocess.CalledProcessError) as error:
        run("paper_tables.py", *options, "^ratio/4$")
    assert "another machine" in error.value.stderr


@pytest.mark.slow
def test_the_transformers_resume_and_end_in_a_page(real_data, tmp_path):
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    options = (
        *("--smoke", "--data-dir", real_data / "tfds", "--models", tmp_path),
        *("--networks", "kwt1", "--rows", "4/8", "--epochs", 1, "--float-epochs", 1),
        *("--results", results, "--markdown", page),
    )
    run("transformers.py", *options)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["row"] for row in rows] == ["float32", "4/8"]
    assert rows[1]["float_layers"] == [] and rows[1]["agreement"] > 0.9
    assert rows[1]["packed_bytes"] < rows[1]["bytes"]
    assert "| kwt1 | 4/8 | 1 |" in page.read_text()
    run("transformers.py", *options)  # Nothing is left to do.
    assert len(results.read_text().splitlines()) == 2
