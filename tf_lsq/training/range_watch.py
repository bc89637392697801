"""Resets quantization ranges that training has outgrown.

The first batch sets the steps. If the network is untrained, or its head is new or all
zeros, values soon grow far beyond those ranges; clipped values have no gradient, and an
optimizer that moves a step by a thousandth per update cannot keep up. So one batch
flows through the model in the first updates of a training, less and less often, and
between its first epochs; the step of a tensor that has outgrown its range is set again.
After that, the watch leaves learned steps alone.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import inference_only, keras, nodes_of, random_layers
from ..layers import LSQWrapper, QuantizationPoint
from ..lsq import MAX_NUM_BITS
from .arrivals import visited
from .first_batch import batch_norm_statistics_kept
from .learned_steps import quantization_points, wrapped_layers

Quantizer = LSQWrapper | QuantizationPoint
# A share of clipped values that is worth a warning.
MANY = 0.2
# Values have outgrown a range if a step that fits them is larger by this factor, and
# clips fewer of them, by half the share that one integer holds on average. Eight bits
# and more clip nothing at first, so less growth is enough.
_GROWTH, _GROWTH_AT_8_BITS = 1.1, 1.02
_HALF = 0.5
# Values that have grown keep growing; eight bits and more have room for that.
_ROOM_AT_8_BITS = 1.5
_SAMPLE = 32
# Steps are set again during this many updates, or epochs if those take longer.
_UPDATES, _EPOCHS = 1000, 8
# Ranges are checked after these updates, as well as at the beginning of an epoch. They
# do not depend on the result of a check, so a resumed training has the same ones.
_LOOKS = frozenset(
    math.ceil(1.25**k) for k in range(math.ceil(math.log(_UPDATES, 1.25)))
)
# Later checks are at least this many updates apart, which makes them cheap.
_APART = 100


class RangeWatch:
    """Checks the ranges of a model while it trains.

    Args:
        student: A quantized model whose steps have their first values.
        x: A batch of inputs; the first 32 examples are kept.
        empty: Names of the layers whose first values came from only zeros.
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
        # Layer -> share of its values that was clipped in the last call of `follow`.
        self.clipped_shares: dict[str, float] = {}
        self._found = tf.function(self._measure, autograph=False)

    @property
    def empty_points(self) -> list[str]:
        """Names of the points that have received only zeros."""
        points = [p for p in quantization_points(self._student) if p.trainable]
        return [point.name for point in points if point.name in self._empty]

    def begin_epoch(self, updates: int, updates_per_epoch: int | None) -> bool:
        """Adopts the update count of the optimizer; returns whether to call `follow`.

        Args:
            updates: How many updates there have been.
            updates_per_epoch: How many updates an epoch has, None if unknown.
        """
        count = updates_per_epoch or _APART
        self._updates, self._last = updates, max(_UPDATES, _EPOCHS * count)
        passes_mark = updates // _APART > max(updates - count, 0) // _APART
        return 0 < updates <= _EPOCHS * count or passes_mark

    def count(self, updates: int) -> bool:
        """Counts updates of the model; returns whether it is time to call `follow`."""
        before, self._updates = self._updates, self._updates + updates
        return any(n in _LOOKS for n in range(before + 1, self._updates + 1))

    def follow(self) -> list[Quantizer]:
        """Sets steps again where values have outgrown their range.

        Returns:
            The layers whose step was set.
        """
        with batch_norm_statistics_kept(self._student):
            measured = self._found(self._traced_state())
            self.clipped_shares = {
                name: float(f["share"]) for name, f in measured.items()
            }
            suspects = {name for name, f in measured.items() if bool(f["suspect"])}
            if not suspects or self._updates > self._last:
                return []
            changed: list[Quantizer] = []

            def look(layer: Quantizer, values: tf.Tensor) -> None:
                # If a step changes, so do the values that arrive after it.
                if not changed and layer.name not in suspects:
                    return
                if self._set_step(layer, values):
                    changed.append(layer)
                self.clipped_shares[layer.name] = float(clipped_share(layer, values))

            self._run(look)
        return changed

    def _traced_state(self) -> tuple[Any, ...]:
        """Returns what a traced check holds as constants."""
        points = quantization_points(self._student)
        variables = [p.step_variables for p in points]
        signs = [float(v["signed"].numpy()) for v in variables if "signed" in v]
        trainable = [layer.trainable for layer in self._student.layers]
        return (*signs, *trainable, *sorted(self._empty))

    def _measure(self, _: tuple[Any, ...]) -> dict[str, dict[str, tf.Tensor]]:
        """Returns the clipped share of each layer and whether its step may be set.

        `tf.function` traces this once for each of its arguments.
        """
        measured = {}

        def look(layer: Quantizer, values: tf.Tensor) -> None:
            share = clipped_share(layer, values)
            suspect = self._may_have_outgrown(layer, values, share)
            if layer.trainable and layer.name in self._empty:
                suspect |= tf.reduce_any(values != 0.0)
            measured[layer.name] = {"share": share, "suspect": suspect}

        self._run(look)
        return measured

    def _may_have_outgrown(
        self, layer: Quantizer, values: tf.Tensor, share: tf.Tensor
    ) -> tf.Tensor:
        """Returns whether `_set_step` may set a step; computed with few operators."""
        is_point = isinstance(layer, QuantizationPoint)
        # With fewer bits, a kernel's step can follow any weight lost to clipping.
        if not layer.trainable or not (is_point or layer.num_bits >= MAX_NUM_BITS):
            return tf.constant(False)
        quantizer, variables = layer.quantizer, layer.step_variables
        if quantizer.step_init == "mse":
            # An "mse" step is never larger than the step of the largest value.
            quantizer = dataclasses.replace(quantizer, step_init="max")
        largest = quantizer.first_values(values, variables)["unit"]
        grown = tf.reduce_any(largest > _growth(layer) * _known_step(layer))
        return grown & (share > _margin(layer))

    def _set_step(self, layer: Quantizer, values: tf.Tensor) -> bool:
        """Sets the step of a layer if necessary; returns whether it did."""
        if not layer.trainable:
            return False
        first = None if _is_zero(values) else self._empty.pop(layer.name, None)
        # Since then, loaded weights may have brought a learned step.
        if first is not None and np.array_equal(first, _unit(layer)):
            layer.quantizer.initialise(values, layer.step_variables)
            return True
        share = clipped_share(layer, values)
        if not self._may_have_outgrown(layer, values, share):
            return False
        quantizer, variables = layer.quantizer, layer.step_variables
        fitted = quantizer.first_values(values, variables)
        # A step that has only learned to be small stays unchanged.
        grown = fitted["unit"] > _growth(layer) * _known_step(layer)
        for name in ("unit", "step"):
            fitted[name] = tf.where(grown, fitted[name], variables[name])
        lost_sign = "signed" in fitted and fitted["signed"] < variables["signed"]
        if lost_sign or clipped_share(layer, values, fitted) >= share - _margin(layer):
            return False
        if isinstance(layer, QuantizationPoint) and layer.num_bits >= MAX_NUM_BITS:
            fitted["unit"] = quantizer.widened(fitted["unit"], _ROOM_AT_8_BITS)
        for name, value in fitted.items():
            variables[name].assign(value)
        return True

    def _run(self, look: Callable[[Quantizer, tf.Tensor], None]) -> None:
        """Passes every kernel, and every point's input before quantization, to `look`.

        A point of several tensors is checked when all have arrived.
        """
        for wrapper in wrapped_layers(self._student):
            look(wrapper, tf.convert_to_tensor(wrapper.kernel))
        arrived: dict[str, list[tf.Tensor]] = collections.defaultdict(list)

        def observe(point: QuantizationPoint, values: tf.Tensor) -> None:
            some = arrived[point.name]
            some.append(tf.reshape(tf.cast(values, tf.float32), [-1]))
            if len(some) == self._calls[point.name]:
                look(point, tf.concat(some, axis=0))

        points = [p for p in quantization_points(self._student) if p.step_variables]
        with contextlib.ExitStack() as stack:
            stack.enter_context(visited(points, observe))
            for layer in random_layers(self._student):
                stack.enter_context(inference_only(layer))
            self._student(self._x, training=True)


