"""`tf.distribute`: replicas and workers learn what one device learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

SCRIPT = Path(__file__).with_name("harness") / "distributed.py"
layers = keras.layers


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def started(kinds, path, **environment):
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), kinds, str(path)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


def finished(processes):
    """Waits for all processes; if one fails, ends the others, which would hang."""
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "found.json"
    assert started("one+mirrored", path).wait(timeout=300) == 0
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": cluster, "task": task})
        path = folder / f"{index}.json"
        processes.append(started("worker", path, TF_CONFIG=config))
    finished(processes)
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]


def assert_same_training(found, expected):
    assert len(expected["losses"]) == 4
    assert found["first"] == pytest.approx(expected["first"], rel=1e-6)
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert found["last"] == pytest.approx(expected["last"], rel=1e-4)
    for name, step in expected["last"].items():
        assert abs(step / expected["first"][name] - 1) > 1e-4  # It was learned.


def test_mirrored_replicas_learn_what_one_device_learns(one_process):
    assert_same_training(one_process["mirrored"], one_process["one"])


def test_a_custom_loop_under_a_strategy_learns_what_one_device_learns(one_process):
    assert_same_training(one_process["mirrored, loop"], one_process["one, loop"])


def test_mirrored_replicas_distil_as_one_device_does(one_process):
    found, expected = (one_process[f"{k}, distilled"] for k in ("mirrored", "one"))
    assert list(expected["logs"]) == [
        "loss",
        "student_loss",
        "accuracy",
        "distillation_loss",
    ]
    for name, values in expected["logs"].items():
        assert found["logs"][name] == pytest.approx(values, rel=1e-5), name
    assert found["last"] == pytest.approx(expected["last"], rel=1e-4)


def test_the_step_bound_applies_once_to_the_sum_over_replicas(one_process):
    found, expected = (one_process[f"{k}, bounded"] for k in ("mirrored", "one"))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    moves = sorted(map(abs, expected))
    assert moves[0] < 0.9e-2 and moves[-1] == pytest.approx(1e-2, rel=1e-4)


def test_ranges_are_followed_under_a_strategy(one_process):
    found, expected = (one_process[f"{k}, followed"] for k in ("mirrored", "one"))
    changed = [
        {name for name, step in before.items() if step != after[name]}
        for before, after in (found, expected)
    ]
    assert changed[0] == changed[1] != set()
    # Synchronized batch norms sum in a different order outside a replica.
    assert found[1] == pytest.approx(expected[1], rel=1e-2)


def test_all_replicas_decay_kernels_only(one_process):
    names = one_process["decayed"]
    assert len(names) == 6  # Three kernels, two replicas.
    assert all(
        name.split("/replica")[0].split(":")[0][-6:] == "kernel" for name in names
    )


def test_replicas_cannot_initialise_steps(one_process):
    in_loop, in_fit = one_process["errors"]
    for text in ("`quantize_image/activation` has no step", "tf_lsq.calibrate"):
        assert text in in_loop
    assert "compiled training step" in in_loop
    assert "distributed dataset" in in_fit and "tf_lsq.calibrate" in in_fit


def test_workers_learn_what_one_device_learns(workers, one_process):
    for worker in workers:
        assert_same_training(worker["worker"], one_process["one"])
    assert workers[0]["worker"] == workers[1]["worker"]


def test_diagnostics_records_on_replicas_and_workers(workers, one_process):
    trainings = [one_process["one"], one_process["mirrored"]]
    trainings += [worker["worker"] for worker in workers]
    assert [one["records"] for one in trainings] == [[0, 1, 2, 3, 4]] * 4


def test_workers_start_from_the_first_workers_steps(workers, one_process):
    chiefs, others = (run["first"] for run in one_process["one, shuffled"])
    assert chiefs != pytest.approx(others, rel=1e-2)
    for worker in workers:
        assert worker["worker, shuffled"]["first"] == pytest.approx(chiefs, rel=1e-6)
    assert workers[0]["worker, shuffled"] == workers[1]["worker, shuffled"]


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_synchronized_batch_norms_stay_synchronized(kind, rng, tmp_path):
    inputs = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(synchronized=True, name="norm")(x))
    x = layers.BatchNormalization(name="own")(layers.GlobalAveragePooling2D()(x))
    student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(2)(x)))
    images = rng.uniform(-1, 1, (32, 6, 6, 3)).astype(np.float32)
    student.compile("sgd", "mse")
    student.fit(images, np.zeros((32, 2), np.float32), verbose=0)
    student.save(tmp_path / f"model{kind}")
    loaded = keras.models.load_model(tmp_path / f"model{kind}")
    for model in (student, loaded):
        assert model.get_layer("norm").synchronized
        assert not model.get_layer("own").synchronized
    path = tmp_path / "model.tflite"
    tflite_export.export_model(loaded, path, verbose=False)
    report = tflite_export.verify_tflite(path, student, images, verbose=False)
    assert report.max_code_difference <= 1
