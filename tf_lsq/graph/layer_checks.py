"""Settings of Keras layers without an exact integer form.

A check takes a layer and returns why it is refused, or None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .activations import ACTIVATIONS, activation_name, is_elementwise_lambda, relu_name
from .nodes import Layer

Check = Callable[[Layer], str | None]


def accept(layer: Layer) -> None:
    """Accepts every setting."""


def first_problem(*checks: Check) -> Check:
    """Returns a check that reports the first problem that any of `checks` finds."""

    def check(layer: Layer) -> str | None:
        return next((problem for one in checks if (problem := one(layer))), None)

    return check


def check_activation(layer: Layer) -> str | None:
    """Refuses activation functions without an integer form."""
    if activation_name(layer.activation) is not None:
        return None
    name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    return f"its activation must be one of {ACTIVATIONS}, received {name!r}"


def check_channels_last(layer: Layer) -> str | None:
    """Refuses channels-first layouts."""
    if layer.data_format != "channels_last":
        return f"data_format must be channels_last, received {layer.data_format!r}"
    return None


def check_transposed(layer: Layer) -> str | None:
    """Refuses transposed convolutions that TFLite does not have."""
    if set(layer.dilation_rate) != {1}:
        return f"dilation_rate must be 1, received {layer.dilation_rate}"
    return None


def check_relu(layer: Layer) -> str | None:
    """Refuses ReLUs that only return 0."""
    if relu_name(layer) is None:
        return f"max_value must be positive, received {layer.max_value}"
    return None


def check_leaky_relu(layer: Layer) -> str | None:
    """Refuses a slope of 0."""
    if float(layer.alpha) == 0:
        return "alpha must not be 0, which is a ReLU"
    return None


def check_in_float(layer: Layer) -> str | None:
    """Refuses a function that the user left in float."""
    return "it is left in float" if layer.in_float else None


def check_prelu(layer: Layer) -> str | None:
    """Refuses slopes that differ along height or width."""
    if any(size != 1 for size in layer.alpha.shape[:-1]):
        return (
            "its slopes must be shared along all axes but the last, received the "
            f"shape {tuple(layer.alpha.shape)}; set shared_axes=[1, 2]"
        )
    return None


def check_batch_norm(layer: Layer) -> str | None:
    """Refuses batch norms over anything but the last axis."""
    axis = list(layer.axis) if isinstance(layer.axis, list | tuple) else [layer.axis]
    rank = layer.input_spec.ndim
    if axis not in ([-1], [rank - 1]):
        return f"axis must be the last one, received {axis}"
    return None


def check_rescaling(layer: Layer) -> str | None:
    """Refuses scales that differ along axes other than the last."""
    for name in ("scale", "offset"):
        shape = np.shape(getattr(layer, name))
        if any(size != 1 for size in shape[:-1]):
            return f"{name} must be one number or one per channel, received {shape}"
    return None


def check_normalization(layer: Layer) -> str | None:
    """Refuses statistics that differ along axes other than the last."""
    if any(size != 1 for size in layer.mean.shape[:-1]):
        return f"axis must be None or the last one, received {layer.axis}"
    return None


def check_last_axis(layer: Layer) -> str | None:
    """Refuses softmax over anything but the last axis."""
    if layer.axis != -1:
        return f"axis must be -1, received {layer.axis}"
    return None


def check_concat(layer: Layer) -> str | None:
    """Refuses concatenation along the batch."""
    if layer.axis == 0:
        return "axis must not be the batch axis, received 0"
    return None


def check_dot(layer: Layer) -> str | None:
    """Refuses products of normalized vectors."""
    if layer.normalize:
        return "normalize must be False, received True"
    return None


def check_norm(layer: Layer) -> str | None:
    """Refuses losses and limits of gamma and beta, which become parts of kernels."""
    for weight in ("gamma", "beta"):
        for what in ("regularizer", "constraint"):
            name = f"{weight}_{what}"
            given = getattr(layer, name, None)
            if given is not None:
                return f"{name} must be None, received {type(given).__name__}"
    return None


def check_resizing(layer: Layer) -> str | None:
    """Refuses interpolations without an integer form."""
    if getattr(layer, "crop_to_aspect_ratio", False):
        return "crop_to_aspect_ratio must be False, received True"
    if layer.interpolation not in ("nearest", "bilinear"):
        return (
            f"interpolation must be nearest or bilinear, received "
            f"{layer.interpolation!r}"
        )
    return None


def check_lambda(layer: Layer) -> str | None:
    """Refuses a `Lambda` that the analysis could not read."""
    if is_elementwise_lambda(layer):
        return None
    return (
        "its function cannot be read by calling it on a Keras tensor; use only "
        "TensorFlow functions in it, and no variables, random numbers or `training`"
    )
