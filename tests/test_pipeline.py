"""End-to-end export: what is written, and what is refused before writing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
from ai_edge_litert.interpreter import Interpreter
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import atomic_file, pipeline
from tflite_export import build as building
from tflite_export.file import QuantizedTensor
from tflite_export.freezing import freeze_model, read_model

layers = keras.layers


# --- What is written -----------------------------------------------------------


@pytest.mark.parametrize("build", [tiny.residual, tiny.pre_activation])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_trained_residual_networks_match_end_to_end(build, bits, rng, tmp_path):
    model = tiny.randomize(build(), rng)
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
    x = rng.uniform(-1, 1, (128, 8, 8, 3)).astype(np.float32)
    y = rng.integers(0, 5, 128)
    from_logits = build is tiny.pre_activation
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits)
    student.compile(keras.optimizers.SGD(0.01), loss)
    student.fit(x, y, epochs=2, verbose=0)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, (x, y), verbose=False)
    assert found.equal_codes == found.weight_codes
    assert found.off_by_one < 0.02
    assert found.top1_agreement > 0.9
    assert found.num_examples == 128
    assert abs(found.keras_accuracy - found.tflite_accuracy) < 0.1
    assert path.stat().st_size == report.file_bytes


@pytest.mark.parametrize("input_type", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("output_type", ["int8", "uint8", "float32"])
def test_files_have_the_requested_types(input_type, output_type, rng, tmp_path):
    student, x = tiny.student_of(tiny.randomize(tiny.residual(), rng), rng)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(
        student, path, input_type=input_type, output_type=output_type
    )
    interpreter = Interpreter(str(path))
    [found] = interpreter.get_input_details()
    assert found["dtype"] == np.dtype(input_type)
    [found] = interpreter.get_output_details()
    assert found["dtype"] == np.dtype(output_type)
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["scores"]}
    verification = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert verification.top1_agreement > 0.9


def test_a_file_keeps_several_inputs_and_outputs(rng, tmp_path):
    image, extra = (
        layers.Input((8, 8, 3), name="image"),
        layers.Input((5,), name="extra"),
    )
    x = layers.Flatten()(tiny.conv_bn_relu(image, 4))
    x = layers.Dense(6, activation="relu")(x)
    y = layers.Dense(6, activation="relu")(extra)
    joined = layers.Concatenate()([x, y])
    model = keras.Model(
        [image, extra],
        [layers.Dense(3, name="one")(joined), layers.Dense(2, name="two")(x)],
    )
    student = tf_lsq.quantize_model(model)
    data = [
        rng.uniform(0, 1, (64, 8, 8, 3)).astype(np.float32),
        rng.normal(size=(64, 5)).astype(np.float32),
    ]
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, data, verbose=False)
    assert set(found.outputs) == {"one", "two"}
    signature = Interpreter(str(path)).get_signature_list()["serving_default"]
    assert sorted(signature["inputs"]) == ["extra", "image"]
    assert sorted(signature["outputs"]) == ["one", "two"]


def test_inputs_and_outputs_keep_the_order_of_the_model(rng, tmp_path):
    inputs = [layers.Input((4,), name=name) for name in ("late", "early")]
    x = layers.Dense(4, activation="relu")(inputs[1])  # The input that is read first.
    x = layers.Concatenate()([layers.Dense(4, activation="relu")(x), inputs[0]])
    outputs = [layers.Dense(2, name=name)(x) for name in ("second", "first")]
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    tf_lsq.calibrate(student, [rng.normal(size=(32, 4)) for _ in inputs])
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    interpreter = Interpreter(str(path))
    found = [end["name"] for end in interpreter.get_input_details()]
    assert found == ["late", "early"]
    assert [e["name"] for e in interpreter.get_output_details()] == ["second", "first"]


def test_outputs_can_be_a_dictionary(rng, tmp_path):
    inputs = layers.Input((4,))
    x = layers.Dense(6, activation="relu")(inputs)
    outputs = {"low": layers.Dense(3, name="a")(x), "high": layers.Dense(2)(x)}
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    x = rng.normal(size=(32, 4)).astype(np.float32)
    labels = {"low": rng.integers(0, 3, 32), "high": rng.integers(0, 2, 32)}
    student.compile("sgd", "sparse_categorical_crossentropy")
    student.fit(x, labels, verbose=0)
    assert set(student.predict(x, verbose=0)) == {"low", "high"}
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, (x, labels), verbose=False)
    assert set(found.outputs) == {"a", "dense_1"}
    assert found.outputs["a"].labelled == 32


def test_inputs_can_be_a_dictionary(rng, tmp_path):
    inputs = {"a": layers.Input((4,), name="a"), "b": layers.Input((4,), name="b")}
    x = layers.Dense(3)(layers.Add()([inputs["a"], inputs["b"]]))
    student = tf_lsq.quantize_model(keras.Model(inputs, x))
    data = {k: rng.normal(size=(32, 4)).astype(np.float32) for k in "ba"}
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, data, verbose=False)
    assert found.max_code_difference <= 2


def test_a_layer_left_in_float_is_named_in_the_report(rng, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a", activation="relu")(inputs)
    x = layers.Conv2D(4, 3, name="middle")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Flatten()(x)
    model = tiny.randomize(keras.Model(inputs, layers.Dense(3, name="d")(x)), rng)
    student, x = tiny.student_of(model, rng, overrides={"middle": "float"})
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert report.float_layers == ["middle"]
    assert report.operators["DEQUANTIZE"] == report.operators["QUANTIZE"] == 1
    assert "middle" in str(report)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.top1_agreement > 0.9


@pytest.mark.parametrize("pattern", ["a", "d", "add", ".*norm.*", "pool", ".*"])
def test_any_layer_can_be_left_in_float(pattern, rng, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.BatchNormalization(name="norm")(layers.MaxPooling2D(1, name="pool")(x))
    x = layers.Add(name="add")([x, y])
    x = layers.Concatenate(name="join")([x, y])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = tiny.randomize(keras.Model(inputs, layers.Dense(3, name="d")(x)), rng)
    student, x = tiny.student_of(model, rng, overrides={pattern: "float"})
    path = tmp_path / "model.tflite"
    assert tflite_export.export_model(student, path).float_layers
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_reports_are_plain_data_and_readable(exported):
    student, path, x = exported
    report = tflite_export.export_model(student, path)
    json.dumps(report.to_dict())
    assert "conv2d_1" in str(report) and "int8" in str(report)
    found = tflite_export.verify_tflite(path, student, (x, np.zeros(64)), verbose=False)
    json.dumps(found.to_dict())
    assert "top-1 agreement" in str(found)
    bare = tflite_export.verify_tflite(path, student)
    assert bare.top1_agreement is None and bare.off_by_one is None


@pytest.mark.parametrize("storage", ["int8", "packed"])
def test_an_export_reads_the_model_once_and_builds_each_file_once(
    storage, exported, monkeypatch
):
    student, path, x = exported
    read, frozen = [], []

    def counted_read(model):
        read.append(model)
        return read_model(model)

    def counted_freeze(trained, chosen, grouped):
        frozen.append(chosen.name)
        return freeze_model(trained, chosen, grouped)

    monkeypatch.setattr(pipeline, "read_model", counted_read)
    monkeypatch.setattr(building, "freeze_model", counted_freeze)
    tflite_export.export_model(
        student, path, storage=storage, data=x, benchmark=True, verbose=False
    )
    assert len(read) == 1
    assert sorted(frozen) == ["auto", "int8", "packed"]


def test_edgetpu_files_have_a_static_batch(rng, tmp_path):
    student, x = tiny.student_of(tiny.residual(), rng, target="edgetpu")
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert report.target == "edgetpu"
    [found] = Interpreter(str(path)).get_input_details()
    assert list(found["shape_signature"]) == [1, 8, 8, 3]
    tflite_export.verify_tflite(path, student, x[:8], verbose=False)


def test_the_mlperf_tiny_network_is_exported_exactly(real_data, rng, tmp_path):
    folder = real_data / "models/mlperf_tiny/ic_resnet8"
    model = keras.models.load_model(folder / "pretrainedResnet.h5", compile=False)
    student = tf_lsq.quantize_model(model)
    x = rng.integers(0, 256, (32, 32, 32, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes == 77360


# --- What is refused, before anything is written ---------------------------------


def refused(model, path, error, match, **options):
    with pytest.raises(error, match=match):
        tflite_export.export_model(model, path, **options)
    assert list(path.parent.iterdir()) == []


def test_models_that_cannot_be_exported_are_refused(rng, tmp_path):
    path = tmp_path / "model.tflite"
    model = tiny.residual()
    refused(model, path, ValueError, "must be quantized")
    refused("model", path, TypeError, "Received: str")
    refused(
        tf_lsq.quantize_model(model), path, RuntimeError, "quantize_image.*calibrate"
    )
    inputs = layers.Input((None, None, 3), name="any_size")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    with pytest.warns(UserWarning, match=r"any_size.*`input_shapes`"):
        dynamic, _ = tiny.student_of(keras.Model(inputs, layers.Dense(2)(x)), rng)
    refused(dynamic, path, ValueError, "static.*any_size")


def test_models_of_another_scheme_are_refused_by_name(rng, tmp_path):
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    model = keras.Sequential(
        [
            layers.Input((4,)),
            annotate(layers.Dense(3, name="dense"), tf_lsq.LSQQuantizeConfig()),
        ]
    )
    student = tfmot.quantization.keras.quantize_apply(model)
    refused(
        student, tmp_path / "m.tflite", ValueError, "quant_dense.*LSQQuantizeScheme"
    )


def test_export_refuses_invalid_options(rng, tmp_path):
    student, _ = tiny.student_of(tiny.residual(), rng)
    path = tmp_path / "model.tflite"
    refused(student, path, ValueError, "`storage` must be", storage="int3")
    refused(student, path, ValueError, "`bias_grid` must be", bias_grid="coarse")
    refused(student, path, ValueError, "`input_type` must be", input_type="int16")
    refused(student, path, ValueError, "`output_type` must be", output_type="bool")
    refused(student, path, ValueError, "`target` must be one of", target="toaster")
    refused(student, path, ValueError, "quantized for", target="edgetpu")


def test_paths_that_cannot_be_written_are_refused(rng, tmp_path):
    student, _ = tiny.student_of(tiny.residual(), rng)
    with pytest.raises(FileNotFoundError, match="directory of `path`"):
        tflite_export.export_model(student, tmp_path / "missing" / "model.tflite")
    with pytest.raises(IsADirectoryError, match="must be a file"):
        tflite_export.export_model(student, tmp_path)


KILLED = """
import os, sys, pathlib
from tflite_export import atomic_file
os.fsync = lambda number: os.kill(os.getpid(), 9)
atomic_file.write_atomically(pathlib.Path(sys.argv[1]), b"new" * 1000)
"""


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_killed_process_leaves_the_old_file_or_none(old, tmp_path):
    path = tmp_path / "model.tflite"
    if old is not None:
        path.write_bytes(old)
    process = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == old


def test_pipes_and_devices_are_written_to_and_stay(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    number = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        atomic_file.check_writable(path)
        atomic_file.write_atomically(path, b"content")
        assert path.is_fifo()
        assert os.read(number, 100) == b"content"
    os.close(number)


def test_quantized_tensors_check_their_invariants():
    codes, scale = np.zeros((3, 2), np.int8), np.ones(2, np.float32)
    assert QuantizedTensor(codes, scale, 1).dequantize().shape == (3, 2)
    with pytest.raises(TypeError, match="integers"):
        QuantizedTensor(codes.astype(float), scale, 1)
    with pytest.raises(TypeError, match="float32 vector"):
        QuantizedTensor(codes, scale.astype(np.float64), 1)
    with pytest.raises(ValueError, match="must have 1 or 3"):
        QuantizedTensor(codes, scale, 0)
    with pytest.raises(ValueError, match="positive"):
        QuantizedTensor(codes, 0 * scale, 1)
