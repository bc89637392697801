"""A layer left in float that has no separate operator here."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ..file import newest
from ..freezing import FrozenNode
from .base import Compute, Context, Operator
from .builder import Builder

_ENDS = ("inputs", "outputs")


class Foreign(Operator):
    """The operators that TFLiteConverter converts a layer to."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes what Keras computes."""
        return node.trained.foreign.compute(inputs)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the operators that TFLiteConverter converted the layer to."""
        part, graph = node.trained.foreign.converted, builder.graph
        [output] = part.outputs.values()
        # Keras numbers the inner layers by how many it created before, so their names
        # are not kept.
        names = {name: f"{node.name}/{i}" for i, name in enumerate(part.tensors)}
        names |= {part.inputs[f"input_{i}"]: name for i, name in enumerate(inputs)}
        names |= {output: node.name, "": ""}
        for name, tensor in part.tensors.items():
            if names[name] not in graph.tensors:
                renamed = dataclasses.replace(tensor, name=names[name])
                graph.tensors[names[name]] = renamed
        for op in part.ops:
            ends = {end: [names[name] for name in getattr(op, end)] for end in _ENDS}
            graph.ops.append(dataclasses.replace(op, **ends))
        graph.min_runtime = newest([graph.min_runtime, part.min_runtime])

    def integers(self, context: Context) -> Compute:
        """Never called: the layer computes in float."""
        raise ValueError(f"`{context.node.name}` computes in float, not in integers.")


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "foreign": Foreign(),
}
