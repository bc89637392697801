"""The command line, and damaged or unexpected files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from importlib import metadata

import harness.keras3
import numpy as np
import pytest
import tensorflow as tf
import test_file_flatbuffer
from harness import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import tf_lsq
import tflite_export
from tf_lsq import Pixels
from tf_lsq._compat import keras
from tflite_export import cli
from tflite_export.file import flatbuffer
from tflite_export.loading import load_model

layers = keras.layers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A float model, a quantized one, its exported file and some data."""
    keras.backend.clear_session()  # Restarts the numbering of layers.
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    model = tiny.randomize(tiny.residual(), rng)
    student = tf_lsq.quantize_model(model)
    x = rng.uniform(-1, 1, (32, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    model.save(folder / "float.keras")
    student.save(folder / "student.keras")
    student.save(folder / "student.h5")
    np.savez(folder / "data.npz", x=x, y=rng.integers(0, 5, 32))
    np.save(folder / "x.npy", x)
    tflite_export.export_model(student, folder / "model.tflite")
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_check_lists_operators_and_problems(files):
    options = ["--storage", "packed", "--data", files / "data.npz"]
    output = run("check", files / "float.keras", *options).output
    assert "re_lu_1" in output and "int4" in output
    refused = run("check", files / "float.keras", "--target", "symmetric", code=1)
    assert "softmax" in refused.output
    found = json.loads(
        run("check", files / "student.h5", "--json", "--target", "phone").stdout
    )
    assert found["ok"] and found["target"] == "phone"
    run("check", files / "float.keras", "--target", "toaster", code=2)


def test_demo_writes_a_page(files, tmp_path):
    labels, page = tmp_path / "labels.txt", tmp_path / "page.html"
    labels.write_text("ant\nbee\ncat\ndog\neel\n")
    file = files / "model.tflite"
    refused = run("demo", file, "-o", page, code=3)
    assert "`--mean` and `--std` must be given" in refused.output
    assert not page.exists()
    options = ["--labels", labels, "--mean", 0, "--std", 255, "--title", "Animals"]
    found = json.loads(run("demo", file, "-o", page, *options, "--json").stdout)
    assert found == {"written": [str(page)]}
    text = page.read_text()
    assert "<title>Animals</title>" in text and '"eel"' in text
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(file.read_bytes())
    means = [part for mean in (1, 2, 3) for part in ("--mean", mean)]
    run("demo", copy, *means, "--std", 64)
    assert copy.with_suffix(".html").exists()
    missing = run("demo", file, *options, "--offline", tmp_path, code=3)
    assert "`--offline` must be a folder" in missing.output
    run("demo", file, *options, "--serve", "--json", code=2)
    run("demo", file, *options, "--boxes", "corners", code=2)


def test_demo_computes_a_spectrogram_that_a_file_describes(rng, tmp_path):
    model = tiny.residual(shape=(12, 33, 1))
    student, _ = tiny.student_of(model, rng, (64, 12, 33, 1))
    file, said = tmp_path / "sound.tflite", tmp_path / "front.json"
    file.write_bytes(tiny.built(student).content)
    front = {"sample_rate": 8000, "frame_length": 64, "frame_step": 32,
             "full_scale": 1.0, "kind": "magnitude"}  # fmt: skip
    said.write_text(json.dumps(front))
    refused = run("demo", file, code=3)
    assert "pass `--spectrogram` instead" in refused.output
    run("demo", file, "--spectrogram", said)
    assert '"frame_length": 64' in file.with_suffix(".html").read_text()
    said.write_text(json.dumps(front | {"frame_length": 128}))
    unfit = run("demo", file, "--spectrogram", said, code=3)
    assert "[1, frames, 65, 1]" in unfit.output
    del front["kind"]
    said.write_text(json.dumps(front))
    unfit = run("demo", file, "--spectrogram", said, code=3)
    assert "['kind'] missing" in unfit.output


def test_demo_serves_a_page_until_ctrl_c(files, tmp_path):
    options = ["--port", "0", "--mean", "0", "--std", "255", files / "model.tflite"]
    start = "from tflite_export.command import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "demo", "--serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    address = process.stdout.readline().strip()
    port = address.rstrip("/").rpartition(":")[2]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
        assert b"<title>model</title>" in page.read()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert output.endswith("Stopped.\n") and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_suggest_finds_bits_within_the_budget(files, tmp_path):
    arguments = ["suggest", files / "float.keras", "--data", files / "data.npz"]
    plot = tmp_path / "plot.svg"
    found = json.loads(
        run(
            *arguments, "--budget-bytes", 12_000, "--activation-bits", 8,
            "--candidate", 4, "--candidate", 8, "--plot", plot, "--json",
            "--asymmetric-activations",
        ).stdout
    )  # fmt: skip
    assert found["file_bytes"] <= found["budget_bytes"] == 12_000
    assert set(found["uniform"]) == {"4", "8"} and found["divergence"] == "kl"
    model = load_model(files / "float.keras")
    tf_lsq.quantize_model(model, overrides=found["overrides"])
    assert "bytes of the file" in plot.read_text()
    small = run(
        *arguments, "--budget-bytes", 100, "--candidate", 2, "--candidate", 8, code=1
    )
    assert "the smallest file" in small.output.replace("\n", " ")
    run(*arguments, code=2)
    missing = tmp_path / "none" / "plot.svg"
    run(*arguments, "--budget-bytes", 12_000, "--plot", missing, code=3)


def test_exported_files_pass_verification(files, tmp_path):
    path = tmp_path / "packed.tflite"
    found = json.loads(
        run("export", files / "student.keras", path, "--storage", "packed", "--json")
        .stdout
    )  # fmt: skip
    assert found["file_bytes"] == path.stat().st_size
    output = run("verify", path, files / "student.keras").output
    assert "weight codes equal" in output
    for data in ("data.npz", "x.npy"):
        found = json.loads(
            run(
                "verify", path, files / "student.h5", "--data", files / data, "--json"
            ).stdout
        )  # fmt: skip
        assert found["num_examples"] == 32 and found["twin_differences"] == 0
    assert (found["keras_accuracy"] is None) == (data == "x.npy")


def test_students_of_keras_3_are_exported_and_verified(tmp_path):
    student, (x, y) = harness.keras3.student(), harness.keras3.examples()
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    saved, file, data = (tmp_path / name for name in ("s.keras", "m.tflite", "d.npz"))
    student.save(saved)
    harness.keras3.network().save(tmp_path / "float.keras")
    np.savez(data, x=x, y=y)
    assert "conv_1" in run("check", tmp_path / "float.keras").output
    assert "conv_1" in run("check", saved).output
    run("export", saved, file)
    assert "integer twin" in run("verify", file, saved, "--data", data).output


def test_export_writes_the_requested_reports(files, tmp_path):
    path, page = tmp_path / "model.tflite", tmp_path / "report.html"
    output = run(
        "export", files / "student.keras", path, "--storage", "packed",
        "--data", files / "data.npz", "--benchmark", "--html", page,
        "--snippet", "kotlin",
    ).output  # fmt: skip
    run("export", files / "student.keras", path, "--bias-grid", "other", code=2)
    for expected in ("fun predict", "x int8", "top-1 agreement", "other storage"):
        assert expected in output
    assert "<svg" in page.read_text()
    missing = tmp_path / "none" / "report.html"
    path.unlink()
    run("export", files / "student.keras", path, "--html", missing, code=3)
    assert not path.exists()


def test_verify_rejects_the_file_of_another_model(files, tmp_path):
    graph = flatbuffer.from_bytes((files / "model.tflite").read_bytes())
    weight = graph.tensors["re_lu_1/weight"]
    weight.data = -weight.data
    path = tmp_path / "other.tflite"
    path.write_bytes(flatbuffer.to_bytes(graph))
    result = run("verify", path, files / "student.keras", code=1)
    assert "re_lu_1/weight" in result.output and "Traceback" not in result.output
    inspected = run("inspect", path, code=1)
    assert "CHANGED since it was exported: `re_lu_1/weight`" in inspected.output


def test_inspect_shows_the_contents_of_a_file(files):
    output = run("inspect", files / "model.tflite").output
    assert "input   image: int8 [-1, 8, 8, 3]  scale" in output
    assert "re_lu_1: activation of 're_lu_1', 4 bits unsigned" in output
    found = json.loads(run("inspect", files / "model.tflite", "--json").stdout)
    assert found["described"]["tensors"]["re_lu_1"]["bits"] == 4
    assert found["kernel_bytes"] == {"int8": 8 * (27 + 72 + 72) + 40}


def test_cpp_is_only_for_tflite_micro(files, tmp_path):
    path = tmp_path / "model.tflite"
    result = run("export", files / "student.keras", path, "--snippet", "cpp", code=3)
    assert "`--snippet` must not be 'cpp' unless" in result.output
    assert not path.exists()


@pytest.mark.parametrize("language", ["javascript", "kotlin-mediapipe"])
def test_snippets_are_only_for_files_that_their_library_takes(
    language, files, tmp_path
):
    path = tmp_path / "model.tflite"
    arguments = ["export", files / "student.keras", path, "--snippet", language]
    result = run(*arguments, code=3)
    assert f"`--snippet` cannot be '{language}'" in result.output
    assert "--input-type" in result.output and not path.exists()
    ends = ["--input-type", "uint8", "--output-type", "float32"]
    assert "classify" in run(*arguments, *ends, *labels(tmp_path)).output


def labels(folder):
    """The options for labels of the student's five classes."""
    path = folder / "labels.txt"
    path.write_text("a\nb\nc\nd\ne\n")
    return ["--labels", path]


@pytest.mark.parametrize(
    "name",
    ["", "_quant", "_large_int8", "_large_float"],
)
def test_files_from_other_tools_can_only_be_inspected(name, real_data, files):
    path = real_data / f"models/mlperf_tiny/ic_resnet8/pretrainedResnet{name}.tflite"
    output = run("inspect", path).output
    assert "CONV_2D" in output and "not written by tf_lsq" in output
    result = run("verify", path, files / "student.keras", code=3)
    assert "from another tool" in result.output


@pytest.mark.parametrize("inputs", [["x"], ["x", "", "b"]])
def test_an_operator_without_weights_is_read(inputs, tmp_path):
    graph = test_file_flatbuffer.fully_connected()
    graph.ops[0].inputs, graph.ops[0].version = inputs, 4
    path = tmp_path / "odd.tflite"
    path.write_bytes(flatbuffer.rewritten(graph))
    assert "1 FULLY_CONNECTED v4" in run("inspect", path).output


def test_metadata_without_a_storage_is_refused(files, tmp_path):
    graph = flatbuffer.from_bytes((files / "model.tflite").read_bytes())
    graph.metadata["tf_lsq"] = b'{"format": 1, "tensors": {}}'
    path = tmp_path / "odd.tflite"
    path.write_bytes(flatbuffer.to_bytes(graph))
    result = run("verify", path, files / "student.keras", code=3)
    assert "odd.tflite` must name the storage" in result.output


def test_unreadable_files_give_an_error_and_exit_code_3(files, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 10)
    assert "readable" in run("inspect", broken, code=3).output
    assert "Error" in run("inspect", tmp_path / "missing.tflite", code=3).output
    assert "model.save" in run("check", files, code=3).output
    bad = tmp_path / "model.keras"
    bad.write_bytes(b"no model")
    assert "readable" in run("check", bad, code=3).output
    found = json.loads(run("inspect", broken, "--json", code=3).stdout.splitlines()[0])
    assert "error" in found
    np.savez(tmp_path / "named.npz", images=np.zeros(3))
    arguments = [files / "model.tflite", files / "student.keras", "--data"]
    result = run("verify", *arguments, tmp_path / "named.npz", code=3)
    assert "must contain the array x" in result.output
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    run("verify", *arguments, tmp_path / "objects.npy", code=3)


@pytest.mark.parametrize("name", ["data.npz", "x.npy"])
def test_damaged_data_files_are_named(name, files, tmp_path):
    content = (files / name).read_bytes()
    arguments = ["verify", files / "model.tflite", files / "student.keras", "--data"]
    path = tmp_path / name
    for length in (0, 3, 100, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:length])
        assert name in run(*arguments, path, code=3).output, length
    if name.endswith("npz"):
        path.write_bytes(content[:3000] + b"damage" + content[3006:])
        assert name in run(*arguments, path, code=3).output


@pytest.mark.parametrize(
    "options",
    [
        ["check", "--weight-bits", 9],
        ["check", "--first-last-bits", 1],
        ["suggest", "--budget-bytes", 0],
        ["suggest", "--candidate", 4, "--candidate", 16],
        ["suggest", "--num-examples", 0],
        ["suggest", "--plot", "trade_off.txt"],
        ["suggest", "--pixels", "255"],
        ["check", "--pixels", "0,255,rgba"],
        ["check", "--pixels", "none"],
        ["check", "--pixels", "image=0,-1"],
        ["check", "--pixels", "0,255", "--pixels", "image=0,255"],
        ["check", "--pixels", "image=0,255", "--pixels", "image=none"],
    ],
)
def test_wrong_usage_is_detected_before_any_file_is_read(options, files):
    command, *options = options
    arguments = [command, files / "missing.keras"]
    if command == "suggest":
        arguments += ["--data", files / "x.npy", "--budget-bytes", 10_000]
    assert "Invalid value" in run(*arguments, *options, code=2).output


@pytest.mark.parametrize(
    ("texts", "pixels"),
    [
        (None, None),
        (["0,255"], Pixels()),
        (["127.5,127.5,bgr"], Pixels(127.5, 127.5, "bgr")),
        (["1:2:3,4"], Pixels((1, 2, 3), 4)),
        (["a=1:2:3,4:5:6,bgr"], {"a": Pixels((1, 2, 3), (4, 5, 6), "bgr")}),
        (["a=b=0,1", "c=none"], {"a=b": Pixels(0, 1), "c": None}),
    ],
)
def test_pixels_are_given_as_text(texts, pixels):
    assert cli._pixels(texts) == pixels


def test_check_and_suggest_take_pixels(files, tmp_path):
    model, student = files / "float.keras", files / "student.keras"
    report = run("check", model, "--pixels", "127.5,127.5")
    assert "_normalized" in report.output
    assert "_normalized" not in run("check", model, "--pixels", "0,255").output
    refused = run("check", model, "--pixels", "picture=0,255", code=1).output
    assert "problem: `--pixels` must" in refused
    assert "'picture' is no input" in refused and "['image']" in refused
    [name] = load_model(model).input_names
    data = tmp_path / "bytes.npy"
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3))
    np.save(data, Pixels(100, 50).encode(images))
    arguments = ["suggest", model, "--data", data, "--budget-bytes", 10_000]
    run(*arguments, "--pixels", f"{name}=100,50")
    with pytest.warns(UserWarning, match="hardly has the values"):
        run(*arguments, "--pixels", "0,1")
    refused = run("suggest", model, *arguments[2:], "--pixels", "a=1,1", code=3).output
    assert "`--pixels` must" in refused and "'a' is no input" in refused
    refused = run("check", student, "--pixels", "0,1", code=3).output
    assert "without options" in refused and "`--pixels`" in refused


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_model_file_runs_only_if_the_user_allows_it(suffix, tmp_path):
    mark = tmp_path / "ran"
    inputs = layers.Input((4,), name="x")
    source = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    x = layers.Lambda(eval(source))(inputs)
    path = tmp_path / f"model{suffix}"
    keras.Model(inputs, layers.Dense(2)(x)).save(path)
    mark.unlink()
    result = run("check", path, code=3)
    assert "Lambda" in result.output
    assert not mark.exists()
    load_model(path, unsafe=True)
    assert mark.exists()


