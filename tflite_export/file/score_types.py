"""What the numbers of an output are, by the operators that compute it."""

from __future__ import annotations

from .standard_metadata import LOGITS, PROBABILITIES
from .tflite_graph import TFLiteGraph, TFLiteTensor

# Operators that turn scores into probabilities, and the functions that they compute.
_FUNCTIONS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
# Operators that keep what a number means.
_MOVING = {
    *("QUANTIZE", "DEQUANTIZE", "RESHAPE", "CONCATENATION", "TRANSPOSE", "SQUEEZE"),
    *("EXPAND_DIMS", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
}
# Operators whose output has the values of its first input.
_CONVERTING = ("DEQUANTIZE", "RESHAPE")


def score_function(graph: TFLiteGraph, tensor: str) -> str:
    """Returns the function that computes a tensor: "softmax", "sigmoid" or "logits".

    Args:
        graph: A file.
        tensor: A tensor; parts that are put together must have one function.

    Returns:
        "logits" for any other function, and for several.
    """
    producers, found, seen, waiting = (
        graph.producers(),
        set[str](),
        set[str](),
        [tensor],
    )
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        op = producers.get(name)
        if op is not None and op.code in _MOVING:
            parts = op.inputs if op.code == "CONCATENATION" else op.inputs[:1]
            waiting += [x for x in parts if x and graph.tensors[x].data is None]
        else:
            found.add(_FUNCTIONS.get("" if op is None else op.code, LOGITS))
    return found.pop() if len(found) == 1 else LOGITS


def score_type_of(graph: TFLiteGraph, tensor: str) -> str:
    """Returns which of `standard_metadata.SCORE_TYPES` the scores in a tensor have.

    Args:
        graph: A file.
        tensor: A tensor.
    """
    return LOGITS if score_function(graph, tensor) == LOGITS else PROBABILITIES


def tensor_with_grid(graph: TFLiteGraph, tensor: str) -> TFLiteTensor | None:
    """Returns the tensor with a grid whose values a tensor has; None: none is known.

    Args:
        graph: A file.
        tensor: A tensor.
    """
    for op in reversed(graph.ops):
        if graph.tensors[tensor].quantization is not None:
            break
        if tensor in op.outputs:
            if op.code not in _CONVERTING or not op.inputs:
                return None
            tensor = op.inputs[0]
    found = graph.tensors[tensor]
    return None if found.quantization is None else found
