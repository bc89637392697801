"""Computes the tensors of a graph, operator by operator."""

from __future__ import annotations

import collections

import tensorflow as tf

from .nodes import Node


class Values:
    """Computes the tensors of a graph, and forgets those that nothing reads any more.

    Args:
        known: Operator -> its output.
        keep: Whether to keep everything.
    """

    def __init__(self, known: dict[Node, tf.Tensor], *, keep: bool = False) -> None:
        self._values, self._keep = dict(known), keep
        self._reads: collections.Counter[Node] = collections.Counter()

    def of(self, node: Node) -> tf.Tensor:
        """Returns the output of an operator."""
        waiting = [node]
        while waiting:
            missing = [n for n in waiting[-1].inputs if n not in self._values]
            if waiting[-1] in self._values:
                waiting.pop()
            elif missing:
                waiting += missing
            else:
                self._compute(waiting.pop())
        return self._values[node]

    def _compute(self, node: Node) -> None:
        """Computes an operator whose inputs are known."""
        tensors = [self._values[source] for source in node.inputs]
        for part in (node, *node.fused):
            tensors = [part.call(part.model_layer, tensors)]
        [self._values[node]] = tensors
        for source in [] if self._keep else node.inputs:
            self._reads[source] += 1
            if self._reads[source] == len(source.consumers):
                del self._values[source]
