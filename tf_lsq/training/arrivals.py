"""Observes the tensors that arrive at the quantization points of a model."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..layers import QuantizationPoint, replaced_attributes


@contextlib.contextmanager
def visited(points: Iterable[QuantizationPoint], visitor: Any) -> Iterator[None]:
    """Sets the visitor of points, see `QuantizationPoint.visitor`."""
    with contextlib.ExitStack() as stack:
        for point in points:
            stack.enter_context(replaced_attributes(point, {"visitor": visitor}))
        yield


@dataclasses.dataclass(frozen=True)
class Arrival:
    """The range of a tensor that a point receives, without what its ReLU removes.

    Attributes:
        low: Smallest value of each channel (the last axis), shape `[channels]`.
        high: Largest value of each channel.
        num_rows: How many values each channel has.
    """

    low: np.ndarray
    high: np.ndarray
    num_rows: int

    @property
    def span(self) -> float:
        """Difference of the largest and the smallest value."""
        return float(self.high.max() - self.low.min())


class Arrivals:
    """A visitor of points that notes the ranges of their inputs.

    Attributes:
        by_point: Name of a point -> its inputs in one call of the model, in order.
    """

    def __init__(self) -> None:
        self.by_point: dict[str, list[Arrival]] = collections.defaultdict(list)

    def __call__(self, point: QuantizationPoint, inputs: tf.Tensor) -> None:
        """Notes the range of a tensor; needs eager execution."""
        values = tf.cast(point.quantizer.clipped(inputs), tf.float32)
        rows = tf.reshape(
            values, [-1, values.shape[-1] if values.shape.rank > 1 else 1]
        )
        low, high = tf.reduce_min(rows, axis=0), tf.reduce_max(rows, axis=0)
        arrival = Arrival(low.numpy(), high.numpy(), len(rows))
        self.by_point[point.name].append(arrival)
