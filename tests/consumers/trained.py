"""Trained classifiers whose labels and scores an app must give as the twin does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

from .files import write_images

IMAGES = 100
_CLASSES, _SIZE, _SEED = 10, 16, 0
_LABELS = "zero one two three four five six seven eight nine".split()
layers = keras.layers
FORMS = {
    "0 to 1": tf_lsq.Pixels(0.0, 255.0),
    "-1 to 1": tf_lsq.Pixels(127.5, 127.5),
    "standardized by channel": tf_lsq.Pixels(
        (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    ),
}
STORAGES = ("int8", "packed")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A file of a trained classifier.

    Attributes:
        name: How its images were prepared, and its storage.
        path: The file.
        scores: What the integer twin for x86-64 computes of the images, float32,
            `[images, classes]`.
        labels: The names of the classes.
        accuracy: Of the twin, on the images.
    """

    name: str
    path: Path
    scores: np.ndarray
    labels: list[str]
    accuracy: float


def write_trained(folder: Path) -> Iterator[Trained]:
    """Trains classifiers of colored digits, and writes their files and images.

    Args:
        folder: An empty folder.
    """
    pixels, digits = _digits()
    shown = slice(-IMAGES, None)
    write_images(folder, pixels[shown])
    for form, prepared in FORMS.items():
        keras.utils.set_random_seed(_SEED)
        x = prepared.encode(pixels)
        student = _student(prepared, x[:-IMAGES], digits[:-IMAGES])
        for storage in STORAGES:
            path = folder / f"{form.replace(' ', '_')}_{storage}.tflite"
            tflite_export.export_model(
                student,
                path,
                consumer="mediapipe",
                storage=storage,
                labels=_LABELS,
                verbose=False,
            )
            twin = tflite_export.integer_twin(
                student, storage=storage, runtime="x86-64"
            )
            scores = twin.predict(x[shown], verbose=0)
            accuracy = float((scores.argmax(1) == digits[shown]).mean())
            yield Trained(f"{form}, {storage}", path, scores, _LABELS, accuracy)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns digits in random colors on random ones: bytes, and what they are."""
    rng, data = np.random.default_rng(_SEED), load_digits()
    ink = np.repeat(np.repeat(data.images / data.images.max(), 2, 1), 2, 2)[..., None]
    dark, light = rng.integers(0, 90, (2, len(ink), 1, 1, 3)), 165
    pixels = dark[0] + (light + dark[1] - dark[0]) * ink
    return np.rint(pixels).astype(np.uint8), data.target


def _student(prepared: tf_lsq.Pixels, x: np.ndarray, y: np.ndarray) -> Any:
    """Returns a network with 4 bits that was trained on images."""
    inputs = layers.Input((_SIZE, _SIZE, 3), name="image")
    z = inputs
    for filters in (8, 16):
        z = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(z)
        z = layers.ReLU()(layers.BatchNormalization()(z))
    z = layers.Flatten()(z)
    outputs = layers.Dense(_CLASSES, activation="softmax", name="scores")(z)
    model = keras.Model(inputs, outputs, name="digits")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=6, verbose=0)
    student = tf_lsq.quantize_model(
        model, weight_bits=4, activation_bits=4, inputs=prepared
    )
    student.compile("adam", "sparse_categorical_crossentropy")
    student.fit(x, y, epochs=2, verbose=0)
    return student
