"""`examples/imagenet.py` on a tiny data set with the structure of imagenet2012."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from harness import fake_imagenet
from test_training_distribution import free_ports

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
from imagenet import accuracy
from imagenet_data import ImageNet

from tf_lsq._compat import keras

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/imagenet.py"
KILLED = ROOT / "tests/harness/killed_imagenet.py"
ONE = tf.distribute.InputContext()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    fake_imagenet.write(folder)
    return folder


@pytest.fixture
def images(folder):
    return ImageNet(tfds.builder(fake_imagenet.NAME, data_dir=folder), 32, 16, 40)


def started(script, folder, output, *arguments, **environment):
    """Starts a process that trains a narrow 4-bit network."""
    fixed = {
        "--dataset": fake_imagenet.NAME,
        "--data-dir": folder,
        "--output": output,
        "--image-size": 32,
        "--width": 0.0625,
        "--batch-size": 16,
        "--buffer": 40,
        "--bits": 4,
        "--verified": 16,
    }
    options = [str(part) for pair in fixed.items() for part in pair]
    place, more = (
        (arguments[:3], arguments[3:]) if script == KILLED else ((), arguments)
    )
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, (*place, *options, *more))],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def shown(process, code=0):
    """Waits for a process and returns what it prints."""
    try:
        text, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == code
    return text


# --- Data -------------------------------------------------------------------------


def epoch_of(images, number, context=ONE):
    """Images and classes of one epoch; each example has a different class."""
    epoch = tf.Variable(number, dtype=tf.int64)
    batches = list(images.training(epoch, context))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def test_an_epoch_depends_only_on_its_number(images):
    assert (images.classes, images.steps) == (fake_imagenet.CLASSES, 70 // 16)
    pixels, classes = epoch_of(images, 3)
    assert pixels.shape == (64, 32, 32, 3) and pixels.dtype == np.uint8
    assert len(set(classes)) == 64
    tf.random.set_seed(17)
    again = epoch_of(images, 3)
    np.testing.assert_array_equal(again[0], pixels)
    np.testing.assert_array_equal(again[1], classes)
    assert (epoch_of(images, 4)[1] != classes).mean() > 0.9


def test_an_image_is_cropped_differently_in_every_epoch(images):
    (one, classes), (other, others) = (epoch_of(images, number) for number in (0, 1))
    same = [n for n in classes if n in others]
    assert len(same) > 50
    equal = [
        (one[classes == n] == other[others == n]).mean() > 0.5 for n in same
    ]  # In noise, about one pixel in 256 is equal by chance.
    assert np.mean(equal) < 0.1


def test_workers_read_different_files(images):
    found = []
    for worker in range(2):
        _, classes = epoch_of(images, 0, tf.distribute.InputContext(2, worker, 2))
        found.append(set(classes[: 16 * images.steps // 2]))
    assert not found[0] & found[1]
    assert len(found[0] | found[1]) == 64


def test_validation_images_are_central_crops(images, folder):
    [(pixels, classes)] = images.validation(batch_size=21)
    assert len(set(classes.numpy())) == 21
    builder = tfds.builder(fake_imagenet.NAME, data_dir=folder)
    encoded = {"image": tfds.decode.SkipDecoding()}
    whole = {
        int(example["label"]): tf.io.decode_jpeg(
            example["image"], dct_method="INTEGER_ACCURATE"
        )
        for example in builder.as_dataset("validation", decoders=encoded)
    }
    for found, number in zip(pixels.numpy(), classes.numpy(), strict=True):
        height, width, _ = whole[number].shape
        side = round(min(height, width) * 224 / 256)
        top, left = (round((size - side) / 2) for size in (height, width))
        part = whole[number][top : top + side, left : left + side]
        expected = tf.image.resize(part, (32, 32), antialias=True).numpy()
        # Colors at the edges of a crop have fewer neighbours.
        assert np.abs(expected - found)[2:-2, 2:-2].max() <= 0.51


def test_data_with_a_different_structure_is_refused(images):
    with tfds.testing.mock_data():
        other = tfds.builder("mnist")
    with pytest.raises(ValueError, match="must be prepared, with splits 'train' and"):
        ImageNet(other)


def test_ties_between_scores_go_to_the_first_classes():
    model = keras.Sequential([keras.layers.Dense(9, kernel_initializer="zeros")])
    data = tf.data.Dataset.from_tensor_slices((tf.ones((4, 2)), [0, 1, 4, 5])).batch(3)
    assert accuracy(model, data) == {"top1": 0.25, "top5": 0.75}


# --- Training runs ----------------------------------------------------------------


def test_a_training_run_is_exported_and_not_repeated(folder, tmp_path):
    arguments = ("--distill", "--float-epochs", 1, "--epochs", 1)
    first = shown(started(EXAMPLE, folder, tmp_path, *arguments))
    table = [line for line in first.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in table[-2:]] == ["float32", "LSQ 4/4"]
    row = json.loads((tmp_path / "lsq4-distilled.json").read_text())
    path = tmp_path / "lsq4-distilled.tflite"
    assert path.stat().st_size == row["bytes"]
    assert row["verified"] == 16 and row["off_by_one"] < 0.02
    for log in ("float.csv", "lsq4-distilled.csv"):
        assert len((tmp_path / log).read_text().splitlines()) == 2
    made = path.stat().st_mtime_ns
    again = shown(started(EXAMPLE, folder, tmp_path, *arguments))
    assert again.splitlines() == [table[-3], "|---" * 9 + "|", *table[-2:]]
    assert path.stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_killed_imagenet_run_resumes_bit_for_bit(folder, tmp_path):
    arguments = ("--distill", "--float-epochs", 2, "--epochs", 3, "--deterministic")
    shown(started(EXAMPLE, folder, tmp_path / "whole", *arguments))
    output = tmp_path / "killed"
    for name in ("float", "lsq4-distilled"):
        process = started(KILLED, folder, output, name, 1, 2, *arguments)
        shown(process, -signal.SIGKILL)
        assert (output / f"{name}-backup").exists()
    shown(started(EXAMPLE, folder, output, *arguments))
    assert not (output / "lsq4-distilled-backup").exists()
    for name in ("float.csv", "lsq4-distilled.csv", "lsq4-distilled.tflite"):
        expected = (tmp_path / "whole" / name).read_bytes()
        assert (output / name).read_bytes() == expected


@pytest.mark.slow
def test_two_workers_train_and_the_first_exports(folder, tmp_path):
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": cluster, "task": task})
        arguments = ("--distill", "--float-epochs", 1, "--epochs", 1)
        processes.append(
            started(EXAMPLE, folder, tmp_path, *arguments, TF_CONFIG=config)
        )
    first, second = map(shown, processes)
    assert "| LSQ 4/4 |" in first and "|" not in second
    assert (tmp_path / "lsq4-distilled.tflite").exists()
    assert not list(tmp_path.glob("*-backup")) and not list(tmp_path.glob("*-1.keras"))
