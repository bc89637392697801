"""Files get uint8 ends that carry the integers of the int8 ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from harness import tiny

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    as_int8,
    as_uint8,
    quantized_input,
    with_uint8_ends,
)
from tflite_export.runtimes import KERNELS, Runner


def test_codes_are_converted_both_ways():
    signed, unsigned = np.arange(-128, 128).astype(np.int8), np.arange(256)
    found = as_uint8(signed)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, unsigned)
    assert as_int8(found).dtype == np.int8
    np.testing.assert_array_equal(as_int8(found), signed)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_file_with_uint8_ends_computes_the_same_integers(rng, kernels):
    student, _ = tiny.calibrated(tiny.residual, rng)
    graph = tiny.built(student).graph
    codes = rng.integers(-128, 128, (4, 8, 8, 3)).astype(np.int8)
    own = Runner(graph, kernels).run({"image": codes})
    found = Runner(with_uint8_ends(graph), kernels).run({"image": as_uint8(codes)})
    assert found["scores"].dtype == np.uint8
    np.testing.assert_array_equal(found["scores"], as_uint8(own["scores"]))


def test_only_int8_ends_change_and_each_tensor_once(rng):
    student, _ = tiny.calibrated(tiny.residual, rng)
    graph = tiny.built(student).graph
    same = {"same": graph.outputs["scores"]}
    twice = dataclasses.replace(graph, outputs=graph.outputs | same)
    changed = with_uint8_ends(twice)
    assert changed.outputs["scores"] == changed.outputs["same"]
    assert len(changed.ops) == len(graph.ops) + 2
    assert with_uint8_ends(changed) == dataclasses.replace(changed)
    assert graph.inputs == {"image": "image"}  # The argument stays as it was.
    tensor = changed.tensors[changed.inputs["image"]]
    own = graph.tensors["image"]
    assert tensor.quantization.zero_point == own.quantization.zero_point + 128
    assert tensor.dynamic_batch == own.dynamic_batch


def test_the_codes_of_an_input_are_those_of_the_quantize_that_alone_reads_it(rng):
    student, _ = tiny.calibrated(tiny.residual, rng)
    graph = tiny.built(student, input_type="uint8").graph
    tensor = graph.inputs["image"]
    inner = quantized_input(graph, tensor)
    assert inner is not None and graph.tensors[inner].dtype == "int8"
    assert quantized_input(graph, inner) is None
    more = dataclasses.replace(graph, ops=[*graph.ops, TFLiteOp("ABS", [tensor], [])])
    assert quantized_input(more, tensor) is None


def test_a_tensor_that_is_both_ends():
    grid = TensorQuantization(np.array([0.5], np.float32), 3)
    tensors = {"x": TFLiteTensor("x", (1, 4), "int8", grid)}
    graph = with_uint8_ends(TFLiteGraph(tensors, [], {"x": "x"}, {"y": "x"}))
    codes = np.array([[0, 1, 128, 255]], np.uint8)
    np.testing.assert_array_equal(Runner(graph).run({"x": codes})["y"], codes)


def test_an_end_without_a_scale_is_refused_by_name():
    tensors = {name: TFLiteTensor(name, (1, 4), "int8") for name in ("x", "y")}
    op = TFLiteOp("ABS", ["x"], ["y"])
    with pytest.raises(ValueError, match="Received none for 'x'"):
        with_uint8_ends(TFLiteGraph(tensors, [op], {"x": "x"}, {"y": "y"}))
