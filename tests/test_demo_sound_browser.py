"""Demo pages of sounds in headless Chromium: what they compute, and their use."""

from __future__ import annotations

import io
import threading
import wave

import numpy as np
import pytest
import tensorflow as tf
from test_demo_browser import percent, values_of
from test_demo_spectrogram import in_numpy, in_tensorflow
from web.packages import PACKAGES
from web.pages import DESKTOP, PHONE, DemoPage

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import Spectrogram
from tflite_export.demo import PageServer

layers = keras.layers
RATE = 16000
SOUNDS = ("low tone", "high tone", "rising chirp", "falling chirp", "noise", "clicks")
SAID = Spectrogram(
    sample_rate=RATE, frame_length=480, frame_step=320, full_scale=1.0,
    kind="magnitude", num_samples=RATE, num_mel_bins=40, lower_hz=20, upper_hz=4000,
    log_offset=1e-6, mean=-3.0, std=2.0,
)  # fmt: skip
COEFFICIENTS = Spectrogram(
    sample_rate=RATE, frame_length=480, frame_step=320, full_scale="max",
    kind="magnitude", num_samples=RATE, num_mel_bins=40, lower_hz=20, upper_hz=4000,
    log_offset=1e-6, num_mfccs=10,
)  # fmt: skip


def sound(kind, rng, rate=RATE, seconds=1.0):
    """Samples of a random sound of a kind, from -1 to 1."""
    times = np.arange(int(rate * seconds)) / rate
    sweep = rng.uniform(250, 350) + rng.uniform(1500, 2500) * times / seconds
    frequency = {
        "low tone": rng.uniform(200, 400) + 0 * times,
        "high tone": rng.uniform(1500, 3000) + 0 * times,
        "rising chirp": sweep,
        "falling chirp": sweep[::-1],
    }.get(kind)
    if frequency is not None:
        x = np.sin(2 * np.pi * np.cumsum(frequency) / rate)
    elif kind == "noise":
        x = rng.normal(0, 0.3, len(times))
    else:
        x = (np.arange(len(times)) % int(rate * rng.uniform(0.06, 0.15)) < 3) * 1.0
    x = x * rng.uniform(0.2, 0.9) + rng.normal(0, rng.uniform(0, 0.02), len(times))
    return np.clip(x, -1, 1)


def wav(samples, rate=RATE):
    """Samples of one channel or more, `[samples, channels]`, as a file of 16 bits."""
    samples = samples.reshape(len(samples), -1)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def samples_of(content):
    """What TensorFlow reads of a file, `[samples]`."""
    return tf.audio.decode_wav(content).audio.numpy()[:, 0]


def network(said, channels):
    """A float network that knows the sounds, and some of their features."""
    rng = np.random.default_rng(0)
    kinds = np.arange(600) % len(SOUNDS)
    clips = np.stack([sound(SOUNDS[kind], rng) for kind in kinds])
    x = in_tensorflow(said, clips, tf.float32)
    x = x[..., np.newaxis] if channels else x
    keras.utils.set_random_seed(0)
    y = inputs = layers.Input(x.shape[1:], name="sound")
    y = y if channels else layers.Reshape((*x.shape[1:], 1))(y)
    for filters in (8, 16):
        y = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(y)
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(y))
    y = layers.Flatten()(layers.AveragePooling2D((3, 1))(y))
    outputs = layers.Dense(len(SOUNDS), activation="softmax", name="scores")(y)
    model = keras.Model(inputs, outputs)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(x, kinds, epochs=10, verbose=0)
    assert model.evaluate(x, kinds, verbose=0)[1] > 0.98
    return model, x


