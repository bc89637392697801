"""An app copies bytes into a file, and gets the classes of Keras on float images."""

from __future__ import annotations

import numpy as np
import pytest
from app_bytes import trained
from app_bytes.compare import Difference, Tracing, compare
from app_bytes.models import APP_MODELS, SIZE

import tf_lsq
from tf_lsq.training import pixel_points

TRAINED = 12_800  # Images.


def calibrated(app, rng):
    """An untrained student, and images."""
    images = rng.integers(0, 256, (64, SIZE, SIZE, app.channels)).astype(np.uint8)
    student = tf_lsq.quantize_model(
        app.model(), weight_bits=4, activation_bits=4, inputs=app.inputs
    )
    tf_lsq.calibrate(student, (app.values_of(images), None))
    tf_lsq.round_biases(student)
    return student, images


# Untrained, deep networks give every image nearly the same scores.
SHALLOW = [name for name in APP_MODELS if not name.startswith("MobileNet")]


@pytest.mark.parametrize("name", SHALLOW)
def test_the_classes_of_bytes_are_those_of_keras(name, rng, tmp_path):
    app = APP_MODELS[name]
    student, images = calibrated(app, rng)
    assert len(pixel_points(student)) == (2 if name == "two inputs" else 1)
    classes = rng.integers(0, 10, len(images))
    found = compare(name, app, student, images, classes, tmp_path / "model.tflite")
    assert found.unlike_twin == 0 and not found.differences
    assert found.correct == found.keras_correct


@pytest.mark.slow
@pytest.mark.parametrize("name", APP_MODELS)
def test_photographs_get_the_classes_of_keras(name, real_data, tmp_path):
    """Unless Keras rounds a code differently, see docs/app_bytes.md."""
    app, folder = APP_MODELS[name], real_data / "tfds"
    train, test = (
        trained.photographs(app.channels, split, folder)
        for split in (f"train[:{TRAINED}]", "test")
    )
    student = trained.student_of(app, train, tmp_path / "student.keras")
    found = compare(name, app, student, test.x, test.y, tmp_path / "model.tflite")
    assert found.images == 10_000 and found.unlike_twin == 0
    assert all(one.is_rounding for one in found.differences), found.differences
    assert abs(found.correct - found.keras_correct) <= len(found.differences)
    assert found.correct > 0.3 * found.images


# --- The comparison finds what is not rounding ---------------------------------------


@pytest.mark.parametrize("name", ["MLP, gray, 0 to 1", "ResNet, blue first"])
def test_a_student_that_computes_something_else_is_found(name, rng):
    app = APP_MODELS[name]
    student, images = calibrated(app, rng)
    x = app.values_of(images)
    tracing = Tracing(student)
    assert tracing.first_code(x, 5) == {}
    [kernel] = [w for w in student.weights if w.name.endswith("kernel:0")][-1:]
    kernel.assign(1.5 * kernel)
    found = Difference(5, (0, 1), **tracing.first_code(x, 5))
    assert found.tensor == "dense" + "_2" * name.startswith("MLP")
    assert not found.is_rounding


def test_only_neighbours_of_a_tie_are_rounding():
    tie = {"exact": 1.4999999, "keras_value": 1.5000001}
    tie |= {"tensor": "conv", "codes": 1, "largest": 100.0}
    assert Difference(0, (1, 2), found=1, keras_code=2, **tie).is_rounding
    for other in (
        {"found": 0}, {"exact": 1.4999}, {"keras_value": 1.5001}, {"keras_code": 1},
        {"largest": 0.1},
    ):  # fmt: skip
        wrong = {"found": 1, "keras_code": 2, **tie, **other}
        assert not Difference(0, (1, 2), **wrong).is_rounding
