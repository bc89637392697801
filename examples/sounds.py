"""Makes sounds of twelve invented words, and the features that keyword spotters read.

A word is three phones. A vowel is three tones, at the formants of the vowel, that the
pitch of the voice modulates; a consonant is hissing noise. Each sound has its own
pitch, size of the speaker's mouth, speed, start, loudness and background noise, so
words are confused about as often as those of real people. Nothing is downloaded, and
the same seed gives the same sounds.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from datasets import Images

RATE = 8000  # Samples per second; a sound takes one second.
FRAMES, COEFFICIENTS = 49, 10
_WINDOW, _HOP, _SPECTRUM, _BANDS = 240, 160, 256, 40  # 30 ms every 20 ms.
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Phone:
    """The shortest part of a word.

    Attributes:
        formants: Frequencies of its tones, in Hz.
        voice: Loudness of the tones.
        hiss: Loudness of its noise.
        low_hiss: Loudness of its noise at lower frequencies.
    """

    formants: tuple[float, float, float]
    voice: float = 1.0
    hiss: float = 0.0
    low_hiss: float = 0.0


# Vowels: the means of men in Peterson and Barney, "Control Methods Used in a Study of
# the Vowels", JASA 1952.
PHONES = {
    "a": Phone((730, 1090, 2440)),
    "e": Phone((530, 1840, 2480)),
    "i": Phone((270, 2290, 3010)),
    "o": Phone((570, 840, 2410)),
    "u": Phone((300, 870, 2240)),
    "m": Phone((250, 1200, 2100), voice=0.4),
    "s": Phone((300, 1800, 2600), voice=0.0, hiss=0.5),
    "x": Phone((300, 1600, 2500), voice=0.0, low_hiss=0.5),
}
WORDS = (
    "asi", "osi", "esi", "axi", "oxu", "aso",
    "mau", "mou", "mia", "mea", "ima", "uma",
)  # fmt: skip


def load(train: int, test: int, seed: int = 0) -> Images:
    """Makes sounds, and returns their features.

    Args:
        train: How many sounds to train on.
        test: How many to hold out.
        seed: Seed of all random numbers.

    Returns:
        Features as float32 `[sounds, 49, 10, 1]`. Each coefficient has mean 0 and
        standard deviation 1 over the sounds to train on.
    """
    x_train, y_train = _examples(train, np.random.default_rng([seed, 0]))
    x_test, y_test = _examples(test, np.random.default_rng([seed, 1]))
    mean, deviation = x_train.mean(axis=(0, 1)), x_train.std(axis=(0, 1))
    scaled = [
        ((x - mean) / deviation)[..., np.newaxis].astype(np.float32)
        for x in (x_train, x_test)
    ]
    return Images(scaled[0], y_train, scaled[1], y_test, maximum=1)


def sounds(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speaks words.

    Args:
        words: Positions in `WORDS`.
        rng: Draws the speaker and the background of each sound.

    Returns:
        Samples, `[sounds, 8000]`.
    """
    count = len(words)
    weights = _phone_weights(count, rng)

    def track(values: list[list[float]]) -> np.ndarray:
        """Returns a number of every phone at each sample."""
        return np.einsum("npt,np->nt", weights, np.array(values, np.float32))

    phones = [[PHONES[letter] for letter in WORDS[word]] for word in words]
    noise = _noise((count, RATE + 2), rng)
    high = noise[:, 1:-1] - noise[:, :-2]  # A difference removes low frequencies.
    low = noise[:, 2:] - noise[:, :-2]
    result = _voice(phones, weights, rng) * track(
        [[p.voice for p in w] for w in phones]
    )
    result += high * track([[p.hiss for p in w] for w in phones])
    result += low * track([[p.low_hiss for p in w] for w in phones])
    result += _powers(-1.3, 0.05, count, rng) * _noise(result.shape, rng)
    return result * _powers(-1.0, 0.0, count, rng)


