"""How a page makes the input of a file from a sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..file import End, StandardMetadata, TFLiteGraph, ends_of, standard_metadata
from .spectrogram import Spectrogram

_ONE = (1, -1)  # Sizes of a batch that can be 1.
_KILO = 1000


@dataclasses.dataclass(frozen=True)
class Sound:
    """The sound that a file takes.

    Attributes:
        spectrogram: How its features are computed, with the length of the transform.
        num_samples: Samples of a clip.
        num_frames: Frames of a clip.
        num_features: Features of a frame.
        shape: Of the input, the batch as 1.
        dtype: "uint8" or "float32".
        scale: Of the input's grid; None for floats.
        zero_point: The same.
    """

    spectrogram: Spectrogram
    num_samples: int
    num_frames: int
    num_features: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None

    @property
    def seconds(self) -> float:
        """Length of a clip."""
        return self.num_samples / self.spectrogram.sample_rate

    @property
    def facts(self) -> list[str]:
        """What the header says of the input."""
        rate = self.spectrogram.sample_rate / _KILO
        return [
            f"{self.seconds:.2f} s at {rate:g} kHz",
            f"{self.num_frames} by {self.num_features} features",
        ]


def read_sound(graph: TFLiteGraph, spectrogram: Spectrogram) -> Sound:
    """Returns how a sound becomes the input of a file.

    Args:
        graph: A file with uint8 or float32 inputs.
        spectrogram: How the features that the model was trained on are computed.

    Raises:
        TypeError: If `spectrogram` is something else.
        ValueError: If the file does not take such features.
    """
    if type(spectrogram) is not Spectrogram:
        raise TypeError(
            f"`spectrogram` must be a `Spectrogram`. Received: {spectrogram!r}."
        )
    end = _only_spectrogram(ends_of(graph, graph.inputs), spectrogram)
    standard = standard_metadata.read(graph) or StandardMetadata()
    if end.name in standard.normalization:
        raise ValueError(
            "`spectrogram` must be left out for a file that takes pixels, as its "
            f"metadata say. Received {end.name!r} with "
            f"{standard.normalization[end.name]}."
        )
    frames = end.shape[1]
    length = spectrogram.transform_length
    return Sound(
        spectrogram=dataclasses.replace(spectrogram, fft_length=length),
        num_samples=spectrogram.clip_length(frames),
        num_frames=frames,
        num_features=spectrogram.num_features,
        shape=(1, *end.shape[1:]),
        dtype=end.dtype,
        scale=end.scale,
        zero_point=end.zero_point,
    )


def _only_spectrogram(inputs: Sequence[End], spectrogram: Spectrogram) -> End:
    """Returns the input of a file that takes one spectrogram.

    Raises:
        ValueError: If it takes something else.
    """
    frames, features = spectrogram.num_frames, spectrogram.num_features
    if len(inputs) == 1:
        [end] = inputs
        sizes = end.shape[1:]
        fits = (
            len(sizes) > 1
            and end.shape[0] in _ONE
            and sizes[2:] in ((), (1,))
            and frames in (None, sizes[0])
            and features == sizes[1]
        )
        of_codes = end.dtype == "uint8" and end.scale is not None
        if fits and (of_codes or end.dtype == "float32"):
            return end
    found = ", ".join(f"{end.name!r}: {end.dtype} {list(end.shape)}" for end in inputs)
    wanted = f"{'frames' if frames is None else frames}, {features}"
    raise ValueError(
        "With `spectrogram`, the file must have one input, int8, uint8 or float32, "
        f"with the features that it describes: [1, {wanted}] or [1, {wanted}, 1]. "
        f"Received {found}."
    )
