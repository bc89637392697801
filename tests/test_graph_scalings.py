"""Layers that `keras.applications` defines for itself, in either Keras."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tf_keras
from keras.src.applications.convnext import LayerScale as LayerScale3
from keras.src.applications.inception_resnet_v2 import (
    CustomScaleLayer as CustomScaleLayer3,
)

import tf_lsq
import tflite_export
from tf_lsq._compat import CustomScaleLayer, LayerScale
from tf_lsq.layers import ChannelScaling

SHAPE = (6, 6, 4)
KERASES = {
    "tf_keras": (tf_keras, LayerScale, CustomScaleLayer),
    "Keras 3": (keras3, LayerScale3, CustomScaleLayer3),
}


def scale(classes, kernel):
    """A layer scale after a kernel, or after a sum, and one that is used twice."""
    keras, layer_scale, _ = classes
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    x = x if kernel else layers.Add(name="sum")([x, inputs])
    shared = layer_scale(0.1, 4, name="scale")
    x = layers.Add(name="joined")([shared(x), inputs])
    x = x if kernel else shared(x)
    return keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x))


def scaled_sum(classes):
    keras, _, custom_scale = classes
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    y = layers.Conv2D(4, 1, name="residual")(x)
    x = custom_scale(0.2, name="scaled")([x, y])
    x = layers.Activation("relu", name="relu")(x)
    return keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x))


BUILD = {
    "after a kernel": lambda classes: scale(classes, True),
    "used twice": lambda classes: scale(classes, False),
    "sum": scaled_sum,
}


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("keras", KERASES)
def test_layers_of_applications_are_exact(keras, name, bits, rng, tmp_path):
    model = BUILD[name](KERASES[keras])
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0.0, 0.5, weight.shape))
    x = rng.normal(size=(16, *SHAPE)).astype(np.float32)
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
    tf_lsq.calibrate(student, x)
    if bits == 8:
        difference = np.abs(np.asarray(student(x)) - np.asarray(model(x))).max()
        assert difference < 0.05 * np.ptp(np.asarray(model(x)))
    student.compile("sgd", "mse")
    student.fit(x, np.zeros((16, 6, 6, 3)), epochs=1, verbose=0)
    path = tmp_path / "model.tflite"
    assert not tflite_export.export_model(student, path, verbose=False).float_layers
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    assert found.twin_differences == 0 and found.off_by_one < 0.01


@pytest.mark.parametrize("trainable", [True, False])
def test_a_layer_scale_is_trained_unless_it_is_frozen(trainable, rng):
    model = scale(KERASES["tf_keras"], kernel=False)
    model.get_layer("scale").trainable = trainable
    student = tf_lsq.quantize_model(model)
    [layer] = [la for la in student.layers if isinstance(la, ChannelScaling)]
    assert layer.name == "scale" and bool(layer.trainable_variables) is trainable
    student.compile("sgd", "mse")
    x = rng.normal(size=(16, *SHAPE)).astype(np.float32)
    student.fit(x, np.ones((16, 6, 6, 3)), verbose=0)
    moved = not np.allclose(layer.gamma.numpy(), 0.1, atol=1e-7)
    assert moved is trainable
