"""`Spectrogram`: the features of a sound that a model was trained on.

The numbers are those of `tf.signal.stft`, `tf.signal.linear_to_mel_weight_matrix`,
`tf.math.log` and `tf.signal.mfccs_from_log_mel_spectrograms`, in this order.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

KINDS = ("magnitude", "power")
WINDOWS = ("hann", "hamming", None)
MAX = "max"
# Which every browser resamples to: https://www.w3.org/TR/webaudio/#BaseAudioContext
_RATES = (8000, 96000)
_WHOLE = ("sample_rate", "frame_length", "frame_step")
_WHOLE_OR_NONE = ("fft_length", "num_samples", "num_mel_bins", "num_mfccs")
_REAL_OR_NONE = ("lower_hz", "upper_hz", "log_offset")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectrogram:
    """How a model's features are computed from a sound.

    What changes the features has to be said, or is as `tf.signal` has it by default.

    Attributes:
        sample_rate: Samples per second, from 8000 to 96000.
        frame_length: Samples of a frame.
        frame_step: Samples from the start of a frame to that of the next one.
        full_scale: What the largest sample that a sound file can have was in training:
            1.0 (as from `tf.audio.decode_wav`), 32768.0 (16-bit integers); or "max":
            every clip was divided by its largest sample.
        kind: "magnitude", ``abs(stft)``; or "power", its square.
        fft_length: Length of the Fourier transform; None: the next power of 2.
        window: "hann", `tf.signal.hann_window` (periodic if the length is even);
            "hamming"; None: frames as they are.
        pad_end: Whether zeros follow the clip, so that a frame starts at every step.
        num_samples: Length of a clip; None: what the frames cover.
        num_mel_bins: Bands on the mel scale; None: all frequencies.
        lower_hz: Lower edge of the first band, in Hz; None without bands.
        upper_hz: Upper edge of the last band, in Hz; None without bands.
        log_offset: ``log(x + log_offset)``, the natural logarithm; None: no logarithm.
        num_mfccs: How many of the first mel-frequency cepstral coefficients are the
            features; None: bands or frequencies are. They need bands and a logarithm.
        mean: Subtracted from the features at last: one number, or one per feature of a
            frame.
        std: Divides the difference.

    Raises:
        ValueError: If an attribute is unfit; the error names them all.

    Example:
        >>> tutorial = Spectrogram(  # TensorFlow's "Simple audio recognition".
        ...     sample_rate=16000, frame_length=255, frame_step=128,
        ...     full_scale=1.0, kind="magnitude", num_samples=16000,
        ... )
        >>> tutorial.num_frames, tutorial.num_features
        (124, 129)
    """

    sample_rate: int
    frame_length: int
    frame_step: int
    full_scale: float | str
    kind: str
    fft_length: int | None = None
    window: str | None = "hann"
    pad_end: bool = False
    num_samples: int | None = None
    num_mel_bins: int | None = None
    lower_hz: float | None = None
    upper_hz: float | None = None
    log_offset: float | None = None
    num_mfccs: int | None = None
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        """Checks the attributes, their types first."""
        problems = [*_wrong_types(self)] or [*_problems(self)]
        if problems:
            listed = "\n  ".join(problems)
            raise ValueError(
                f"`Spectrogram` must say how features are computed. Received:\n"
                f"  {listed}"
            )

    @property
    def transform_length(self) -> int:
        """Length of the Fourier transform, the next power of 2 if it is not said."""
        return self.fft_length or 1 << (self.frame_length - 1).bit_length()

    @property
    def num_features(self) -> int:
        """How many features a frame has."""
        return self.num_mfccs or self.num_mel_bins or self.transform_length // 2 + 1

    @property
    def num_frames(self) -> int | None:
        """How many frames a clip has, None if `num_samples` is not said."""
        if self.num_samples is None:
            return None
        if self.pad_end:
            return math.ceil(self.num_samples / self.frame_step)
        return (self.num_samples - self.frame_length) // self.frame_step + 1

    def clip_length(self, frames: int) -> int:
        """Returns the samples of a clip.

        Args:
            frames: How many frames it has.
        """
        covered = (frames - 1) * self.frame_step + self.frame_length
        return self.num_samples or covered


def read_spectrogram(path: Path) -> Spectrogram:
    """Reads a `Spectrogram` from a JSON file: one object, with its attributes.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else; the error names all attributes that are
            missing, unknown or unfit.
    """
    try:
        said = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:  # Of the encoding, too.
        raise ValueError(f"`{path}` must be a JSON file. Received: {error}.") from error
    if not isinstance(said, dict):
        raise ValueError(f"`{path}` must be a JSON object. Received: {said!r}.")
    attributes = cast("dict[str, Any]", said)
    fields = dataclasses.fields(Spectrogram)
    missing = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.name not in attributes
    ]
    unknown = sorted(attributes.keys() - {field.name for field in fields})
    if missing or unknown:
        raise ValueError(
            f"`{path}` must have the attributes of `Spectrogram`: "
            f"{[field.name for field in fields]}. Received: {missing} missing, "
            f"{unknown} unknown."
        )
    return Spectrogram(**attributes)


def _is_number(value: object, kinds: type | tuple[type, ...] = (int, float)) -> bool:
    """Returns whether something is a finite number, of some types."""
    return (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(cast("float", value))
    )


def _numbers(value: object) -> list[float] | None:
    """Returns one number or several as a list; None: it is something else."""
    one_or_more = cast(
        "list[Any]", value if isinstance(value, list | tuple) else [value]
    )
    fits = one_or_more and all(map(_is_number, one_or_more))
    return [*map(float, one_or_more)] if fits else None


def _wrong_types(one: Spectrogram) -> Iterator[str]:
    """Yields which attributes have unfit types, one sentence each."""
    values = dataclasses.asdict(one)
    for name in (*_WHOLE, *_WHOLE_OR_NONE):
        value = values[name]
        if not (name in _WHOLE_OR_NONE and value is None) and not (
            _is_number(value, int) and value > 0
        ):
            yield f"{name}: {value!r}, expected a positive integer"
    for name in _REAL_OR_NONE:
        if values[name] is not None and not _is_number(values[name]):
            yield f"{name}: {values[name]!r}, expected a number"
    for name in ("mean", "std"):
        if _numbers(values[name]) is None:
            yield f"{name}: {values[name]!r}, expected a number, or one per feature"
    if not isinstance(values["pad_end"], bool):
        yield f"pad_end: {one.pad_end!r}, expected true or false"
    scale = values["full_scale"]
    if scale != MAX and not (_is_number(scale) and scale > 0):
        yield f'full_scale: {scale!r}, expected a positive number or "{MAX}"'


def _problems(one: Spectrogram) -> Iterator[str]:
    """Yields which attributes are unfit, or do not fit each other."""
    low, high = _RATES
    if not low <= one.sample_rate <= high:
        yield f"sample_rate: {one.sample_rate}, expected {low} to {high}, for browsers"
    for name, choices in (("kind", KINDS), ("window", WINDOWS)):
        if getattr(one, name) not in choices:
            yield f"{name}: {getattr(one, name)!r}, expected one of {list(choices)}"
    if one.transform_length < one.frame_length:
        yield (
            f"fft_length: {one.fft_length}, expected at least "
            f"frame_length: {one.frame_length}"
        )
    if one.pad_end and one.num_samples is None:
        yield "pad_end without num_samples, the length of a clip"
    if one.num_samples and not one.pad_end and one.num_samples < one.frame_length:
        yield f"num_samples: {one.num_samples}, expected at least one frame"
    yield from _band_problems(one)
    if one.log_offset is not None and one.log_offset < 0:
        yield f"log_offset: {one.log_offset}, expected 0 or more"
    yield from _feature_problems(one)


def _band_problems(one: Spectrogram) -> Iterator[str]:
    """Yields what is wrong with the bands."""
    edges = (one.lower_hz, one.upper_hz)
    if one.num_mel_bins is None:
        if edges != (None, None):
            yield "lower_hz or upper_hz without num_mel_bins"
        return
    if one.lower_hz is None or one.upper_hz is None:
        yield (
            "num_mel_bins without lower_hz and upper_hz, of which tf.signal's defaults "
            "are 125 and 3800"
        )
    elif not 0 <= one.lower_hz < one.upper_hz <= one.sample_rate / 2:
        yield (
            f"lower_hz: {one.lower_hz}, upper_hz: {one.upper_hz}, expected "
            f"0 <= lower_hz < upper_hz <= {one.sample_rate / 2:g}, half of sample_rate"
        )


def _feature_problems(one: Spectrogram) -> Iterator[str]:
    """Yields what is wrong with coefficients and their normalization."""
    if one.num_mfccs is not None:
        if one.num_mel_bins is None or one.log_offset is None:
            yield "num_mfccs without num_mel_bins and log_offset"
        elif one.num_mfccs > one.num_mel_bins:
            yield f"num_mfccs: {one.num_mfccs}, expected at most {one.num_mel_bins}"
    for name in ("mean", "std"):
        numbers = _numbers(getattr(one, name)) or []
        if len(numbers) not in (1, one.num_features):
            yield f"{len(numbers)} numbers as {name}, expected 1 or {one.num_features}"
        if name == "std" and min(numbers) <= 0:
            yield f"std: {one.std}, expected positive numbers"
