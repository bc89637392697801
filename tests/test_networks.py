"""Networks of `keras.applications`, from quantization to a verified file."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

NETWORKS = {
    "MobileNet": {"alpha": 0.25, "input_shape": (64, 64, 3)},
    "ResNet50": {"input_shape": (64, 64, 3)},
    "ResNet50V2": {"input_shape": (64, 64, 3)},
    "VGG16": {"input_shape": (32, 32, 3)},
}


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, bits, rng, tmp_path):
    build = getattr(keras.applications, name)
    model = build(weights=None, classes=10, **NETWORKS[name])
    tiny.randomize(model, rng)
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
    x = rng.uniform(-1, 1, (16, *model.input_shape[1:])).astype(np.float32)
    y = rng.integers(0, 10, 16)
    student.compile(keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
    student.fit(x, y, batch_size=8, verbose=0)
    assert all(np.isfinite(step).all() for step in tf_lsq.steps(student).values())
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert not report.float_layers
    found = tflite_export.verify_tflite(
        path, student, x, point_examples=4, verbose=False
    )
    assert found.equal_codes == found.weight_codes
    assert found.off_by_one < 0.01
