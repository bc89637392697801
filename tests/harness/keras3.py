"""A small Keras 3 network, its data, and its students in either Keras."""

from __future__ import annotations

import keras as keras3
import numpy as np

import tf_lsq
import tflite_export

layers = keras3.layers
SHAPE = (10, 10, 3)


def network(activation="softmax", **conv):
    """A classifier of four classes with the same weights every time."""
    keras3.utils.set_random_seed(0)
    inputs = keras3.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, name="conv_1", **conv)(inputs)
    x = layers.ReLU(name="relu_1")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(8, 3, activation="relu", name="conv_2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(4, activation=activation, name="scores")(x)
    return keras3.Model(inputs, outputs, name="network")


def examples(count=48):
    """Images of four kinds, and their labels."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 4
    x = rng.uniform(0, 0.5, (count, *SHAPE)) + y[:, None, None, None] / 8
    return x.astype(np.float32), y


def student(**options):
    """The Keras 3 student of the network."""
    return tf_lsq.quantize_model(network(), **options)


def tf_keras_student(**options):
    """The tf_keras student of the network."""
    return tf_lsq.quantize_model(tf_lsq.from_keras3(network()), **options)


def compiled(model, optimizer=None, **options):
    """A Keras 3 model, compiled as a classifier with objects of Keras 3."""
    optimizer = optimizer or keras3.optimizers.SGD(0.01, momentum=0.9)
    loss = keras3.losses.SparseCategoricalCrossentropy()
    model.compile(optimizer, loss, **options)
    return model


def check_export(model, path, x):
    """Exports and verifies a student; every code of its kernels must be equal."""
    report = tflite_export.export_model(model, path, data=x, verbose=False)
    found = report.verification
    assert found.equal_codes == found.weight_codes > 0
    assert not any(one.twin_differences for one in found.outputs.values())
