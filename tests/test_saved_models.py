"""Models and files from earlier versions can be loaded, trained and verified."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

sys.path.insert(0, str(Path(__file__).parent / "data"))

from make_saved_models import FOLDER, data

MODELS = ["residual.keras", "mixed.h5"]


@pytest.fixture(params=MODELS)
def saved(request):
    path = FOLDER / request.param
    return path, keras.models.load_model(path)


def test_saved_models_compute_the_same_as_before(saved):
    path, student = saved
    outputs = np.load(FOLDER / "outputs.npz")[path.stem]
    found = student.predict(data()[0], verbose=0)
    # CPUs sum in different orders, so a code may round the other way.
    step = student.layers[-1].step.numpy() if path.suffix == ".h5" else 1 / 256
    assert np.abs(found - outputs).max() <= 1.001 * step
    assert (found.argmax(axis=-1) == outputs.argmax(axis=-1)).mean() > 0.95


def test_saved_models_verify_against_their_old_files(saved):
    path, student = saved
    x, _ = data()
    found = tflite_export.verify_tflite(
        path.with_suffix(".tflite"), student, x, verbose=False
    )
    assert found.equal_codes == found.weight_codes > 0
    assert not [p.name for p in found.points if p.twin_differences]


def test_saved_models_can_be_trained_further_and_exported(saved, tmp_path):
    _, student = saved
    x, y = data()
    before = tf_lsq.steps(student)
    iterations = int(student.optimizer.iterations)
    student.compile(student.optimizer, student.loss)
    student.fit(x, y, batch_size=16, epochs=1, verbose=0)
    assert int(student.optimizer.iterations) == iterations + 4 == 12
    student.compile(keras.optimizers.SGD(0.01), student.loss)
    student.fit(x, y, batch_size=16, epochs=1, verbose=0)
    after = tf_lsq.steps(student)
    moved = [name for name, step in before.items() if (step != after[name]).any()]
    assert len(moved) > len(before) / 2
    tflite_export.export_model(student, tmp_path / "model.tflite")
    found = tflite_export.verify_tflite(
        tmp_path / "model.tflite", student, x, verbose=False
    )
    assert found.equal_codes == found.weight_codes > 0
