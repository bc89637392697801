"""Makes the gammas of batch norms positive, with the same outputs."""

from __future__ import annotations

import numpy as np

from .graph import Layer
from .layers import LSQWrapper


def make_gamma_positive(kind: str, wrapper: LSQWrapper, batch_norm: Layer) -> None:
    """Negates channels whose gamma is negative; the output stays the same.

    Folding a negative gamma would turn the code -2^(b-1) into +2^(b-1), which
    b bits cannot hold. ``gamma * (x - mean)`` is unchanged if kernel, bias, mean
    and gamma of a channel all change sign.
    """
    if not batch_norm.scale:
        return
    gamma = batch_norm.gamma.numpy()
    sign = np.where(gamma < 0, -1.0, 1.0).astype(gamma.dtype)
    if (sign > 0).all():
        return
    kernel, layer = wrapper.kernel, wrapper.layer
    channels = {
        "depthwise": kernel.shape[-2:],
        "transposed_conv": (kernel.shape[-2], 1),
    }.get(kind, (-1,))
    kernel.assign(kernel * sign.reshape(channels))
    batch_norm.gamma.assign(gamma * sign)
    batch_norm.moving_mean.assign(batch_norm.moving_mean * sign)
    if layer.use_bias:
        layer.bias.assign(layer.bias * sign)
