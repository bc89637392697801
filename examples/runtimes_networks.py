"""Trains the networks of `runtimes.py`, and keeps them in a folder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import sounds
import storage
import tf_keras as keras

import tf_lsq
from tf_lsq.models import ds_cnn

_RATES = {8: 0.001, 4: 0.01, 2: 0.01}  # Bits -> learning rate, from the float network.


@dataclasses.dataclass(frozen=True)
class Settings:
    """How networks are trained.

    Attributes:
        models: Folder of trained networks, which are not trained again.
        data_dir: Where TensorFlow Datasets keeps its files.
        epochs: Epochs in float and with LSQ.
        train: Images and sounds to train on.
        test: Images and sounds to test on.
        width: Multiplier of the number of channels, for a quick try.
    """

    models: Path
    data_dir: str | None = None
    epochs: int = 3
    train: int = 60_000
    test: int = 10_000
    width: float = 1.0


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        name: What the tables call it.
        bits: Bits of weights and activations.
        student: The quantized model.
        x: Test examples.
        y: Their class numbers.
    """

    name: str
    bits: int
    student: keras.Model
    x: np.ndarray
    y: np.ndarray


def resnet8(folder: Path, settings: Settings) -> Iterator[Trained]:
    """Loads the models of `cifar10_resnet8.py`.

    Args:
        folder: Its output.
        settings: Where the images are, and how many to test on.
    """
    data = datasets.load("cifar10", settings.data_dir).limited(1, settings.test)
    for bits in (4, 2):
        student = keras.models.load_model(folder / f"lsq{bits}.keras", compile=False)
        yield Trained("ResNet-8", bits, student, _floats(data.x_test), data.y_test)


def residual(settings: Settings) -> Iterator[Trained]:
    """Trains the residual network of `storage.py` on Fashion-MNIST."""
    build = functools.partial(storage.network, (28, 28, 1), 10)
    yield from _students("residual", build, _fashion(settings), settings)


def mobilenet_v2(settings: Settings) -> Iterator[Trained]:
    """Trains MobileNetV2 0.35 on Fashion-MNIST, with a border around the images."""
    data = _fashion(settings)
    yield from _students("MobileNetV2 0.35", _mobilenet_v2, data, settings)


def _mobilenet_v2() -> keras.Model:
    """Returns the network."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = keras.layers.Rescaling(1 / 255)(keras.layers.ZeroPadding2D(2)(inputs))
    network = keras.applications.MobileNetV2(
        input_tensor=x,
        alpha=0.35,
        weights=None,
        classes=10,
        classifier_activation=None,
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # For few steps; it was 0.999.
    return network


def keywords(settings: Settings, bits: tuple[int, ...]) -> Iterator[Trained]:
    """Trains DS-CNN on the sounds of `sounds.py`."""
    train, test = min(settings.train, 10_000), min(settings.test, 10_000)
    cached = settings.models / f"sounds_{train}_{test}.npz"
    if not cached.exists():
        made = sounds.load(train, test)
        np.savez(cached, **dataclasses.asdict(made))
    with np.load(cached) as arrays:
        names = ("x_train", "y_train", "x_test", "y_test")
        data = datasets.Images(*[arrays[name] for name in names], maximum=1)
    build = functools.partial(ds_cnn, width=settings.width)
    yield from _students("DS-CNN", build, data, settings, bits)


def _fashion(settings: Settings) -> datasets.Images:
    """Returns Fashion-MNIST."""
    data = datasets.load("fashion_mnist", settings.data_dir)
    return data.limited(settings.train, settings.test)


def _students(
    name: str,
    build: Callable[[], keras.Model],
    data: datasets.Images,
    settings: Settings,
    all_bits: tuple[int, ...] = (4, 2),
) -> Iterator[Trained]:
    """Trains a network in float, and from there at each number of bits."""
    plain = name.lower().replace(" ", "_")
    path = settings.models / f"{plain}_float.keras"
    if not path.exists():
        keras.utils.set_random_seed(0)
        network = build()
        accuracy = storage.train(network, data, 0.1, settings.epochs)
        print(f"{name}, float: {accuracy:.2%}", flush=True)
        network.save(path)
    network = keras.models.load_model(path, compile=False)
    for bits in all_bits:
        path = settings.models / f"{plain}_{bits}.keras"
        if not path.exists():
            keras.utils.set_random_seed(0)
            student = tf_lsq.quantize_model(
                network, weight_bits=bits, activation_bits=bits
            )
            accuracy = storage.train(student, data, _RATES[bits], settings.epochs)
            print(f"{name}, {bits} bits: {accuracy:.2%}", flush=True)
            student.save(path)
        student: Any = keras.models.load_model(path, compile=False)
        yield Trained(name, bits, student, _floats(data.x_test), data.y_test)


def _floats(images: np.ndarray) -> np.ndarray:
    """Returns images as float32."""
    return images.astype(np.float32)
