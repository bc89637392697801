"""Targets: what each refuses, and what runs where."""

from __future__ import annotations

import numpy as np
import pytest
from harness import tiny
from test_file_flatbuffer import quantization

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.policy import SYMMETRIC_TARGETS
from tf_lsq.policy import TARGETS as TRAINED_FOR
from tflite_export import targets
from tflite_export.file import TFLiteGraph, TFLiteOp, TFLiteTensor
from tflite_export.targets import TARGETS

layers = keras.layers
EDGE_TPU = TARGETS["edgetpu"]


def one_op(code, shapes, options=None, *, constants=(), output=(1, 4), **change):
    """A graph of one operator; `change` sets attributes of tensors by name."""
    tensors = {}
    for number, shape in enumerate(shapes):
        name = f"input_{number}"
        data = dict(constants).get(number)
        dtype = "int8" if data is None else data.dtype.name
        tensors[name] = TFLiteTensor(
            name, shape, dtype, quantization(0.5 / (number + 1)), data
        )
    tensors["output"] = TFLiteTensor("output", output, "int8", quantization(0.5))
    for name, changes in change.items():
        for attribute, value in changes.items():
            setattr(tensors[name], attribute, value)
    op = TFLiteOp(code, [f"input_{n}" for n in range(len(shapes))], ["output"])
    op.options = options or {}
    return TFLiteGraph(tensors, [op], {"x": "input_0"}, {"y": "output"})


def ints(*values, dtype=np.int32):
    return np.array(values, dtype)


IMAGE = (1, 4, 4, 4)
KERNEL = np.ones((4, 3, 3, 4), np.int8)
DEPTHWISE = np.ones((1, 3, 3, 4), np.int8)
DENSE = np.ones((4, 4), np.int8)
BIAS = np.zeros(4, np.int32)


def conv(kernel=KERNEL, code="CONV_2D", options=None, **change):
    constants = {1: kernel, 2: BIAS}
    return one_op(
        code, [IMAGE, kernel.shape, (4,)], options, constants=constants, output=IMAGE,
        **change,
    )  # fmt: skip


def dense(options=None, shape=(1, 4), output=(1, 4), **change):
    constants = {1: DENSE, 2: BIAS}
    return one_op(
        "FULLY_CONNECTED", [shape, (4, 4), (4,)], options, constants=constants,
        output=output, **change,
    )  # fmt: skip


def reduced(code, shape, *axes):
    axes = ints(*axes)
    return one_op(code, [shape, axes.shape], constants={1: axes})


def sliced(steps, **options):
    parts = {n: ints(0, 0) for n in (1, 2)} | {3: ints(*steps)}
    return one_op("STRIDED_SLICE", [(1, 4), (2,), (2,), (2,)], options, constants=parts)


# Rule -> a file that breaks it, and what the message must contain.
BROKEN = {
    "static_shapes": (dense(input_0={"dynamic_batch": True}), "dynamic batch.*input_0"),
    "op_version": (
        conv(np.ones((4, 3, 3, 2), np.int8)),
        "version 6, of TensorFlow 2.9.0",
    ),
    "int8_containers": (conv(input_1={"dtype": "int4"}), "`input_1` is int4"),
    "int8_activations": (
        one_op("RESHAPE", [(1, 4)], input_0={"dtype": "int16"}), "int16 tensors",
    ),
    "constant_weights": (conv(input_1={"data": None}), r"input_1.*run time"),
    "supported_operator": (
        one_op("DEQUANTIZE", [(1, 4)]), "the operator DEQUANTIZE",
    ),
    "integer_tensors": (
        one_op("QUANTIZE", [(1, 4)], input_0={"dtype": "float32"}), "float tensors",
    ),
    "three_dimensions": (
        one_op("ADD", [(2, 4, 4, 4)] * 2, output=(2, 4, 4, 4)), r"\(2, 4, 4, 4\)",
    ),
    "even_dilation": (
        conv(DEPTHWISE, "DEPTHWISE_CONV_2D", {"dilation_h_factor": 2}),
        r"dilations \[2, 1\]",
    ),
    "weights_format": (
        dense({"weights_format": "SHUFFLED4x16INT8"}), "SHUFFLED4x16INT8",
    ),
    "vector_output": (dense(shape=(3, 4), output=(3, 4)), r"an output \(3, 4\)"),
    "no_fused_activation": (
        one_op("MAX_POOL_2D", [IMAGE], {"fused_activation_function": "RELU"}),
        "a fused RELU",
    ),
    "constant_part": (
        one_op(
            "CONCATENATION", [(1, 4), (1, 4)],
            constants={1: np.ones((1, 4), np.int8)}, output=(1, 8),
        ),
        "1 constants among 2 inputs",
    ),
    "no_batch_reduction": (reduced("REDUCE_MAX", IMAGE, 0), r"axes \[0\]"),
    "channel_mean": (reduced("MEAN", (1, 4, 4, 3), -1), "3 channels"),
    "no_batch_padding": (
        one_op("PAD", [IMAGE, (4, 2)], constants={1: ints(0, 1, 0, 0, 0, 0, 0, 0)}),
        r"padding \[0, 1\]",
    ),
    "no_batch_split": (
        one_op("SPLIT", [(), IMAGE], {"num_splits": 1}, constants={0: ints(0)[0]}),
        "the axis 0",
    ),
    "slope_per_channel": (
        one_op("PRELU", [IMAGE, (4, 4, 4)], constants={1: np.ones((4, 4, 4), np.int8)}),
        r"slopes \(4, 4, 4\)",
    ),
    "image": (
        one_op("RESIZE_BILINEAR", [(2, 4, 4, 4), (2,)], constants={1: ints(8, 8)}),
        r"\(2, 4, 4, 4\)",
    ),
    "small_softmax": (one_op("SOFTMAX", [(1, 16_001)]), r"\(1, 16001\)"),
    "slice_of_ones": (sliced((1, 2)), r"strides \[1, 2\]"),
    "slice_masks": (sliced((1, 1), new_axis_mask=1), "'new_axis_mask': 1"),
}  # fmt: skip
KEPT = [
    conv(),
    conv(DEPTHWISE, "DEPTHWISE_CONV_2D", {"depth_multiplier": 1}),
    dense({"weights_format": "DEFAULT"}),
    reduced("MEAN", IMAGE, 1, 2),
    sliced((1, 1)),
    one_op("SOFTMAX", [(1, 10)]),
]


