"""Resets quantization ranges that training has outgrown.

The first batch sets the steps. Where the network is untrained, or its head is new or
all zeros, values soon grow far beyond those ranges; what is clipped has no gradient,
and an optimizer that moves a step by a thousandth per update can't keep up. So in the
first updates of a training, less and less often, and between its first epochs, one
batch flows through the model, and the step of a tensor that has outgrown its range is
set again. Later learned steps are left alone.
"""

from __future__ import annotations

import collections
import contextlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ._compat import inference_only, keras, nodes_of, random_layers
from .layers import LSQWrapper, QuantizationPoint, replaced_attributes
from .lsq import MAX_NUM_BITS
from .step_values import (
    batch_norm_statistics_kept,
    quantization_points,
    wrapped_layers,
)

Quantizer = LSQWrapper | QuantizationPoint
# A share of clipped values that is worth a warning.
MANY = 0.2
# Values have outgrown a range if a step that fits them is larger by this factor, and
# clips fewer of them, by half of what one integer holds on average. Eight bits clip
# nothing at first, so less growth is enough.
_GROWTH, _GROWTH_AT_8_BITS = 1.1, 1.02
_HALF = 0.5
# Values that have grown go on to grow; eight bits have room for that.
_ROOM_AT_8_BITS = 1.5
_SAMPLE = 32
# Steps are set again during so many updates, or epochs if those take longer.
_UPDATES, _EPOCHS = 1000, 8
# The updates after which ranges are looked at, besides those that begin an epoch. They
# do not depend on what a look has found, so a training that is resumed has the same.
_LOOKS = frozenset(
    math.ceil(1.25**k) for k in range(math.ceil(math.log(_UPDATES, 1.25)))
)
# Later looks are so many updates apart at least, which makes them cheap.
_APART = 100


