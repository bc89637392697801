"""How a page makes the input of a file from the bytes of a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..file import (
    USUAL_FORMS,
    End,
    Normalization,
    StandardMetadata,
    TFLiteGraph,
    codes_of_bytes,
    codes_of_input,
    ends_of,
    form_of_pixels,
    is_image,
    pixel_inputs,
    standard_metadata,
    values_of_bytes,
)

Numbers = float | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Picture:
    """The picture that a file takes.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: 1 for gray, 3 for red, green and blue.
        dtype: "uint8" or "float32".
        table: For each channel, what the file takes for the bytes 0 to 255.
    """

    height: int
    width: int
    channels: int
    dtype: str
    table: list[list[float]]

    @property
    def facts(self) -> list[str]:
        """What the header says of the input."""
        return [f"{self.width} by {self.height} pixels"]


def read_picture(
    graph: TFLiteGraph, mean: Numbers | None, std: Numbers | None
) -> Picture:
    """Returns how bytes become the input of a file.

    Args:
        graph: A file with uint8 or float32 inputs.
        mean: The model was trained on ``(byte - mean) / std``: one number, or one per
            channel. None: the file says it, in its standard metadata or by the grid of
            its input.
        std: The same.

    Raises:
        ValueError: If the file does not take one picture, `mean` and `std` are unfit,
            or the file says something else, or nothing, in their place.
    """
    end = _only_picture(ends_of(graph, graph.inputs))
    height, width, channels = end.shape[1:]
    said = _said(graph, end)
    if mean is None and std is None:
        if said is None:
            raise ValueError(_unknown(graph, end))
        table = _table(end, said)
    else:
        table = _table(end, _normalization(channels, mean, std))
        if said is not None and not np.allclose(table, _table(end, said), atol=1e-6):
            raise ValueError(
                "`mean` and `std` must be left out for this file, or be what it says: "
                f"{end.name!r} takes {said}. Received: mean={mean}, std={std}."
            )
    return Picture(height, width, channels, end.dtype, table.tolist())


def _only_picture(inputs: Sequence[End]) -> End:
    """Returns the input of a file that takes one picture.

    Raises:
        ValueError: If it takes something else.
    """
    if len(inputs) == 1:
        [end] = inputs
        is_alone = end.shape[:1] in ((1,), (-1,))
        if is_image(end.shape) and is_alone and end.dtype in ("uint8", "float32"):
            return end
    found = ", ".join(f"{end.name!r}: {end.dtype} {list(end.shape)}" for end in inputs)
    raise ValueError(
        "The file must have one input, a picture: int8, uint8 or float32, "
        f"[1, height, width, channels] with 1 or 3 channels. Received {found}. If it "
        "takes the spectrogram of a sound, pass `spectrogram`: a `Spectrogram` that "
        "says how it was computed for training. Samples of sounds, sequences and "
        "several pictures at once have no demo page."
    )


def _said(graph: TFLiteGraph, end: End) -> Normalization | None:
    """Returns how bytes become values of an input, as a file shows; None: it does not.

    It describes them as pixels, its standard metadata say it, or its grid is exactly
    one of the usual forms.

    Raises:
        ValueError: If the metadata do not fit the input, or the description cannot be
            read.
    """
    if end.name in pixel_inputs(graph):
        return form_of_pixels(graph, end)
    standard = standard_metadata.read(graph) or StandardMetadata()
    if end.name in standard.normalization:
        stated = standard.normalization[end.name]
        try:
            return _normalization(end.shape[3], stated.mean, stated.std)
        except ValueError as error:
            raise ValueError(
                f"The standard metadata of {end.name!r} do not fit it: {error}"
            ) from error
    grid = _grid(graph, end)
    for form in USUAL_FORMS:
        if grid == (np.float32(1 / form.std[0]), form.mean[0]):
            return form
    return None


def _unknown(graph: TFLiteGraph, end: End) -> str:
    """Returns why `mean` and `std` are needed."""
    grid = _grid(graph, end)
    shown = "no scale" if grid is None else f"scale {grid[0]:.8g}, zero {grid[1]}"
    return (
        "`mean` and `std` must be given for a file that does not show which values the "
        f"model was trained on, (byte - mean) / std. Received {end.name!r} with {shown}"
        ", and neither number. Pass mean=0, std=255 if bytes were divided by 255. If "
        "the input is no picture but the spectrogram of a sound, pass `spectrogram` "
        "instead: a `Spectrogram` that says how it was computed for training."
    )


def _grid(graph: TFLiteGraph, end: End) -> tuple[np.float32, int] | None:
    """Returns scale and zero point of the uint8 codes of an input, if there are any."""
    codes = codes_of_input(graph, end)
    if codes is None or codes.scale is None or codes.zero_point is None:
        return None
    return np.float32(codes.scale), codes.zero_point


def _normalization(
    channels: int, mean: Numbers | None, std: Numbers | None
) -> Normalization:
    """Returns how bytes become values.

    Raises:
        ValueError: If the numbers are unfit.
    """
    means, stds = (
        np.asarray(np.nan if numbers is None else numbers, np.float64).reshape(-1)
        for numbers in (mean, std)
    )
    sizes = {means.size, stds.size} - {1, channels}
    if sizes or not np.isfinite([*means, *stds]).all() or not (stds > 0).all():
        raise ValueError(
            "`mean` and `std` must both be one finite number, or one for each of the "
            f"{channels} channels, and `std` positive. Received: mean={mean}, "
            f"std={std}."
        )
    return Normalization(tuple(means.tolist()), tuple(stds.tolist()))


def _table(end: End, normalization: Normalization) -> np.ndarray:
    """Returns what a file takes for the bytes of each channel, `[channels, 256]`."""
    codes = codes_of_bytes(end, normalization)
    table = values_of_bytes(normalization) if codes is None else codes.astype(int)
    return np.broadcast_to(table.T, (end.shape[3], len(table)))
