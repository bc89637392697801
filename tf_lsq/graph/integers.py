"""Integer tensors of a model: pixels, which are quantized, and ids, which are not.

A model may read whole numbers. Pixels are values like any other: their input is
quantized. Ids, lengths, shapes and indices are not: they stay integers in the file,
and what computes them is left as it is.
"""

from __future__ import annotations

from .lowering import Call
from .nodes import ForeignCall, Graph, Node, Slot

COMPUTES_INTEGERS = "it computes with integers, not with values"
COMPUTES_COMPLEX = "it computes with complex numbers"
_LOOKUPS = ("Embedding",)  # Layers that take whole numbers of any type.


def reads_only_shapes(call: Call) -> bool:
    """Returns whether a call computes with nothing but the shapes of tensors."""
    return bool(call.sources) and all(source.of_shapes for source in call.sources)


def computes_integers(call: Call) -> bool:
    """Returns whether a lowered call computes integers that have no step.

    It does, unless it only moves the values of an input, which may hold pixels; or
    takes them as values.
    """
    if any(node.kind in ("input", "arg_max", "embedding") for node in call.nodes):
        return False
    inner = set(call.nodes)
    sources = [s for node in call.nodes for s in node.inputs if s not in inner]
    ids = [s for s in sources if s.is_integer and not _moves_input(s)]
    if not call.dtype.is_integer and not call.dtype.is_bool:
        return bool(ids)
    moves = all(node.properties.keeps_codes for node in call.nodes)
    return bool(ids) or not (moves and all(s.is_integer for s in sources))


def _moves_input(node: Node) -> bool:
    """Returns whether an integer tensor is an input, or moves the values of one."""
    if node.kind == "input":
        return True
    moves = node.properties.keeps_codes
    return moves and node.is_integer and all(map(_moves_input, node.inputs))


def settle_integers(graph: Graph) -> None:
    """Decides for every integer tensor that comes from an input: pixels or ids?

    Operators that move ids become foreign: their tensors have no step.

    Args:
        graph: A graph that is connected, but not yet fused.
    """
    _settle_tables(graph)
    pixels = _pixels(graph)
    for node in graph.nodes:
        if node.is_integer and node not in pixels and _moves_input(node):
            if node.kind != "input":
                make_foreign(node)
    for node in graph.nodes:
        for source in node.inputs:
            if looks_up(node) and not (source.is_integer or source.kind == "input"):
                problem = (
                    f"`{node.origin}`: it looks up rows by numbers that the model "
                    f"computes (`{source.origin}`), which quantization changes; let it "
                    "read an input, or an integer tensor"
                )
                graph.problems.append((source, problem))


def _settle_tables(graph: Graph) -> None:
    """Makes embeddings of a quantized model foreign that are left in float."""
    if not any(node.kind == "point" for node in graph.nodes):
        return
    for node in graph.nodes:
        if node.kind != "embedding":
            continue
        points = [r for r in node.consumers if r.kind == "point"]
        in_float = points != node.consumers or points[0].layer.float_input
        if in_float:
            make_foreign(node)


def looks_up(node: Node) -> bool:
    """Returns whether a layer reads its input as row numbers, whatever its type."""
    layer = node.layer
    name = getattr(layer, "keras3_class_name", type(layer).__name__)
    return node.kind in ("foreign", "embedding") and name in _LOOKUPS


def takes_as_is(reader: Node, source: Node) -> bool:
    """Returns whether a layer reads a tensor as integers, which have no step."""
    return looks_up(reader) or (reader.kind == "foreign" and source.is_integer)


def make_foreign(node: Node) -> None:
    """Makes an operator one that only its Keras layer computes."""
    if node.foreign is None:
        slots = [Slot(number) for number in range(len(node.inputs))]
        argument = slots if len(slots) > 1 else slots[0]
        node.foreign = ForeignCall((argument,), dict(node.call_kwargs))
    node.kind = "foreign"


def _pixels(graph: Graph) -> set[Node]:
    """Returns the operators of integer type whose outputs are quantized.

    They move the values of an input, and an operator that computes values reads them.
    """
    read: set[Node] = set()
    for node in reversed(graph.nodes):
        readers = [c for c in node.consumers if not takes_as_is(c, node)]
        if any(not c.is_integer or c in read for c in readers):
            read.add(node)
    return {node for node in read if node.is_integer and _moves_input(node)}
