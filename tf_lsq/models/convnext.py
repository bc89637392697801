"""Small ConvNeXt networks."""

from __future__ import annotations

from typing import Any

from .._compat import keras
from .parts import Shape, check_sizes, conv, scaled

layers = keras.layers

_IMAGE: Shape = (224, 224, 3)
_BLOCKS = (2, 2, 6, 2)
_ATTO, _PICO = 40, 64  # Channels of the first stage; each next one has twice as many.
_EXPANSION = 4
_SMALL = 64  # Images of fewer pixels get a stem without strides of 4.


def convnext_atto(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ConvNeXt-Atto, with 3.7 million parameters.

    It has the blocks of the first publication without their layer scales, which the
    second one leaves out, and the sizes of the second. Images of fewer than 64 pixels
    are not divided by 4, but by 2, in the stem.

    Args:
        input_shape: Height, width and channels of an image.
        classes: Number of logits.
        width: Multiplier of the number of channels.

    Raises:
        ValueError: If a size is not positive.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022,
        https://arxiv.org/abs/2201.03545; Woo et al., "ConvNeXt V2", CVPR 2023,
        https://arxiv.org/abs/2301.00808
    """
    return _convnext("convnext_atto", _ATTO, input_shape, classes, width)


def convnext_pico(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ConvNeXt-Pico, with 9.0 million parameters; see `convnext_atto`."""
    return _convnext("convnext_pico", _PICO, input_shape, classes, width)


def _convnext(
    name: str, base: int, input_shape: Shape, classes: int, width: float
) -> keras.Model:
    """Returns a network with `base` channels in its first stage."""
    check_sizes(classes, width)
    channels = scaled(base, width)
    inputs = layers.Input(input_shape, name="image")
    patch = 2 if min(input_shape[:2]) < _SMALL else 4
    x = _reduced(inputs, channels, patch, "stem")
    x = _norm(x, "stem_norm")
    for stage, blocks in enumerate(_BLOCKS, start=1):
        if stage > 1:
            channels *= 2
            x = _norm(x, f"stage{stage}_norm")
            x = _reduced(x, channels, 2, f"stage{stage}_down")
        for block in range(1, blocks + 1):
            x = _block(x, channels, f"stage{stage}_block{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(classes, name="logits")(_norm(x, "norm"))
    return keras.Model(inputs, x, name=name)


def _norm(x: Any, name: str) -> Any:
    """Layer norm."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def _reduced(x: Any, channels: int, patch: int, name: str) -> Any:
    """Convolution of patches that do not overlap."""
    return conv(x, channels, patch, name, strides=patch, padding="valid", use_bias=True)


def _block(x: Any, channels: int, name: str) -> Any:
    """Depthwise convolution, layer norm, and two layers for each pixel, added."""
    y = layers.DepthwiseConv2D(7, padding="same", name=f"{name}_depthwise")(x)
    y = _norm(y, f"{name}_norm")
    y = layers.Dense(channels * _EXPANSION, name=f"{name}_expand")(y)
    y = layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = layers.Dense(channels, name=f"{name}_project")(y)
    return layers.Add(name=f"{name}_add")([x, y])
