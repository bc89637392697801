"""Loads the data sets of the examples as NumPy arrays.

`digits` comes with scikit-learn, so it needs no download. The others are loaded with
TensorFlow Datasets: from `data_dir` if it contains them, else by download.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

NAMES = ("digits", "fashion_mnist", "cifar10")


@dataclasses.dataclass(frozen=True)
class Images:
    """A classification data set.

    Attributes:
        x_train: uint8 or float32 images, `[examples, height, width, channels]`,
            0 to `maximum`.
        y_train: Class numbers.
        x_test: Test images.
        y_test: Their class numbers.
        maximum: Largest value of a pixel.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    maximum: int = 255

    def limited(self, train: int, test: int) -> Images:
        """Returns only the first examples."""
        return dataclasses.replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )


def load(name: str, data_dir: str | None = None) -> Images:
    """Loads a data set by name.

    Args:
        name: One of `NAMES`.
        data_dir: Where TensorFlow Datasets keeps its files. If it contains the data
            set, nothing is downloaded.
    """
    if name == "digits":
        return _digits()
    import tensorflow_datasets as tfds

    arrays = []
    for split in ("train", "test"):
        data = tfds.load(
            name,
            split=split,
            data_dir=data_dir,
            download=data_dir is None,
            batch_size=-1,
            as_supervised=True,
        )
        arrays += [np.asarray(array) for array in tfds.as_numpy(data)]
    return Images(*arrays)


def training_batches(
    images: Images, seed: int, *, batch_size: int, pad: int, scale: float = 1
) -> tf.data.Dataset:
    """Returns shuffled batches, with every image flipped and shifted at random.

    The same seed gives the same batches, which differ between epochs.

    Args:
        images: What to train on.
        seed: Seed of the order, flips and shifts.
        batch_size: Images per batch; an incomplete last batch is dropped.
        pad: The largest shift, in pixels; the border is filled with zeros.
        scale: Divisor of the pixels.

    Returns:
        Float32 images and class numbers.
    """
    data = tf.data.Dataset.from_tensor_slices((images.x_train, images.y_train))
    data = data.shuffle(len(images.x_train), seed=seed)
    data = data.batch(batch_size, drop_remainder=True)
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)

    def augment(batch: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor) -> Any:
        x, y = batch
        return _augmented(tf.cast(x, tf.float32) / scale, pad, seed), y

    data = tf.data.Dataset.zip(data, seeds)
    return data.map(augment, num_parallel_calls=2, deterministic=True).prefetch(2)


def _augmented(x: tf.Tensor, pad: int, seed: tf.Tensor) -> tf.Tensor:
    """Flips and shifts each image of a batch independently."""
    count, height, width, _ = x.shape
    flipped, rows, columns = tf.unstack(
        tf.random.experimental.stateless_split(tf.cast(seed, tf.int32), 3)
    )
    flip = tf.random.stateless_uniform([count, 1, 1, 1], flipped) < 0.5
    x = tf.where(flip, x[:, :, ::-1], x)
    x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    for axis, size, axis_seed in ((1, height, rows), (2, width, columns)):
        shift = tf.random.stateless_uniform(
            [count, 1], axis_seed, 0, 2 * pad + 1, tf.int32
        )
        x = tf.gather(x, shift + tf.range(size), axis=axis, batch_dims=1)
    return x


def _digits() -> Images:
    """Loads scikit-learn's 1,797 handwritten digits, with half of them held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = digits.images[..., np.newaxis].astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.5, random_state=0, stratify=digits.target
    )
    return Images(x_train, y_train, x_test, y_test, maximum=16)
