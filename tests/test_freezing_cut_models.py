"""Students that were cut at an inner layer, or given a new head."""

from __future__ import annotations

import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

layers = keras.layers


@pytest.fixture
def student(rng):
    keras.backend.clear_session()  # Layers have the same names in every test.
    return tiny.student_of(tiny.residual(), rng)[0]


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (8, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("name", ["re_lu", "re_lu_2"])
def test_a_student_cut_after_its_quantization_exports(name, student, x, tmp_path):
    cut = keras.Model(student.input, student.get_layer(name).output)
    path = tmp_path / "cut.tflite"
    tflite_export.export_model(cut, path)
    found = tflite_export.verify_tflite(path, cut, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    assert not [point.name for point in found.points if point.twin_differences]


def test_a_softmax_on_a_student_exports(rng, tmp_path):
    student, x = tiny.student_of(tiny.pre_activation(), rng)
    path = tmp_path / "softmax.tflite"
    extended = keras.Model(student.input, layers.Softmax()(student.output))
    tflite_export.export_model(extended, path)
    found = tflite_export.verify_tflite(path, extended, x, verbose=False)
    assert not [point.name for point in found.points if point.twin_differences]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: s.get_layer("conv2d_1").output, "before their quantization: ['`"),
        (
            lambda s: layers.Dense(2, name="head")(s.output),
            "added unquantized: ['`head`']",
        ),
        (
            lambda s: [s.output, layers.Conv2D(2, 1, name="mask")(s.layers[4].output)],
            "added unquantized: ['`mask`']",
        ),
        (lambda s: tf.nn.relu(s.layers[2].output), "quantize that"),
    ],
)
def test_others_are_refused_with_advice(build, message, student, tmp_path):
    changed = keras.Model(student.input, build(student))
    with pytest.raises(ValueError, match="Cut or extend the float model") as error:
        tflite_export.export_model(changed, tmp_path / "model.tflite")
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_weights_are_transferred_by_the_names_of_layers(rng, x):
    model = tiny.randomize(tiny.residual(), rng)
    other = tiny.randomize(keras.models.clone_model(model), rng)
    student = tf_lsq.quantize_model(model)
    for layer in other.layers:
        if isinstance(layer, layers.BatchNormalization):  # Quantizing flips others.
            layer.gamma.assign(tf.abs(layer.gamma))
        if layer.weights:
            student.get_layer(layer.name).set_weights(layer.get_weights())
    tf_lsq.calibrate(student, x)
    expected = tf_lsq.quantize_model(other)
    tf_lsq.calibrate(expected, x)
    found = student.predict_on_batch(x)
    assert tiny.largest_difference(found, expected.predict_on_batch(x)) < 1e-6


def test_weights_of_other_shapes_are_refused_by_name(student):
    name = next(la.name for la in student.layers if la.name.startswith("conv2d"))
    layer = student.get_layer(name)
    with pytest.raises(ValueError, match=name):
        layer.set_weights(layer.get_weights()[:1] * 7)
