"""How a page makes the input of a file from the bytes of a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..file import End

# Numbers per channel of a picture.
_CHANNELS = (1, 3)
_BYTES = np.arange(256, dtype=np.float32)
# (mean, std) of uint8 grids on which the code of a byte is the byte: that of a model
# that contains its own normalization, of values from 0 to 1, and of TensorFlow's
# quantized MobileNets (scale 1/128, zero point 128).
_KNOWN = ((0, 1), (0, 255), (128, 128))

Numbers = float | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The picture that a file takes.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: 1 for gray, 3 for red, green and blue.
        dtype: "uint8" or "float32".
        table: For each channel, what the file gets for the bytes 0 to 255.
    """

    height: int
    width: int
    channels: int
    dtype: str
    table: list[list[float]]


def read_pixels(end: End, mean: Numbers | None, std: Numbers | None) -> Pixels:
    """Returns how bytes become the input of a file.

    The values of a pixel are ``(byte - mean) / std``. Where the code of a byte is the
    byte by the grid of the input, `mean` and `std` are not needed.

    Args:
        end: The input: uint8 or float32, `[1, height, width, channels]`.
        mean: One number, or one per channel; None: see above.
        std: The same.

    Raises:
        ValueError: If the input is no picture, or `mean` and `std` are missing or
            unfit.
    """
    if (mean is None) != (std is None):
        raise ValueError(
            "`mean` and `std` must be given together. Received: "
            f"mean={mean}, std={std}."
        )
    _check_picture(end)
    height, width, channels = end.shape[1:]
    if mean is None or std is None:
        mean, std = _known(end)
    means, stds = (
        _per_channel(name, numbers, channels)
        for name, numbers in (("mean", mean), ("std", std))
    )
    if not np.all(stds > 0):
        raise ValueError(f"`std` must be positive. Received: {std}.")
    values = (_BYTES - means[:, np.newaxis]) / stds[:, np.newaxis]
    return Pixels(height, width, channels, end.dtype, _converted(end, values))


def _check_picture(end: End) -> None:
    """Checks that an input has the shape and the type of a picture.

    Raises:
        ValueError: If it does not.
    """
    shape = end.shape
    fits = len(shape) == 4 and shape[0] in (1, -1) and shape[3] in _CHANNELS
    if not fits or end.dtype not in ("uint8", "float32"):
        raise ValueError(
            "The input of the file must be a picture: int8, uint8 or float32, "
            "[1, height, width, channels] with 1 or 3 channels. Received "
            f"{end.name!r}: {end.dtype} {list(shape)}. Sequences, recordings and "
            "several pictures at once have no demo page."
        )


def _known(end: End) -> tuple[float, float]:
    """Returns mean and deviation where the code of a byte is the byte.

    Raises:
        ValueError: If the grid does not show it.
    """
    for mean, std in _KNOWN:
        if end.zero_point == mean and end.scale == float(np.float32(1 / std)):
            return mean, std
    grid = "floats"
    if end.scale is not None:
        grid = f"{end.dtype} with scale {end.scale:.8g}, zero point {end.zero_point}"
    raise ValueError(
        "`mean` and `std` must be given for a file whose input does not show which "
        "values the model was trained on, (byte - mean) / std. Received neither, and "
        f"{end.name!r} with {grid}. Pass mean=0, std=255 if pixels were divided by "
        "255. A spectrogram is no picture: its page would need to know how it was "
        "computed, and cannot be written."
    )


def _per_channel(name: str, numbers: Numbers, channels: int) -> np.ndarray:
    """Returns one float32 number per channel.

    Raises:
        ValueError: If there are others.
    """
    array = np.asarray(numbers, np.float32).reshape(-1)
    if array.size not in (1, channels) or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be one finite number, or one for each of the {channels} "
            f"channels. Received: {numbers}."
        )
    return np.broadcast_to(array, channels)


def _converted(end: End, values: np.ndarray) -> list[list[float]]:
    """Returns values as the file takes them: float32, or codes.

    Codes are those that `export_model`'s snippets and the verifier compute.
    """
    if end.scale is None or end.zero_point is None:
        return values.astype(np.float64).tolist()
    codes = np.rint(values / np.float32(end.scale)) + end.zero_point
    return np.clip(codes, 0, 255).astype(int).tolist()
