"""Models of several image sizes: trained at any, exported at one."""

from __future__ import annotations

import numpy as np
import pytest

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.file import from_bytes

layers = keras.layers


def network(batch=None, size=None):
    inputs = layers.Input((size, size, 3), batch, name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.UpSampling2D()(layers.BatchNormalization()(layers.Conv2D(3, 3)(x)))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture
def student(rng):
    keras.utils.set_random_seed(0)
    with pytest.warns(UserWarning, match=r"`input_shapes` to `export_model`"):
        student = tf_lsq.quantize_model(network())
    student.compile("sgd", "mse")
    for size in (8, 12):
        x = rng.uniform(size=(8, size, size, 3)).astype(np.float32)
        student.fit(x, np.zeros((8, 2)), verbose=0)
    return student


def test_a_model_of_several_sizes_is_exported_at_one(student, rng, tmp_path):
    path, x = tmp_path / "m.tflite", rng.uniform(size=(8, 10, 14, 3))
    with pytest.raises(ValueError, match=r"'image': \(None, None, 3\).*input_shapes="):
        tflite_export.export_model(student, path, verbose=False)
    before = student.predict(x, verbose=0)
    for shapes in ((10, 14, 3), [(10, 14, 3)], {"image": (10, 14, 3)}):
        tflite_export.export_model(
            student, path, input_shapes=shapes, data=x, verbose=False
        )
        graph = from_bytes(path.read_bytes())
        assert graph.tensors[graph.inputs["image"]].shape == (1, 10, 14, 3)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    [output] = found.outputs.values()
    assert output.max_code_difference <= 1 and not output.twin_differences
    twin = tflite_export.integer_twin(student, input_shapes=(10, 14, 3))
    assert np.abs(twin.predict(x, verbose=0) - before).max() < 0.1
    np.testing.assert_array_equal(student.predict(x, verbose=0), before)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ((10, 14), "must fit"),
        ((10, 14, 4), "must fit"),
        ((10, None, 3), "must be static"),
        ([(10, 10, 3), (4,)], "in this order or by name"),
        ({"picture": (10, 10, 3)}, "in this order or by name"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(student, shapes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tflite_export.export_model(
            student, tmp_path / "m.tflite", input_shapes=shapes, verbose=False
        )
    assert not list(tmp_path.iterdir())


def test_a_model_with_batch_1_gives_a_file_with_batch_1(rng, tmp_path):
    student = tf_lsq.quantize_model(network(batch=1, size=8))
    tf_lsq.calibrate(student, rng.uniform(size=(1, 8, 8, 3)))
    path = tmp_path / "m.tflite"
    tflite_export.export_model(student, path, verbose=False)
    graph = from_bytes(path.read_bytes())
    assert not any(tensor.dynamic_batch for tensor in graph.tensors.values())
