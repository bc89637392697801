"""Checks that the values of the first batch are what bytes encode.

If they are not, a file computes something else than the model was trained on, without
an error: data that were divided by 255 twice, or not at all, or normalized in another
way than `Pixels` says. Values of resized images are no whole bytes, so only their range
is checked; unless they are whole under another normalization that is in use.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from .._compat import keras, nodes_of
from ..layers import PixelPoint
from ..pixels import LARGEST_BYTE, Pixels
from .learned_steps import trained_model

# Resizing with cubic kernels overshoots.
_OVERSHOOT = 16.0
# Images use more bytes than this.
_FEW_BYTES = 64.0
# float32 leaves less of a byte that was normalized and back.
_NOT_WHOLE = 0.02
# Normalizations in use: intervals, plain bytes, and those of `keras.applications`.
_IN_USE = (
    Pixels(0.0, 255.0),
    Pixels(127.5, 127.5),
    Pixels(0.0, 1.0),
    Pixels(0.0, 256.0),
    Pixels(128.0, 128.0),
    Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    Pixels((103.939, 116.779, 123.68), 1.0, "bgr"),
)


@dataclasses.dataclass(frozen=True)
class UnlikelyPixels:
    """An input whose values are hardly what its bytes encode.

    Attributes:
        name: Name of the input.
        pixels: How its values should encode bytes.
        found: Smallest and largest value.
        reachable: Smallest and largest value of bytes.
        fitting: Normalizations under which all of its values are whole bytes.
    """

    name: str
    pixels: Pixels
    found: tuple[float, float]
    reachable: tuple[float, float]
    fitting: tuple[Pixels, ...] = ()

    def __str__(self) -> str:
        """Returns what was found, with its remedy."""
        ends = "{:.4g} to {:.4g}".format
        text = (
            f"`{self.name}`: values from {ends(*self.found)}. Those of bytes are from "
            f"{ends(*self.reachable)} with {_source(self.pixels)}."
        )
        if not self.fitting:
            return text
        others = " or ".join(_source(pixels) for pixels in self.fitting)
        return f"{text} The values are whole bytes with {others}."


def warn_of_pixels(found: list[UnlikelyPixels]) -> None:
    """Warns about inputs whose values bytes hardly encode, once for all of them."""
    if found:
        lines = "\n  ".join(map(str, found))
        warnings.warn(
            "These inputs are pixels, but the first batch hardly has the values of "
            "images there, so the file would not compute what is trained:\n  "
            f"{lines}\n"
            "Normalize the data as `inputs` of `quantize_model` says; bytes are not "
            "normalized for a model that does it itself. Or pass what is true of the "
            "data: `inputs={name: tf_lsq.Pixels(mean, std)}`, or `inputs={name: None}` "
            "if they are no images.",
            stacklevel=3,
        )


def unlikely_pixels(
    model: keras.Model, arrived: dict[str, np.ndarray]
) -> list[UnlikelyPixels]:
    """Returns the inputs whose values are hardly those of images.

    Args:
        model: A quantized model.
        arrived: Name of a `PixelPoint` -> its values, from a visitor.
    """
    found = []
    for name, point in pixel_points(model).items():
        if point.name in arrived:
            grid = point.pixel_grid
            decoded = grid.to_bytes(arrived[point.name])
            found += _unlikely(name, grid.pixels, decoded)
    return found


def pixel_points(model: keras.Model) -> dict[str, PixelPoint]:
    """Returns the points of the inputs that are pixels, by the name of the input.

    Args:
        model: A quantized model of either Keras, or a `Distiller`.
    """
    return {
        node.keras_inputs[0]._keras_history.layer.name: node.layer
        for node in nodes_of(trained_model(model))
        if isinstance(node.layer, PixelPoint)
        and isinstance(
            node.keras_inputs[0]._keras_history.layer, keras.layers.InputLayer
        )
    }


def _unlikely(name: str, pixels: Pixels, decoded: np.ndarray) -> list[UnlikelyPixels]:
    """Returns what there is to say about one input.

    Args:
        name: Name of the input.
        pixels: How its values should encode bytes.
        decoded: Its values as bytes, in the app's order, neither rounded nor limited.
    """
    values = pixels.encode(decoded)
    if not np.isfinite(decoded).all():
        return []  # Reported as such.
    low, high = float(decoded.min()), float(decoded.max())
    outside = low < -_OVERSHOOT or high > LARGEST_BYTE + _OVERSHOOT
    others: tuple[Pixels, ...] = ()
    if outside or not _are_bytes(decoded):
        others = tuple(p for p in _others(pixels, values) if _fits(p, values))
    if not (outside or others or high - low < _FEW_BYTES):
        return []
    return [
        UnlikelyPixels(
            name,
            pixels,
            (float(values.min()), float(values.max())),
            _reachable(pixels, decoded.shape[-1]),
            others,
        )
    ]


def _others(pixels: Pixels, values: np.ndarray) -> list[Pixels]:
    """Returns other normalizations that values of this shape may have."""
    others = [*_IN_USE]
    if pixels.num_channels is not None:
        mean, std = (
            n[::-1] if isinstance(n, tuple) else n for n in (pixels.mean, pixels.std)
        )
        others.append(Pixels(mean, std, pixels.order))
    channels = values.shape[-1]
    return [
        other
        for other in dict.fromkeys(others)
        if other != pixels
        and other.num_channels in (None, channels)
        and (other.order == "rgb" or channels == 3)
    ]


def _fits(pixels: Pixels, values: np.ndarray) -> bool:
    """Returns whether values are whole bytes, and many of them, under `pixels`."""
    decoded = pixels.decode(values)
    return _are_bytes(decoded) and float(np.ptp(decoded)) >= _FEW_BYTES


def _are_bytes(decoded: np.ndarray) -> bool:
    """Returns whether all numbers are whole, from 0 to 255."""
    whole = np.rint(decoded)
    near = bool(np.abs(decoded - whole).max() < _NOT_WHOLE)
    return near and whole.min() >= 0 and whole.max() <= LARGEST_BYTE


def _reachable(pixels: Pixels, channels: int) -> tuple[float, float]:
    """Returns the smallest and the largest value of bytes."""
    ends = np.repeat(np.array([[0], [LARGEST_BYTE]], np.float64), channels, axis=1)
    values = pixels.encode(ends)
    return float(values.min()), float(values.max())


def _source(pixels: Pixels) -> str:
    """Returns the expression that makes pixels."""
    plain = ", ".join(
        str(list(n)) if isinstance(n, tuple) else f"{n:g}"
        for n in (pixels.mean, pixels.std)
    )
    order = "" if pixels.order == "rgb" else f', order="{pixels.order}"'
    return f"Pixels({plain}{order})"
