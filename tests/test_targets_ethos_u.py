"""The Ethos-U: what Vela leaves to the CPU, what is refused, budgets of flash."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from harness import cases, tiny
from test_file_flatbuffer import quantization
from test_targets_queries import conv, ints, one_op
from typer.testing import CliRunner

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.policy import ETHOS_U_TARGETS
from tflite_export import cli, targets
from tflite_export.bits import compiled
from tflite_export.file import TFLiteGraph, from_bytes, rewritten
from tflite_export.targets import TARGETS, vela

layers = keras.layers
U55, U65, U85 = ETHOS_U_TARGETS
IMAGE = (1, 16, 16, 4)


# --- Files of one operator ---------------------------------------------------------


def on_one_grid(graph):
    """The graph with one grid for all tensors."""
    for tensor in graph.tensors.values():
        tensor.quantization = quantization(0.5)
    return graph


def windows(code, window, strides, padding, output, source=IMAGE):
    options = {
        "filter_height": window[0], "filter_width": window[1], "stride_h": strides[0],
        "stride_w": strides[1], "padding": padding,
        "fused_activation_function": "NONE",
    }  # fmt: skip
    shape = (1, *output, source[-1])
    return on_one_grid(one_op(code, [source], options, output=shape))


def convolved(code, size, stride, padding, output, dilation=1):
    kernel = np.ones((4 if code == "CONV_2D" else 1, size, size, 4), np.int8)
    options = {
        "stride_h": stride, "stride_w": stride, "padding": padding,
        "dilation_h_factor": dilation, "dilation_w_factor": dilation,
        "fused_activation_function": "NONE",
    }  # fmt: skip
    if code != "CONV_2D":
        options["depth_multiplier"] = 1
    constants = {1: kernel, 2: np.zeros(4, np.int32)}
    shapes = [IMAGE, kernel.shape, (4,)]
    shape = (1, output, output, 4)
    return one_op(code, shapes, options, constants=constants, output=shape)


def transposed(size, stride, output, source=(4, 4), kernel=None):
    kernel = np.ones((4, *(kernel or (size, size)), 4), np.int8)
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    options = {
        "stride_h": strides[0], "stride_w": strides[1], "padding": "SAME",
        "fused_activation_function": "NONE",
    }  # fmt: skip
    constants = {0: ints(1, *output, 4), 1: kernel, 3: np.zeros(4, np.int32)}
    shapes = [(4,), kernel.shape, (1, *source, 4), (4,)]
    graph = one_op(
        "TRANSPOSE_CONV", shapes, options, constants=constants, output=(1, *output, 4)
    )
    graph.inputs = {"x": "input_2"}
    return graph


def resized(code, source, output, half=True, aligned=False):
    options = {"half_pixel_centers": half, "align_corners": aligned}
    shapes = [(1, *source, 3), (2,)]
    constants = {1: ints(*output)}
    shape = (1, *output, 3)
    return on_one_grid(one_op(code, shapes, options, constants=constants, output=shape))


def reduced(shape, *axes):
    output = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    axes = ints(*axes)
    return one_op("MEAN", [shape, axes.shape], constants={1: axes}, output=output)


def sliced(shape, *steps):
    constants = {1: ints(*[0] * len(shape)), 2: ints(*shape), 3: ints(*steps)}
    output = tuple(-(-size // step) for size, step in zip(shape, steps, strict=True))
    shapes = [shape, *[(len(shape),)] * 3]
    return on_one_grid(
        one_op("STRIDED_SLICE", shapes, {}, constants=constants, output=output)
    )


def extremes(grids):
    graph = one_op("MAXIMUM", [IMAGE] * 2, output=IMAGE)
    for tensor, scale in zip(graph.tensors.values(), grids, strict=True):
        tensor.quantization = quantization(scale)
    return graph


def largest(shape, axis):
    output = tuple(size for number, size in enumerate(shape) if number != axis)
    constants = {1: np.array(axis, np.int32)}
    graph = one_op("ARG_MAX", [shape, ()], {}, constants=constants, output=output)
    graph.tensors["output"].dtype = "int32"
    graph.tensors["output"].quantization = None
    return graph


def gathered(shape, axis):
    output = (*shape[:axis], 3, *shape[axis + 1 :])
    options, constants = {"axis": axis, "batch_dims": 0}, {1: ints(0, 1, 3)}
    return on_one_grid(
        one_op("GATHER", [shape, (3,)], options, constants=constants, output=output)
    )


def softmax(*shape):
    return one_op("SOFTMAX", [shape], {"beta": 1.0}, output=shape)


def reversed_axis():
    return on_one_grid(
        one_op("REVERSE_V2", [IMAGE, (1,)], constants={1: ints(1)}, output=IMAGE)
    )


def depth_to_space():
    return on_one_grid(
        one_op("DEPTH_TO_SPACE", [IMAGE], {"block_size": 2}, output=(1, 32, 32, 1))
    )


def product(*types):
    """A product of matrices; types of both and of the output."""
    options = {"adj_x": False, "adj_y": False}
    shapes = [(1, 4, 6), (1, 6, 8)]
    graph = one_op("BATCH_MATMUL", shapes, options, output=(1, 4, 8))
    for tensor, dtype in zip(graph.tensors.values(), types, strict=True):
        tensor.dtype, tensor.quantization = dtype, quantization(0.5)
    return graph


def into_int8(dtype):
    graph = one_op("QUANTIZE", [IMAGE], output=IMAGE)
    graph.tensors["input_0"].dtype = dtype
    if dtype == "float32":
        graph.tensors["input_0"].quantization = None
    return graph


AVERAGE, BIGGEST = "AVERAGE_POOL_2D", "MAX_POOL_2D"
NEAREST, BILINEAR = "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"
# Rule -> files that break it, with what the message contains, and files that do not.
RULES = {
    "integer_tensors": (
        [(into_int8("float32"), "float tensors")], [into_int8("int8")],
    ),
    "padded_mean": (
        [
            (windows(AVERAGE, (9, 9), (1, 1), "SAME", (16, 16)), r"\(9, 9\)"),
            (windows(AVERAGE, (1, 9), (1, 1), "SAME", (16, 16)), r"\(1, 9\)"),
        ],
        [
            windows(AVERAGE, (8, 8), (1, 1), "SAME", (16, 16)),
            windows(AVERAGE, (9, 9), (1, 1), "VALID", (8, 8)),
            windows(AVERAGE, (16, 16), (16, 16), "SAME", (1, 1)),
            windows(BIGGEST, (9, 9), (1, 1), "SAME", (16, 16)),
        ],
    ),
    "window": (
        [
            (
                windows(BIGGEST, (257, 1), (1, 1), "VALID", (1, 2), (1, 257, 2, 1)),
                r"\(257, 1\)",
            ),
            (
                windows(
                    AVERAGE, (256, 257), (1, 1), "VALID", (1, 1), (1, 256, 257, 1)
                ),
                r"\(256, 257\)",
            ),
        ],
        [
            windows(BIGGEST, (1, 257), (1, 1), "VALID", (2, 1), (1, 2, 257, 1)),
            windows(AVERAGE, (256, 256), (1, 1), "VALID", (1, 1), (1, 256, 256, 1)),
        ],
    ),
    "one_image_mean": (
        [
            (reduced((2, 8, 8, 4), 1, 2), r"\(2, 8, 8, 4\)"),
            (reduced((1, 4, 4, 4, 3), 2, 3), r"\(1, 4, 4, 4, 3\)"),
        ],
        [reduced((1, 8, 8, 4), 1, 2), reduced((1, 8, 8, 4), 1)],
    ),
    "channel_mean": (
        [
            (reduced((1, 8, 8, 4), 3), r"\(1, 8, 8, 4\)"),
            (reduced((1, 8, 8, 4), 1, 2, 3), r"\(1, 8, 8, 4\)"),
        ],
        [reduced((1, 8, 1, 4), 3), reduced((1, 8, 4), 2), reduced((1, 8), 1)],
    ),
    "transposed_output": (
        [(transposed(3, 2, (7, 7)), r"\(7, 7\), not \(8, 8\)")],
        [transposed(3, 2, (8, 8))],
    ),
    "one_grid": (
        [
            (extremes((0.5, 0.25, 0.5)), "3 grids"),
            (extremes((0.5, 0.5, 0.25)), "3 grids"),
        ],
        [extremes((0.5, 0.5, 0.5))],
    ),
    "softmax_positions": (
        [(softmax(1, 300, 255, 3), "300, 255")],
        [softmax(1, 256, 256, 3), softmax(1, 10)],
    ),
    "slice_strides": (
        [
            (sliced((1, 8, 8, 4), 1, 1, 1, 2), r"\[1, 1, 1, 2\]"),
            (sliced((1, 3, 4, 5, 6), 1, 2, 1, 1, 1), r"\[1, 2, 1, 1, 1\]"),
        ],
        [sliced((1, 8, 8, 4), 1, 2, 3, 1), sliced((1, 8, 4), 1, 2, 1)],
    ),
    "supported_operator": (
        [(depth_to_space(), "the operator DEPTH_TO_SPACE")], [softmax(1, 10)],
    ),
    "strides": (
        [
            (convolved("CONV_2D", 7, 4, "SAME", 4), "with padding"),
            (convolved("CONV_2D", 3, 4, "VALID", 3, dilation=2), r"dilations \(2, 2\)"),
            (windows(BIGGEST, (2, 2), (1, 4), "SAME", (16, 4)), "with padding"),
        ],
        [
            convolved("CONV_2D", 7, 4, "VALID", 3),
            convolved("CONV_2D", 3, 4, "SAME", 4),  # Nothing is padded.
            convolved("CONV_2D", 7, 3, "SAME", 6),
            windows(AVERAGE, (4, 4), (4, 4), "SAME", (4, 4)),
        ],
    ),
    "depthwise_strides": (
        [(convolved("DEPTHWISE_CONV_2D", 3, 4, "VALID", 4), r"strides \(4, 4\)")],
        [convolved("DEPTHWISE_CONV_2D", 3, 3, "SAME", 6)],
    ),
    "int8_product": (
        [(product("int16", "int8", "int16"), "int16")],
        [product("int8", "int8", "int8")],
    ),
    "resize": (
        [
            (resized(BILINEAR, (4, 4), (16, 16)), "with half_pixel_centers"),
            (resized(BILINEAR, (4, 4), (4, 4)), r"\(4, 4\) to \(4, 4\)"),
            (resized(BILINEAR, (4, 4), (8, 8), half=False, aligned=True), "align"),
            (resized(NEAREST, (4, 4), (12, 12)), r"to \(12, 12\)"),
            (resized(NEAREST, (4, 4), (8, 16)), r"to \(8, 16\)"),
            (resized(NEAREST, (4, 4), (64, 64)), r"to \(64, 64\)"),
        ],
        [
            resized(BILINEAR, (3, 5), (6, 10)),
            resized(BILINEAR, (4, 4), (32, 32), half=False),
            resized(BILINEAR, (4, 4), (7, 7), half=False, aligned=True),
            resized(BILINEAR, (1, 1), (5, 7)),
            resized(NEAREST, (4, 4), (32, 32)),
            resized(NEAREST, (4, 4), (4, 4)),
            resized(NEAREST, (1, 4), (1, 8)),
        ],
    ),
    "transposed_strides": (
        [
            (transposed(3, 3, (12, 12)), r"strides \(3, 3\)"),
            (transposed(3, (2, 1), (8, 4)), r"strides \(2, 1\)"),
        ],
        [
            transposed(3, 1, (4, 4)),
            transposed(3, (1, 2), (1, 8), (1, 4), (1, 3)),
        ],
    ),
    "index_of_largest": (
        [
            (largest((1, 128), 1), r"axis \[1\] of \(1, 128\)"),
            (largest((1, 8, 8, 4), 1), r"axis \[1\]"),
        ],
        [largest((1, 127), 1), largest((1, 8, 8, 4), 3)],
    ),
    "reversal": ([(reversed_axis(), r"axes \[1\]")], [sliced((1, 8, 4), 1, 2, 1)]),
    "bilinear": (
        [
            (resized(BILINEAR, (4, 4), (12, 12)), r"to \(12, 12\)"),
            (resized(BILINEAR, (4, 4), (2, 2)), r"to \(2, 2\)"),
            (resized(BILINEAR, (1, 4), (3, 8)), r"to \(3, 8\)"),
        ],
        [
            resized(BILINEAR, (4, 4), (8, 64)),
            resized(BILINEAR, (1, 1), (5, 7)),
            resized(BILINEAR, (5, 9), (9, 33), half=False, aligned=True),
            resized(NEAREST, (4, 4), (6, 6)),
        ],
    ),
    "gathered_axis": ([(gathered((1, 8), 1), "axis 1")], [gathered((4, 8), 0)]),
}  # fmt: skip
# U55 and U65 have one list of rules.
PAIRS = [
    pytest.param(name, rule, id=f"{name}-{rule.name}")
    for name in (U55, U85)
    for rule in TARGETS[name].rules
    if not rule.refused
]


def left_to_cpu(content, target):
    return set(targets.compile_with_vela(content, target).on_cpu)


def merged(graphs):
    """One file with the operators of several, whose tensors get their name first."""
    tensors, ops = {}, []
    for prefix, graph in graphs.items():
        for tensor in graph.tensors.values():
            name = f"{prefix}/{tensor.name}"
            tensors[name] = dataclasses.replace(tensor, name=name)
        [op] = graph.ops
        inputs, outputs = (
            [f"{prefix}/{n}" for n in e] for e in (op.inputs, op.outputs)
        )
        ops.append(dataclasses.replace(op, inputs=inputs, outputs=outputs))
    inputs = {f"{p}_x": f"{p}/{g.inputs['x']}" for p, g in graphs.items()}
    for name, tensor in tensors.items():
        if name.endswith("input_1") and tensor.data is None:
            inputs[f"{name}_y"] = name
    outputs = {op.outputs[0]: op.outputs[0] for op in ops}
    return TFLiteGraph(tensors, ops, inputs, outputs)


@pytest.fixture(scope="module")
def left():
    """Target -> outputs of `RULES` that Vela leaves to the CPU, of one file."""
    found = {}
    for target in (U55, U85):
        graphs = {}
        for rule in TARGETS[target].rules:
            broken, kept = RULES.get(rule.name, ((), ()))
            for number, graph in enumerate([*(one for one, _ in broken), *kept]):
                graphs[f"{rule.name}_{number}"] = graph
        found[target] = left_to_cpu(rewritten(merged(graphs)), target)
    return found


@pytest.mark.parametrize(("target", "rule"), PAIRS)
def test_rules_are_what_vela_leaves_to_the_cpu(target, rule, left):
    broken, kept = RULES[rule.name]
    for number, (graph, words) in enumerate(broken):
        found = {v.rule: v for v in targets.find_violations(graph, TARGETS[target])}
        assert rule in found
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(str(found[rule]))
        assert targets.runs_on(graph.ops[0], graph, TARGETS[target]) == "CPU"
        assert f"{rule.name}_{number}/output" in left[target]
    for number, graph in enumerate(kept, start=len(broken)):
        assert targets.runs_on(graph.ops[0], graph, TARGETS[target]) == "Ethos-U"
        assert f"{rule.name}_{number}/output" not in left[target]


def test_every_rule_has_a_source_and_a_remedy_and_both_older_npus_the_same_rules():
    assert TARGETS[U55].rules == TARGETS[U65].rules != TARGETS[U85].rules
    for name in ETHOS_U_TARGETS:
        for rule in TARGETS[name].rules:
            assert rule.source.startswith("https://") and rule.remedy.endswith(".")


def test_int4_weights_crash_vela_and_are_refused():
    graph = conv(
        options={
            "stride_h": 1, "stride_w": 1, "padding": "SAME",
            "dilation_h_factor": 1, "dilation_w_factor": 1,
            "fused_activation_function": "NONE",
        },
        input_1={"dtype": "int4"},
    )  # fmt: skip
    with pytest.raises(ValueError, match="`input_1` is int4"):
        targets.check_graph(graph, TARGETS[U55])
    with pytest.raises(
        RuntimeError, match=r"must accept the file\. Received exit code"
    ):
        targets.compile_with_vela(rewritten(graph), U55)


def test_inputs_that_are_widened_for_a_kernel_crash_vela_and_are_refused():
    graph = convolved("CONV_2D", 3, 1, "SAME", 16)
    for tensor in graph.tensors.values():
        tensor.quantization = quantization(0.5)
    narrow = dataclasses.replace(graph.tensors["input_0"], name="narrow")
    graph.tensors["narrow"], graph.inputs["x"] = narrow, "narrow"
    graph.tensors["input_0"].dtype = graph.tensors["output"].dtype = "int16"
    graph.tensors["input_2"].data = np.zeros(4, np.int64)
    graph.tensors["input_2"].dtype = "int64"
    widening = into_int8("int8").ops[0]
    graph.ops.insert(
        0, dataclasses.replace(widening, inputs=["narrow"], outputs=["input_0"])
    )
    with pytest.raises(ValueError, match="`input_0` for CONV_2D"):
        targets.check_graph(graph, TARGETS[U85])
    targets.check_graph(graph, TARGETS[U55])
    with pytest.raises(RuntimeError, match=r"must accept the file\."):
        targets.compile_with_vela(rewritten(graph), U85)
    graph.outputs["widened"] = "input_0"  # Another reader.
    targets.check_graph(graph, TARGETS[U85])
    assert not left_to_cpu(rewritten(graph), U85)


# --- Files of models ---------------------------------------------------------------

CASES = {
    case.name: case
    for made in (cases.network_cases, cases.conformance_cases)
    for case in made(target=U55)
}
_SHARE = 22  # The default suite tests one case in so many, at all bits in turn.
MARKED = [
    pytest.param(name, marks=() if number % _SHARE == 0 else pytest.mark.slow)
    for number, name in enumerate(CASES)
]


@pytest.mark.parametrize("name", MARKED)
def test_vela_leaves_the_predicted_operators_to_the_cpu(name):
    student, _ = CASES[name].make()
    built = tiny.built(student)
    for target in ETHOS_U_TARGETS:
        found = targets.find_violations(built.graph, TARGETS[target])
        if not any(violation.rule.refused for violation in found):
            assert left_to_cpu(built.content, target) == on_cpu(built.graph, target)


def on_cpu(graph, target):
    """Outputs of the operators that the rules leave to the CPU."""
    found = [targets.runs_on(op, graph, TARGETS[target]) for op in graph.ops]
    pairs = zip(graph.ops, found, strict=True)
    return {op.outputs[0] for op, device in pairs if device == "CPU"}


@pytest.mark.parametrize("target", ETHOS_U_TARGETS)
def test_check_predicts_what_vela_leaves_to_the_cpu(target, rng, tmp_path):
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    x = layers.UpSampling2D(3, interpolation="bilinear", name="up")(x)
    outputs = layers.Dense(4, name="dense")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    report = tflite_export.check_model(model, target=target)
    slow = [op.name for op in report.operators if op.runs_on == "CPU"]
    assert slow == ["up"] and "runs on the CPU" in report.remarks[0]
    student, _ = tiny.student_of(model, rng, target=target)
    found = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert list(found.compiled.on_cpu.items()) == [("up", "RESIZE_BILINEAR")]
    assert "rules predict" not in str(found)


def highest():
    inputs = layers.Input((8, 8, 3))
    return keras.Model(inputs, tf.argmax(layers.Conv2D(4, 3)(inputs), axis=1))


@pytest.mark.parametrize(
    ("build", "overrides", "ends", "counts"),
    [
        (tiny.residual, None, ("uint8", "uint8"), (0, 0)),
        (tiny.residual, None, ("float32", "float32"), (2, 2)),
        (tiny.residual, {"scores": "float"}, ("int8", "int8"), (4, 4)),
        (highest, None, ("int8", "int8"), (1, 0)),
    ],
)
def test_floats_run_on_the_cpu_and_integers_on_the_npu(
    build, overrides, ends, counts, rng
):
    student, _ = tiny.student_of(build(), rng, target=U55, overrides=overrides)
    built = tiny.built(student, input_type=ends[0], output_type=ends[1])
    for target, count in zip((U55, U85), counts, strict=True):
        predicted = on_cpu(built.graph, target)
        assert left_to_cpu(built.content, target) == predicted
        assert len(predicted) == count


def test_files_have_a_static_batch_and_int8_kernels(rng, tmp_path):
    student, x = tiny.student_of(tiny.residual(), rng, target=U55)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, data=x, storage="auto")
    graph = from_bytes(path.read_bytes())
    assert not any(tensor.dynamic_batch for tensor in graph.tensors.values())
    assert {layer.container for layer in report.layers} == {"int8"}
    assert {layer.widening for layer in report.layers} == {1}
    assert [other.storage for other in report.storages] == ["int8"]
    assert TARGETS[U55].runtime == "tflm"


# --- Refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"storage": "packed"}, "crashes on INT4.*compresses weights.*storage='int8'"),
        ({"bias_grid": "packed"}, "26 to 94 % more cycles.*bias_grid='own'"),
    ],
)
def test_packed_files_are_refused_with_the_reason(options, reason, rng, tmp_path):
    student, _ = tiny.student_of(tiny.residual(), rng, target=U85)
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=rf"'ethos-u85-256' refuses .*{reason}"):
        tflite_export.export_model(student, path, **options)
    assert not path.exists()


def test_a_check_and_a_search_refuse_packed_storage():
    model, x = tiny.residual(), np.zeros((4, 8, 8, 3), np.float32)
    report = tflite_export.check_model(model, target=U55, storage="packed")
    assert not report.ok and "refuses storage='packed': Vela" in report.problems[0]
    assert not report.operators
    options = {"target": U55, "storage": "packed", "verbose": False}
    with pytest.raises(ValueError, match="refuses storage='packed': Vela crashes"):
        tflite_export.suggest_bits(model, x, budget_bytes=9_000, **options)


def test_the_family_alone_is_refused_with_its_targets(tmp_path):
    model, x = tiny.residual(), np.zeros((4, 8, 8, 3), np.float32)
    names = ".*".join(ETHOS_U_TARGETS) + r".*Received: target='ethos-u'\."
    with pytest.raises(ValueError, match=names):
        tf_lsq.quantize_model(model, target="ethos-u")
    with pytest.raises(ValueError, match=names):
        tflite_export.check_model(model, target="ethos-u")
    with pytest.raises(ValueError, match=names):
        tflite_export.suggest_bits(model, x, budget_bytes=9_000, target="ethos-u")
    path = tmp_path / "model.keras"
    model.save(path)
    found = CliRunner().invoke(cli.app, ["check", str(path), "--target", "ethos-u"])
    assert found.exit_code == 2
    assert all(name in found.output for name in ETHOS_U_TARGETS)


# --- Budgets -----------------------------------------------------------------------


def test_a_budget_is_one_of_compiled_bytes(rng, tmp_path):
    model = tiny.randomize(tiny.pre_activation(), rng)
    x = rng.uniform(-1, 1, (16, 8, 8, 3)).astype(np.float32)
    options = {"candidates": (2, 4, 8), "target": U55, "verbose": False}
    found = tflite_export.suggest_bits(model, x, budget_bytes=13_000, **options)
    assert found.storage == "int8" and found.compiler == "vela"
    assert "bytes for ethos-u55-128 with int8 storage, compiled by vela" in str(found)
    sizes = [found.uniform[bits].file_bytes for bits in (2, 4, 8)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert found.file_bytes <= 13_000 < sizes[2]
    for bits in (2, 8):
        ends = dict.fromkeys(("conv2d", "dense"), (bits, 8))
        overrides = {layer.layer: bits for layer in found.layers} | ends
        size = compiled_bytes(model, x, overrides, tmp_path)
        assert size == found.uniform[bits].file_bytes
    assert compiled_bytes(model, x, found.overrides, tmp_path) == found.file_bytes
    large = max(found.layers, key=lambda layer: layer.num_bytes[8])
    assert large.num_bytes[2] < 0.5 * large.num_bytes[4] + 100 < large.num_bytes[8]


def compiled_bytes(model, x, overrides, folder):
    """The compiled size of the file that these overrides give."""
    student = tf_lsq.quantize_model(model, overrides=overrides, target=U55)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    report = tflite_export.export_model(student, folder / "model.tflite")
    return report.compiled.file_bytes


def test_budgets_need_vela(monkeypatch):
    model, x = tiny.residual(), np.zeros((4, 8, 8, 3), np.float32)
    monkeypatch.setattr(vela, "find_vela", lambda: None)
    with pytest.raises(RuntimeError, match=r"needs vela.*tf-lsq\[ethos-u\]"):
        tflite_export.suggest_bits(model, x, budget_bytes=9_000, target=U55)
    with pytest.raises(RuntimeError, match=r"vela is not installed"):
        compiled.CompiledBytes(U55).file_bytes(b"")


def test_the_default_storage_is_packed_where_the_target_has_it():
    assert compiled.choose_storage(TARGETS["phone"], None) == ("packed", None)
    assert compiled.choose_storage(TARGETS["edgetpu"], None) == ("int8", None)
    storage, counted = compiled.choose_storage(TARGETS[U65], None)
    assert storage == "int8" and isinstance(counted, compiled.CompiledBytes)
