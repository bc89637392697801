"""Warnings about first batches that bytes could not give."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
from tf_lsq import Pixels
from tf_lsq._compat import keras

layers = keras.layers

IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
ZERO_TO_ONE, MINUS_ONE_TO_ONE = Pixels(), Pixels(127.5, 127.5)


def student(pixels, front=None):
    inputs = layers.Input((8, 8, 3), name="image")
    x = inputs if front is None else front(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, layers.Dense(5)(x))
    return tf_lsq.quantize_model(model, inputs=pixels)


def images(rng):
    return rng.integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)


# What the user says -> how the data were normalized, and what the warning says.
WRONG = {
    "bytes are not divided": (
        ZERO_TO_ONE, Pixels(0, 1), r"0 to 255\. .* 0 to 1 with Pixels\(0, 255\)\. .* "
        r"whole bytes with Pixels\(0, 1\)"
    ),
    "divided twice": (ZERO_TO_ONE, Pixels(0, 255**2), r"values from 0 to 0\.0039"),
    "another interval": (
        ZERO_TO_ONE, MINUS_ONE_TO_ONE, r"-1 to 1\..* bytes with Pixels\(127.5, 127.5\)"
    ),
    "the other way round": (
        MINUS_ONE_TO_ONE, ZERO_TO_ONE, r"whole bytes with Pixels\(0, 255\)"
    ),
    "an interval instead of means": (
        IMAGENET, MINUS_ONE_TO_ONE, r"whole bytes with Pixels\(127.5, 127.5\)"
    ),
    "means of the other order": (
        IMAGENET, Pixels(IMAGENET.mean[::-1], IMAGENET.std[::-1]),
        r"whole bytes with Pixels\(\[103.53, 116.28, 123.675\]"
    ),
    "caffe": (
        Pixels(0, 1), Pixels((103.939, 116.779, 123.68), 1, "bgr"),
        r'Pixels\(\[103.939, 116.779, 123.68\], 1, order="bgr"\)'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_data_of_another_normalization_are_reported(name, rng):
    said, true, message = WRONG[name]
    model, x = student(said), true.encode(images(rng))
    with pytest.warns(UserWarning, match=message):
        tf_lsq.calibrate(model, x)


def test_a_model_that_normalizes_bytes_itself_is_given_bytes(rng):
    model = student(None, layers.Rescaling(1 / 255))
    with pytest.warns(UserWarning, match=r"`image`: values from 0 to 1\.") as caught:
        tf_lsq.calibrate(model, ZERO_TO_ONE.encode(images(rng)))
    assert "inputs={name: None}" in str(caught[0].message)


def test_training_reports_it_once(rng):
    model, y = student(ZERO_TO_ONE), rng.integers(0, 5, 32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-6), loss)
    with pytest.warns(UserWarning, match="These inputs are pixels") as caught:
        model.fit(images(rng).astype(np.float32), y, epochs=2, verbose=0)
    assert len(caught) == 1


@pytest.mark.parametrize("kind", ["bytes", "resized", "cubic", "float16", "dark"])
@pytest.mark.parametrize("pixels", [ZERO_TO_ONE, MINUS_ONE_TO_ONE, IMAGENET])
def test_images_are_not_reported(kind, pixels, rng):
    image = images(rng).astype(np.float32)
    if kind == "resized":
        image = tf.image.resize(image, (5, 5)).numpy()
        image = tf.image.resize(image, (8, 8)).numpy()
    elif kind == "cubic":
        image = np.clip(image, 10, 245)
        image = tf.image.resize(image[:, :4, :4], (8, 8), "bicubic").numpy()
        assert image.min() < 0 or image.max() > 245
        image = np.clip(image, -15, 270)
    elif kind == "dark":
        image = image // 3
    x = pixels.encode(image)
    x = x.astype(np.float16).astype(np.float32) if kind == "float16" else x
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_lsq.calibrate(student(pixels), x)


def test_an_input_that_is_no_pixels_takes_anything(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_lsq.calibrate(student(None), 1000 * rng.normal(size=(8, 8, 8, 3)))
