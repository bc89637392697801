"""Constants of functions stay what they are, and trained variables stay trained."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import expansions
from tf_lsq.layers import AddConstant

layers = keras.layers
KERNEL = np.random.default_rng(0).normal(0, 0.3, (3, 3, 4, 4)).astype(np.float32)
POSITIONS = np.random.default_rng(1).normal(size=(6, 6, 4)).astype(np.float32)


def model_of(function):
    """A model with a function between two convolutions."""
    inputs = layers.Input((8, 8, 3))
    x = function(layers.Conv2D(4, 3, name="first")(inputs))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def fitted(student, x):
    """Values of all variables before and after one epoch, by name."""
    student.compile(keras.optimizers.SGD(0.1), "mse")
    before = {v.name: v.numpy() for v in student.variables}
    student.fit(x, np.ones((len(x), 2)), verbose=0)
    return before, {v.name: v.numpy() for v in student.variables}


@pytest.mark.parametrize(
    ("function", "variable"),
    [
        (lambda x: x + POSITIONS, "/constant:"),
        (lambda x: x * POSITIONS, "/constant:"),
        (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"), "conv2d/kernel:"),
        (lambda x: tf.matmul(x, KERNEL[0, 0]), "matmul/kernel:"),
    ],
)
def test_constants_are_not_trained_but_steps_after_them_are(function, variable, rng):
    student, x = tiny.student_of(model_of(function), rng)
    before, after = fitted(student, x)
    [name] = [n for n in before if variable in n and "tf." in n]
    np.testing.assert_array_equal(before[name], after[name])
    steps = [n for n in before if "quantize_tf" in n and n.endswith("_step:0")]
    assert steps and all((before[n] != after[n]).all() for n in steps)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: x * w([1, -2, 0.5, 1]),
        lambda x, w: x + w([1, -2, 0.5, 1]),
        lambda x, w: x - w(0.3),
        lambda x, w: tf.nn.bias_add(x, w([1, -2, 0.5, 1])),
        lambda x, w: tf.nn.conv2d(x, w(KERNEL), 1, "SAME"),
        lambda x, w: tf.matmul(x, w(KERNEL[0, 0])),
    ],
)
def test_trained_variables_stay_trained(function, rng, tmp_path):
    model = model_of(lambda x: function(x, lambda v: tf.Variable(v, dtype=tf.float32)))
    student, x = tiny.student_of(model, rng)
    before, after = fitted(student, x)
    [name] = [
        v.name
        for v in student.trainable_variables
        if "tf." in v.name and v.name.split("/")[-1] in ("Variable:0", "kernel:0")
    ]
    assert (before[name] != after[name]).any()
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not [point.name for point in found.points if point.twin_differences]


@keras.utils.register_keras_serializable("constants")
class Scaled(layers.Layer):
    """A layer with a trained scale."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.scale


@pytest.fixture
def _scaled():
    @tf_lsq.register_layer(Scaled)
    def expand(layer):
        x = layers.Input((None, None, layer.scale.shape[0]))
        return keras.Model(x, x * layer.scale)

    yield
    del expansions.EXPANSIONS[Scaled]


@pytest.mark.usefixtures("_scaled")
def test_a_variable_of_a_layer_that_is_called_twice_stays_one(rng, tmp_path):
    inputs = layers.Input((4, 4, 3))
    scaled = Scaled(name="scaled")
    x = scaled(layers.Conv2D(4, 1)(inputs))
    x = scaled(layers.Conv2D(4, 1)(x))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    student, x = tiny.student_of(model, rng, (16, 4, 4, 3))
    names = [weight.name for weight in student.trainable_weights]
    assert len([name for name in names if name.endswith("/scale:0")]) == 1
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not [point.name for point in found.points if point.twin_differences]


def test_a_variable_of_two_functions_is_refused_by_name():
    scale = tf.Variable(np.ones(4, np.float32), name="scale")
    model = model_of(lambda x: tf.nn.relu(x * scale) + scale)
    with pytest.raises(ValueError, match=r"'scale:0' is already a weight of `tf.*mul"):
        tf_lsq.quantize_model(model)


def test_a_trained_variable_is_refused_where_it_would_be_frozen():
    model = model_of(lambda x: tf.minimum(x, tf.Variable(1.0)))
    with pytest.raises(ValueError, match="would turn the trainable variable"):
        tf_lsq.quantize_model(model)


def test_constant_kernels_have_eight_bits_unless_overridden(rng):
    model = model_of(lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"))

    def bits(**options):
        student = tf_lsq.quantize_model(model, **options)
        [layer] = [
            la
            for la in student.layers
            if "conv2d" in la.name and "tf." in la.name and hasattr(la, "kernel")
        ]
        return layer.num_bits

    assert bits(weight_bits=2) == 8
    assert bits(weight_bits=2, overrides={"tf.*conv2d": 3}) == 3


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_saved_student_keeps_its_constants(ending, rng, tmp_path):
    student, x = tiny.student_of(model_of(lambda x: POSITIONS - x * POSITIONS), rng)
    student.save(tmp_path / f"student.{ending}")
    loaded = keras.models.load_model(tmp_path / f"student.{ending}")
    np.testing.assert_array_equal(
        loaded.predict_on_batch(x), student.predict_on_batch(x)
    )


def test_constants_left_in_float_are_float(rng, tmp_path):
    model = model_of(lambda x: x + POSITIONS)
    student, _ = tiny.student_of(model, rng, overrides={"tf.*add": "float"})
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert report.float_layers


def test_a_constant_may_broaden_its_input():
    layer = AddConstant((1, 4, 1, 3))
    assert layer.compute_output_shape((None, 4, 5, 1)) == (None, 4, 5, 3)


def test_five_axes_are_scaled(rng, tmp_path):
    inputs = layers.Input((4, 4, 12))
    x = layers.Reshape((4, 4, 3, 4))(layers.Conv2D(12, 1)(inputs))
    model = keras.Model(inputs, tf.sigmoid(x) * 2.0 - 0.5)
    student, x = tiny.student_of(model, rng, (16, 4, 4, 12))
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_a_function_cannot_share_the_kernel_of_a_layer():
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4, use_bias=False, name="square")
    model = keras.Model(inputs, tf.matmul(dense(inputs), dense.kernel))
    with pytest.raises(ValueError, match=r"'square/kernel:0' is already a weight of"):
        tf_lsq.quantize_model(model)
