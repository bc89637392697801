"""The front end of sound pages, under node, against tf.signal and NumPy in float64."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import Spectrogram, demo
from tflite_export.demo.sound import read_sound
from tflite_export.demo.spectrogram import read_spectrogram
from tflite_export.file import (
    Additions,
    Normalization,
    TensorQuantization,
    TFLiteGraph,
    TFLiteTensor,
    with_additions,
)

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
SCRIPT = Path(demo.__file__).parent / "templates/spectrogram.js"
DRIVER = """
const { about, frames, clips, input } = JSON.parse(require("fs").readFileSync(0));
const computed = spectrogramOf(about, frames);
const found = clips.map((clip) => computed(Float64Array.from(clip)));
const codes = found.map((one) => [...encodedFeatures(one, input)]);
console.log(JSON.stringify({ features: found.map((one) => [...one]), codes }));
"""
BASE = {"sample_rate": 16000, "frame_length": 64, "frame_step": 32, "full_scale": 1.0,
        "kind": "magnitude"}  # fmt: skip
MEL = {"num_mel_bins": 8, "lower_hz": 20.0, "upper_hz": 4000.0, "log_offset": 1e-6}
TUTORIAL = BASE | {"frame_length": 255, "frame_step": 128, "num_samples": 16000}
KEYWORDS = BASE | MEL | {
    "frame_length": 480, "frame_step": 320, "num_mel_bins": 40, "num_mfccs": 10,
    "full_scale": "max",
}  # fmt: skip
CASES = {
    "TensorFlow's tutorial": TUTORIAL,
    "MLPerf Tiny's keyword spotting": KEYWORDS,
    "power": BASE | {"kind": "power"},
    "integers of 16 bits": BASE | {"full_scale": 32768.0},
    "an odd frame": BASE | {"frame_length": 63},
    "a frame of one sample": BASE | {"frame_length": 1, "fft_length": 8},
    "a longer transform": BASE | {"fft_length": 256},
    "a transform of 480": BASE | {"frame_length": 480, "fft_length": 480},
    "an odd transform": BASE | {"fft_length": 75},
    "Hamming": BASE | {"window": "hamming"},
    "no window": BASE | {"window": None},
    "padded end": BASE | {"pad_end": True, "num_samples": 250},
    "mel bands": BASE | MEL | {"log_offset": None},
    "logarithm without bands": BASE | {"log_offset": 0.5},
    "log-mel of power": BASE | MEL | {"kind": "power", "lower_hz": 0, "upper_hz": 8000},
    "all coefficients": BASE | MEL | {"num_mfccs": 8},
    "normalized": BASE | MEL | {"mean": -3.5, "std": 2.25},
    "normalized by feature": BASE | MEL | {"mean": [*range(8)], "std": [*range(1, 9)]},
}
FRAMES = 6  # Where the length of a clip does not say it.


def graph_of(shape, dtype="float32", scale=0.05, zero_point=117):
    """A file that only has an input."""
    grid = TensorQuantization(np.array([scale], np.float32), zero_point)
    tensor = TFLiteTensor("sound", shape, dtype, None if dtype == "float32" else grid)
    return TFLiteGraph({"sound": tensor}, [], {"sound": "sound"}, {"sound": "sound"})


def sound_of(said, **options):
    """What a page knows of the sound that a file takes."""
    frames = said.num_frames or FRAMES
    return read_sound(graph_of((1, frames, said.num_features), **options), said)


def in_node(sound, clips):
    """Features and codes that the page computes, `[clips, frames, features]`."""
    given = {
        "about": dataclasses.asdict(sound.spectrogram),
        "frames": sound.num_frames,
        "clips": clips.tolist(),
        "input": {
            name: getattr(sound, name) for name in ("dtype", "scale", "zero_point")
        },
    }
    script = SCRIPT.read_text() + DRIVER
    done = subprocess.run(
        [NODE, "-e", script], input=json.dumps(given), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    shape = (len(clips), *sound.shape[1:3])
    found = json.loads(done.stdout)
    return (np.array(found[name]).reshape(shape) for name in ("features", "codes"))


def codes_in_node(values, sound):
    """Codes that the page computes for features."""
    arguments = f"{json.dumps(values)}, {json.dumps(sound)}"
    shown = f"console.log(JSON.stringify([...encodedFeatures({arguments})]))"
    script = SCRIPT.read_text() + shown
    return json.loads(subprocess.check_output([NODE, "-e", script]))


def in_tensorflow(said, clips, dtype):
    """The features as tf.signal computes them, in float32 or float64."""
    x = tf.constant(clips, dtype)
    largest = tf.reduce_max(x, axis=-1, keepdims=True)
    x = x / largest if said.full_scale == "max" else x * said.full_scale
    windows = {"hann": tf.signal.hann_window, "hamming": tf.signal.hamming_window}
    stft = tf.signal.stft(
        x, said.frame_length, said.frame_step, said.fft_length,
        window_fn=windows.get(said.window), pad_end=said.pad_end,
    )  # fmt: skip
    x = tf.abs(stft)
    x = x**2 if said.kind == "power" else x
    if said.num_mel_bins:
        bands = tf.signal.linear_to_mel_weight_matrix(
            said.num_mel_bins, x.shape[-1], said.sample_rate, said.lower_hz,
            said.upper_hz, dtype=dtype,
        )  # fmt: skip
        x = tf.tensordot(x, bands, 1)
    x = x if said.log_offset is None else tf.math.log(x + said.log_offset)
    if said.num_mfccs:
        x = tf.signal.mfccs_from_log_mel_spectrograms(x)[..., : said.num_mfccs]
    return ((x - said.mean) / said.std).numpy()


def in_numpy(said, clips):
    """The features in float64, from the formulas."""
    x = clips / clips.max(axis=-1, keepdims=True) if said.full_scale == "max" else (
        clips * said.full_scale
    )  # fmt: skip
    length, step = said.frame_length, said.frame_step
    count = said.num_frames or FRAMES
    x = np.pad(x, ((0, 0), (0, length)))
    frames = np.stack([x[:, i * step : i * step + length] for i in range(count)], 1)
    period = length if length % 2 == 0 else length - 1
    turns = 2 * np.pi * np.arange(length) / max(period, 1)
    a = {"hann": 0.5, "hamming": 0.54, None: 1.0}[said.window if length > 1 else None]
    transform = np.fft.rfft(
        frames * (a - (1 - a) * np.cos(turns)), said.transform_length
    )
    x = np.abs(transform) ** {"magnitude": 1, "power": 2}[said.kind]
    if said.num_mel_bins:
        mel = np.linspace(*(_mel(hz) for hz in (said.lower_hz, said.upper_hz)),
                          said.num_mel_bins + 2)  # fmt: skip
        at = _mel(np.linspace(0, said.sample_rate / 2, x.shape[-1]))[:, np.newaxis]
        rise = (at - mel[:-2]) / np.diff(mel)[:-1]
        fall = (mel[2:] - at) / np.diff(mel)[1:]
        bands = np.clip(np.minimum(rise, fall), 0, None)
        bands[0] = 0
        x = x @ bands
    x = x if said.log_offset is None else np.log(x + said.log_offset)
    if said.num_mfccs:
        bins = np.arange(said.num_mel_bins) + 0.5
        angles = np.pi * np.outer(bins, np.arange(said.num_mfccs)) / said.num_mel_bins
        x = x @ np.cos(angles) * np.sqrt(2 / said.num_mel_bins)
    return (x - np.array(said.mean)) / np.array(said.std)


def _mel(hertz):
    return 1127 * np.log1p(np.asarray(hertz) / 700)


@needs_node
@pytest.mark.parametrize("case", CASES)
def test_a_page_computes_what_tensorflow_and_numpy_compute(case, rng):
    said = Spectrogram(**CASES[case])
    sound = sound_of(said)
    times = np.arange(sound.num_samples) / said.sample_rate
    clips = 0.5 * np.sin(2 * np.pi * 700 * times * (1 + times))
    clips = clips + rng.normal(0, 0.05, (2, sound.num_samples))
    found, _ = in_node(sound, clips)
    size = np.abs(found).max()
    for wanted in (in_numpy(said, clips), in_tensorflow(said, clips, tf.float64)):
        assert wanted.shape == found.shape
        np.testing.assert_allclose(found, wanted, atol=1e-9 * size, rtol=1e-9)
    in_float32 = in_tensorflow(said, clips, tf.float32)
    np.testing.assert_allclose(found, in_float32, atol=1e-5 * size)


@needs_node
def test_features_become_the_codes_of_the_verifier(rng):
    said = Spectrogram(**BASE | MEL)
    sound = sound_of(said, dtype="uint8", scale=0.0625, zero_point=117)
    features, codes = in_node(sound, rng.normal(0, 0.1, (20, sound.num_samples)))
    steps = np.rint(features.astype(np.float32) / np.float32(0.0625))
    np.testing.assert_array_equal(codes, np.clip(steps + 117, 0, 255))
    assert len(np.unique(codes)) > 50


@needs_node
@pytest.mark.parametrize("zero_point", [0, 117])
def test_ties_become_even_codes_and_all_codes_are_limited(zero_point):
    sound = {"dtype": "uint8", "scale": 0.5, "zero_point": zero_point}
    values = [-1e9, -0.75, -0.25, 0.25, 0.75, 1.25, 7, 1e9]
    found = codes_in_node(values, sound)
    steps = np.array([-300, -2, 0, 0, 2, 2, 14, 300]) + zero_point
    assert found == np.clip(steps, 0, 255).tolist()


@needs_node
def test_codes_are_those_of_float32():
    scale = np.float32(0.1)
    values = (np.arange(200) + 0.5) * scale.astype(np.float64) * (1 - 1e-8)
    wanted = np.rint(values.astype(np.float32) / scale)
    assert (wanted != np.rint(values / scale.astype(np.float64))).any()
    sound = {"dtype": "uint8", "scale": float(scale), "zero_point": 0}
    assert codes_in_node(values.tolist(), sound) == wanted.tolist()


@needs_node
def test_silence_stays_silence_where_clips_are_divided_by_their_largest_sample():
    sound = sound_of(Spectrogram(**BASE | {"full_scale": "max"}))
    clips = np.zeros((1, sound.num_samples))
    features, _ = in_node(sound, clips)
    assert not features.any()


def test_the_readme_describes_a_known_front_end():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    said = json.loads(re.search(r'\{"sample_rate".*?\}', text, re.DOTALL)[0])
    assert Spectrogram(**said) == Spectrogram(**KEYWORDS, num_samples=16000)


def test_the_lengths_of_known_front_ends():
    tutorial, keywords = Spectrogram(**TUTORIAL), Spectrogram(**KEYWORDS)
    assert (tutorial.num_frames, tutorial.num_features) == (124, 129)
    assert keywords.num_features == 10
    sound = read_sound(graph_of((1, 49, 10, 1), "uint8"), keywords)
    assert (sound.num_samples, sound.shape) == (48 * 320 + 480, (1, 49, 10, 1))
    assert sound.spectrogram.fft_length == 512
    assert sound.facts == ["0.99 s at 16 kHz", "49 by 10 features"]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 49, 40, 1), "uint8"), ((1, 10, 49), "uint8"), ((2, 49, 10), "uint8"),
     ((1, 49, 10, 3), "uint8"), ((1, 490), "uint8"), ((1, 49, 10), "int32")],
)  # fmt: skip
def test_a_file_that_takes_something_else_is_refused(shape, dtype):
    with pytest.raises(
        ValueError, match=r"\[1, frames, 10\] or .*1\]. Received 'sound'"
    ):
        read_sound(graph_of(shape, dtype), Spectrogram(**KEYWORDS))


def test_frames_must_be_those_of_the_clip():
    said = Spectrogram(**TUTORIAL)
    read_sound(graph_of((-1, 124, 129)), said)
    with pytest.raises(ValueError, match=r"\[1, 124, 129\].*'sound': float32 \[1, 125"):
        read_sound(graph_of((1, 125, 129)), said)


def test_a_file_of_pixels_is_no_file_of_sounds():
    one = Normalization((0.0,), (255.0,))
    graph = graph_of((1, 6, 33, 1))
    graph = with_additions(graph, Additions(normalization={"sound": one}))
    with pytest.raises(
        ValueError, match=r"takes pixels.*'sound' with \(byte - 0\) / 255"
    ):
        read_sound(graph, Spectrogram(**BASE))
    with pytest.raises(TypeError, match=r"must be a `Spectrogram`. Received: {'kind'"):
        read_sound(graph, {"kind": "power"})


@pytest.mark.parametrize(
    ("said", "faults"),
    [
        ({"sample_rate": 44100.0, "frame_step": True, "frame_length": -1},
         ["sample_rate: 44100.0", "frame_step: True", "frame_length: -1, expected a"]),
        ({"full_scale": "min", "log_offset": "e", "pad_end": 1, "mean": "a", "std": []},
         ["full_scale: 'min'", "log_offset: 'e'", "pad_end: 1", "mean: 'a'", "std: "]),
        ({"sample_rate": 4000, "kind": "log", "window": "kaiser", "fft_length": 32},
         ["4000, expected 8000 to 96000", "kind: 'log'", "window: 'kaiser'",
          "fft_length: 32, expected at least frame_length: 64"]),
        ({"pad_end": True, "lower_hz": 20, "num_mfccs": 3, "log_offset": -1},
         ["without num_samples", "lower_hz or upper_hz without num_mel_bins",
          "log_offset: -1", "num_mfccs without num_mel_bins and log_offset"]),
        ({"num_mel_bins": 8, "num_samples": 10, "std": 0, "mean": [1, 2]},
         ["are 125 and 3800", "num_samples: 10", "2 numbers as mean, expected 1 or 8",
          "std: 0, expected positive"]),
        (MEL | {"upper_hz": 9000, "num_mfccs": 9}, ["half of sample", "at most 8"]),
    ],
)  # fmt: skip
def test_unfit_attributes_are_refused_all_at_once(said, faults):
    with pytest.raises(ValueError) as caught:
        Spectrogram(**BASE | said)
    for fault in faults:
        assert caught.match(fault)


def test_a_spectrogram_is_read_from_a_file(tmp_path):
    path = tmp_path / "front.json"
    path.write_text(json.dumps(KEYWORDS | {"mean": [0] * 10, "window": None}))
    assert read_spectrogram(path) == Spectrogram(
        **KEYWORDS | {"mean": [0] * 10, "window": None}
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "must be a JSON file"),
        ("[]", r"must be a JSON object. Received: \[\]"),
        (
            '{"kind": "power", "hop": 3}',
            r"\['sample_rate', .*\] missing, \['hop'\] unk",
        ),
    ],
)
def test_files_that_are_no_spectrogram_are_refused(text, fault, tmp_path):
    path = tmp_path / "front.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"front.json`.*{fault}"):
        read_spectrogram(path)
