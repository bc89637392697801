"""Plans where quantization points go, and how many bits they have.

TFLite holds one integer tensor per edge of its fused graph. A tensor gets a
quantization point after the operator that produces it, with the bits its consumers
need, or those that the user chose for it. An operator that needs fewer bits, or a zero
point of 0, and shares a tensor with others gets an extra point before it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from . import lsq
from .graph import SCORE_BITS, Graph, Node, least_step, takes_as_is
from .pixels import PixelGrid
from .policy import Bits

# Activations that an unsigned point computes itself.
_ABSORBED = ("relu", "relu6")


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
        is_output: Whether it defines the grid of an output of the model.
        pixel_grid: Grid of 256 integers that bytes prescribe, see `pixel_inputs`.
        symmetric: Whether a reader needs a zero point of 0: 8 bits of a tensor that
            cannot be negative are then 0..127.
        wide: Whether it has more bits than values need, and its step is larger at first
            than those of the first batch do.
        mask: Which scores are kept, for scores that a mask excludes from a softmax.
        min_step: Smallest step; 0: any.
    """

    name: str
    num_bits: int
    signed: bool | None
    trainable: bool = True
    fixed_step: float | None = None
    float_input: bool = False
    absorbed_relu: str | None = None
    max_value: float | None = None
    is_output: bool = False
    pixel_grid: PixelGrid | None = None
    symmetric: bool = False
    wide: bool = False
    mask: Any = None
    min_step: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Demand:
    """What a reader needs of a tensor.

    Attributes:
        num_bits: Bits of one integer.
        symmetric: Whether the zero point must be 0.
    """

    num_bits: int
    symmetric: bool = False


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
    return _Planner(graph, bits).plan()


