"""Explains NaN and infinite values in front of quantization points."""

from __future__ import annotations

from collections.abc import Iterable

from .._compat import keras
from ..graph import Node, analyze, override_for


def explained(model: keras.Model, names: Iterable[str]) -> str:
    """Returns where values are lost, and what to do.

    Values that are lost once are lost in all that is computed from them: only the
    first places are named.

    Args:
        model: A quantized model.
        names: Names of the points that received NaN or infinite values.
    """
    lost, behind = set(names), 0
    first: dict[str, None] = {}
    read: dict[str, str] = {}
    for point in analyze(model).nodes:
        if point.kind != "point" or point.layer.name not in lost:
            continue
        region = _computed_after_points(point)
        read_by = [point, *region]
        sources = [n for node in read_by for n in node.inputs if n.kind == "point"]
        if any(source.layer.name in lost for source in sources):
            behind += 1
            continue
        first[f"`{_operator(point).origin}`"] = None
        dividing = [node for node in region if node.kind in ("foreign", "table")]
        if dividing:
            tables = [node for node in dividing if node.kind == "table"]
            read |= {
                override_for(operator): "float"
                for operator in [*map(_operator, sources), *tables]
                if operator.kind != "input"
            }
    text = f"NaN or infinite values at: {', '.join(first)}"
    if behind:
        text += f" (and at {behind} points after)"
    text += ". Check the data and the weights of the float model"
    if read:
        text += (
            ", and what divides by a small value, or has no finite result for 0: "
            "quantization can round a value to 0. To keep it, and what it reads, in "
            f"float: overrides={read}"
        )
    return text


def _operator(point: Node) -> Node:
    """Returns the operator in front of a point."""
    while point.kind == "point":
        [point] = point.inputs
    return point


def _computed_after_points(point: Node) -> list[Node]:
    """Returns the operators between a point and the nearest points before it."""
    found: dict[Node, None] = {}
    waiting = [n for n in point.inputs if n.kind != "point"]
    while waiting:
        node = waiting.pop()
        found[node] = None
        waiting += [n for n in node.inputs if n.kind != "point" and n not in found]
    return list(found)
