"""Plans where quantization points go, and how many bits they have.

TFLite holds one integer tensor per edge of its fused graph. A tensor gets a
quantization point after the operator that produces it, with the bits its consumers
need. A low-bit operator that shares a tensor with others gets an extra point before
it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from . import lsq
from .graph import Graph, Node
from .policy import Bits

# Activations that an unsigned point computes itself -> their largest value.
_MAX_VALUES: dict[str | None, float | None] = {"relu": None, "relu6": 6.0}


@dataclasses.dataclass(eq=False)
class PointSpec:
    """One quantization point; places that share it share one step.

    Attributes:
        name: Name of the Keras layer.
        num_bits: Bits of one integer.
        signed: Whether values can be negative; None: the first batch decides.
        trainable: Whether the step trains.
        fixed_step: Grid prescribed by TFLite, or None.
        float_input: Whether the operator before it stays in float.
        absorbed_relu: Name of the ReLU before it that the point replaces.
        max_value: Largest value of that ReLU, None if it has none.
    """

    name: str
    num_bits: int
    signed: bool | None
    trainable: bool = True
    fixed_step: float | None = None
    float_input: bool = False
    absorbed_relu: str | None = None
    max_value: float | None = None


@dataclasses.dataclass
class Plan:
    """The quantization points of a model, by place.

    Attributes:
        after: Node -> the point after it.
        between: (consumer, producer) -> the extra point between them.
    """

    after: dict[Node, PointSpec] = dataclasses.field(default_factory=dict)
    between: dict[tuple[Node, Node], PointSpec] = dataclasses.field(
        default_factory=dict
    )


def plan_points(graph: Graph, bits: Mapping[Node, Bits]) -> Plan:
    """Returns where quantization points go, and how many bits they have.

    Args:
        graph: The fused graph of a float model.
        bits: The bits of every node.
    """
    demands = _demands(graph, bits)
    plan = Plan()
    for node in graph.nodes:
        if node.properties.joins and not bits[node].is_float:
            _plan_join(node, max(demands[node]), bits, plan)
    for node in graph.nodes:
        if node not in plan.after and _needs_point(node, bits):
            _plan_behind(node, max(demands[node]), bits[node].is_float, plan)
    extra: dict[tuple[Node, int], PointSpec] = {}
    for node in graph.nodes:
        if node.properties.matmul and not bits[node].is_float:
            _plan_between(node, bits[node].activation, plan, extra)
    return plan


def _demands(graph: Graph, bits: Mapping[Node, Bits]) -> dict[Node, set[int]]:
    """Returns the bits that the consumers of every node need."""
    demands: dict[Node, set[int]] = {}
    for node in reversed(graph.nodes):
        at_an_end = node.is_output or node.kind == "input" or not node.consumers
        wanted = {lsq.MAX_NUM_BITS} if at_an_end else set()
        for consumer in node.consumers:
            passes_on = consumer.properties.keeps_codes or consumer.properties.joins
            if passes_on and not bits[consumer].is_float:
                wanted |= demands[consumer]
            else:
                wanted.add(bits[consumer].activation)
        demands[node] = wanted
    return demands


def _needs_point(node: Node, bits: Mapping[Node, Bits]) -> bool:
    """Returns whether the output of a node becomes a new integer tensor."""
    if bits[node].is_float:
        return node.is_output or any(not bits[n].is_float for n in node.consumers)
    if node.properties.fixed_step and node.is_output and not node.consumers:
        return False  # The loss needs unrounded probabilities.
    return not (node.properties.keeps_codes or node.properties.joins)


def _plan_behind(node: Node, num_bits: int, is_float: bool, plan: Plan) -> None:
    """Plans the point after one operator."""
    if node.properties.keeps_grid and not is_float:
        plan.after[node] = _grid(plan, node.inputs[0], node)
        return
    fixed = None if is_float else node.properties.fixed_step
    nonnegative = node.nonnegative()
    relu = None if is_float or node.shared else node.activation
    absorbs = relu in _MAX_VALUES
    plan.after[node] = PointSpec(
        name=f"quantize_{node.name}",
        num_bits=lsq.MAX_NUM_BITS if fixed else num_bits,
        signed=None if nonnegative is None else not nonnegative,
        trainable=all(layer.trainable for layer in node.all_layers),
        fixed_step=fixed,
        float_input=is_float,
        absorbed_relu=node.name if absorbs else None,
        max_value=_MAX_VALUES[relu] if relu in _MAX_VALUES else None,
    )


def _plan_join(
    node: Node, num_bits: int, bits: Mapping[Node, Bits], plan: Plan
) -> None:
    """Plans the one grid that all inputs of a concatenation or maximum share."""
    nonnegative = node.nonnegative()
    point = PointSpec(
        name=f"quantize_{node.name}",
        num_bits=num_bits,
        signed=None if nonnegative is None else not nonnegative,
        trainable=node.layer.trainable,
    )
    for source in node.inputs:
        free = not (
            source.properties.keeps_codes
            or source.properties.keeps_grid
            or source.properties.joins
            or source.properties.fixed_step
            or source.is_output
            or bits[source].is_float
        )
        if free and set(source.consumers) == {node}:
            plan.after[source] = point
        else:
            plan.between[node, source] = point


def _plan_between(
    node: Node, num_bits: int, plan: Plan, extra: dict[tuple[Node, int], PointSpec]
) -> None:
    """Plans an extra point if the input has more bits than the operator needs."""
    [source] = node.inputs
    grid = _grid(plan, source, node)
    if grid.num_bits <= num_bits:
        return
    if (source, num_bits) not in extra:
        extra[source, num_bits] = PointSpec(
            name=f"quantize_{source.name}_to_{num_bits}_bits",
            num_bits=num_bits,
            signed=grid.signed,
            trainable=grid.trainable,
        )
    plan.between[node, source] = extra[source, num_bits]


def _grid(plan: Plan, source: Node, consumer: Node) -> PointSpec:
    """Returns the point that defines the grid of the tensor between two nodes."""
    if (consumer, source) in plan.between:
        return plan.between[consumer, source]
    if source in plan.after:
        return plan.after[source]
    return _grid(plan, source.inputs[0], source)
