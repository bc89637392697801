"""`check_model`, and the Edge TPU's compiler if it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.targets import edgetpu_compiler

layers = keras.layers


@pytest.mark.parametrize("target", ["phone", "edgetpu", "symmetric"])
def test_an_untrained_float_model_can_be_checked(target):
    model = tiny.pre_activation()
    before = [weight.copy() for weight in model.get_weights()]
    report = tflite_export.check_model(model, target=target, storage="packed")
    assert report.ok and not report.remarks
    found = {op.name: op for op in report.operators}
    device = {"edgetpu": "Edge TPU"}.get(target, "XNNPACK")
    assert found["dense"].runs_on == device
    low_bit = found["conv2d_1"]
    assert low_bit.num_bits == 4
    assert low_bit.container == ("int8" if target == "edgetpu" else "int4")
    assert (low_bit.runs_on == "Edge TPU") == (target == "edgetpu")
    assert "conv2d_1" in str(report)
    json.dumps(report.to_dict())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_check_predicts_the_operators_of_the_file(rng, tmp_path):
    student = tf_lsq.quantize_model(tiny.residual(), target="edgetpu")
    planned = tflite_export.check_model(student)
    assert not tf_lsq.training.is_calibrated(student)
    tf_lsq.calibrate(student, rng.uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32))
    written = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert sum(written.operators.values()) == len(planned.operators)
    assert written.compiler == [edgetpu_compiler.ONLY_RULES]


def test_what_quantize_model_refuses_is_reported_as_a_problem():
    inputs = layers.Input((8, 8, 3))
    x = layers.Softmax(axis=1, name="norm")(layers.Conv2D(3, 3)(inputs))
    x = layers.Lambda(lambda x: tf.cumsum(x, 1), name="own")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    report = tflite_export.check_model(model)
    assert not report.ok and not report.operators
    assert "norm" in str(report) and "own/tf.math.cumsum" in str(report)


def test_the_check_reports_refused_operators_and_those_left_to_the_cpu(tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2DTranspose(4, 3, activation="relu", name="up")(inputs)
    x = layers.Softmax(name="map")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    report = tflite_export.check_model(model, target="edgetpu")
    [problem] = report.problems
    assert "up" in problem and "version 4" in problem
    [remark] = report.remarks
    assert (
        "map" in remark and "runs on the CPU" in remark and "(1, 10, 10, 4)" in remark
    )
    student = tf_lsq.quantize_model(model, target="edgetpu")
    tf_lsq.calibrate(student, np.random.default_rng(0).uniform(size=(2, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"(?s)refuses.*up.*version 4"):
        tflite_export.export_model(student, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def fully_convolutional(size):
    inputs = layers.Input((size, size, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(x))


@pytest.mark.parametrize("quantized", [False, True])
def test_unknown_image_sizes_are_named_before_training(quantized, rng, tmp_path):
    model = fully_convolutional(None)
    if quantized:
        with pytest.warns(UserWarning, match="sizes of None"):
            model = tf_lsq.quantize_model(model)
    for data in (None, rng.uniform(size=(4, 8, 8, 3))):
        [problem] = tflite_export.check_model(model, data=data).problems
        assert "`image` (None, None, None, 3)" in problem
        assert "`input_shapes`" in problem and "keras.Input(shape=...)" in problem
    # The second remedy.
    fixed = fully_convolutional(8)
    fixed.set_weights(fully_convolutional(None).get_weights())
    assert tflite_export.check_model(fixed).ok


def test_unknown_sizes_and_layers_without_integer_form_are_named_together():
    inputs = layers.Input((None, 4), name="words")
    model = keras.Model(inputs, layers.Softmax(axis=1, name="norm")(inputs))
    norm, words = tflite_export.check_model(model).problems
    assert "`norm`" in norm and "`words` (None, None, 4)" in words


def test_constant_data_are_an_error_not_a_problem_of_the_model():
    with pytest.raises(ValueError, match="real data"):
        tflite_export.check_model(tiny.residual(), data=np.zeros((4, 8, 8, 3)))


def test_check_refuses_invalid_options():
    model = tiny.residual()
    with pytest.raises(ValueError, match="`target` must be one of"):
        tflite_export.check_model(model, target="toaster")
    with pytest.raises(ValueError, match="`storage` must be one of"):
        tflite_export.check_model(model, storage="int3")
    with pytest.raises(TypeError, match="weight_bit"):
        tflite_export.check_model(model, weight_bit=4)
    with pytest.raises(ValueError, match="without options"):
        tflite_export.check_model(tf_lsq.quantize_model(model), weight_bits=4)


def test_the_mlperf_tiny_network_satisfies_every_edge_tpu_rule(real_data):
    folder = real_data / "models/mlperf_tiny/ic_resnet8"
    model = keras.models.load_model(folder / "pretrainedResnet.h5", compile=False)
    report = tflite_export.check_model(model, target="edgetpu")
    assert report.ok and not report.remarks
    assert {op.runs_on for op in report.operators} == {"Edge TPU"}


# --- The compiler ------------------------------------------------------------------

LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 42 ms.

Number of operations that will run on Edge TPU: 3
Number of operations that will run on CPU: 1

Operator                       Count      Status

CONV_2D                        3          Mapped to Edge TPU
SOFTMAX                        1          More than one subgraph is not supported
Compilation succeeded!
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Puts a fake `edgetpu_compiler` on PATH that prints a log and exits."""

    def install(log, code=0):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "edgetpu_compiler"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{log}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    return install


def test_the_compilers_mapping_is_in_the_report(compiler, rng, tmp_path):
    compiler(LOG)
    student = tf_lsq.quantize_model(tiny.residual(), target="edgetpu")
    tf_lsq.calibrate(student, rng.uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32))
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert "edgetpu_compiler: 3 CONV_2D: Mapped to Edge TPU" in str(report)
    mapping = edgetpu_compiler.compile_for_edgetpu(b"")
    assert [(m.code, m.count) for m in mapping] == [("CONV_2D", 3), ("SOFTMAX", 1)]


def test_a_file_that_the_compiler_refuses_is_not_written(compiler, rng, tmp_path):
    compiler("ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'.", 1)
    student = tf_lsq.quantize_model(tiny.residual(), target="edgetpu")
    tf_lsq.calibrate(student, rng.uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32))
    path = tmp_path / "model.tflite"
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1.*CONV_2D"):
        tflite_export.export_model(student, path)
    assert not path.exists()
