"""Layers left in float that have no separate operator here."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ..file import TFLiteOp, newest
from ..freezing import ConvertedPart, FrozenNode
from .base import Compute, Context, Operator
from .builder import Builder

# Begins the names of tensors between operators of layers left in float.
FLOAT_PART = "float_part/"
_ENDS = ("inputs", "outputs")


class Foreign(Operator):
    """One output of a layer; `write_part` writes the operators of all such layers."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes what Keras computes."""
        return node.trained.foreign.compute(inputs)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the output tensor."""
        builder.output(node)

    def integers(self, context: Context) -> Compute:
        """Never called: the layer computes in float."""
        raise ValueError(f"`{context.node.name}` computes in float, not in integers.")


def write_part(builder: Builder, part: ConvertedPart, tensors: dict[str, str]) -> None:
    """Adds the operators that TFLiteConverter converted layers to.

    Args:
        builder: Builder of a graph that has everything else.
        part: The operators.
        tensors: Tensor of `part.graph` -> tensor of the file, for those in both.
    """
    graph = builder.graph
    # Keras numbers the inner layers by how many it created before, so their names are
    # not kept.
    inner = [name for name in part.graph.tensors if name not in tensors]
    names = {name: f"{FLOAT_PART}{number}" for number, name in enumerate(inner)}
    names |= tensors | {"": ""}
    for name, tensor in part.graph.tensors.items():
        if name not in part.inputs:
            renamed = dataclasses.replace(tensor, name=names[name])
            graph.tensors[names[name]] = renamed
    for op in part.graph.ops:
        ends = {end: [names[name] for name in getattr(op, end)] for end in _ENDS}
        graph.ops.append(dataclasses.replace(op, **ends))
    graph.ops[:] = _in_order(graph.ops)
    graph.min_runtime = newest([graph.min_runtime, part.graph.min_runtime])


def _in_order(ops: list[TFLiteOp]) -> list[TFLiteOp]:
    """Returns operators in an order of execution: each after those that it reads."""
    producers = {name: op for op in ops for name in op.outputs}
    ordered: dict[int, TFLiteOp] = {}

    def visit(op: TFLiteOp) -> None:
        waiting = [op]
        while waiting:
            last = waiting[-1]
            missing = [
                producers[name]
                for name in last.inputs
                if name in producers and id(producers[name]) not in ordered
            ]
            if missing:
                waiting += missing
            else:
                ordered[id(waiting.pop())] = last

    for op in ops:
        visit(op)
    return list(ordered.values())


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "foreign": Foreign(),
}
