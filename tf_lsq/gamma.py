"""Makes the gammas of batch norms positive, with the same outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Layer
from .layers import LSQWrapper


def make_gamma_positive(kind: str, wrapper: LSQWrapper, batch_norm: Layer) -> None:
    """Negates channels whose gamma is negative; the output stays the same.

    Folding a negative gamma would turn the code -2^(b-1) into +2^(b-1), which
    b bits cannot hold. ``gamma * (x - mean)`` is unchanged if kernel, bias, mean
    and gamma of a channel all change sign.
    """
    sign = negated_channels(batch_norm)
    if sign is None:
        return
    kernel, layer = wrapper.kernel, wrapper.layer
    channels = {
        "depthwise": kernel.shape[-2:],
        "transposed_conv": (kernel.shape[-2], 1),
    }.get(kind, (-1,))
    kernel.assign(kernel * sign.reshape(channels))
    batch_norm.gamma.assign(batch_norm.gamma * sign)
    batch_norm.moving_mean.assign(batch_norm.moving_mean * sign)
    if layer.use_bias:
        layer.bias.assign(layer.bias * sign)


def negated_channels(batch_norm: Layer) -> Any:
    """Returns -1 for channels with a negative gamma, else 1; None if there are none."""
    if not batch_norm.scale:
        return None
    gamma = batch_norm.gamma.numpy()
    negative = gamma < 0
    return np.where(negative, -1.0, 1.0).astype(gamma.dtype) if negative.any() else None
