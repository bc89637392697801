"""Exports for a consumer: what is chosen, refused and warned of."""

from __future__ import annotations

import dataclasses
import json
import warnings
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from typer.testing import CliRunner

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import cli
from tflite_export.consumers import COMPILED_MODEL, CONSUMERS, choose
from tflite_export.targets import TARGETS

LABELS = ["a", "b", "c", "d", "e"]
ROOMS = ("mediapipe", "mlkit", "tflite_support")
SIZE = 8


def images(rng):
    """Bytes of a few images."""
    return rng.integers(0, 256, (64, SIZE, SIZE, 3)).astype(np.uint8)


def student_for(rng, inputs=None, target="phone", scale=1.0):
    """A quantized network of images, with bits that storages differ in."""
    model = tiny.randomize(tiny.pre_activation(), rng)
    student = tf_lsq.quantize_model(
        model, weight_bits=4, activation_bits=4, inputs=inputs, target=target
    )
    pixels = images(rng)
    x = scale * (pixels / 255 if inputs is None else inputs.encode(pixels))
    tf_lsq.calibrate(student, x.astype(np.float32))
    tf_lsq.round_biases(student)
    return student


@pytest.fixture(scope="module")
def of_pixels():
    """A student whose codes are bytes."""
    keras.backend.clear_session()
    return student_for(np.random.default_rng(0), tf_lsq.Pixels())


@pytest.fixture(scope="module")
def of_learned():
    """A student whose input has a learned step, not that of bytes."""
    keras.backend.clear_session()
    return student_for(np.random.default_rng(0), scale=1.1)