def test_the_version_and_completions_are_printed():
    assert run("--version").stdout == f"tf-lsq {metadata.version('tf-lsq')}\n"
    environment = {
        **os.environ,
        "_TF_LSQ_COMPLETE": "complete_bash",
        "COMP_WORDS": "tf-lsq ins",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from tflite_export.command import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["inspect"], done.stderr


def test_messages_have_the_names_of_options(files, tmp_path):
    result = run("export", files / "student.keras", tmp_path / "model.bin", code=2)
    assert "end with .tflite" in result.output
    text = cli._with_option_names
    assert text("`budget_bytes` must") == "`--budget-bytes` must"
    assert text("Received: num_examples=0.") == "Received: --num-examples 0."
    assert text("no /data/target=phone/m") == "no /data/target=phone/m"
    assert text("pass safe_mode=False") == "pass `--unsafe`"
    assert text("`data` and x=1") == "`--data` and x=1"


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.5, 3.0])
def test_an_interrupt_leaves_no_traceback(seconds, files):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from tflite_export.command import main; main()",
            "check",
            str(files / "float.keras"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A suite in the background of a shell ignores interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 or seconds > 1
    if seconds > 0.2:  # Before that, Python itself is starting.
        assert b"Traceback" not in errors, errors.decode()


_INTERRUPTED_FINALIZER = """
import os, signal, sys, time, types
from tflite_export.command import main

class Tensor:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def work():
    Tensor()
    for _ in range(500):
        time.sleep(0.1)

sys.modules["tflite_export.cli"] = types.SimpleNamespace(main=work)
main()
"""


def test_an_interrupt_in_a_finalizer_is_not_lost():
    process = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_FINALIZER],
        capture_output=True,
        timeout=50,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (process.returncode, process.stderr) == (130, b"Aborted.\n")


