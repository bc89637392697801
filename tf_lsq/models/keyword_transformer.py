"""A transformer for keyword spotting, and other short sequences."""

from __future__ import annotations

from typing import Any

from .._compat import keras
from ..layers import AddConstant
from .parts import Shape, check_sizes, scaled

layers = keras.layers

_KEYWORDS: Shape = (98, 40)
_DIM, _MLP, _LAYERS = 64, 256, 12


def kwt1(
    input_shape: Shape = _KEYWORDS,
    classes: int = 12,
    width: float = 1.0,
    *,
    blocks: int = _LAYERS,
) -> keras.Model:
    """Returns the small keyword transformer, "KWT-1", with 607 thousand parameters.

    Every time step is a token of 64 channels. The first token is the class token: its
    position is learned as that of the others, which is the same as a learned token.
    Projections have no biases, as the layer norms after them have some.

    Args:
        input_shape: Time steps and features of each, by default one second of 40 MFCC.
        classes: Number of logits.
        width: Multiplier of the number of channels.
        blocks: How many blocks follow each other; the publication has 12.

    Raises:
        ValueError: If a size is not positive.

    References:
        Berg et al., "Keyword Transformer: A Self-Attention Model for Keyword
        Spotting", Interspeech 2021, https://arxiv.org/abs/2104.00769
    """
    check_sizes(classes, width)
    if blocks < 1:
        raise ValueError(f"`blocks` must be at least 1. Received: blocks={blocks}.")
    channels = scaled(_DIM, width)
    inputs = layers.Input(input_shape, name="features")
    x = layers.Dense(channels, name="project")(inputs)
    x = layers.ZeroPadding1D((1, 0), name="class_token")(x)
    positions = (1, input_shape[0] + 1, channels)
    x = AddConstant(positions, trained=True, weight_name="positions", name="positions")(
        x
    )
    for block in range(1, blocks + 1):
        x = _block(x, channels, scaled(_MLP, width), f"block{block}")
    x = _norm(x[:, 0], "norm")
    x = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, x, name="kwt1")


def _norm(x: Any, name: str) -> Any:
    """Layer norm."""
    return layers.LayerNormalization(epsilon=1e-5, name=name)(x)


def _block(x: Any, channels: int, hidden: int, name: str) -> Any:
    """Attention and two layers for each token; the norms come after the additions."""
    attention = layers.MultiHeadAttention(
        1, channels, use_bias=False, name=f"{name}_attention"
    )
    x = layers.Add(name=f"{name}_add1")([x, attention(x, x)])
    x = _norm(x, f"{name}_norm1")
    y = layers.Dense(hidden, activation="gelu", name=f"{name}_hidden")(x)
    y = layers.Dense(channels, name=f"{name}_output")(y)
    x = layers.Add(name=f"{name}_add2")([x, y])
    return _norm(x, f"{name}_norm2")
