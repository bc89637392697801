"""The networks to measure, in float, with TF-MOT and with this library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras as keras

import tf_lsq
from tf_lsq._compat import tfmot

layers = keras.layers


def resnet8() -> keras.Model:
    """Returns MLPerf Tiny's ResNet-8 for 32x32 images."""

    def conv(x: Any, filters: int, size: int = 3, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides, padding="same")(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input((32, 32, 3))
    x = layers.ReLU()(conv(inputs, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = x
        if strides > 1:
            shortcut = layers.Conv2D(filters, 1, strides, padding="same")(x)
        y = conv(layers.ReLU()(conv(x, filters, strides=strides)), filters)
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10)(x), name="resnet8")


def preact_resnet18() -> keras.Model:
    """Returns the pre-activation ResNet-18, 16 initial channels, for 32x32 images."""
    return tf_lsq.models.preact_resnet18((32, 32, 3), classes=10, width=0.25)


def mobilenet() -> keras.Model:
    """Returns MobileNet 0.25 for 96x96 images."""
    return keras.applications.MobileNet(
        (96, 96, 3), alpha=0.25, weights=None, classes=10, classifier_activation=None
    )


NETWORKS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "resnet8": (resnet8, 64),
    "preact_resnet18": (preact_resnet18, 32),
    "mobilenet": (mobilenet, 32),
}
# Networks of attention and normalizations, which TF-MOT refuses.
TRANSFORMERS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "kwt1, 6 blocks": (lambda: tf_lsq.models.kwt1((28, 28), 10, blocks=6), 128),
    "mobilevit_xxs 0.5": (
        lambda: tf_lsq.models.mobilevit_xxs((32, 32, 3), 10, width=0.5),
        64,
    ),
    "convnext_atto 0.5": (
        lambda: tf_lsq.models.convnext_atto((32, 32, 3), 10, width=0.5),
        64,
    ),
}


def lsq(model: keras.Model) -> keras.Model:
    """Returns a network with 4-bit weights and activations."""
    return tf_lsq.quantize_model(model)


def lsq_keras3(model: keras.Model) -> Any:
    """Returns the same network as a Keras 3 model."""
    return tf_lsq.keras3.LSQModel(tf_lsq.quantize_model(model))


def lsq_plain(model: keras.Model) -> keras.Model:
    """Returns the same network with the plain form of the operator."""
    student = tf_lsq.quantize_model(model)
    student.use_plain_op()
    return student


def tfmot_int8(model: keras.Model) -> keras.Model:
    """Returns a network quantized by TF-MOT with its default scheme, 8 bits.

    Batch norms that do not follow a kernel, which TF-MOT refuses, get no quantizer.
    """
    quantization = tfmot.quantization.keras
    bare = _default_8bit().NoOpQuantizeConfig

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, layers.InputLayer):
            return layer
        if isinstance(layer, layers.BatchNormalization) and not _follows_kernel(layer):
            return quantization.quantize_annotate_layer(layer, bare())
        return quantization.quantize_annotate_layer(layer)

    annotated = keras.models.clone_model(model, clone_function=annotate)
    annotated.set_weights(model.get_weights())
    with quantization.quantize_scope({"NoOpQuantizeConfig": bare}):
        return quantization.quantize_apply(annotated)


def _follows_kernel(layer: keras.layers.Layer) -> bool:
    """Returns whether the previous layer is a convolution."""
    [node] = layer.inbound_nodes
    return isinstance(node.inbound_layers, layers.Conv2D | layers.DepthwiseConv2D)


def _default_8bit() -> Any:
    """Returns TF-MOT's module of 8-bit configs, which has no public name."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E501
        default_8bit_quantize_configs,
    )

    return default_8bit_quantize_configs


CONTESTANTS: dict[str, Callable[[keras.Model], keras.Model]] = {
    "float": lambda model: model,
    "TF-MOT 8-bit": tfmot_int8,
    "tf_lsq": lsq,
    "tf_lsq, plain form": lsq_plain,
    "tf_lsq, Keras 3": lsq_keras3,
}
