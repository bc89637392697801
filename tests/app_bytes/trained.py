"""Trains the students, and keeps them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras as keras3
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import tf_lsq
from tf_lsq._compat import keras

from .models import SIZE, AppModel

BITS = 4
BATCH_SIZE = 64
RATE, STUDENT_RATE = 4e-3, 5e-4  # Of Adam; both end at 0.


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Images and their classes.

    Attributes:
        name: Of the data set.
        x: uint8, `[images, SIZE, SIZE, channels]`.
        y: Class numbers.
    """

    name: str
    x: np.ndarray
    y: np.ndarray


def photographs(channels: int, split: str, folder: Path) -> Photographs:
    """Loads one split of CIFAR-10, or of Fashion-MNIST with a frame of zeros.

    Args:
        channels: 3 or 1.
        split: As TensorFlow Datasets has it, such as "train[:1000]".
        folder: Where TensorFlow Datasets keeps its files; nothing is downloaded.
    """
    name = "cifar10" if channels == 3 else "fashion_mnist"
    loaded = tfds.load(
        name, split=split, data_dir=folder, download=False, batch_size=-1
    )
    images = tf.image.resize_with_crop_or_pad(loaded["image"], SIZE, SIZE)
    return Photographs(name, images.numpy(), loaded["label"].numpy())


def student_of(app: AppModel, train: Photographs, path: Path) -> Any:
    """Returns the student in a file; if there is none, it is trained and saved.

    A float model is trained first, the student from there for one epoch.

    Args:
        app: The model.
        train: What to train on.
        path: The `.keras` file.
    """
    keras.backend.clear_session()
    keras3.utils.clear_session()
    keras.utils.set_random_seed(0)
    if not path.exists():
        x = app.values_of(train.x)
        model = app.model()
        _fit(app, model, x, train.y, RATE, app.epochs)
        student = tf_lsq.quantize_model(
            model, weight_bits=BITS, activation_bits=BITS, inputs=app.inputs
        )
        _fit(app, student, x, train.y, STUDENT_RATE, 1)
        student.save(path)
    return app.library.models.load_model(path)


def _fit(
    app: AppModel, model: Any, x: Any, y: np.ndarray, rate: float, epochs: int
) -> None:
    """Trains with Adam and cosine decay."""
    optimizers = app.library.optimizers
    steps = epochs * -(-len(y) // BATCH_SIZE)
    schedule = optimizers.schedules.CosineDecay(rate, steps)
    loss = app.library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.Adam(schedule), loss)
    model.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
