"""What the outputs of a file mean, by their shapes and operators."""

from __future__ import annotations

import numpy as np
import pytest

from tflite_export.demo.outputs import read_outputs
from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    ends_of,
)

GRID = TensorQuantization(np.array([1 / 256], np.float32), 0)


def read(box_format=None, dtype="uint8", **outputs):
    """The meaning of a file's outputs: name -> (shape, operators before it)."""
    tensors, ops = {}, []
    for name, (shape, codes) in outputs.items():
        chain = [f"{name}{i}" for i in range(len(codes))] + [name]
        tensors |= {t: TFLiteTensor(t, shape, dtype, GRID) for t in chain}
        ops += [
            TFLiteOp(code, [chain[i]], [chain[i + 1]]) for i, code in enumerate(codes)
        ]
    graph = TFLiteGraph(tensors, ops, {}, {name: name for name in outputs})
    return read_outputs(graph, ends_of(graph, graph.outputs), box_format)


@pytest.mark.parametrize(
    ("shape", "task", "count"),
    [((1, 10), "classes", 10), ((1, 1, 1, 10), "classes", 10), ((1, 1), "classes", 1),
     ((1, 8, 6, 3), "mask", 3), ((1, 8, 6, 1), "mask", 1)],
)  # fmt: skip
def test_the_shape_says_what_is_shown(shape, task, count):
    found = read(y=(shape, ["SOFTMAX"]))
    assert (found.task, found.num_classes, found.boxes) == (task, count, None)


@pytest.mark.parametrize(
    ("codes", "meaning"),
    [
        (["SOFTMAX"], "softmax"),
        (["FULLY_CONNECTED", "SOFTMAX", "QUANTIZE"], "softmax"),
        (["LOGISTIC", "RESHAPE", "DEQUANTIZE"], "sigmoid"),
        (["FULLY_CONNECTED"], "logits"),
        (["SOFTMAX", "MUL"], "logits"),
        ([], "logits"),
    ],
)
def test_the_last_operator_says_what_scores_are(codes, meaning):
    assert read(y=((1, 10), codes)).meaning == meaning


def test_parts_of_scores_must_have_one_meaning():
    tensors = {n: TFLiteTensor(n, (1, 2), "uint8", GRID) for n in "abcdy"}
    parts = [TFLiteOp("LOGISTIC", ["a"], ["c"]), TFLiteOp("LOGISTIC", ["b"], ["d"])]
    joined = TFLiteOp("CONCATENATION", ["c", "d"], ["y"])
    for ops, meaning in (([*parts, joined], "sigmoid"), ([parts[0], joined], "logits")):
        graph = TFLiteGraph(tensors, ops, {}, {"y": "y"})
        found = read_outputs(graph, ends_of(graph, graph.outputs), None)
        assert found.meaning == meaning


def test_operators_that_read_themselves_end_the_search():
    tensors = {"y": TFLiteTensor("y", (1, 2), "uint8", GRID)}
    op = TFLiteOp("QUANTIZE", ["y"], ["y"])
    graph = TFLiteGraph(tensors, [op], {}, {"y": "y"})
    found = read_outputs(graph, ends_of(graph, graph.outputs), None)
    assert found.meaning == "logits"


def test_boxes_need_their_order_and_probabilities():
    boxes, scores = ((1, 16, 4), ["RESHAPE"]), ((1, 16, 2), ["LOGISTIC"])
    found = read("xyxy", boxes=boxes, scores=scores)
    assert (found.task, found.box_format, found.num_classes) == ("boxes", "xyxy", 2)
    assert found.boxes.name == "boxes" and found.scores.name == "scores"
    with pytest.raises(ValueError, match=r"`boxes` must be one of.*'boxes' \[1, 16, 4"):
        read(boxes=boxes, scores=scores)
    with pytest.raises(ValueError, match=r"sigmoid or a softmax.*'scores'"):
        read("xyxy", boxes=boxes, scores=((1, 16, 2), ["MUL"]))
    with pytest.raises(ValueError, match="`boxes` must be one of"):
        read("corners", boxes=boxes, scores=scores)
    with pytest.raises(ValueError, match="must be left out"):
        read("xyxy", y=((1, 10), []))


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": (1, 10), "b": (1, 10)},
        {"a": (1, 5, 10)},
        {"a": (1, 16, 4)},
        {"boxes": (1, 16, 4), "scores": (1, 8, 2)},
        {"boxes": (1, 16, 4), "scores": (1, 16, 2), "count": (1, 1)},
    ],
)
def test_other_outputs_are_refused_with_their_shapes(outputs):
    with pytest.raises(ValueError, match=f"Received '{next(iter(outputs))}': uint8"):
        read("yxyx", **{k: (shape, ["LOGISTIC"]) for k, shape in outputs.items()})


def test_class_numbers_are_refused():
    with pytest.raises(ValueError, match="'y': int32"):
        read(dtype="int32", y=((1, 10), []))