class _Planner:
    """Decides on points one after another: joins first, extra points last."""

    def __init__(self, graph: Graph, bits: Mapping[Node, Bits]) -> None:
        self._nodes, self._bits = graph.nodes, bits
        self._demands = _demands(graph, bits)
        self._plan = Plan()
        self._extra: dict[tuple[Node, _Demand], PointSpec] = {}

    def plan(self) -> Plan:
        """Returns the plan of the whole graph."""
        for node in self._nodes:
            if node.properties.joins and not self._bits[node].is_float:
                self._add_join(node)
        for node in self._nodes:
            if not self._bits[node].is_float:
                self._add_extra(node)
            if node not in self._plan.after and _needs_point(node, self._bits):
                self._plan.after[node] = self._point_after(node)
        for node in self._nodes:
            if node.is_output:
                self._mark_output(node)
        self._check_inputs()
        return self._plan

    def _add_join(self, node: Node) -> None:
        """Adds the one grid that all inputs of a concatenation or maximum share."""
        nonnegative = node.nonnegative()
        point = PointSpec(
            name=f"quantize_{node.name}",
            num_bits=self._bits_after(node),
            signed=None if nonnegative is None else not nonnegative,
            trainable=node.layer.trainable,
            symmetric=self._all_need_symmetric(node),
        )
        for source in node.inputs:
            free = not (
                source.properties.keeps_codes
                or source.properties.keeps_grid
                or source.properties.joins
                or source.properties.fixed_step
                or source.is_output
                or "limits" in source.options
                or "pixel_grid" in source.options
                or self._bits[source].is_float
                or point.num_bits > self._bits[source].most
                or self._bits[source].output not in (None, point.num_bits)
            )
            if free and set(source.consumers) == {node}:
                self._plan.after[source] = point
            else:
                self._plan.between[node, source] = point

    def _point_after(self, node: Node) -> PointSpec:
        """Returns the point after one operator."""
        is_float = self._bits[node].is_float
        if node.kind == "mask" and not is_float:
            return _masked_point(node)
        if node.properties.keeps_grid and not is_float:
            grid = self._grid(node.inputs[0], node)
            if grid is None:
                raise TypeError(
                    f"`{node.name}` keeps the grid of an input without one."
                )
            if grid.pixel_grid is None:
                return grid
            return _pixel_point(f"quantize_{node.name}", grid.pixel_grid.of_itself())
        if "pixel_grid" in node.options and not is_float:
            return _pixel_point(f"quantize_{node.name}", node.options["pixel_grid"])
        fixed = None if is_float else _fixed_step(node, self._bits[node])
        nonnegative = node.nonnegative()
        relu = None if is_float or node.shared else node.activation
        absorbs = relu in _ABSORBED
        own_relu = [n for n in (node, *node.fused) if n.kind == "relu"]
        name = own_relu[0].layer_name if absorbs and own_relu else None
        return PointSpec(
            name=name or f"quantize_{node.name}",
            num_bits=_fixed_bits(self._bits[node]) if fixed else self._bits_after(node),
            signed=None if nonnegative is None else not nonnegative,
            trainable=_is_trainable(node),
            fixed_step=fixed,
            float_input=is_float,
            absorbed_relu=node.name if absorbs else None,
            max_value=_largest(node) if absorbs else None,
            symmetric=self._all_need_symmetric(node) and fixed is None,
            wide=node.options.get("bits", 0) > lsq.MAX_NUM_BITS,
        )

    def _bits_after(self, node: Node) -> int:
        """Returns the bits of the point after an operator, or that it joins."""
        chosen, most = self._bits[node].output, self._bits[node].most
        needed = max(demand.num_bits for demand in self._demands[node])
        return min(needed, most) if chosen is None else chosen

    def _all_need_symmetric(self, node: Node) -> bool:
        """Returns whether every reader needs a zero point of 0."""
        return all(demand.symmetric for demand in self._demands[node])

    def _add_extra(self, node: Node) -> None:
        """Adds points before an operator that does not read the grids of its inputs."""
        for position, source in enumerate(node.inputs):
            grid = self._grid(source, node)
            known = (node, source) in self._plan.between or node.kind == "mask"
            if grid is None or known:
                continue
            demand = self._demand(node, position, grid)
            if demand is None:
                continue
            if (source, demand) not in self._extra:
                self._extra[source, demand] = PointSpec(
                    name=_extra_name(source, demand),
                    num_bits=demand.num_bits,
                    signed=grid.signed,
                    trainable=grid.trainable,
                    symmetric=demand.symmetric,
                )
            self._plan.between[node, source] = self._extra[source, demand]

    def _demand(self, node: Node, position: int, grid: PointSpec) -> _Demand | None:
        """Returns what an operator needs instead of the grid of an input, if anything.

        A tensor that can be negative has the zero point 0, once its point knows.
        """
        symmetric = position in node.properties.symmetric_inputs and not grid.symmetric
        if symmetric and grid.signed and grid.fixed_step is None:
            grid.symmetric, symmetric = True, False
        most = self._bits[node].most
        if node.properties.matmul:
            most = self._bits[node].activation
        if grid.num_bits <= most and not symmetric:
            return None
        return _Demand(min(grid.num_bits, most), symmetric)

    def _check_inputs(self) -> None:
        """Refuses operators that need 16-bit inputs and cannot get them.

        Raises:
            ValueError: If there are any; the error names them all.
        """
        offending = []
        for node in self._nodes:
            needed = self._bits[node].activation
            if self._bits[node].is_float or needed <= lsq.MAX_NUM_BITS:
                continue
            grid = self._grid(node.inputs[0], node)
            if grid is not None and grid.num_bits <= lsq.MAX_NUM_BITS:
                offending.append(
                    f"`{node.origin}` needs {needed} bits, and `{grid.name}` before it "
                    f"has {grid.num_bits}"
                )
        if offending:
            raise ValueError(
                f"Inputs of more than {lsq.MAX_NUM_BITS} bits must come from layers "
                "that are computed in int16, with bits that no other setting limits. "
                f"Received: {'; '.join(offending)}. Change the `overrides` of these "
                "layers."
            )

    def _mark_output(self, node: Node) -> None:
        """Marks the point that defines the grid of an output, if there is one."""
        while node not in self._plan.after:
            if not (node.properties.keeps_codes or node.properties.joins):
                return
            source = node.inputs[0]
            if (node, source) in self._plan.between:
                self._plan.between[node, source].is_output = True
                return
            node = source
        self._plan.after[node].is_output = True

    def _grid(self, source: Node, consumer: Node) -> PointSpec | None:
        """Returns the point that defines the grid of the tensor between two nodes.

        None for a tensor without one: in float, or of integers.
        """
        if (consumer, source) in self._plan.between:
            return self._plan.between[consumer, source]
        if source in self._plan.after:
            return self._plan.after[source]
        if not source.inputs or self._bits[source].is_float:
            return None
        return self._grid(source.inputs[0], source)


