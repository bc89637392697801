"""Convolutional networks: those of the LSQ paper, and one for keyword spotting."""

from __future__ import annotations

from typing import Any

from .._compat import keras
from .parts import Shape, check_sizes, conv, scaled

layers = keras.layers

_IMAGE: Shape = (224, 224, 3)
# Depth -> blocks per stage, and whether they are bottlenecks.
_RESNETS: dict[int, tuple[tuple[int, ...], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
_STEM_CHANNELS = 64
_BOTTLENECK = 4  # Output channels of a bottleneck, as a multiple of its 3x3's.
_VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_VGG_HIDDEN = 4096
_KEYWORDS: Shape = (49, 10, 1)
_SQUEEZENEXT_STAGES = ((32, 6), (64, 6), (128, 8), (256, 1))


def preact_resnet18(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ResNet-18 with pre-activation blocks; see `preact_resnet`."""
    return preact_resnet(18, input_shape, classes, width)


def preact_resnet34(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ResNet-34 with pre-activation blocks; see `preact_resnet`."""
    return preact_resnet(34, input_shape, classes, width)


def preact_resnet50(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ResNet-50 with pre-activation blocks; see `preact_resnet`."""
    return preact_resnet(50, input_shape, classes, width)


def preact_resnet101(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ResNet-101 with pre-activation blocks; see `preact_resnet`."""
    return preact_resnet(101, input_shape, classes, width)


def preact_resnet152(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns ResNet-152 with pre-activation blocks; see `preact_resnet`."""
    return preact_resnet(152, input_shape, classes, width)


def preact_resnet(
    depth: int,
    input_shape: Shape = _IMAGE,
    classes: int = 1000,
    width: float = 1.0,
) -> keras.Model:
    """Returns a residual network with pre-activation blocks, the paper's ResNets.

    Images of fewer than 64 pixels get a 3x3 stem without pooling, as is usual for
    CIFAR; larger ones get the 7x7 stem of the publication.

    Args:
        depth: 18 or 34 (two 3x3 convolutions per block), 50, 101 or 152
            (bottlenecks).
        input_shape: Height, width and channels of an image.
        classes: Number of logits.
        width: Multiplier of the number of channels; 1 gives 64 after the stem.

    Raises:
        ValueError: If `depth` is none of these, or a size is not positive.

    References:
        He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016,
        https://arxiv.org/abs/1603.05027
    """
    if depth not in _RESNETS:
        raise ValueError(
            f"`depth` must be one of {list(_RESNETS)}. Received: depth={depth!r}."
        )
    check_sizes(classes, width)
    stages, bottleneck = _RESNETS[depth]
    inputs = layers.Input(input_shape, name="image")
    channels = scaled(_STEM_CHANNELS, width)
    x = _resnet_stem(inputs, channels)
    for stage, blocks in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = _preact_block(x, channels * 2 ** (stage - 1), strides, bottleneck, name)
    x = _bn_relu(x, "final")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, x, name=f"preact_resnet{depth}")


def vgg16_bn(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns VGG-16 (configuration D) with a batch norm after each convolution.

    Args:
        input_shape: Height, width and channels of an image, at least 32x32.
        classes: Number of logits.
        width: Multiplier of the number of channels and hidden units.

    Raises:
        ValueError: If a size is not positive.

    References:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
        Image Recognition", ICLR 2015, https://arxiv.org/abs/1409.1556
    """
    check_sizes(classes, width)
    inputs = x = layers.Input(input_shape, name="image")
    for stage, (channels, convs) in enumerate(_VGG_STAGES, start=1):
        for number in range(1, convs + 1):
            name = f"conv{stage}_{number}"
            x = conv(x, scaled(channels, width), 3, name, use_bias=True)
            x = _bn_relu(x, name)
        x = layers.MaxPooling2D(name=f"pool{stage}")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        units = scaled(_VGG_HIDDEN, width)
        x = layers.Dense(units, activation="relu", name=f"hidden{number}")(x)
        x = layers.Dropout(0.5, name=f"dropout{number}")(x)
    x = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, x, name="vgg16_bn")


def squeezenext23_2x(
    input_shape: Shape = _IMAGE, classes: int = 1000, width: float = 1.0
) -> keras.Model:
    """Returns SqueezeNext-23 with twice the channels, "2.0-SqNxt-23".

    Args:
        input_shape: Height, width and channels of an image.
        classes: Number of logits.
        width: Multiplier of the number of channels of the doubled network.

    Raises:
        ValueError: If a size is not positive.

    References:
        Gholami et al., "SqueezeNext: Hardware-Aware Neural Network Design", 2018,
        https://arxiv.org/abs/1803.10615
    """
    check_sizes(classes, width)
    width *= 2.0
    inputs = layers.Input(input_shape, name="image")
    x = layers.ZeroPadding2D(1, name="stem_pad")(inputs)
    x = _conv_bn_relu(x, scaled(64, width), 7, "stem", strides=2, padding="valid")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (base, blocks) in enumerate(_SQUEEZENEXT_STAGES, start=1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = _squeezenext_block(x, scaled(base, width), strides, name)
    x = _conv_bn_relu(x, scaled(128, width), 1, "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, x, name="squeezenext23_2x")


def ds_cnn(
    input_shape: Shape = _KEYWORDS, classes: int = 12, width: float = 1.0
) -> keras.Model:
    """Returns a depthwise-separable network for keyword spotting, "DS-CNN".

    By default it is the small one of the publication in the shape of MLPerf Tiny's
    benchmark: 49 frames of 10 coefficients (MFCC), 64 channels and 12 words.

    Args:
        input_shape: Frames, coefficients per frame, and channels, usually 1.
        classes: Number of logits.
        width: Multiplier of the number of channels.

    Raises:
        ValueError: If a size is not positive.

    References:
        Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", 2017,
        https://arxiv.org/abs/1711.07128; Banbury et al., "MLPerf Tiny Benchmark",
        2021, https://arxiv.org/abs/2106.07597
    """
    check_sizes(classes, width)
    channels = scaled(64, width)
    inputs = layers.Input(input_shape, name="features")
    x = _conv_bn_relu(inputs, channels, (10, 4), "stem", strides=2)
    x = layers.Dropout(0.2, name="stem_dropout")(x)
    for block in range(1, 5):
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{block}")(x)
        x = _bn_relu(y, f"depthwise{block}")
        x = _conv_bn_relu(x, channels, 1, f"pointwise{block}")
    x = layers.Dropout(0.4, name="dropout")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, x, name="ds_cnn")


# --- Parts -------------------------------------------------------------------


def _bn_relu(x: Any, name: str) -> Any:
    """Batch norm and ReLU."""
    x = layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_bn_relu(x: Any, channels: int, size: Any, name: str, **kwargs: Any) -> Any:
    """Convolution with bias, batch norm and ReLU."""
    return _bn_relu(conv(x, channels, size, name, use_bias=True, **kwargs), name)


def _resnet_stem(x: Any, channels: int) -> Any:
    """The layers before the first residual block."""
    if min(x.shape[1:3]) < 64:
        return _bn_relu(conv(x, channels, 3, "stem"), "stem")
    x = layers.ZeroPadding2D(3, name="stem_pad")(x)
    x = conv(x, channels, 7, "stem", strides=2, padding="valid")
    x = _bn_relu(x, "stem")
    return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)


def _preact_block(
    x: Any, channels: int, strides: int, bottleneck: bool, name: str
) -> Any:
    """Batch norm and ReLU before every convolution, then the addition.

    If the shape changes, the shortcut is a 1x1 convolution of the activated input;
    otherwise it is the input itself.
    """
    out = channels * _BOTTLENECK if bottleneck else channels
    active = _bn_relu(x, f"{name}_pre")
    shortcut = x
    if strides > 1 or x.shape[-1] != out:
        shortcut = conv(active, out, 1, f"{name}_shortcut", strides=strides)
    if bottleneck:
        y = _bn_relu(conv(active, channels, 1, f"{name}_conv1"), f"{name}_conv1")
        y = conv(y, channels, 3, f"{name}_conv2", strides=strides)
        y = conv(_bn_relu(y, f"{name}_conv2"), out, 1, f"{name}_conv3")
    else:
        y = conv(active, channels, 3, f"{name}_conv1", strides=strides)
        y = conv(_bn_relu(y, f"{name}_conv1"), out, 3, f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([y, shortcut])


def _squeezenext_block(x: Any, channels: int, strides: int, name: str) -> Any:
    """Two squeezes, a 1x3 and a 3x1 convolution, an expansion and the addition."""
    inner = x.shape[-1]
    resized = strides > 1 or inner != channels
    if strides == 1:
        inner //= 4 if resized else 2
    y = _conv_bn_relu(x, inner, 1, f"{name}_squeeze1", strides=strides)
    y = _conv_bn_relu(y, max(inner // 2, 1), 1, f"{name}_squeeze2")
    y = _conv_bn_relu(y, inner, (1, 3), f"{name}_conv1x3")
    y = _conv_bn_relu(y, inner, (3, 1), f"{name}_conv3x1")
    y = _conv_bn_relu(y, channels, 1, f"{name}_expand")
    if resized:
        x = _conv_bn_relu(x, channels, 1, f"{name}_shortcut", strides=strides)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, x]))
