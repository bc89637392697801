"""FlatBuffers are written, read back, and run."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    flatbuffer,
    tflite_operators,
)


def quantization(scale, zero_point=0, axis=0):
    return TensorQuantization(np.float32(np.ravel(scale)), zero_point, axis)


def fully_connected():
    """A layer with two inputs and outputs whose integers make the result exact."""
    tensors = [
        TFLiteTensor("x", (1, 2), "int8", quantization(0.5, -1), dynamic_batch=True),
        TFLiteTensor(
            "w",
            (2, 2),
            "int8",
            quantization(0.25),
            np.array([[1, 2], [3, -4]], np.int8),
        ),
        TFLiteTensor(
            "b", (2,), "int32", quantization(0.125), np.array([8, -16], np.int32)
        ),
        TFLiteTensor("y", (1, 2), "int8", quantization(0.125, 3), dynamic_batch=True),
    ]
    options = {
        "fused_activation_function": "RELU",
        "keep_num_dims": False,
        "asymmetric_quantize_inputs": False,
        "weights_format": "DEFAULT",
    }
    op = TFLiteOp("FULLY_CONNECTED", ["x", "w", "b"], ["y"], options)
    return TFLiteGraph(
        {t.name: t for t in tensors},
        [op],
        {"in": "x"},
        {"out": "y"},
        {"note": b"hi"},
        "d",
    )


def test_ends_are_read_in_the_order_of_the_subgraph():
    graph = fully_connected()
    graph.outputs = {"first": "y", "second": "x"}
    model, _ = flatbuffer.object_tree(flatbuffer.to_bytes(graph))
    model.signatureDefs[0].outputs.reverse()
    found = flatbuffer.from_bytes(flatbuffer.finished(model))
    assert [*found.outputs.items()] == [*graph.outputs.items()]


def test_a_graph_survives_writing_and_reading():
    graph = fully_connected()
    content = flatbuffer.to_bytes(graph)
    found = flatbuffer.from_bytes(content)
    assert flatbuffer.to_bytes(found) == content
    assert found.inputs == graph.inputs and found.outputs == graph.outputs
    assert found.metadata == graph.metadata and found.description == "d"
    [op] = found.ops
    assert op.code == "FULLY_CONNECTED"
    assert graph.ops[0].options.items() <= op.options.items()
    for name, tensor in graph.tensors.items():
        other = found.tensors[name]
        assert other.quantization == tensor.quantization
        assert (other.shape, other.dtype) == (tensor.shape, tensor.dtype)
        assert other.dynamic_batch == tensor.dynamic_batch
        np.testing.assert_array_equal(other.data, tensor.data)


def test_custom_operators_survive_writing_and_reading():
    graph = fully_connected()
    graph.ops = [
        TFLiteOp("CUSTOM", ["x"], ["y"], version=1, custom=name, custom_options=options)
        for name, options in (("FlexErf", b"\x01\xff"), ("TFLite_Detection", b""))
    ]
    assert flatbuffer.from_bytes(flatbuffer.to_bytes(graph)).ops == graph.ops


def test_the_file_computes_the_integers_calculated_by_hand():
    content = flatbuffer.to_bytes(fully_connected())
    runner = Interpreter(model_content=content).get_signature_runner()
    x = np.array([[3, 1], [-1, -1], [9, 0]], np.int8)
    [y] = runner(**{"in": x}).values()
    # (x + 1) @ w.T + b, ReLU, + 3; the scales cancel.
    expected = np.maximum((x + 1) @ np.array([[1, 3], [2, -4]]) + [8, -16], 0) + 3
    np.testing.assert_array_equal(y, expected)


def test_a_probe_shows_intermediate_tensors():
    graph = fully_connected()
    graph.tensors["z"] = TFLiteTensor("z", (1, 2), "float32", dynamic_batch=True)
    graph.ops.append(TFLiteOp("DEQUANTIZE", ["y"], ["z"]))
    graph.outputs = {"out": "z"}
    probe = graph.with_outputs(["x", "y", "z"])
    assert probe.outputs == {"out": "z", "y": "y"}
    content = flatbuffer.to_bytes(probe)
    found = Interpreter(model_content=content).get_signature_runner()(
        **{"in": np.array([[3, 1]], np.int8)}
    )
    np.testing.assert_array_equal(found["out"], (found["y"] - 3.0) * 0.125)


@pytest.mark.parametrize(
    ("code", "dtype", "options", "version"),
    [
        ("CONV_2D", "int8", {}, 3),
        ("CONV_2D", "float32", {}, 1),
        ("DEPTHWISE_CONV_2D", "float32", {"dilation_h_factor": 2}, 2),
        ("FULLY_CONNECTED", "int8", {"keep_num_dims": True}, 5),
        ("FULLY_CONNECTED", "float32", {"keep_num_dims": True}, 5),
        ("QUANTIZE", "float32", {}, 1),
        ("DEQUANTIZE", "int8", {}, 2),
        ("RESHAPE", "int8", {}, 1),
    ],
)
def test_operators_have_the_versions_that_litert_expects(code, dtype, options, version):
    """Expected values: op_version.cc of google-ai-edge/LiteRT, 2026-08."""
    graph = TFLiteGraph({"x": TFLiteTensor("x", (1, 1, 1, 4), dtype)}, [], {}, {})
    op = TFLiteOp(code, ["x", "x", "x"], ["x"], options)
    assert tflite_operators.op_version(op, graph) == version


def test_a_mul_that_scales_up_needs_version_3():
    tensors = {
        "x": TFLiteTensor("x", (1,), "int8", quantization(2.0)),
        "c": TFLiteTensor("c", (1,), "int8", quantization(1.0)),
        "y": TFLiteTensor("y", (1,), "int8", quantization(1.0)),
    }
    graph = TFLiteGraph(tensors, [], {}, {})
    assert tflite_operators.op_version(TFLiteOp("MUL", ["x", "c"], ["y"]), graph) == 3
    assert tflite_operators.op_version(TFLiteOp("MUL", ["c", "c"], ["x"]), graph) == 2


def test_unknown_operators_are_refused():
    graph = TFLiteGraph({"x": TFLiteTensor("x", (1,), "int8")}, [], {}, {})
    with pytest.raises(ValueError, match="Received: LSTM"):
        tflite_operators.op_version(TFLiteOp("LSTM", ["x"], ["x"]), graph)


def test_truncated_and_random_bytes_raise_value_errors(rng):
    content = flatbuffer.to_bytes(fully_connected())
    for length in range(len(content)):
        with pytest.raises(ValueError, match="readable"):
            flatbuffer.from_bytes(content[:length])
    for _ in range(200):
        garbage = bytearray(rng.bytes(200))
        garbage[4:8] = flatbuffer.IDENTIFIER
        with pytest.raises(ValueError, match="readable"):
            flatbuffer.from_bytes(bytes(garbage))


@pytest.mark.parametrize(
    "name", ["pretrainedResnet.tflite", "pretrainedResnet_quant.tflite"]
)
def test_files_from_other_tools_can_be_read(name, real_data):
    content = (real_data / "models/mlperf_tiny/ic_resnet8" / name).read_bytes()
    graph = flatbuffer.from_bytes(content)
    assert [op.code for op in graph.ops].count("CONV_2D") == 9
    assert len(graph.inputs) == len(graph.outputs) == 1
