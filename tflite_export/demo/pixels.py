"""How a page makes the input of a file from the bytes of a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..file import End, TFLiteGraph, ends_of, metadata

_CHANNELS = (1, 3)  # Gray, or red, green and blue.
_BYTES = np.arange(256, dtype=np.float32)
# Scale and zero point of uint8 grids on which the code of a byte is the byte: that of a
# model that contains its own normalization, of values from 0 to 1, and of TensorFlow's
# quantized MobileNets.
_GRIDS_OF_BYTES = ((1, 0), (1 / 255, 0), (1 / 128, 128))
_UINT8_OFFSET = 128

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


def read_picture(
    graph: TFLiteGraph, mean: Numbers | None, std: Numbers | None
) -> Picture:
    """Returns how bytes become the input of a file.

    Args:
        graph: A file with uint8 or float32 inputs.
        mean: The model was trained on ``(byte - mean) / std``: one number, or one per
            channel. None: the file shows that the code of a byte is the byte.
        std: The same.

    Raises:
        ValueError: If the file does not take one picture, or `mean` and `std` are
            missing or unfit.
    """
    end = _only_picture(ends_of(graph, graph.inputs))
    height, width, channels = end.shape[1:]
    copied = _copied_bytes(graph, end)
    if mean is None and std is None:
        if copied is None:
            raise ValueError(_unknown(graph, end))
        table = np.broadcast_to(copied, (channels, len(_BYTES)))
    else:
        table = _normalized(end, mean, std)
        if copied is not None and not np.allclose(table, copied, atol=1e-6):
            raise ValueError(
                f"`mean` and `std` must be left out for this file: {end.name!r} takes "
                f"bytes as they are. Received: mean={mean}, std={std}."
            )
    return Picture(height, width, channels, end.dtype, table.tolist())


def _only_picture(inputs: Sequence[End]) -> End:
    """Returns the input of a file that takes one picture.

    Raises:
        ValueError: If it takes something else.
    """
    if len(inputs) == 1:
        [end] = inputs
        is_image = len(end.shape) == 4 and end.shape[3] in _CHANNELS
        if is_image and end.shape[0] in (1, -1) and end.dtype in ("uint8", "float32"):
            return end
    found = ", ".join(f"{end.name!r}: {end.dtype} {list(end.shape)}" for end in inputs)
    raise ValueError(
        "The file must have one input, a picture: int8, uint8 or float32, "
        f"[1, height, width, channels] with 1 or 3 channels. Received {found}. "
        "Recordings, sequences and several pictures at once have no demo page."
    )


def _copied_bytes(graph: TFLiteGraph, end: End) -> np.ndarray | None:
    """Returns what a file takes for bytes whose codes are the bytes, `[256]`.

    None: the file does not show that they are.
    """
    grid = _grid(graph, end)
    if grid is None:
        return None
    scale, zero_point = grid
    known = any(
        scale == np.float32(one) and zero_point == zero for one, zero in _GRIDS_OF_BYTES
    )
    if not known and not _described_pixels(graph, end):
        return None
    if end.dtype == "uint8":
        return _BYTES.astype(int)
    return ((_BYTES - zero_point) * scale).astype(np.float64)


def _unknown(graph: TFLiteGraph, end: End) -> str:
    """Returns why `mean` and `std` are needed."""
    grid = _grid(graph, end)
    shown = "no scale" if grid is None else f"scale {grid[0]:.8g}, zero {grid[1]}"
    return (
        "`mean` and `std` must be given for a file that does not show which values the "
        f"model was trained on, (byte - mean) / std. Received {end.name!r} with {shown}"
        ", and neither number. Pass mean=0, std=255 if bytes were divided by 255. An "
        "input that is no picture, such as a spectrogram, has no demo page: it would "
        "have to compute what the model was trained on."
    )


def _grid(graph: TFLiteGraph, end: End) -> tuple[np.float32, int] | None:
    """Returns scale and zero point of the uint8 codes of an input, if there are any."""
    if end.scale is not None and end.zero_point is not None:
        return np.float32(end.scale), end.zero_point
    tensor = graph.inputs[end.name]
    readers = [op for op in graph.ops if tensor in op.inputs]
    if [op.code for op in readers] != ["QUANTIZE"]:
        return None
    codes = graph.tensors[readers[0].outputs[0]]
    if codes.quantization is None or codes.dtype not in ("int8", "uint8"):
        return None
    offset = _UINT8_OFFSET if codes.dtype == "int8" else 0
    return codes.quantization.scale[0], codes.quantization.zero_point + offset


def _described_pixels(graph: TFLiteGraph, end: End) -> bool:
    """Returns whether `export_model` wrote that the codes of an input are bytes."""
    described: dict[str, Any] = (metadata.read(graph) or {}).get("tensors", {})
    tensor = graph.inputs[end.name]
    names = {tensor, *(op.outputs[0] for op in graph.ops if tensor in op.inputs)}
    return any("pixels" in described.get(name, {}) for name in names)


def _normalized(end: End, mean: Numbers | None, std: Numbers | None) -> np.ndarray:
    """Returns what a file takes for normalized bytes, `[channels, 256]`.

    Codes are those that the snippets of an export and the verifier compute.

    Raises:
        ValueError: If the numbers are unfit.
    """
    channels = end.shape[3]
    means, stds = (
        np.asarray(np.nan if numbers is None else numbers, np.float32).reshape(-1)
        for numbers in (mean, std)
    )
    sizes = {means.size, stds.size} - {1, channels}
    if sizes or not np.isfinite([*means, *stds]).all() or not (stds > 0).all():
        raise ValueError(
            "`mean` and `std` must both be one finite number, or one for each of the "
            f"{channels} channels, and `std` positive. Received: mean={mean}, "
            f"std={std}."
        )
    values = (_BYTES - means[:, np.newaxis]) / stds[:, np.newaxis]
    values = np.broadcast_to(values, (channels, len(_BYTES)))
    if end.scale is None or end.zero_point is None:
        return values.astype(np.float64)
    codes = np.rint(values / np.float32(end.scale)) + end.zero_point
    return np.clip(codes, 0, 255).astype(int)
