"""Points of more than 8 bits: every operator in int16 computes the trained integers.

As in `test_conformance`, with a sum of 16 bits before the layers under test. Layers
named "wide..." have 16 bits themselves: in their output, or in their input if they have
a kernel.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from harness.bit_widths import with_bits

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.file import from_bytes, rewritten, runtime_of
from tflite_export.runtimes import this_machine
from tflite_export.targets import TARGETS, find_violations
from tflite_export.verification import (
    compare_points,
    probe_codes,
    twin_differences,
)

layers = keras.layers
SHAPE = (8, 8, 4)
BUILTIN = this_machine().with_kernels("builtin")
CHANNELS = np.float32([1, 2, 3, -1, -2, -3])
POSITIONS = np.random.default_rng(1).normal(size=(8, 8, 6)).astype(np.float32)


def after_sum(function):
    """A model with a function of a 16-bit sum, and of a tensor of fewer bits."""

    def build():
        inputs = layers.Input(SHAPE)
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name="x")(inputs)
        y = layers.Conv2D(6, 3, padding="same", name="y")(x)
        z = function(layers.Add(name="sum")([x, y]), y)
        z = layers.Conv2D(4, 1, activation="relu")(z) if len(z.shape) == 4 else z
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(z)))

    return build


def wide(layer, *args, **kwargs):
    """A layer with 16 bits."""
    return layer(*args, name="wide", **kwargs)


def chain(s, y):
    """Layers that move 16-bit codes, then a sum of them."""
    s = layers.MaxPooling2D(3, 1, "same")(s)
    s = layers.Permute((3, 1, 2))(layers.Reshape((16, 4, 6))(s))
    s = layers.ZeroPadding2D(((1, 0), (0, 1)))(s)
    s = layers.Cropping2D(((0, 1), (1, 0)))(s)
    return wide(layers.Add)([layers.Reshape((8, 8, 6))(s), y])


def gathered(s, y):
    """Channels in another order; rows backwards."""
    return tf.gather(s, [5, 0, 0, 3, 2, 1, 4], axis=3)[:, ::-1]


BN = layers.BatchNormalization
CASES = {
    "sum": lambda s, y: s,
    "relu": lambda s, y: layers.ReLU()(s),
    "relu6": lambda s, y: wide(layers.ReLU, 6.0)(layers.MaxPooling2D()(s)),
    "add": lambda s, y: wide(layers.Add)([s, y]),
    "add_of_three": lambda s, y: wide(layers.Add)([y, s, y]),
    "add_to_8_bits": lambda s, y: layers.Add()([s, y]),
    "add_to_4_bits": lambda s, y: layers.Add(name="narrow")([s, y]),
    "add_of_fewer_axes": lambda s, y: wide(layers.Add)(
        [layers.GlobalAveragePooling2D()(y), s]
    ),
    "subtract": lambda s, y: wide(layers.Subtract)([y, s]),
    "multiply": lambda s, y: wide(layers.Multiply)([s, y]),
    "multiply_of_fewer_axes": lambda s, y: layers.Multiply()(
        [s, layers.GlobalAveragePooling2D()(s)]
    ),
    "average": lambda s, y: wide(layers.Average)([s, y]),
    "matmul": lambda s, y: tf.matmul(s, y, transpose_b=True),
    "matmul_of_16_bits": lambda s, y: tf.matmul(y, s, transpose_a=True),
    "maximum": lambda s, y: wide(layers.Maximum)([s, y]),
    "concat": lambda s, y: wide(layers.Concatenate)([y, s, layers.ReLU()(y)]),
    "square": lambda s, y: tf.square(s),
    "abs": lambda s, y: tf.abs(s),
    "add_positions": lambda s, y: s + POSITIONS,
    "multiply_positions": lambda s, y: s * POSITIONS,
    "add_channels": lambda s, y: s + CHANNELS,
    "leaky_relu": lambda s, y: wide(layers.LeakyReLU)(s),
    "prelu": lambda s, y: wide(layers.PReLU, "uniform", shared_axes=[1, 2])(s),
    "clip": lambda s, y: tf.clip_by_value(layers.MaxPooling2D()(s), -0.5, 0.7),
    "batch_norm": lambda s, y: wide(BN)(layers.MaxPooling2D()(s)),
    "mean": lambda s, y: wide(layers.GlobalAveragePooling2D)(s),
    "mean_of_channels": lambda s, y: wide(layers.Multiply)(
        [s, tf.reduce_mean(s, -1, keepdims=True)]
    ),
    "reduce_sum": lambda s, y: s * tf.reduce_sum(s, [1, 2], keepdims=True),
    "reduce_max": lambda s, y: s - tf.reduce_max(s, [1, 2], keepdims=True),
    "reduce_min": lambda s, y: s - tf.reduce_min(s, [1, 2], keepdims=True),
    "average_pool": lambda s, y: layers.AveragePooling2D(3, 2, "same")(s),
    "up_sampling": lambda s, y: layers.UpSampling2D()(s),
    "chain": chain,
    "gather": gathered,
    "pad_mirror": lambda s, y: tf.pad(s, [[0, 0], [1, 2], [1, 0], [0, 0]], "REFLECT"),
    "pad_constant": lambda s, y: tf.pad(
        s, [[0, 0], [1, 2], [1, 0], [0, 0]], constant_values=0.3
    ),
    "zeros": lambda s, y: layers.Add()([s, tf.zeros_like(s)]),
    "conv": lambda s, y: wide(layers.Conv2D, 5, 3, activation="relu")(s),
    # The concatenation's grid is that of the convolution, whose input has 8 bits.
    "conv_to_16_bits": lambda s, y: wide(layers.Concatenate)(
        [layers.Conv2D(6, 1)(y), s]
    ),
    "pointwise": lambda s, y: wide(layers.Conv2D, 5, 1)(s),
    "conv1d": lambda s, y: wide(layers.Conv1D, 5, 3)(layers.Reshape((64, 6))(s)),
    "conv_groups": lambda s, y: wide(layers.Conv2D, 6, 3, groups=6)(s),
    "conv_two_groups": lambda s, y: wide(layers.Conv2D, 6, 3, groups=2)(s),
    "transposed_conv": lambda s, y: wide(layers.Conv2DTranspose, 5, 3, 2, "same")(s),
    "convs": lambda s, y: layers.Conv2D(5, 1, name="wide_2")(
        wide(layers.Conv2D, 5, 3, activation="relu")(s)
    ),
    "depthwise": lambda s, y: BN()(wide(layers.DepthwiseConv2D, 3)(s)),
    "dense": lambda s, y: wide(layers.Dense, 7)(layers.Flatten()(s)),
    "dense_on_images": lambda s, y: wide(layers.Dense, 7, activation="relu")(s),
    # Computed in int8, from points of 8 bits.
    "sigmoid": lambda s, y: layers.Multiply()([s, tf.sigmoid(s)]),
    "tanh": lambda s, y: layers.Activation("tanh")(s),
    "elu": lambda s, y: layers.ELU()(s),
    "softmax": lambda s, y: layers.Softmax()(s),
    "bilinear": lambda s, y: layers.UpSampling2D(2, interpolation="bilinear")(s),
    "depth_to_space": lambda s, y: tf.nn.space_to_depth(s, 2),
    "hard_sigmoid": lambda s, y: layers.Activation("hard_sigmoid")(s),
}


def overrides_of(model, bits):
    """16 bits for the sum and what is called wide."""
    chosen = {"sum": 16}
    for layer in model.layers:
        if layer.name.startswith("wide"):
            kernel = hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")
            chosen[layer.name] = (bits, 16) if kernel else 16
        if layer.name == "narrow":
            chosen["narrow"] = 4
    return chosen


def quantized(build, rng, bits, **options):
    model = tiny.randomize(build(), rng)
    student = tf_lsq.quantize_model(
        model,
        weight_bits=bits,
        activation_bits=bits,
        overrides=overrides_of(model, bits),
        **options,
    )
    x = rng.normal(0, 1, (64, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    return model, student, x


@pytest.mark.filterwarnings("ignore:These tensors use less")
@pytest.mark.parametrize(("case", "bits"), with_bits(CASES))
def test_int16_files_compute_the_trained_integers(case, bits, rng, tmp_path):
    model, student, x = quantized(after_sum(CASES[case]), rng, bits)
    if bits == 8 and case != "add_to_4_bits":
        found, expected = (one(x, training=False) for one in (student, model))
        assert tiny.largest_difference(found, expected) < 0.05
    path, storage = tmp_path / "model.tflite", "int8" if bits == 8 else "packed"
    tflite_export.export_model(student, path, storage=storage)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    differences = {p.name: (p.kind, p.twin_differences) for p in found.points}
    assert not [item for item in differences.items() if item[1][1]]
    built = tiny.built(student, storage)
    assert any(t.dtype == "int16" for t in built.graph.tensors.values())
    codes = probe_codes(built.graph, built.frozen, [x], kernels="builtin")
    different = twin_differences(built.frozen, codes, BUILTIN)
    assert not any(different.values()), different


def types_of(graph, code):
    """Types of the tensors of every operator with a name."""
    return [
        [graph.tensors[name].dtype for name in (*op.inputs, *op.outputs) if name]
        for op in graph.ops
        if op.code == code
    ]


@pytest.mark.parametrize(
    ("case", "code", "types"),
    [
        ("dense", "FULLY_CONNECTED", ["int16", "int4", "int64", "int16"]),
        ("conv", "CONV_2D", ["int16", "int4", "int64", "int16"]),
        # Its kernel in TFLite would read INT4 codes as int8.
        ("depthwise", "DEPTHWISE_CONV_2D", ["int16", "int8", "int64", "int16"]),
        ("mean", "SUM", ["int16", "int32", "int16"]),
        ("add_to_8_bits", "QUANTIZE", ["int16", "int8"]),
    ],
)
def test_operators_have_the_types_that_tflite_computes(case, code, types, rng):
    _, student, _ = quantized(after_sum(CASES[case]), rng, 4)
    assert types in types_of(tiny.built(student, "packed").graph, code)


def test_zero_points_decide_how_codes_become_16_bits(rng):
    """QUANTIZE needs a newer runtime than CAST, which takes no zero point along."""
    _, student, _ = quantized(after_sum(CASES["sum"]), rng, 8)
    graph = tiny.built(student).graph
    grids = {
        op.code: graph.tensors[op.inputs[0]].quantization.zero_point
        for op in graph.ops
        if graph.tensors[op.outputs[0]].dtype == "int16" and len(op.inputs) == 1
    }
    assert grids == {"CAST": 0, "QUANTIZE": -128}
    assert runtime_of(graph) == (
        "LiteRT 2.1.3 or newer; refused by TensorFlow Lite 2.21.0 and older (QUANTIZE "
        "from int8 to int16)"
    )


# --- Corrupted files -----------------------------------------------------------------


def corrupt_scale(graph):
    tensor = graph.tensors["sum"]
    scale = np.nextafter(tensor.quantization.scale, np.float32(1))
    grid = dataclasses.replace(tensor.quantization, scale=scale)
    graph.tensors["sum"] = dataclasses.replace(tensor, quantization=grid)


def corrupt_bias(graph):
    tensor = graph.tensors["wide/bias"]
    data = tensor.data.copy()
    data[0] += 1
    graph.tensors["wide/bias"] = dataclasses.replace(tensor, data=data)


def corrupt_type(graph):
    graph.tensors["sum"] = dataclasses.replace(graph.tensors["sum"], dtype="int32")


def corrupt_operator(graph):
    [number] = [n for n, op in enumerate(graph.ops) if op.outputs == ["sum"]]
    graph.ops[number] = dataclasses.replace(graph.ops[number], code="SUB", table="")
    graph.ops[number].table = "SubOptions"


@pytest.mark.parametrize(
    "corrupt", [corrupt_scale, corrupt_bias, corrupt_type, corrupt_operator]
)
def test_corrupted_int16_files_are_rejected(corrupt, rng, tmp_path):
    _, student, x = quantized(after_sum(CASES["dense"]), rng, 8)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    tflite_export.verify_tflite(path, student, x, verbose=False)
    graph = from_bytes(path.read_bytes())
    corrupt(graph)
    path.write_bytes(rewritten(graph))
    with pytest.raises(tflite_export.VerificationError):
        tflite_export.verify_tflite(path, student, verbose=False)


def test_wrong_codes_of_16_bits_are_found(rng):
    _, student, x = quantized(after_sum(CASES["sum"]), rng, 8)
    built = tiny.built(student)
    codes = probe_codes(built.graph, built.frozen, [x])
    compare_points(built.frozen, codes, "file")
    codes["sum"][0, 0, 0, 0] ^= 2
    with pytest.raises(tflite_export.VerificationError, match=r"`sum` \(add\)"):
        compare_points(built.frozen, codes, "file")
    codes["sum"][0, 0, 0, 0] ^= 3
    found = compare_points(built.frozen, codes, "file")
    assert {p.name: p.twin_differences for p in found}["sum"] == 1


# --- Inputs and outputs --------------------------------------------------------------


def ends():
    """A model whose input and output have 16 bits."""
    inputs = layers.Input((6,), name="image")
    x = layers.Dense(8, name="wide")(inputs)
    return keras.Model(inputs, layers.Add(name="sum")([x, layers.Dense(8)(x)]))


@pytest.mark.parametrize(("given", "stored"), [("int8", "int16"), ("float32",) * 2])
def test_ends_of_16_bits_are_int16_or_float32(given, stored, rng, tmp_path):
    _, student, x = quantized(ends, rng, 8)
    path, kwargs = tmp_path / "model.tflite", {"input_type": given}
    report = tflite_export.export_model(
        student, path, data=x, output_type=given, verbose=False, **kwargs
    )
    assert report.verification.twin_differences == 0
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.twin_differences == 0
    graph = from_bytes(path.read_bytes())
    for names in (graph.inputs, graph.outputs):
        assert [graph.tensors[name].dtype for name in names.values()] == [stored]
    in_bytes = {"kotlin", "kotlin-compiled-model", "swift"}
    assert in_bytes.isdisjoint(report.snippets) == (stored == "int16")


def test_ends_of_16_bits_are_not_uint8(rng, tmp_path):
    _, student, _ = quantized(ends, rng, 8)
    with pytest.raises(ValueError, match=r"Received: \"uint8\" for \['image', 'sum'\]"):
        tflite_export.export_model(
            student, tmp_path / "m.tflite", input_type="uint8", output_type="uint8"
        )


def test_the_code_for_python_takes_and_returns_values(rng, tmp_path, monkeypatch):
    _, student, x = quantized(ends, rng, 8)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    names = {}
    monkeypatch.chdir(tmp_path)
    exec(report.snippets["python"], names)
    found = np.concatenate([names["predict"](row[None]) for row in x[:8]])
    expected = tflite_export.integer_twin(student, runtime="x86-64")(x[:8])
    step = float(student.get_layer("quantize_sum").step)
    np.testing.assert_allclose(found, expected, atol=1.5 * step)


@pytest.mark.filterwarnings("ignore:These tensors use less")
@pytest.mark.parametrize("positive", [True, False])
def test_sums_of_more_than_32_bits_are_exact(positive, rng, tmp_path):
    inputs = layers.Input((6000,))
    x = layers.Dense(16, name="wide")(inputs)
    model = keras.Model(inputs, layers.Dense(8, name="wide_2")(x))
    kernel = (
        rng.uniform(0.5, 1, (6000, 16)) if positive else rng.normal(size=(6000, 16))
    )
    model.get_layer("wide").kernel.assign(kernel)
    student = tf_lsq.quantize_model(model, overrides={"wide.*": (8, 16)})
    x = np.abs(rng.normal(size=(256, 6000))).astype(np.float32)
    tf_lsq.calibrate(student, x)
    weight = tiny.built(student).frozen.by_name()["wide"].weight
    assert np.abs(weight.codes.codes).sum(axis=0).max() * 32767.0 > 2**32
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not any(point.twin_differences for point in found.points)


def test_layers_in_float_give_and_take_16_bits(rng, tmp_path):
    inputs = layers.Input((32,))
    x = layers.Dense(64, activation="relu", name="first")(inputs)
    x = layers.Dense(64, name="float")(x)
    x = layers.Dense(64, name="wide")(x)
    x = layers.Add(name="sum")([x, x])
    model = keras.Model(inputs, layers.Dense(8, name="last")(x))
    overrides = {"float": "float", "wide": (8, 16), "sum": 16, "last": "float"}
    student = tf_lsq.quantize_model(model, overrides=overrides)
    x = rng.normal(size=(256, 32)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not any(point.twin_differences for point in found.points)
    types = [t.dtype for t in tiny.built(student).graph.tensors.values()]
    assert "int16" in types


# --- Reports -------------------------------------------------------------------------


def test_reports_say_what_int16_costs(rng, tmp_path):
    _, student, x = quantized(after_sum(CASES["conv"]), rng, 8)
    report = tflite_export.export_model(
        student, tmp_path / "m.tflite", data=x, verbose=False
    )
    assert report.int16_operators["ADD"] == report.int16_operators["CONV_2D"] == 1
    assert "10 to 200 times as long as XNNPACK in int8" in str(report)
    assert {layer.name: layer.input_container for layer in report.layers} == {
        **dict.fromkeys(("x", "y", "conv2d", "dense"), "int8"),
        "wide": "int16",
    }
    assert "16x8" in str(report)
    points = {p.name: p.statistics for p in report.verification.points}
    assert points["sum"].num_bits == 16 and points["sum"].width == 256
    assert len(points["sum"].counts) == 256
    assert sum(points["sum"].counts) == x.shape[0] * 8 * 8 * 6
    tflite_export.write_html_report(report, tmp_path / "report.html")
    check = tflite_export.check_model(student)
    slow = {op.name: op.runs_on for op in check.operators}
    assert slow["sum"] == slow["wide"] == "TFLite's kernel"
    assert slow["y"] == "XNNPACK"


def test_the_edge_tpu_refuses_int16(rng):
    _, student, _ = quantized(after_sum(CASES["sum"]), rng, 8)
    graph = tiny.built(student).graph
    found = {v.rule.name for v in find_violations(graph, TARGETS["edgetpu"])}
    assert "int8_activations" in found


# --- What 16 bits are for ------------------------------------------------------------


def residual_stream(weights, outlier=3, factor=60.0):
    """Dense blocks around a stream, one channel of which is much larger than others.

    The layers that read it have weights as much smaller.
    """
    inputs = layers.Input((16,))
    stem = layers.Dense(24, name="stem")
    x, readers = stem(inputs), [layers.Dense(10, name="scores")]
    for number in range(4):
        readers.append(layers.Dense(24, activation="relu", name=f"inner_{number}"))
        y = layers.Dense(24, name=f"outer_{number}")(readers[-1](x))
        x = layers.Add(name=f"sum_{number}")([x, y])
    model = keras.Model(inputs, [x, readers[0](x)])
    for layer in model.layers:
        if layer.weights:
            layer.kernel.assign(weights.normal(0, 0.2, layer.kernel.shape))
    sizes = np.where(np.arange(24) == outlier, factor, 1)
    stem.kernel.assign(stem.kernel.numpy() * sizes)
    for layer in readers:
        layer.kernel.assign(layer.kernel.numpy() / sizes[:, None])
    return model, np.arange(24) != outlier


def test_a_stream_with_an_outlier_channel_is_kept_by_16_bits(rng):
    """As in transformers: few channels are many times as large as all others."""
    model, others = residual_stream(rng)
    x = rng.normal(size=(512, 16)).astype(np.float32)
    stream, scores = (output.numpy() for output in model(x))
    errors, agreements, warned = {}, {}, {}
    for bits in (8, 16):
        student = tf_lsq.quantize_model(
            model,
            weight_bits=8,
            activation_bits=8,
            per_channel=True,
            overrides={"sum_.*": bits, "inner_.*|scores": (8, bits)},
        )
        with warnings.catch_warnings(record=True) as warned[bits]:
            warnings.simplefilter("always")
            tf_lsq.calibrate(student, x, num_examples=512)
        found, found_scores = (output.numpy() for output in student(x))
        error = np.square(found - stream)[:, others].mean()
        errors[bits] = np.sqrt(error / np.var(stream[:, others]))
        same = found_scores.argmax(-1) == scores.argmax(-1)
        agreements[bits] = same.mean()
    assert errors[16] < errors[8] / 5, errors
    assert agreements[16] > agreements[8] + 0.05, agreements
    assert "less than a sixteenth" in str(warned[8][0].message) and not warned[16]