class RangeWatch:
    """Looks at the ranges of a model while it trains.

    Args:
        student: A quantized model whose steps have their first values.
        x: A batch of inputs; the first 32 examples are kept.
        empty: Names of the layers whose first values came from nothing but zeros.
    """

    def __init__(self, student: keras.Model, x: Any, empty: set[str]) -> None:
        self._student = student
        self._x = tf.nest.map_structure(lambda t: tf.convert_to_tensor(t)[:_SAMPLE], x)
        zeros = {w.name for w in wrapped_layers(student) if _is_zero(w.kernel)}
        # Layer -> its arbitrary first value.
        self._empty = {n: _unit(student.get_layer(n)) for n in empty | zeros}
        calls = collections.Counter(node.layer.name for node in nodes_of(student))
        self._calls = {p.name: calls[p.name] for p in quantization_points(student)}
        self._updates, self._last = 0, _UPDATES
        # Layer -> share of its values that was clipped when `follow` was called last.
        self.clipped_shares: dict[str, float] = {}

    @property
    def empty_points(self) -> list[str]:
        """Names of the points that have seen nothing but zeros."""
        points = [p for p in quantization_points(self._student) if p.trainable]
        return [point.name for point in points if point.name in self._empty]

    def begin_epoch(self, updates: int, updates_per_epoch: int | None) -> bool:
        """Takes over what the optimizer has counted; returns whether to `follow`.

        Args:
            updates: How many there have been.
            updates_per_epoch: How many an epoch has, None if that is not known.
        """
        count = updates_per_epoch or _APART
        self._updates, self._last = updates, max(_UPDATES, _EPOCHS * count)
        passes_mark = updates // _APART > max(updates - count, 0) // _APART
        return 0 < updates <= _EPOCHS * count or passes_mark

    def count(self, updates: int) -> bool:
        """Counts updates of the model; returns whether it is time to `follow`."""
        before, self._updates = self._updates, self._updates + updates
        return any(n in _LOOKS for n in range(before + 1, self._updates + 1))

    def follow(self) -> list[Quantizer]:
        """Sets steps again where values have outgrown their range.

        Returns:
            The layers whose step was set.
        """
        changed: list[Quantizer] = []
        sets_steps = self._updates <= self._last

        def look(layer: Quantizer, values: tf.Tensor) -> None:
            if sets_steps and layer.trainable and self._outgrown(layer, values):
                changed.append(layer)
            self.clipped_shares[layer.name] = clipped_share(layer, values)

        for wrapper in wrapped_layers(self._student):
            look(wrapper, wrapper.kernel)
        self._run(look)
        return changed

    def _outgrown(self, layer: Quantizer, values: tf.Tensor) -> bool:
        """Sets the step of a layer if its range is too small; returns whether."""
        variables, is_point = layer.step_variables, isinstance(layer, QuantizationPoint)
        if layer.name in self._empty and not _is_zero(values):
            first = self._empty.pop(layer.name)
            # Loaded weights may have brought a learned step since.
            if np.array_equal(first, _unit(layer)):
                layer.quantizer.initialise(values, variables)
                return True
        has_8_bits = layer.num_bits == MAX_NUM_BITS
        if not (is_point or has_8_bits):
            return False  # No weight is lost to clipping that its step can't follow.
        share, margin = clipped_share(layer, values), _HALF / 2**layer.num_bits
        if not share > margin:  # NaN is reported elsewhere.
            return False
        step, old = layer.step, {n: tf.identity(v) for n, v in variables.items()}
        layer.quantizer.initialise(values, variables)
        # A step that has only learned to be small is left as it is.
        growth = _GROWTH_AT_8_BITS if has_8_bits else _GROWTH
        grown = variables["unit"] > growth * tf.maximum(step, old["unit"])
        for name in ("unit", "step"):
            variables[name].assign(tf.where(grown, variables[name], old[name]))
        lost_sign = "signed" in old and variables["signed"] < old["signed"]
        if clipped_share(layer, values) < share - margin and not lost_sign:
            if has_8_bits and is_point:
                layer.quantizer.widen(variables, _ROOM_AT_8_BITS)
            return True
        for name, value in old.items():
            variables[name].assign(value)
        return False

    def _run(self, look: Any) -> None:
        """Shows the values that arrive at every point, in order, before it quantizes.

        A point of several tensors is looked at when all have arrived.
        """
        arrived: dict[str, list[tf.Tensor]] = collections.defaultdict(list)

        def observe(point: QuantizationPoint, values: tf.Tensor) -> None:
            some = arrived[point.name]
            some.append(tf.reshape(tf.cast(values, tf.float32), [-1]))
            if len(some) == self._calls[point.name]:
                look(point, tf.concat(some, axis=0))

        points = [p for p in quantization_points(self._student) if p.step_variables]
        with contextlib.ExitStack() as stack:
            stack.enter_context(batch_norm_statistics_kept(self._student))
            for point in points:
                stack.enter_context(replaced_attributes(point, {"observer": observe}))
            for layer in random_layers(self._student):
                stack.enter_context(inference_only(layer))
            self._student(self._x, training=True)


def clipped_share(layer: Quantizer, values: tf.Tensor) -> float:
    """Returns the share of values beyond the last integers of a layer's range.

    What an unsigned range does not hold below 0 is what its ReLU removes, and what is
    beyond the limit of a ReLU6 counts as this limit.
    """
    quantizer = layer.quantizer
    integers = quantizer.integer_range(layer.step_variables)
    values = tf.cast(values, tf.float32)
    if getattr(quantizer, "max_value", None) is not None:
        values = tf.minimum(values, quantizer.max_value)
    quotients = values / layer.step
    beyond = quotients > integers.q_max + 0.5
    has_ends = getattr(quantizer, "asymmetric", False) | (integers.q_min < 0)
    beyond |= (quotients < integers.q_min - 0.5) & has_ends
    return float(tf.reduce_mean(tf.cast(beyond, tf.float32)))


def _unit(layer: Quantizer) -> np.ndarray:
    """Returns the first value of a layer's step."""
    return layer.step_variables["unit"].numpy()


def _is_zero(values: Any) -> bool:
    """Returns whether all values are 0."""
    return bool(tf.reduce_all(tf.equal(values, 0.0)))