def _fixed_step(node: Node, bits: Bits) -> float | None:
    """Returns the step that TFLite prescribes for an output, None if it is free."""
    wide = _fixed_bits(bits) > lsq.MAX_NUM_BITS
    return node.properties.wide_step if wide else node.properties.fixed_step


def _fixed_bits(bits: Bits) -> int:
    """Returns the bits of an output whose step TFLite prescribes."""
    return lsq.MAX_NUM_BITS if bits.output is None else bits.output


def _extra_name(source: Node, demand: _Demand) -> str:
    """Returns the name of an extra point."""
    suffix = "_symmetric" if demand.symmetric else ""
    return f"quantize_{source.name}_to_{demand.num_bits}_bits{suffix}"


def _pixel_point(name: str, grid: PixelGrid) -> PointSpec:
    """Returns a point on a grid that bytes prescribe."""
    return PointSpec(
        name,
        lsq.MAX_NUM_BITS,
        signed=grid.zero > 0,
        fixed_step=grid.step,
        pixel_grid=grid,
    )


def _masked_point(node: Node) -> PointSpec:
    """Returns the point of scores, some of which are masked."""
    beta = min(reader.options.get("beta", 1.0) for reader in node.consumers)
    return PointSpec(
        f"quantize_{node.name}",
        SCORE_BITS,
        signed=True,
        mask=node.options["mask"],
        min_step=least_step(beta),
    )


def _is_trainable(node: Node) -> bool:
    """Returns whether the user trains the layers of an operator.

    A constant of the user's model is never trained, and freezes no step after it.
    """
    owned = node.all_layers[1:] if node.options.get("constant") else node.all_layers
    return all(layer.trainable for layer in owned)


def _largest(node: Node) -> float | None:
    """Returns the largest value of an operator with a ReLU, None if it has none."""
    if node.activation == "relu6":
        return 6.0
    largest = node.options.get("limits", (0.0, math.inf))[1]
    return None if math.isinf(largest) else largest


def _demands(graph: Graph, bits: Mapping[Node, Bits]) -> dict[Node, set[_Demand]]:
    """Returns what the readers of every node need."""
    demands: dict[Node, set[_Demand]] = {}
    for node in reversed(graph.nodes):
        at_an_end = node.is_output or node.kind == "input" or not node.consumers
        wanted = {_Demand(lsq.MAX_NUM_BITS)} if at_an_end else set()
        for consumer in node.consumers:
            passes_on = consumer.properties.keeps_codes or consumer.properties.joins
            if passes_on and not bits[consumer].is_float:
                wanted |= demands[consumer]
                continue
            wanted |= {
                _Demand(
                    bits[consumer].activation,
                    position in consumer.properties.symmetric_inputs,
                )
                for position, source in enumerate(consumer.inputs)
                if source is node
            }
        demands[node] = wanted
    return demands


def _is_only_masked(node: Node, bits: Mapping[Node, Bits]) -> bool:
    """Returns whether nothing reads an output but masks, which have their own grids."""
    readers = node.consumers
    masks = all(r.kind == "mask" and not bits[r].is_float for r in readers)
    return bool(readers) and masks and not node.is_output and node.kind != "input"


def _needs_point(node: Node, bits: Mapping[Node, Bits]) -> bool:
    """Returns whether the output of a node becomes a new integer tensor."""
    if node.kind in ("foreign", "arg_max") and node.is_integer:
        return False
    if node.kind == "mask" and not bits[node].is_float:
        return True
    if not bits[node].is_float and _is_only_masked(node, bits):
        return False
    if node.kind == "input" and node.consumers:
        return not all(takes_as_is(reader, node) for reader in node.consumers)
    if bits[node].is_float:
        return node.is_output or any(not bits[n].is_float for n in node.consumers)
    if node.properties.fixed_step and node.is_output and not node.consumers:
        return False  # The loss needs unrounded probabilities.
    return not (node.properties.keeps_codes or node.properties.joins)
