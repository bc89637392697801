"""Models whose app copies bytes: every way to normalize images, of both Kerases.

Each is `build(library)`, for images of 32 x 32 pixels with 1 or 3 channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras as keras3
import tensorflow as tf

from tf_lsq import Pixels
from tf_lsq._compat import keras

SIZE, CLASSES = 32, 10
BYTES = Pixels(0, 1)
MEANS, STDS = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # Of CIFAR-10.


@dataclasses.dataclass(frozen=True)
class AppModel:
    """A model and how its images are normalized.

    Attributes:
        build: Returns the float model.
        library: The Keras that it is of.
        inputs: For `quantize_model`.
        pixels: How the values that it takes encode bytes.
        channels: 1: Fashion-MNIST; 3: CIFAR-10.
        dtype: Type of its input.
        epochs: How long the float model is trained.
    """

    build: Callable[[AppModel], Any]
    library: Any
    inputs: Pixels | dict[str, Pixels] | None = None
    pixels: Pixels = BYTES
    channels: int = 3
    dtype: str = "float32"
    epochs: int = 2

    def model(self):
        return self.build(self)

    def bytes_of(self, images):
        """What an app copies, by the name of the input."""
        if not isinstance(self.inputs, dict):
            return {"image": images}
        return {"image": images, "small": images[:, ::2, ::2]}

    def values_of(self, images):
        """What Keras takes for the same images."""
        if self.dtype == "uint8":
            return images
        values = [self.pixels.encode(one) for one in self.bytes_of(images).values()]
        return values if len(values) > 1 else values[0]

    def image(self, name="image", size=SIZE):
        shape = (size, size, self.channels)
        return self.library.Input(shape, dtype=self.dtype, name=name)


def mlp(app):
    layers = app.library.layers
    inputs = app.image()
    x = layers.Flatten()(inputs)
    for _ in range(2):
        x = layers.Dense(64, activation="relu")(x)
    return app.library.Model(inputs, layers.Dense(CLASSES)(x))


def _conv_norm(layers, x, filters, strides=1, size=3):
    conv = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)
    return layers.BatchNormalization(momentum=0.9)(conv(x))


def resnet8(front=None):
    """MLPerf Tiny's network, narrower; after `front(app)`, if there is one."""

    def build(app):
        layers = app.library.layers
        inputs = app.image()
        x = inputs if front is None else front(app)(inputs)
        x = layers.ReLU()(_conv_norm(layers, x, 8))
        for filters, strides in ((8, 1), (16, 2), (32, 2)):
            y = layers.ReLU()(_conv_norm(layers, x, filters, strides))
            y = _conv_norm(layers, y, filters)
            if strides > 1:
                x = _conv_norm(layers, x, filters, strides, 1)
            x = layers.ReLU()(layers.Add()([x, y]))
        x = layers.GlobalAveragePooling2D()(x)
        return app.library.Model(inputs, layers.Dense(CLASSES)(x))

    return build


def mobilenet(app):
    """Pads with zeros itself before the first convolution."""
    model = app.library.applications.MobileNet(
        (SIZE, SIZE, app.channels), alpha=0.25, weights=None, classes=CLASSES,
        dropout=0.0, classifier_activation=None,
    )  # fmt: skip
    for layer in model.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = 0.9  # For short trainings.
    return model


def two_inputs(app):
    """An image, and the same at half the size."""
    layers = app.library.layers
    image, small = app.image("image"), app.image("small", SIZE // 2)
    x = layers.ReLU()(_conv_norm(layers, image, 16, 2))
    y = layers.ReLU()(_conv_norm(layers, small, 16))
    x = layers.ReLU()(_conv_norm(layers, layers.Concatenate()([x, y]), 32, 2))
    x = layers.GlobalAveragePooling2D()(x)
    return app.library.Model([image, small], layers.Dense(CLASSES)(x))


def _preprocessing(name):
    return resnet8(lambda app: getattr(app.library.applications, name).preprocess_input)


def _rescaling(*numbers):
    return resnet8(lambda app: app.library.layers.Rescaling(*numbers))


def _normalization(app):
    variance = [std * std for std in STDS]
    return app.library.layers.Normalization(mean=list(MEANS), variance=variance)


def _cast(app):
    cast = tf.cast if app.library is keras else keras3.ops.cast
    return lambda x: cast(x, "float32") / 255.0


def _given(build, library, pixels, **settings):
    return AppModel(build, library, pixels, pixels, **settings)


_SEVERAL = {"image": Pixels(127.5, 127.5), "small": Pixels(127.5, 127.5)}
APP_MODELS = {
    "MLP, gray, 0 to 1": _given(mlp, keras, Pixels(), channels=1),
    "MLP, gray, -1 to 1": _given(mlp, keras3, Pixels(127.5, 127.5), channels=1),
    "ResNet, 0 to 1": _given(resnet8(), keras3, Pixels()),
    "ResNet, standardized": _given(resnet8(), keras, Pixels(MEANS, STDS)),
    "ResNet, gray standardized": _given(
        resnet8(), keras3, Pixels(72.9, 90.0), channels=1
    ),
    "ResNet, blue first": _given(resnet8(), keras, Pixels(MEANS[::-1], 64, "bgr")),
    "MobileNet, -1 to 1": _given(
        mobilenet, keras, Pixels(127.5, 127.5), channels=1, epochs=4
    ),
    "MobileNet, around 128": _given(
        mobilenet, keras3, Pixels(128, 128), channels=1, epochs=4
    ),
    "Rescaling": AppModel(_rescaling(1 / 255), keras),
    "Rescaling to -1 to 1": AppModel(_rescaling(1 / 127.5, -1), keras3),
    "Normalization": AppModel(resnet8(_normalization), keras3),
    "preprocess_input, tf": AppModel(_preprocessing("mobilenet"), keras3),
    "preprocess_input, torch": AppModel(_preprocessing("densenet"), keras),
    "preprocess_input, caffe": AppModel(_preprocessing("resnet50"), keras3),
    "uint8": AppModel(resnet8(_cast), keras3, dtype="uint8"),
    "two inputs": AppModel(two_inputs, keras, _SEVERAL, _SEVERAL["image"], epochs=6),
}
