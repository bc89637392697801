"""Integer tensors of a model: pixels, which are quantized, and ids, which are not.

A model may read whole numbers. Pixels are values like any other: their input is
quantized. Ids, lengths, shapes and indices are not: they stay integers in the file,
and what computes them is left as it is.
"""

from __future__ import annotations

from .nodes import ForeignCall, Graph, Node, Slot

_LOOKUPS = ("Embedding",)  # Layers that take whole numbers of any type.


def settle_integers(graph: Graph) -> None:
    """Decides for every tensor of an integer type whether it holds pixels or ids.

    Operators that compute ids become foreign: they have no integer form with a step.

    Args:
        graph: A graph that is connected, but not yet fused.
    """
    pixels = _pixels(graph)
    for node in graph.nodes:
        reads_ids = any(s.is_integer and s not in pixels for s in node.inputs)
        computes_ids = node.is_integer and node not in pixels
        if node.kind in ("input", "foreign", "arg_max"):
            continue
        if computes_ids or reads_ids:
            make_foreign(node)
            problem = f"`{node.origin}`: it computes with integers, not with values"
            graph.problems.append((node, problem))
    for node in graph.nodes:
        for source in node.inputs:
            if looks_up(node) and not (source.is_integer or source.kind == "input"):
                problem = (
                    f"`{node.origin}`: it looks up rows by numbers that the model "
                    f"computes (`{source.origin}`), which quantization changes; let it "
                    "read an input, or an integer tensor"
                )
                graph.problems.append((source, problem))


def looks_up(node: Node) -> bool:
    """Returns whether a layer reads its input as row numbers, whatever its type."""
    layer = node.layer
    name = getattr(layer, "keras3_class_name", type(layer).__name__)
    return node.kind == "foreign" and name in _LOOKUPS


def takes_as_is(reader: Node, source: Node) -> bool:
    """Returns whether a layer reads a tensor as integers, which have no step."""
    return reader.kind == "foreign" and (source.is_integer or looks_up(reader))


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
    plain: set[Node] = set()
    for node in graph.nodes:
        moves = node.properties.keeps_codes and all(s in plain for s in node.inputs)
        if node.is_integer and (node.kind == "input" or moves):
            plain.add(node)
    read: set[Node] = set()
    for node in reversed(graph.nodes):
        readers = [c for c in node.consumers if c.kind != "foreign"]
        if any(not c.is_integer or c in read for c in readers):
            read.add(node)
    return plain & read