def test_kernels_of_float16_are_counted(tmp_path):
    inputs = layers.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path = tmp_path / "half.tflite"
    path.write_bytes(converter.convert())
    assert tflite_export.inspect_tflite(path).kernel_bytes == {"float16": 216}


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "tflite_export.cli", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    for command in ("check", "suggest", "export", "verify", "inspect", "Exit codes"):
        assert command in done.stdout


# --- Damaged files -------------------------------------------------------------------


LIMITS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


def damaged(data, content):
    """The content after random damage; None if it is unchanged."""
    content, before = bytearray(content), bytes(content)
    kind = data.draw(st.sampled_from(["bytes", "words", "cut", "zeros", "swap"]))
    place = st.integers(0, len(content) - 5)
    if kind == "cut":
        content = content[: data.draw(place)]
    elif kind in ("zeros", "swap"):
        first, second = sorted((data.draw(place), data.draw(place)))
        part = content[first:second]
        content[first:second] = bytes(len(part)) if kind == "zeros" else part[::-1]
    else:
        for _ in range(data.draw(st.integers(1, 8))):
            at, size = data.draw(place), 4 if kind == "words" else 1
            content[at : at + size] = data.draw(st.binary(min_size=size, max_size=size))
    return None if content == before else bytes(content)


@settings(max_examples=150, **LIMITS)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(data, files, tmp_path_factory):
    content = damaged(data, (files / "model.tflite").read_bytes())
    if content is None:
        return
    path = tmp_path_factory.mktemp("damaged") / "model.tflite"
    path.write_bytes(content)
    try:
        str(tflite_export.inspect_tflite(path))
    except ValueError as error:
        assert "metadata" in str(error) or "readable" in str(error)


@settings(max_examples=60, **LIMITS)
@given(data=st.data())
def test_damaged_files_equal_the_model_or_are_rejected(data, files, tmp_path_factory):
    content = damaged(data, (files / "model.tflite").read_bytes())
    if content is None:
        return
    path = tmp_path_factory.mktemp("damaged") / "model.tflite"
    path.write_bytes(content)
    student = load_model(files / "student.keras")
    graphs = [files / "model.tflite", path]
    try:
        tflite_export.verify_tflite(path, student)
    except (tflite_export.VerificationError, ValueError):
        return
    # A file that passes equals the exported one, except for bytes that are not read.
    own, found = (flatbuffer.from_bytes(p.read_bytes()) for p in graphs)
    assert flatbuffer.to_bytes(own) == flatbuffer.to_bytes(found)