def features(samples: np.ndarray) -> np.ndarray:
    """Returns mel-frequency cepstral coefficients, `[sounds, 49, 10]`.

    Args:
        samples: From `sounds`.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW, axis=1)
    windows = windows[:, ::_HOP][:, :FRAMES] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows, _SPECTRUM)) ** 2
    logarithms = np.log(power @ _mel_bands() + 1e-6)
    positions = np.pi * (np.arange(_BANDS) + 0.5) / _BANDS
    cosines = np.cos(positions[:, np.newaxis] * np.arange(COEFFICIENTS))
    return logarithms @ cosines


def _examples(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns features of random words, and the words."""
    words = rng.integers(0, len(WORDS), count)
    parts = [
        features(sounds(words[start : start + _BATCH], rng))
        for start in range(0, count, _BATCH)
    ]
    return np.concatenate(parts), words


def _phone_weights(count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns how much each of three phones is heard at each sample."""
    start = rng.uniform(0.02, 0.3, (count, 1))
    lengths = rng.uniform(0.1, 0.2, (count, 3)) * rng.uniform(0.8, 1.2, (count, 1))
    ends = start + np.cumsum(lengths, axis=1)
    begins = np.concatenate([start, ends[:, :-1]], axis=1)
    time = np.arange(RATE) / np.float32(RATE)
    blend = 0.04  # Seconds in which a phone becomes the next one.
    begins, ends = (np.float32(part)[..., np.newaxis] for part in (begins, ends))
    rise = np.clip((time - begins) / blend + 0.5, 0, 1)
    fall = np.clip((ends - time) / blend + 0.5, 0, 1)
    return np.minimum(rise, fall)


def _voice(
    phones: list[list[Phone]], weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the tones of all phones, modulated by the pitch."""
    count = len(phones)
    mouth = rng.normal(1, 0.1, (count, 1, 1))
    formants = np.array([[p.formants for p in word] for word in phones])
    formants = np.float32(formants * mouth * rng.normal(1, 0.05, formants.shape))
    total = weights.sum(axis=1, keepdims=True) + 1e-3
    frequencies = np.einsum("npt,npf->nft", weights / total, formants)
    tones = np.sin(_phase(frequencies))
    pitch = rng.uniform(90, 260, (count, 1)) * _glide(count, rng)
    pulses = (0.5 + 0.5 * np.cos(_phase(np.float32(pitch)))) ** 2
    return np.einsum("nft,f->nt", tones, np.array([1.0, 0.6, 0.3], np.float32)) * pulses


def _glide(count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns factors by which pitches rise or fall during a second."""
    return 1 + rng.uniform(-0.3, 0.3, (count, 1)) * np.linspace(-0.5, 0.5, RATE)


def _phase(frequencies: np.ndarray) -> np.ndarray:
    """Returns the phases of tones, in radians."""
    return np.cumsum(frequencies, axis=-1) * np.float32(2 * np.pi / RATE)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns white noise of standard deviation 1."""
    return rng.standard_normal(shape, np.float32)


def _powers(
    low: float, high: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns a random loudness per sound, from 10^low to 10^high."""
    return np.float32(10 ** rng.uniform(low, high, (count, 1)))


def _mel_bands() -> np.ndarray:
    """Returns triangular bands, equally wide in mel, `[frequencies, bands]`."""
    frequencies = np.fft.rfftfreq(_SPECTRUM, 1 / RATE)
    limits = 700 * np.expm1(
        np.linspace(np.log1p(20 / 700), np.log1p(RATE / 2 / 700), _BANDS + 2)
    )
    low, middle, high = limits[:-2], limits[1:-1], limits[2:]
    rise = (frequencies[:, np.newaxis] - low) / (middle - low)
    fall = (high - frequencies[:, np.newaxis]) / (high - middle)
    return np.clip(np.minimum(rise, fall), 0, None)