@pytest.mark.parametrize("rule", EDGE_TPU.rules, ids=lambda rule: rule.name)
def test_every_edge_tpu_rule_detects_a_violation(rule):
    graph, words = BROKEN[rule.name]
    found = {v.rule.name: v for v in targets.find_violations(graph, EDGE_TPU)}
    assert rule.name in found
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(str(found[rule.name]))
    assert rule.source.startswith("https://") and rule.remedy.endswith(".")
    assert targets.runs_on(graph.ops[0], graph, EDGE_TPU) == "CPU"


@pytest.mark.parametrize("graph", KEPT, ids=lambda graph: graph.ops[0].code)
def test_operators_that_follow_the_rules_run_on_the_edge_tpu(graph):
    assert targets.find_violations(graph, EDGE_TPU) == []
    assert targets.runs_on(graph.ops[0], graph, EDGE_TPU) == "Edge TPU"


def test_all_violations_are_named_at_once():
    graph = conv(input_1={"dtype": "int4"}, input_0={"dynamic_batch": True})
    with pytest.raises(
        ValueError, match=r"(?s)dynamic batch.*version 7.*`input_1` is int4"
    ):
        targets.check_graph(graph, EDGE_TPU)


def test_the_storage_decides_the_containers():
    def found(code, bits, storage, channels=8, target="phone"):
        return targets.container(code, bits, TARGETS[target], storage, channels)

    assert found("CONV_2D", 4, "int8") == "int8"
    assert found("CONV_2D", 4, "packed") == "int4"
    assert found("CONV_2D", 2, "packed") == "int4"
    assert found("CONV_2D", 5, "packed") == "int8"
    assert found("CONV_2D", 4, "auto") == "int8"
    assert found("FULLY_CONNECTED", 2, "packed", 7) == "int2"
    assert found("FULLY_CONNECTED", 2, "auto", 8) == "int2"
    assert found("FULLY_CONNECTED", 2, "auto", 6) == "int4"
    assert found("FULLY_CONNECTED", 2, "auto", 7) == "int8"
    assert found("TRANSPOSE_CONV", 2, "packed") == "int8"
    assert found("FULLY_CONNECTED", 2, "packed", target="edgetpu") == "int8"


def test_training_and_export_have_the_same_targets():
    assert set(TRAINED_FOR) == set(TARGETS)
    assert set(SYMMETRIC_TARGETS) == {n for n, t in TARGETS.items() if t.symmetric}


def test_a_file_that_xnnpack_could_not_run_is_refused(rng, tmp_path):
    student, _ = tiny.calibrated(tiny.residual, rng)
    point = student.get_layer("re_lu_1")
    unit = point.step_variables["unit"]
    unit.assign(unit * 1e-6)
    path = tmp_path / "model.tflite"
    with pytest.raises(
        ValueError, match=r"re_lu_1.*less than 256.*lower learning rate"
    ):
        tflite_export.export_model(student, path)
    assert not path.exists()


# --- Symmetric activations -------------------------------------------------------


def logits():
    inputs = layers.Input((8, 8, 3), name="image")
    x = tiny.conv_bn_relu(inputs, 6)
    y = layers.Conv2D(6, 3, padding="same")(x)
    x = layers.ReLU(6.0)(layers.Add()([x, y]))
    x = layers.Concatenate()([x, layers.Conv2D(3, 1, activation="tanh")(x)])
    x = layers.LeakyReLU()(layers.DepthwiseConv2D(3)(x))
    x = layers.GlobalAveragePooling2D()(layers.AveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(5, name="scores")(x))


@pytest.mark.parametrize("bits", [8, 7, 4, 2])
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_symmetric_files_have_no_zero_points(bits, low, rng, tmp_path):
    model = tiny.randomize(logits(), rng)
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, target="symmetric"
    )
    x = rng.uniform(low, 1, (32, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes
    assert not any(point.twin_differences for point in found.points)
    grids = [node.grid for node in tiny.built(student).frozen.nodes]
    assert {grid.zero_point for grid in grids} == {0}


def test_symmetric_targets_refuse_sigmoids_before_training():
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, activation="sigmoid", name="gate")(inputs)
    outputs = layers.Dense(2, activation="softmax", name="scores")(layers.Flatten()(x))
    with pytest.raises(ValueError, match=r"(?s)zero point.*gate.*scores.*logits"):
        tf_lsq.quantize_model(keras.Model(inputs, outputs), target="symmetric")


def test_symmetric_targets_refuse_uint8_inputs(rng, tmp_path):
    student = tf_lsq.quantize_model(logits(), target="symmetric")
    tf_lsq.calibrate(student, rng.uniform(0, 1, (4, 8, 8, 3)).astype(np.float32))
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=r"zero points.*128"):
        tflite_export.export_model(student, path, input_type="uint8")
    assert not path.exists()
