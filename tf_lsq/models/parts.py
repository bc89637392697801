"""What the networks share."""

from __future__ import annotations

from typing import Any

from .._compat import keras

layers = keras.layers
Shape = tuple[int, ...]


def check_sizes(classes: int, width: float) -> None:
    """Raises an error for a network without outputs or channels.

    Args:
        classes: Number of logits.
        width: Multiplier of the number of channels.

    Raises:
        ValueError: If one is not positive.
    """
    if classes < 1 or width <= 0:
        raise ValueError(
            "`classes` must be at least 1 and `width` positive. "
            f"Received: classes={classes}, width={width}."
        )


def scaled(base: int, width: float, multiple: int = 4) -> int:
    """Returns a number of channels: scaled, a positive multiple.

    Args:
        base: The published number.
        width: Its multiplier.
        multiple: What it is a multiple of.
    """
    return max(multiple, round(base * width / multiple) * multiple)


def conv(x: Any, channels: int, size: Any, name: str, **kwargs: Any) -> Any:
    """Returns a convolution of a tensor; a batch norm has the bias.

    Args:
        x: The tensor.
        channels: Number of output channels.
        size: Height and width of the kernel.
        name: Name of the layer.
        **kwargs: Other arguments of `Conv2D`.
    """
    kwargs = {"padding": "same", "use_bias": False, **kwargs}
    return layers.Conv2D(
        channels, size, kernel_initializer="he_normal", name=name, **kwargs
    )(x)
