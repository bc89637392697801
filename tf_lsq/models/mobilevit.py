"""MobileViT, of convolutions and attention."""

from __future__ import annotations

from typing import Any

from .._compat import keras
from .parts import Shape, check_sizes, conv, scaled

layers = keras.layers

_IMAGE: Shape = (256, 256, 3)
_STEM, _HEAD = 16, 320
# Channels of the inverted residual blocks, and the stride of the first of them; then
# channels and layers of the transformer after them, (0, 0) for none.
_STAGES = (
    (16, 1, 1, 0, 0),
    (24, 2, 3, 0, 0),
    (48, 2, 1, 64, 2),
    (64, 2, 1, 80, 4),
    (80, 2, 1, 96, 3),
)
_EXPANSION = 2  # Of channels in inverted residual blocks, and in layers for tokens.
_HEADS = 4
_PATCH = 2  # Height and width.
_SMALL = 64  # Images of fewer pixels keep their size in the stem and the second stage.


def mobilevit_xxs(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns MobileViT-XXS, with 1.3 million parameters.

    Images of fewer than 64 pixels keep their size in the stem and in the second stage,
    as is usual for CIFAR. Height and width must be multiples of 64, or of 16 for such
    images, so that patches of 2x2 fit everywhere.

    Args:
        input_shape: Height, width and channels of an image.
        classes: Number of logits.
        width: Multiplier of the number of channels.

    Raises:
        ValueError: If a size is not positive, or height or width does not fit.

    References:
        Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and
        Mobile-friendly Vision Transformer", ICLR 2022,
        https://arxiv.org/abs/2110.02178
    """
    check_sizes(classes, width)
    small = min(input_shape[:2]) < _SMALL
    multiple = 16 if small else 64
    if any(size % multiple for size in input_shape[:2]):
        raise ValueError(
            f"Height and width must be multiples of {multiple}. Received: "
            f"input_shape={tuple(input_shape)}."
        )
    inputs = layers.Input(input_shape, name="image")
    strides = 1 if small else 2
    x = _conv_bn_swish(inputs, scaled(_STEM, width), 3, "stem", strides=strides)
    for stage, (channels, strides, blocks, dim, depth) in enumerate(_STAGES, start=1):
        if small and stage == 2:
            strides = 1
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            x = _inverted(x, scaled(channels, width), strides, name)
            strides = 1
        if depth:
            dim = scaled(dim, width, _HEADS)
            x = _mobilevit_block(x, dim, depth, f"stage{stage}_vit")
    x = _conv_bn_swish(x, scaled(_HEAD, width), 1, "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, x, name="mobilevit_xxs")


def _bn(x: Any, name: str) -> Any:
    """Batch norm."""
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)


def _swish(x: Any, name: str) -> Any:
    """Swish, which the publication calls so; others call it SiLU."""
    return layers.Activation("swish", name=f"{name}_swish")(x)


def _conv_bn_swish(x: Any, channels: int, size: int, name: str, **kwargs: Any) -> Any:
    """Convolution, batch norm and swish."""
    return _swish(_bn(conv(x, channels, size, name, **kwargs), name), name)


def _inverted(x: Any, channels: int, strides: int, name: str) -> Any:
    """Inverted residual block of MobileNetV2."""
    wide = x.shape[-1] * _EXPANSION
    y = _conv_bn_swish(x, wide, 1, f"{name}_expand")
    depthwise = f"{name}_depthwise"
    y = layers.DepthwiseConv2D(
        3, strides, padding="same", use_bias=False, name=depthwise
    )(y)
    y = _swish(_bn(y, depthwise), depthwise)
    y = _bn(conv(y, channels, 1, f"{name}_project"), f"{name}_project")
    if strides > 1 or x.shape[-1] != channels:
        return y
    return layers.Add(name=f"{name}_add")([x, y])


def _mobilevit_block(x: Any, dim: int, depth: int, name: str) -> Any:
    """A convolution, a transformer over the pixels of all patches, and convolutions.

    The pixels at the same place of all patches see each other.
    """
    height, width, channels = x.shape[1:]
    y = _conv_bn_swish(x, channels, 3, f"{name}_local")
    y = conv(y, dim, 1, f"{name}_in")
    rows, columns = height // _PATCH, width // _PATCH
    y = layers.Reshape((rows, _PATCH, columns, _PATCH, dim), name=f"{name}_split")(y)
    y = layers.Permute((2, 4, 1, 3, 5), name=f"{name}_unfold")(y)
    y = layers.Reshape((_PATCH * _PATCH, rows * columns, dim), name=f"{name}_tokens")(y)
    for number in range(1, depth + 1):
        y = _transformer(y, dim, f"{name}_layer{number}")
    y = _norm(y, f"{name}_norm")
    y = layers.Reshape((_PATCH, _PATCH, rows, columns, dim), name=f"{name}_patches")(y)
    y = layers.Permute((3, 1, 4, 2, 5), name=f"{name}_fold")(y)
    y = layers.Reshape((height, width, dim), name=f"{name}_join")(y)
    y = _conv_bn_swish(y, channels, 1, f"{name}_out")
    y = layers.Concatenate(name=f"{name}_concat")([x, y])
    return _conv_bn_swish(y, channels, 3, f"{name}_fusion")


def _norm(x: Any, name: str) -> Any:
    """Layer norm."""
    return layers.LayerNormalization(epsilon=1e-5, name=name)(x)


def _transformer(x: Any, dim: int, name: str) -> Any:
    """Attention and two layers for each token, each with the norm before it."""
    attention = layers.MultiHeadAttention(
        _HEADS, dim // _HEADS, attention_axes=(2,), name=f"{name}_attention"
    )
    y = _norm(x, f"{name}_norm1")
    x = layers.Add(name=f"{name}_add1")([x, attention(y, y)])
    y = _norm(x, f"{name}_norm2")
    y = layers.Dense(dim * _EXPANSION, name=f"{name}_hidden")(y)
    y = layers.Dense(dim, name=f"{name}_output")(_swish(y, f"{name}_hidden"))
    return layers.Add(name=f"{name}_add2")([x, y])
