"""The data sets of the examples, as NumPy arrays.

`digits` comes with scikit-learn, so it needs no download. The others are loaded
with TensorFlow Datasets: from `data_dir` if it holds them, else downloaded.
"""

from __future__ import annotations

import dataclasses

import numpy as np

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
        """Returns the first examples only."""
        return dataclasses.replace(
            self,
            x_train=self.x_train[:train],
            y_train=self.y_train[:train],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )


def load(name: str, data_dir: str | None = None) -> Images:
    """Returns a data set by name.

    Args:
        name: One of `NAMES`.
        data_dir: Where TensorFlow Datasets keeps its files. If it holds the
            data set, nothing is downloaded.
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


def _digits() -> Images:
    """Returns scikit-learn's 1,797 handwritten digits, half of them held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = digits.images[..., np.newaxis].astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.5, random_state=0, stratify=digits.target
    )
    return Images(x_train, y_train, x_test, y_test, maximum=16)