def clipped_share(
    layer: Quantizer, values: tf.Tensor, variables: dict[str, Any] | None = None
) -> tf.Tensor:
    """Returns the share of values beyond the last integers of a layer's range.

    The ReLU of an unsigned range removes values below 0, so they do not count; values
    above the limit of a ReLU6 count as this limit.

    Args:
        layer: A wrapper or quantization point.
        values: The values of its kernel, or of its input.
        variables: Values to use instead of those of the quantizer's variables.
    """
    quantizer, variables = layer.quantizer, variables or layer.step_variables
    integers = quantizer.integer_range(variables)
    values = tf.cast(values, tf.float32)
    limit: Any = getattr(quantizer, "max_value", None)
    if limit is not None:
        values = tf.minimum(values, limit)
    quotients = values / quantizer.step(variables)
    beyond = quotients > integers.q_max + 0.5
    has_ends = getattr(quantizer, "asymmetric", False) | (integers.q_min < 0)
    beyond |= (quotients < integers.q_min - 0.5) & has_ends
    return tf.reduce_mean(tf.cast(beyond, tf.float32))


def _margin(layer: Quantizer) -> float:
    """Returns the share of values by which a step must clip fewer to be set."""
    return _HALF / 2**layer.num_bits


def _growth(layer: Quantizer) -> float:
    """Returns the factor by which values must have outgrown the step of a layer."""
    return _GROWTH_AT_8_BITS if layer.num_bits >= MAX_NUM_BITS else _GROWTH


def _known_step(layer: Quantizer) -> tf.Tensor:
    """Returns the step of a layer, or its first value if that is larger."""
    return tf.maximum(layer.step, layer.step_variables["unit"])


def _unit(layer: Quantizer) -> np.ndarray:
    """Returns the first value of a layer's step."""
    return layer.step_variables["unit"].numpy()


def _is_zero(values: Any) -> bool:
    """Returns whether all values are 0."""
    return bool(tf.reduce_all(tf.equal(values, 0.0)))