def export(student, path, **options):
    """An export without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tflite_export.export_model(student, path, verbose=False, **options)


def ends(path):
    """Types of the input and the output of a file."""
    report = tflite_export.inspect_tflite(path)
    return report.inputs[0].dtype, report.outputs[0].dtype


# --- What is chosen ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consumer", "expected"),
    [
        (None, ("int8", "int8")),
        ("litert", ("int8", "int8")),
        ("compiled_model", ("int8", "int8")),
        ("tensorflow", ("int8", "int8")),
        ("ios", ("uint8", "float32")),
        ("web", ("uint8", "float32")),
        ("mediapipe", ("uint8", "float32")),
        ("mlkit", ("uint8", "float32")),
        ("tflite_support", ("uint8", "float32")),
    ],
)
def test_ends_of_pixels(consumer, expected, of_pixels, tmp_path):
    path = tmp_path / "model.tflite"
    report = export(of_pixels, path, consumer=consumer, labels=LABELS)
    assert ends(path) == expected
    assert report.storage == "int8"
    assert report.consumer == (consumer or "")
    if consumer is not None:
        [own] = [one for one in report.consumers if one.consumer == consumer]
        assert (own.verdict, own.findings) == ("runs", [])


def test_ends_of_a_learned_step_on_the_web(of_learned, tmp_path):
    path = tmp_path / "model.tflite"
    export(of_learned, path, consumer="web")
    assert ends(path) == ("float32", "float32")


def test_explicit_options_stay(of_pixels, tmp_path):
    path = tmp_path / "model.tflite"
    export(of_pixels, path, consumer="mediapipe", output_type="uint8")
    assert ends(path) == ("uint8", "uint8")


def test_float_images_say_how_they_are_made_of_bytes(of_pixels, tmp_path):
    path = tmp_path / "model.tflite"
    export(of_pixels, path, consumer="mediapipe", input_type="float32")
    found = tflite_export.inspect_tflite(path).standard.normalization
    assert found == {"image": tflite_export.Normalization((0.0,), (255.0,))}


def test_the_gpu_gets_no_strided_1x1_convolutions(of_pixels, tmp_path):
    path = tmp_path / "model.tflite"
    report = export(of_pixels, path)
    [gpu] = [one for one in report.consumers if one.consumer == "gpu"]
    assert gpu.verdict == "wrong"
    report = export(of_pixels, path, consumer="gpu")
    [gpu] = [one for one in report.consumers if one.consumer == "gpu"]
    assert gpu.verdict == "runs"
    tflite_export.verify_tflite(path, of_pixels)


@pytest.mark.parametrize("name", CONSUMERS)
def test_what_is_chosen_is_taken(name):
    consumer = CONSUMERS[name]
    for pixels in (True, False):
        found = choose(consumer, input_type=None, output_type=None, pixels=pixels)
        assert found.input_type in consumer.input_types
        assert found.output_type in consumer.output_types
        assert found.input_type in cli.END_TYPES and found.output_type in cli.END_TYPES


# --- What is refused -----------------------------------------------------------------


@pytest.mark.parametrize("consumer", ROOMS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"input_type": "int8"}, "input `image` is int8"),
        ({"output_type": "int8"}, "output `dense` is int8"),
    ],
)
def test_contradictions_are_refused(consumer, options, expected, of_pixels, tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=expected) as error:
        export(of_pixels, path, consumer=consumer, **options)
    assert "leave `input_type` and `output_type` open" in str(error.value)
    assert not path.exists()


def test_all_offenders_are_listed(of_learned, tmp_path):
    options = {"input_type": "int8", "output_type": "int8", "storage": "packed"}
    with pytest.raises(ValueError, match="must run the file right") as error:
        export(of_learned, tmp_path / "m.tflite", consumer="tflite_support", **options)
    for text in ("`image` is int8", "`dense` is int8", "Weights must be int8"):
        assert text in str(error.value)


@pytest.mark.parametrize("metadata", ["full", "hash", "none"])
@pytest.mark.parametrize("consumer", ROOMS)
def test_bytes_that_are_no_codes_are_refused(consumer, metadata, of_learned, tmp_path):
    """Whatever the file says of how its input was trained."""
    path, options = tmp_path / "model.tflite", {"metadata": metadata}
    with pytest.raises(ValueError, match=r"wrong: .*which were learned") as error:
        export(of_learned, path, consumer=consumer, input_type="uint8", **options)
    assert "tf_lsq.Pixels(mean=..., std=...)" in str(error.value)
    with pytest.raises(ValueError, match="refused: Metadata must say how the bytes"):
        export(of_learned, path, consumer=consumer, **options)
    assert not path.exists()


@pytest.mark.parametrize("metadata", ["full", "hash", "none"])
def test_reports_know_more_than_files_say(metadata, of_learned, tmp_path):
    path, types = tmp_path / "model.tflite", {"input_type": "uint8"}
    types["output_type"] = "float32"
    report = export(of_learned, path, metadata=metadata, **types)
    [found] = [one for one in report.consumers if one.consumer == "mediapipe"]
    assert found.verdict == "wrong" and "which were learned" in str(found)
    [said] = [
        one
        for one in tflite_export.inspect_tflite(path).consumers
        if one.consumer == "mediapipe"
    ]
    assert said.verdict == ("wrong" if metadata == "full" else "not known")


def test_what_compiled_model_was_seen_to_refuse_is_not_written(tmp_path, rng):
    """Its rules name outputs of TOPK_V2 only; another refusal is found by running."""
    x = keras.Input((8,), name="x")
    y = tf.math.top_k(keras.layers.Dense(4)(x), 2)
    model = keras.Model(x, [y.values, y.indices])
    data = rng.uniform(-1, 1, (32, 8)).astype(np.float32)
    student = tf_lsq.quantize_model(model, overrides={r"tf.math.top_k.*": "float"})
    tf_lsq.calibrate(student, data)
    rules = tuple(r for r in COMPILED_MODEL.rules if r.name != "open_outputs")
    unknown = dataclasses.replace(COMPILED_MODEL, rules=rules)
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=r"refused: .* of TOPK_V2\. Give the"):
        tflite_export.export_model(student, path, consumer="compiled_model")
    with mock.patch.dict(CONSUMERS, compiled_model=unknown):
        report = tflite_export.export_model(student, path, data=data, verbose=False)
        [found] = [one for one in report.consumers if one.consumer == unknown.name]
        assert found.verdict == "refused"
        assert "Failed to register output tensor buffer" in str(found)
        path.unlink()
        with pytest.raises(ValueError, match="refused: It must run the file"):
            tflite_export.export_model(
                student, path, data=data, consumer=unknown.name, verbose=False
            )
    assert not path.exists()


def test_the_gpu_refuses_int4_convolutions(of_pixels, tmp_path):
    with pytest.raises(ValueError, match="refused: Kernels of convolutions must be"):
        export(of_pixels, tmp_path / "m.tflite", consumer="gpu", storage="packed")


@pytest.mark.parametrize(
    "consumer", ["mediapipe", "web", "gpu", "compiled_model", "ios"]
)
def test_consumers_refuse_microcontrollers(consumer, rng, tmp_path):
    student = student_for(rng, tf_lsq.Pixels(), "tflm")
    with pytest.raises(ValueError, match="`consumer` must be something that runs"):
        export(student, tmp_path / "m.tflite", consumer=consumer)
    assert CONSUMERS[consumer].excluded_targets == tuple(
        name
        for name in TARGETS
        if name not in (("phone", "symmetric") if consumer == "gpu" else _APPS)
    )


_APPS = ("phone", "edgetpu", "symmetric")


def test_unknown_consumers_are_refused(of_pixels, tmp_path):
    with pytest.raises(ValueError, match=r"`consumer` must be one of .*'mediapipe'"):
        export(of_pixels, tmp_path / "m.tflite", consumer="mediapip")


# --- What is warned of ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("consumer", "expected"),
    [
        ("web", "LiteRT.js 2.5.3: runs slowly. Weights should be int8"),
        ("mediapipe", "runs slowly. XNNPACK must have a kernel"),
        ("mlkit", "not known. It must be known whether its runtime has"),
    ],
)
def test_slow_and_unknown_are_warnings(consumer, expected, of_pixels, tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.warns(UserWarning, match=expected):
        tflite_export.export_model(
            of_pixels, path, consumer=consumer, storage="packed", verbose=False
        )
    assert path.exists()


# --- Reports -------------------------------------------------------------------------


def test_reports_name_who_refuses_the_default(of_pixels, tmp_path):
    report = export(of_pixels, tmp_path / "model.tflite")
    page = tmp_path / "report.html"
    tflite_export.write_html_report(report, page)
    refused = [c.consumer for c in report.consumers if c.verdict == "refused"]
    assert refused == ["web", "mediapipe", "mlkit", "ios", "tflite_support"]
    plain = json.loads(json.dumps(report.to_dict()))["consumers"]
    assert [one["consumer"] for one in plain] == list(CONSUMERS)
    for one in report.consumers:
        assert f"\n  {one.consumer:<15} {one.verdict}" in str(report)
        assert f"<td>{one.consumer}</td>" in page.read_text()
    assert "input `image` is int8" in page.read_text()


def test_the_command_line_has_consumers(of_pixels, tmp_path):
    of_pixels.save(tmp_path / "student.keras")
    arguments = ["export", tmp_path / "student.keras", tmp_path / "model.tflite"]
    run = CliRunner().invoke(cli.app, [*map(str, arguments), "--consumer", "web"])
    assert run.exit_code == 0, run.output
    assert ends(tmp_path / "model.tflite") == ("uint8", "float32")
    options = ["--consumer", "web", "--input-type", "int8", "--json"]
    run = CliRunner().invoke(cli.app, [*map(str, arguments), *options])
    assert run.exit_code == cli.UNREADABLE
    assert "`--input-type`" in json.loads(run.stdout)["error"]
    run = CliRunner().invoke(cli.app, [*map(str, arguments), "--consumer", "phone"])
    assert run.exit_code == 2
