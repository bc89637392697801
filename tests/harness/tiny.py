"""Tiny models for tests, with plausible weights, as after training."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import keras
from tflite_export.build import FileSettings, build_file
from tflite_export.freezing import Storage, read_model

layers = keras.layers


def randomize(model, rng):
    """Gives every weight a plausible random value, batch norms included."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, size))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size))
            if layer.scale:
                sign = rng.choice([-1.0, 1.0, 1.0, 1.0], size)
                layer.gamma.assign(sign * rng.uniform(0.5, 1.5, size))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.3, size))
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0, 0.2, layer.bias.shape))
    return model


def conv_bn_relu(x, filters=8, size=3, **kwargs):
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, **kwargs)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def residual(num_classes=5, shape=(8, 8, 3)):
    """Post-activation residual network with softmax."""
    inputs = layers.Input(shape, name="image")
    x = conv_bn_relu(inputs)
    y = conv_bn_relu(x)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(num_classes, activation="softmax", name="scores")(x)
    return keras.Model(inputs, outputs, name="residual")


def pre_activation(num_classes=5, shape=(8, 8, 3)):
    """Pre-activation residual network: standalone batch norms, logits."""
    inputs = layers.Input(shape, name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    for filters, strides in ((8, 1), (16, 2)):
        pre = layers.ReLU()(layers.BatchNormalization()(x))
        shortcut = x
        if strides > 1:
            shortcut = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(pre)
        y = conv_bn_relu(pre, filters, strides=strides)
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        x = layers.Add()([y, shortcut])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(num_classes)(x), name="pre_activation")


def largest_difference(found, expected):
    """The largest difference of outputs, as a share of the range of the expected."""
    found, expected = (map(np.asarray, tf.nest.flatten(x)) for x in (found, expected))
    pairs = zip(found, expected, strict=True)
    return max(np.abs(one - other).max() / np.ptp(other) for one, other in pairs)


class Holder(keras.Model):
    """Trains a quantized model that it contains, as a distiller does."""

    def __init__(self, student):
        super().__init__(name="holder")
        self.student = student

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)


def calibrated(build, rng, bits=4, **options):
    """A quantized model with random weights, as after training, and its data."""
    model = randomize(build(), rng)
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, **options
    )
    x = rng.uniform(-1, 1, (80, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    return student, x


def student_of(model, rng, shape=(64, 8, 8, 3), **options):
    """`model` quantized and calibrated, and the data it was calibrated on."""
    student = tf_lsq.quantize_model(model, **options)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student, x


def random_inputs(model, rng, count=64):
    """Random values for the only input of a model; of an embedding, rows of its table.

    Tables have at least 4 rows in these tests.
    """
    shape = (count, *model.input_shape[1:])
    if any(isinstance(layer, layers.Embedding) for layer in model.layers):
        return rng.integers(0, 4, shape).astype(model.inputs[0].dtype.name)
    return rng.normal(0, 1, shape).astype(np.float32)


def compiled(student, optimizer="sgd"):
    """`student`, compiled as a classifier."""
    student.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return student


def built(student, storage="int8", bias_grid="own", **ends):
    """The `BuiltFile` of a quantized model: its file, and what it was built from."""
    settings = FileSettings(Storage(storage, bias_grid), **ends)
    return build_file(read_model(student), settings)


def trained_kernel(student, layer):
    """The trained values of a layer's kernel."""
    nodes = read_model(student).nodes
    [kernel] = {n.kernel for n in nodes if n.kernel is not None and n.layer == layer}
    return kernel


def trained_point(student, layer):
    """The trained values of a quantization point."""
    nodes = read_model(student).nodes
    [point] = {n.point for n in nodes if n.point is not None and n.layer == layer}
    return point
