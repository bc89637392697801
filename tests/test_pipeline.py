"""Files: what is written, what is refused, what the verifier rejects."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tiny
from ai_edge_litert.interpreter import Interpreter

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import build
from tflite_export.file import (
    QuantizedTensor,
    TFLiteOp,
    TFLiteTensor,
    flatbuffer,
    metadata,
)

layers = keras.layers


def student_of(model, rng, shape=(64, 8, 8, 3), **options):
    student = tf_lsq.quantize_model(model, **options)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student, x


@pytest.fixture
def exported(rng, tmp_path):
    """A trained residual network, its file and some data."""
    model = tiny.randomize(tiny.residual(), rng)
    student, x = student_of(model, rng, weight_bits=3, activation_bits=3)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    return student, path, x


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
def test_input_and_output_types(input_type, output_type, rng, tmp_path):
    student, x = student_of(tiny.randomize(tiny.residual(), rng), rng)
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


def test_several_inputs_and_outputs(rng, tmp_path):
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


def test_ends_are_in_the_order_of_the_model(rng, tmp_path):
    inputs = [layers.Input((4,), name=name) for name in ("late", "early")]
    x = layers.Dense(4, activation="relu")(inputs[1])  # What is read first.
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


def test_outputs_by_name(rng, tmp_path):
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


def test_inputs_by_name(rng, tmp_path):
    inputs = {"a": layers.Input((4,), name="a"), "b": layers.Input((4,), name="b")}
    x = layers.Dense(3)(layers.Add()([inputs["a"], inputs["b"]]))
    student = tf_lsq.quantize_model(keras.Model(inputs, x))
    data = {k: rng.normal(size=(32, 4)).astype(np.float32) for k in "ba"}
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, data, verbose=False)
    assert found.max_code_difference <= 2


def test_a_layer_left_in_float_is_an_island_that_the_report_names(rng, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a", activation="relu")(inputs)
    x = layers.Conv2D(4, 3, name="middle")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Flatten()(x)
    model = tiny.randomize(keras.Model(inputs, layers.Dense(3, name="d")(x)), rng)
    student, x = student_of(model, rng, overrides={"middle": "float"})
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert report.float_layers == ["relu"]
    assert report.operators["DEQUANTIZE"] == report.operators["QUANTIZE"] == 1
    assert "relu" in str(report)
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
    student, x = student_of(model, rng, overrides={pattern: "float"})
    path = tmp_path / "model.tflite"
    assert tflite_export.export_model(student, path).float_layers
    tflite_export.verify_tflite(path, student, x, verbose=False)


def gamma_model(rng, gamma):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(4, 3)(x)
    x = layers.MaxPooling2D()(x)
    x = layers.ReLU()(layers.BatchNormalization(name="alone")(x))
    model = tiny.randomize(
        keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))), rng
    )
    student = tf_lsq.quantize_model(model, first_last_bits=4)
    # Set behind quantize_model, as training could: nothing is flipped any more.
    student.get_layer("norm").gamma.assign(gamma)
    student.get_layer("alone").gamma.assign(gamma)
    x = rng.uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student, x


def test_negative_gamma(rng, tmp_path):
    student, x = gamma_model(rng, [1.0, -1.0, -0.3, 0.7])
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes
    frozen = tiny.built(student).frozen.by_name()
    np.testing.assert_array_equal(frozen["relu"].weight.sign, [1, -1, -1, 1])


def test_zero_gamma_is_a_constant_channel(rng, tmp_path):
    student, x = gamma_model(rng, [1.0, 0.0, 1e-30, -0.5])
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert [layer.constant_channels for layer in report.layers] == [2, 0, 2, 0]
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_the_multiplier_uses_the_room_of_int8(rng):
    for bits, multiplier in ((8, 1), (4, 15), (3, 30), (2, 60)):
        keras.backend.clear_session()
        student, _ = student_of(tiny.residual(), rng, weight_bits=bits)
        weight = tiny.built(student).frozen.by_name()["re_lu_1"].weight
        assert weight.multiplier == multiplier
        assert np.abs(weight.codes.codes).max() <= 127


def tiny_kernel(size):
    """A dense layer whose kernel is small beside its bias."""
    inputs = layers.Input((64,), name="x")
    outputs = layers.Dense(3, name="dense")(inputs)
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    wrapper = student.get_layer("quant_dense")
    wrapper.kernel.assign(size * np.ones((64, 3)))
    wrapper.layer.bias.assign([1.0, 0.0, -1.0])
    wrapper.initialise()
    return student


@pytest.mark.parametrize("size", [1e-9, 1e-7])
def test_a_kernel_that_moves_nothing_is_a_constant(size, rng, tmp_path):
    student = tiny_kernel(size)
    x = rng.uniform(-1, 1, size=(32, 64)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    [layer] = tflite_export.export_model(student, path).layers
    assert layer.constant_channels == 3
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_a_bias_that_does_not_fit_is_named(rng, tmp_path):
    inputs = layers.Input((20_000,), name="x")
    outputs = layers.Dense(2, name="dense")(inputs)
    student = tf_lsq.quantize_model(keras.Model(inputs, outputs))
    wrapper = student.get_layer("quant_dense")
    wrapper.kernel.assign(1e-7 * np.ones((20_000, 2)))
    wrapper.layer.bias.assign([0.0, 0.1])
    wrapper.initialise()
    x = rng.uniform(-1, 1, size=(32, 20_000)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    refused(student, tmp_path / "m.tflite", ValueError, r"`dense`.*32 bits.*\[1\]")


def test_operators_have_the_oldest_versions(exported):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(exported[1].read_bytes()), 0)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k[0] != "_"}
    found = {names[code.builtinCode]: code.version for code in model.operatorCodes}
    assert found == {
        "CONV_2D": 3,
        "MUL": 2,
        "ADD": 2,
        "MEAN": 2,
        "FULLY_CONNECTED": 4,
        "SOFTMAX": 2,
    }


def test_metadata_says_how_codes_were_made(exported):
    student, path, _ = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    found = metadata.read(graph)
    assert found["versions"]["tf_lsq"] == tf_lsq.__version__
    assert (found["target"], found["storage"]) == ("phone", "int8")
    codes = graph.tensors["re_lu_1/weight"].data
    assert found["tensors"]["re_lu_1/weight"] == {
        "kind": "kernel",
        "layer": "conv2d_1",
        "bits": 3,
        "signed": True,
        "step": float(tf_lsq.steps(student)["quant_conv2d_1"].item()),
        "container": "int8",
        "multiplier": 30,
        "widening": 1,
        "sha256": hashlib.sha256(codes.tobytes()).hexdigest(),
    }
    assert found["tensors"]["re_lu_1"] == {
        "kind": "activation",
        "layer": "quantize_re_lu_1",
        "bits": 3,
        "signed": False,
        "step": float(tf_lsq.steps(student)["quantize_re_lu_1"]),
    }


def test_reports_are_plain_data_and_readable(exported):
    student, path, x = exported
    report = tflite_export.export_model(student, path)
    json.dumps(report.to_dict())
    assert "re_lu_1" in str(report) and "int8" in str(report)
    found = tflite_export.verify_tflite(path, student, (x, np.zeros(64)), verbose=False)
    json.dumps(found.to_dict())
    assert "top-1 agreement" in str(found)
    bare = tflite_export.verify_tflite(path, student)
    assert bare.top1_agreement is None and bare.off_by_one is None


def test_edgetpu_files_have_a_static_batch(rng, tmp_path):
    student, x = student_of(tiny.residual(), rng, target="edgetpu")
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert report.target == "edgetpu"
    [found] = Interpreter(str(path)).get_input_details()
    assert list(found["shape_signature"]) == [1, 8, 8, 3]
    tflite_export.verify_tflite(path, student, x[:8], verbose=False)


def test_the_mlperf_tiny_network(real_data, rng, tmp_path):
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


def test_models_that_cannot_be_exported(rng, tmp_path):
    path = tmp_path / "model.tflite"
    model = tiny.residual()
    refused(model, path, ValueError, "must be quantized")
    refused("model", path, TypeError, "Received: str")
    refused(
        tf_lsq.quantize_model(model), path, RuntimeError, "quantize_image.*calibrate"
    )
    inputs = layers.Input((None, None, 3), name="any_size")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    dynamic, _ = student_of(keras.Model(inputs, layers.Dense(2)(x)), rng)
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


def test_options_that_do_not_exist(rng, tmp_path):
    student, _ = student_of(tiny.residual(), rng)
    path = tmp_path / "model.tflite"
    refused(student, path, ValueError, "`storage` must be", storage="int3")
    refused(student, path, ValueError, "`bias_grid` must be", bias_grid="coarse")
    refused(student, path, ValueError, "`input_type` must be", input_type="int16")
    refused(student, path, ValueError, "`output_type` must be", output_type="bool")
    refused(student, path, ValueError, "`target` must be one of", target="toaster")
    refused(student, path, ValueError, "quantized for", target="edgetpu")


def test_paths_that_cannot_be_written(rng, tmp_path):
    student, _ = student_of(tiny.residual(), rng)
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


def test_a_file_that_fails_verification_is_not_left(exported, monkeypatch):
    student, path, _ = exported
    before = path.read_bytes()

    def corrupt(graph):
        content = to_bytes(graph)
        return content.replace(
            graph.tensors["re_lu_1/weight"].data.tobytes(),
            np.roll(graph.tensors["re_lu_1/weight"].data, 1).tobytes(),
        )

    to_bytes = flatbuffer.to_bytes
    monkeypatch.setattr(build, "to_bytes", corrupt)
    with pytest.raises(tflite_export.VerificationError, match="re_lu_1/weight"):
        tflite_export.export_model(student, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# --- What the verifier rejects ----------------------------------------------------


def flip_a_code(graph):
    tensor = graph.tensors["re_lu_1/weight"]
    tensor.data = tensor.data.copy()
    tensor.data.flat[5] ^= 1


def change_a_scale(graph):
    tensor = graph.tensors["re_lu_1"]
    scale = np.nextafter(tensor.quantization.scale, np.float32(np.inf))
    tensor.quantization = dataclasses.replace(tensor.quantization, scale=scale)


def change_a_zero_point(graph):
    tensor = graph.tensors["re_lu_1"]
    tensor.quantization = dataclasses.replace(tensor.quantization, zero_point=119)


def add_a_float_tensor(graph):
    name = "re_lu_1/values"
    graph.tensors[name] = TFLiteTensor(name, (1, 8, 8, 8), "float32")
    graph.ops.append(TFLiteOp("DEQUANTIZE", ["re_lu_1"], [name]))


def change_a_bias(graph):
    tensor = graph.tensors["re_lu_1/bias"]
    tensor.data = tensor.data + np.int32(1)


def swap_two_layers(graph):
    first, second = (op for op in graph.ops if op.outputs[0] in SWAPPED)
    first.inputs[1:], second.inputs[1:] = second.inputs[1:], first.inputs[1:]


def change_an_activation(graph):
    graph.ops[0].options["fused_activation_function"] = "NONE"


def add_an_option(graph):
    """One that this library leaves at its default."""
    op = next(op for op in graph.ops if op.code == "FULLY_CONNECTED")
    op.options["keep_num_dims"] = True


def raise_a_version(graph):
    graph.ops[0].version = 5


def drop_an_operator(graph):
    graph.ops.pop(1)


def rename_an_output(graph):
    graph.outputs = {"other": next(iter(graph.outputs.values()))}


def describe(graph, change):
    found = json.loads(graph.metadata[metadata.METADATA_NAME])
    change(found)
    graph.metadata[metadata.METADATA_NAME] = json.dumps(found).encode()


def lie_about_a_step(graph):
    describe(graph, lambda found: found["tensors"]["re_lu_1"].update(step=0.5))


def lie_about_the_target(graph):
    describe(graph, lambda found: found.update(target="edgetpu"))


SWAPPED = ("re_lu_1", "batch_normalization_2")
CORRUPTIONS = {
    flip_a_code: "re_lu_1/weight.*1 of",
    change_a_scale: "re_lu_1`: scale",
    change_a_zero_point: "re_lu_1`: scale or zero point",
    add_a_float_tensor: "re_lu_1/values` is a float tensor",
    change_a_bias: "re_lu_1/bias",
    swap_two_layers: "reads.*expected",
    change_an_activation: "fused_activation_function",
    add_an_option: "keep_num_dims is True, expected False",
    raise_a_version: "CONV_2D has version 5, expected 3",
    drop_an_operator: "its operators are",
    rename_an_output: "its outputs are",
    lie_about_a_step: "re_lu_1`: its metadata is .*0.5",
    lie_about_the_target: "metadata has 'edgetpu' for 'target'",
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__)
def test_corrupted_files_are_rejected(corrupt, exported):
    student, path, _ = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    corrupt(graph)
    path.write_bytes(flatbuffer.to_bytes(graph))
    with pytest.raises(
        tflite_export.VerificationError, match=CORRUPTIONS[corrupt]
    ) as e:
        tflite_export.verify_tflite(path, student)
    assert e.value.mismatches


@pytest.mark.parametrize(
    "content", [None, b"", b"[1]", b'{"format": 2}', b"[" * 100_000, b"\xff"]
)
def test_files_without_readable_metadata_are_refused(content, exported):
    student, path, _ = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    graph.metadata = {} if content is None else {metadata.METADATA_NAME: content}
    path.write_bytes(flatbuffer.to_bytes(graph))
    with pytest.raises(ValueError, match="metadata"):
        tflite_export.verify_tflite(path, student)


def test_a_file_of_other_weights_is_rejected(exported):
    student, path, _ = exported
    kernel = student.get_layer("quant_conv2d_1").kernel
    kernel.assign(kernel * -1)
    with pytest.raises(tflite_export.VerificationError, match="re_lu_1/weight"):
        tflite_export.verify_tflite(path, student)


@pytest.mark.parametrize("corrupt", [change_a_zero_point, change_a_bias])
def test_wrong_arithmetic_shows_at_the_points(corrupt, exported):
    """The check on data finds an error without the help of the structural one."""
    from tflite_export import verification

    student, path, x = exported
    graph = flatbuffer.from_bytes(path.read_bytes())
    if corrupt is change_a_bias:
        tensor = graph.tensors["re_lu_1/bias"]
        tensor.data = tensor.data + np.int32(100_000)
    else:
        corrupt(graph)
    frozen = tiny.built(student).frozen
    with pytest.raises(tflite_export.VerificationError, match="a code differs by"):
        codes = verification.probe_codes(graph, frozen, [x])
        verification.compare_points(frozen, codes, "file")


def test_bytes_that_only_the_runtime_reads_are_checked(exported):
    student, path, _ = exported
    content = bytearray(path.read_bytes())
    # By hand: the version of the schema, 3, is the last field before the vectors.
    at = next(i for i in range(20, 100, 4) if content[i : i + 4] == b"\3\0\0\0")
    content[at] = 4
    path.write_bytes(content)
    with pytest.raises(tflite_export.VerificationError, match="LiteRT does not load"):
        tflite_export.verify_tflite(path, student)


def test_truncated_files_are_rejected(exported):
    student, path, _ = exported
    content = path.read_bytes()
    for share in range(0, 50):
        path.write_bytes(content[: len(content) * share // 50])
        with pytest.raises(
            (ValueError, tflite_export.VerificationError), match=r"file|equal"
        ):
            tflite_export.verify_tflite(path, student)


def test_other_files_are_rejected(exported, tmp_path):
    student, path, _ = exported
    path.write_bytes(b"not a model, but long enough to look at")
    with pytest.raises(ValueError, match="identifier"):
        tflite_export.verify_tflite(path, student)
    with pytest.raises(FileNotFoundError):
        tflite_export.verify_tflite(tmp_path / "missing.tflite", student)


def test_quantized_tensor_invariants():
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