def written(folder, said, channels=True, **ends):
    """The file of a network that knows the sounds, and its page."""
    model, x = network(said, channels)
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    path, page = folder / "sounds.tflite", folder / "sounds.html"
    tflite_export.export_model(student, path, labels=SOUNDS, verbose=False, **ends)
    tflite_export.write_demo(path, page, spectrogram=said, offline=PACKAGES)
    return path, page


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The file of a classifier of log-mel features, and its page."""
    return written(tmp_path_factory.mktemp("sounds"), SAID)


@pytest.fixture(scope="module")
def spotter(tmp_path_factory):
    """The same of coefficients, with a float32 input without channels."""
    folder = tmp_path_factory.mktemp("coefficients")
    return written(folder, COEFFICIENTS, channels=False, input_type="float32")


def scores_of(path, features):
    """Scores of a file for features, `[sounds, classes]`."""
    [shape] = [end.shape for end in tflite_export.inspect_tflite(path).inputs]
    [scores] = values_of(path, features.reshape(-1, *shape[1:]), std=1).values()
    return scores


def decoded(demo, content):
    """Samples that the browser reads of a file; Chromium divides those of 16 bits by
    32767 where they are positive, and by 32768 where they are negative."""
    found = demo.page.evaluate(
        """async (bytes) => {
          const decoder = new OfflineAudioContext(1, 1, 16000);
          const sound = await decoder.decodeAudioData(new Uint8Array(bytes).buffer);
          return [...sound.getChannelData(0)];
        }""",
        list(content),
    )
    return np.array(found)


@pytest.mark.parametrize(
    ("said", "file"), [(SAID, "classifier"), (COEFFICIENTS, "spotter")]
)
def test_sounds_have_the_class_that_python_finds(running, request, said, file):
    path, page = request.getfixturevalue(file)
    demo = DemoPage(running, page.as_uri())
    assert demo.state == "ready", demo.text("#failure")
    rng = np.random.default_rng(1)
    kinds = SOUNDS * 2
    files = [wav(sound(kind, rng)) for kind in kinds]
    trained_on = in_tensorflow(said, np.stack(list(map(samples_of, files))), tf.float32)
    classes = [SOUNDS[place] for place in scores_of(path, trained_on).argmax(axis=1)]
    assert classes == list(kinds)
    samples = np.stack([decoded(demo, content) for content in files])
    scores = scores_of(path, in_numpy(said, samples))
    for content, wanted, row in zip(files, classes, scores, strict=True):
        demo.hear(content)
        assert demo.text("#answer") == wanted
        assert demo.rows() == list(zip(SOUNDS, map(percent, row), strict=True))
    assert demo.errors == []


def test_short_sounds_are_followed_by_silence(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    content = wav(sound("noise", rng, seconds=0.5))
    demo.hear(content)
    padded = np.pad(decoded(demo, content), (0, RATE // 2))
    [scores] = scores_of(classifier[0], in_numpy(SAID, padded[np.newaxis]))
    assert demo.rows() == list(zip(SOUNDS, map(percent, scores), strict=True))
    assert demo.text("#note") == "The network hears all of it, 0.50 s, then silence."
    assert not demo.page.is_visible("#start")


def test_one_chooses_a_part_of_longer_sounds(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    parts = [sound(kind, rng, seconds=1.2) for kind in ("low tone", "noise")]
    content = wav(np.concatenate(parts))
    demo.hear(content)
    assert demo.text("#answer") == "low tone"
    assert demo.text("#note") == "The network hears 1.00 s of 2.40 s."
    with demo.next_run():
        demo.page.fill("#start", "1.3")
    assert demo.text("#from") == "from 1.30 s"
    part = decoded(demo, content)[int(1.3 * RATE) :][:RATE]
    [scores] = scores_of(classifier[0], in_numpy(SAID, part[np.newaxis]))
    assert demo.rows() == list(zip(SOUNDS, map(percent, scores), strict=True))
    assert demo.text("#answer") == "noise"


def test_other_rates_are_resampled_and_channels_are_mixed(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    for kind in SOUNDS[:4]:
        channel = sound(kind, rng, rate=44100)
        demo.hear(wav(np.stack([channel, 0.5 * channel], axis=1), rate=44100))
        assert demo.text("#answer") == kind
    opposite = np.stack([channel, -channel], axis=1)
    demo.hear(wav(np.clip(opposite, -0.9, 0.9), rate=44100))
    silence = np.zeros((1, RATE))
    [scores] = scores_of(classifier[0], in_numpy(SAID, silence))
    assert demo.text("#answer") == SOUNDS[scores.argmax()]


def test_the_features_are_drawn_over_time_with_the_first_at_the_bottom(
    running, classifier, rng
):
    demo = DemoPage(running, classifier[1].as_uri())
    content = wav(sound("rising chirp", rng))
    demo.hear(content)
    shown = demo.bytes_seen().astype(int).sum(-1)
    assert shown.shape == (40, 49)
    [features] = in_numpy(SAID, decoded(demo, content)[np.newaxis])
    largest = features.argmax(axis=1)
    assert largest[0] < largest[24] < largest[48]
    brightest = shown[39 - largest, np.arange(49)]
    np.testing.assert_array_equal(brightest, shown.max(axis=0))


def test_a_dropped_sound(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    demo.drop("x.wav", wav(sound("clicks", rng)))
    assert demo.text("#answer") == "clicks"
    assert demo.page.get_attribute("body", "data-mode") == "file"


def test_a_file_that_is_no_sound_is_refused_by_name(running, classifier):
    demo = DemoPage(running, classifier[1].as_uri())
    file = {"name": "photo.png", "mimeType": "audio/wav", "buffer": b"no sound"}
    demo.page.set_input_files("#choose", file)
    demo.page.wait_for_selector("#failure:not([hidden])")
    assert "photo.png is not a sound" in demo.text("#failure")


# Opens streams of the microphone are kept for the test.
STREAMS = """() => {
  const media = navigator.mediaDevices;
  const get = media.getUserMedia.bind(media);
  window.asked = [];
  media.getUserMedia = async (wanted) => {
    const stream = await get(wanted);
    window.asked.push({ wanted, stream });
    return stream;
  };
}"""
ACTIVE = "window.asked.map(({ stream }) => stream.active)"


def test_a_clip_is_recorded_and_the_microphone_is_switched_off(running, classifier):
    # Chromium's fake microphone beeps.
    with PageServer(classifier[1].read_bytes(), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        for address in (f"http://127.0.0.1:{port}/", classifier[1].as_uri()):
            demo = DemoPage(running, address)
            demo.page.evaluate(STREAMS)
            with demo.next_run():
                demo.page.click("#record")
            assert demo.text("#note") == "The network hears all of it, 1.00 s."
            assert demo.text("#hint") == ""
            assert len(np.unique(demo.bytes_seen())) > 20
            assert demo.page.is_enabled("#record")
            assert demo.page.evaluate(ACTIVE) == [False]
            wanted = demo.page.evaluate("window.asked[0].wanted.audio")
            assert set(wanted.values()) == {False}  # The sound as it is.
            assert demo.errors == []
            demo.context.close()
        server.shutdown()


def test_another_mode_ends_a_recording(running, classifier):
    demo = DemoPage(running, classifier[1].as_uri())
    demo.page.evaluate(STREAMS)
    demo.page.click("#record")
    demo.page.wait_for_function("document.getElementById('hint').textContent[0] == 'S'")
    demo.choose("file")
    demo.page.wait_for_function(f"{ACTIVE}.every((active) => !active)")
    demo.page.wait_for_timeout(1200)
    assert demo.text("#answer") == "No sound yet"
    assert "a sound" in demo.text("#hint")
    assert demo.page.get_attribute("body", "data-runs") is None


def test_a_refused_microphone_is_named(running, classifier):
    demo = DemoPage(running, classifier[1].as_uri())
    demo.page.evaluate(
        """() => (navigator.mediaDevices.getUserMedia = async () => {
          throw new Error("Permission denied");
        })"""
    )
    demo.page.click("#record")
    demo.page.wait_for_selector("#record:enabled")
    assert demo.text("#hint") == "The microphone cannot be used: Permission denied"


def test_without_https_the_page_says_so_and_takes_recordings(running, classifier, rng):
    page = classifier[1].read_bytes()
    answer = {"http://192.0.2.1/**": lambda route: route.fulfill(
        body=page, content_type="text/html"
    )}  # fmt: skip
    demo = DemoPage(running, "http://192.0.2.1/", routes=answer)
    assert demo.state == "ready", demo.text("#failure")
    assert "needs https or localhost" in demo.text("#hint")
    assert not demo.page.is_visible("#record")
    field = "#record-instead input"
    assert demo.page.get_attribute(field, "accept") == "audio/*"
    assert demo.page.get_attribute(field, "capture") is not None
    content = wav(sound("high tone", rng))
    with demo.next_run():
        demo.page.set_input_files(
            field, {"name": "x.wav", "mimeType": "audio/wav", "buffer": content}
        )
    assert demo.text("#answer") == "high tone"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_one_can_use_the_page(running, classifier, rng, size, scheme):
    demo = DemoPage(running, classifier[1].as_uri(), size, scheme)
    for mode in ("record", "file"):
        demo.choose(mode)
        if mode == "file":
            demo.hear(wav(sound("noise", rng, seconds=2)))
        assert demo.faults(PACKAGES) == []
        assert demo.page.evaluate("document.body.scrollWidth") <= size[0]
        for target in demo.page.locator("button, label").all():
            if target.is_visible():
                box = target.bounding_box()
                assert min(box["width"], box["height"]) >= 44, target.inner_text()
