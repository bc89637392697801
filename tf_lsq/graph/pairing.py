"""Pairs the operators of a float model with the tensors of the model quantized from it.

Both have the same operators; in the quantized model there are points between them, and
a point may have replaced a ReLU. After inputs that are pixels, a point may also have
replaced a scaling, or there may be a scaling and a reversal of channels that are not in
the float model. So the two graphs are walked side by side, from the outputs, and no
names are compared.
"""

from __future__ import annotations

import tensorflow as tf

from ..layers import PixelPoint
from .nodes import Graph, Node
from .norm_folding import fold_norm
from .normalizing import NORMALIZE, Norm
from .rewriting import is_scaling


def paired_tensors(graph: Graph, student: Graph) -> dict[Node, Node]:
    """Returns, for every operator of a float model, the tensor that stands for it.

    Args:
        graph: The fused graph of the float model.
        student: That of the quantized model.

    Returns:
        Operator -> the quantization point right after it in the quantized model, or the
        operator there if the tensor has no grid of its own.

    Raises:
        ValueError: If the models do not have the same operators.
    """
    for what in ("inputs", "outputs"):
        number = len(getattr(student, what))
        if number != len(getattr(graph, what)):
            raise _not_its_student(graph, f"{number} {what}")
    tensors: dict[Node, Node] = {}
    waiting = list(zip(graph.outputs, student.outputs, strict=True))
    while waiting:
        node, tensor = waiting.pop()
        if node in tensors:
            continue
        points, operator = _points_before(tensor)
        absorbing = [point for point in points if point.layer.absorbed_relu is not None]
        if node.kind == "relu" and operator.kind != "relu" and absorbing:
            tensors[node], sources = absorbing[0], absorbing[0].inputs
        elif node.kind == NORMALIZE and operator.kind != "foreign":
            tensors[node] = _quantized(operator, points)
            sources = [_source_of_norm(graph, node, operator)]
        elif (node.kind == "input") != (operator.kind == "input"):
            tensors[node], sources = _of_pixels(graph, node, points, operator)
        elif _are_alike(node, operator):
            tensors[node], sources = _quantized(operator, points), operator.inputs
        else:
            found = f"`{operator.origin}` in place of `{node.origin}`"
            raise _not_its_student(graph, found)
        waiting += zip(node.inputs, sources, strict=True)
    return tensors


def _of_pixels(
    graph: Graph, node: Node, points: list[Node], operator: Node
) -> tuple[Node, list[Node]]:
    """Returns the tensor that stands for an operator, and its inputs, after pixels.

    Args:
        graph: The fused graph of the float model.
        node: Its input, which the student normalizes; or an operator after it, whose
            work the grid of the student's input does.
        points: The points after the student's operator, the last first.
        operator: That operator.

    Raises:
        ValueError: If the student's input is no pixels.
    """
    found = operator
    while found.kind != "input" and len(found.inputs) == 1:
        [found] = found.inputs
    first = found.consumers[0].layer if found.consumers else None
    if found.kind != "input" or not isinstance(first, PixelPoint):
        raise _not_its_student(
            graph, f"`{operator.origin}` in place of `{node.origin}`"
        )
    if node.kind == "input":
        return (points or [operator])[0], []
    if is_scaling(node) and points:
        return points[-1], [operator]
    return operator, [operator]


def _source_of_norm(graph: Graph, node: Node, operator: Node) -> Node:
    """Returns the tensor that the operators of a normalization read in a student.

    If the student's kernels have its gamma and beta, so have those of the float model
    afterwards: the outputs of both are the same then.

    Args:
        graph: The fused graph of the float model.
        node: Its normalization.
        operator: The last of the student's operators.

    Raises:
        ValueError: If they are no normalization.
    """
    norm: Norm = node.options["norm"]
    constants = ("affine", "add_constant", "multiply_constant")
    if operator.kind not in constants:
        fold_norm(graph, node)
    while operator.kind in (*constants, "reshape"):
        _, operator = _points_before(operator.inputs[0])
    kinds = {"multiply": True, "subtract": norm.centered, "reshape": norm.groups > 1}
    steps = [kind for kind, present in kinds.items() if present]
    for kind in steps:
        if operator.kind != kind:
            found = f"`{operator.origin}` in place of `{node.origin}`"
            raise _not_its_student(graph, found)
        source = operator.inputs[0]
        _, operator = _points_before(source)
    return source


def _points_before(tensor: Node) -> tuple[list[Node], Node]:
    """Returns the points that end in `tensor`, the last first, and their operator."""
    points = []
    while tensor.kind == "point":
        points.append(tensor)
        tensor = tensor.inputs[0]
    return points, tensor


def _are_alike(node: Node, other: Node) -> bool:
    """Returns whether an operator of a student can be one of its float model."""
    shapes = tf.TensorShape(node.shape), tf.TensorShape(other.shape)
    return len(node.inputs) == len(other.inputs) and shapes[0].is_compatible_with(
        shapes[1]
    )


def _quantized(operator: Node, points: list[Node]) -> Node:
    """Returns the point after an operator if it has its own, else the operator."""
    if operator.kind == "input" and points:
        grid = getattr(points[-1].layer, "pixel_grid", None)
        if grid is not None and grid.pixels != grid.of_itself().pixels:
            return operator  # The point has other values.
    passes_on = operator.properties.keeps_codes or operator.properties.joins
    if points and not passes_on and operator.consumers == [points[-1]]:
        return points[-1]
    return operator


def _not_its_student(graph: Graph, found: str) -> ValueError:
    """Returns the error for a student that was not made from the model."""
    return ValueError(
        f"`student` must have been quantized from `{graph.name}`. Received a student "
        f"with {found}. Pass the model that was given to `tf_lsq.quantize_model`."
    )
