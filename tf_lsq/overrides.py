"""The bits that a user chooses for single layers: `overrides` of `quantize_model`.

A pattern acts on the layers with a kernel that it matches: a number is the bits of
kernel and input, a pair those of each. Only if there are none, a number is the bits of
the outputs of the layers that it matches. So a pattern for a block, or a nested model,
changes kernels, and leaves the sums between them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from . import lsq
from .graph import Graph, Node

FLOAT = "float"
# Bits of kernel and input, or of an output; bits of kernel and of input; or "float".
Override = int | tuple[int, int] | str
_MOST = lsq.MAX_ACTIVATION_BITS
# Kinds whose output is on no grid that could be chosen.
_WITHOUT_GRID = ("input", "foreign", "arg_max", "point")


def checked_override(value: Any, name: str) -> Override:
    """Returns an override with plain integers.

    Args:
        value: What the user gave.
        name: What messages call it.

    Raises:
        ValueError: If it is neither bits, nor a pair of bits, nor "float".
    """
    if isinstance(value, str) and value == FLOAT:
        return FLOAT
    if not isinstance(value, tuple | list):
        return lsq.check_num_bits(value, name, _MOST)
    if len(value) != 2:
        raise ValueError(
            f"`{name}` must be bits, a pair (weight_bits, activation_bits), or "
            f"{FLOAT!r}. Received: {name}={value!r}."
        )
    weight, activation = value
    return (
        lsq.check_num_bits(weight, f"{name}[0]"),
        lsq.check_num_bits(activation, f"{name}[1]", _MOST),
    )


def chosen_overrides(
    graph: Graph, overrides: Mapping[str, Override] | None
) -> dict[Node, Override]:
    """Returns the override of every node that has one: the last that acts on it.

    Args:
        graph: The fused graph of a float model.
        overrides: Pattern -> checked override.
    """
    chosen: dict[Node, Override] = {}
    for pattern, value in (overrides or {}).items():
        matched = _matched(graph, pattern)
        if value == FLOAT:
            chosen |= dict.fromkeys(matched, FLOAT)
            continue
        kernels = [node for node in matched if node.properties.matmul]
        chosen |= dict.fromkeys(kernels, value)
        if isinstance(value, int) and not kernels:
            chosen |= {node: value for node in matched if not _why_not(node, value)}
    return chosen


def check_overrides(graph: Graph, overrides: Mapping[str, Override] | None) -> None:
    """Refuses patterns that change nothing, or cannot change what they match.

    Args:
        graph: The fused graph of a float model.
        overrides: Pattern -> checked override.

    Raises:
        ValueError: If there are any; the error names them all.
    """
    problems = [
        problem
        for pattern, value in (overrides or {}).items()
        for problem in _problems(_matched(graph, pattern), pattern, value)
    ]
    if problems:
        nodes = [part for node in graph.nodes for part in (node, *node.fused)]
        names = list(dict.fromkeys(node.origin for node in nodes))
        raise ValueError(
            "Every pattern of `overrides` (a regular expression for whole layer "
            f"names) must match a layer. Received: {'; '.join(problems)}. Layers: "
            f"{names}."
        )


def _problems(matched: list[Node], pattern: str, value: Override) -> Iterator[str]:
    """Yields why a pattern cannot be applied to what it matches."""
    kernels = sorted({node.origin for node in matched if node.properties.matmul})
    if not matched:
        yield f"{pattern!r} matches no layer"
    elif isinstance(value, tuple) and not kernels:
        yield f"{pattern!r} matches no layer with a kernel"
    elif isinstance(value, int) and kernels and value > lsq.MAX_NUM_BITS:
        most = lsq.MAX_NUM_BITS
        yield (
            f"{pattern!r}: {value} matches {kernels}, whose kernels have at most "
            f"{most} bits: give a pair, such as ({most}, {value}), or match only "
            "layers without a kernel"
        )
    elif isinstance(value, int) and not kernels:
        # One of the operators of a layer must take the bits.
        reasons: dict[str, list[str]] = {}
        for node in matched:
            reasons.setdefault(node.origin, []).append(_why_not(node, value))
        for origin, own in reasons.items():
            if all(own):
                why = f"`{origin}` {own[-1]}"
                yield f"{pattern!r} matches no layer with a kernel, and {why}"


def _why_not(node: Node, num_bits: int) -> str:
    """Returns why the output of an operator cannot have so many bits, "" if it can."""
    kind = node.properties
    if "bits" in node.options:
        return "has bits of its own"
    if kind.wide_step and num_bits == _MOST and node.is_output and not node.consumers:
        return f"({node.kind}) is an output, which has {lsq.MAX_NUM_BITS} bits"
    if kind.wide_step and num_bits in (lsq.MAX_NUM_BITS, _MOST):
        return ""
    if kind.wide_step:
        return f"({node.kind}) has {lsq.MAX_NUM_BITS} or {_MOST} bits"
    if node.kind in _WITHOUT_GRID or kind.fixed_step or "pixel_grid" in node.options:
        return "has no grid that could have other bits"
    if kind.keeps_codes or kind.keeps_grid:
        return "has the grid of its input"
    if num_bits > lsq.MAX_NUM_BITS and not kind.int16:
        return f"({node.kind}) is not computed in int16"
    return ""


def _matched(graph: Graph, pattern: str) -> list[Node]:
    """Returns the nodes that a pattern matches, without inputs."""
    return [
        node
        for node in graph.nodes
        if not (node.kind == "input" or node.options.get("of_input"))
        and any(re.fullmatch(pattern, name) for name in names_of(node))
    ]


def names_of(node: Node) -> list[str]:
    """Returns the names of the user's layers that make up a node.

    A layer of a nested model has the names "model/layer", "layer" and "model".

    Args:
        node: An operator of the graph.
    """
    paths = [node.origin, *(fused.origin for fused in node.fused)]
    names = [*paths, *(path.split("/")[-1] for path in paths)]
    for path in paths:
        parts = path.split("/")
        names += ["/".join(parts[:end]) for end in range(1, len(parts))]
    return list(dict.fromkeys(names))
