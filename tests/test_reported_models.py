"""Models from bug reports that quantization-aware training could not handle.

Numbers refer to issues in https://github.com/tensorflow/model-optimization.
Every model is as reported, with fewer pixels and channels.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import import_keras3, keras
from tf_lsq.training import pixel_points

layers = keras.layers
keras3 = import_keras3()


@pytest.fixture
def proved(rng, tmp_path):
    """Trains the quantized model for one epoch, exports and verifies it."""

    def prove(model, **options):
        student = tf_lsq.quantize_model(model, **options)
        largest = 255 if pixel_points(student) else 1
        x = rng.uniform(0, largest, (16, *student.input_shape[1:])).astype(np.float32)
        student.compile("sgd", "mse")
        targets = [np.zeros((16, *y.shape[1:])) for y in student.outputs]
        student.fit(x, targets, batch_size=8, verbose=0)
        path = tmp_path / "model.tflite"
        assert not tflite_export.export_model(student, path).float_layers
        found = tflite_export.verify_tflite(path, student, x, verbose=False)
        assert found.equal_codes == found.weight_codes > 0
        return student

    return prove


def test_issue_957_a_nested_model_is_exported(proved):
    inputs = keras.Input((3,))
    seq = keras.Sequential()
    seq.add(layers.Dense(2))
    proved(keras.Model(inputs, seq(inputs)))


def test_issue_377_a_frozen_backbone_with_a_head_is_exported(proved):
    """VGG's first blocks as backbone, a pooled head; the backbone is frozen."""
    backbone = keras.Sequential(name="backbone")
    backbone.add(layers.InputLayer((16, 16, 3)))
    for filters in (4, 8):
        for _ in range(2):
            backbone.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        backbone.add(layers.MaxPooling2D(2))
    backbone.trainable = False
    head = keras.Sequential(
        [
            layers.InputLayer((4, 4, 8)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )
    inputs = keras.Input((16, 16, 3))
    before = [w.numpy() for w in backbone.weights]
    student = proved(keras.Model(inputs, head(backbone(inputs))))
    kernels = [w for w in student.weights if "kernel:0" in w.name][:4]
    for found, expected in zip(kernels, before[::2], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_issue_763_fuse_layers_of_hrnet_are_exported(proved, rng):
    """Batch norms without activation, upsampled and added across resolutions."""

    def norm(x):
        return layers.BatchNormalization()(x)

    inputs = keras.Input((8, 8, 3))
    high = layers.ReLU()(norm(layers.Conv2D(4, 3, padding="same")(inputs)))
    low = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(high)
    low = layers.ReLU()(norm(low))
    up = norm(layers.Conv2D(4, 1, use_bias=False)(low))
    up = layers.UpSampling2D(2, interpolation="nearest")(up)
    down = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(high)
    down = norm(layers.Conv2D(6, 1, use_bias=False)(norm(down)))
    high = layers.ReLU()(layers.Add()([high, up]))
    low = layers.ReLU()(layers.Add()([low, down]))
    low = layers.UpSampling2D(2, interpolation="bilinear")(low)
    x = layers.Conv2D(2, 1)(layers.Concatenate()([high, low]))
    proved(tiny.randomize(keras.Model(inputs, x), rng))


def test_issue_1145_tf_functions_of_mobilenet_v3_are_exported(proved, rng):
    model = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), alpha=0.5, weights=None, classes=4
    )
    proved(tiny.randomize(model, rng))


@pytest.mark.parametrize("layer_class", [layers.Conv1D, layers.SeparableConv1D])
def test_issue_362_one_dimensional_convolutions_are_exported(layer_class, proved, rng):
    inputs = keras.Input((32, 4))
    x = layer_class(8, 5, padding="same", strides=2)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling1D(2)(layers.Dropout(0.1)(x))
    x = layer_class(8, 3, activation="relu")(x)
    x = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    proved(tiny.randomize(keras.Model(inputs, x), rng))


def test_issues_1119_and_1270_keras_3_models_are_exported(proved):
    inputs = keras3.Input((8, 8, 3))
    x = keras3.layers.Conv2D(4, 3, use_bias=False)(inputs)
    x = keras3.layers.ReLU()(keras3.layers.BatchNormalization()(x))
    x = keras3.layers.GlobalAveragePooling2D()(x) * 2.0
    proved(keras3.Model(inputs, keras3.layers.Dense(3, activation="softmax")(x)))


def test_issue_1144_a_loaded_keras_3_sequential_model_is_exported(proved, tmp_path):
    model = keras3.Sequential(
        [
            keras3.layers.Input((16, 16, 1)),
            keras3.layers.Rescaling(1 / 255),
            keras3.layers.Conv2D(4, 3, activation="relu"),
            keras3.layers.MaxPooling2D(),
            keras3.layers.Flatten(),
            keras3.layers.Dropout(0.5),
            keras3.layers.Dense(1, activation="sigmoid"),
        ]
    )
    path = tmp_path / "model.keras"
    model.save(path)
    proved(keras3.models.load_model(path))


def test_issue_1139_outputs_sliced_from_one_tensor_are_exported(proved):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="sigmoid")(inputs)
    proved(keras.Model(inputs, [x[..., 0:2], x[..., 2:4], x[..., 4:6]]))


def test_issue_1062_the_channel_shuffle_of_shufflenet_v2_is_exported(proved, rng):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    left, right = tf.split(x, 2, axis=-1)
    right = layers.Conv2D(4, 1, use_bias=False)(right)
    right = layers.ReLU()(layers.BatchNormalization()(right))
    right = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(right)
    right = layers.BatchNormalization()(right)
    x = tf.concat([left, right], axis=-1)
    x = tf.reshape(x, [-1, 8, 8, 2, 4])
    x = tf.reshape(tf.transpose(x, [0, 1, 2, 4, 3]), [-1, 8, 8, 8])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    proved(tiny.randomize(keras.Model(inputs, x), rng))
