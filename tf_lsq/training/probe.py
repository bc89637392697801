"""Measures the quantizers of a model on a batch, without changing the model.

A step is trained as a factor of its first value, with a gradient divided by that value
(see `lsq.learned_step`). Here the gradient is multiplied by it again: the update ratio
is that of the step itself, as in the paper.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .. import lsq
from .._compat import inference_only, keras, model_structure, nodes_of, random_layers
from ..graph import analyze, point_of
from ..layers import LSQWrapper, QuantizationPoint, replaced_attributes
from .learned_steps import quantization_points, steps, wrapped_layers

Quantizer = LSQWrapper | QuantizationPoint
# Quantity -> layer name -> value.
Measurement = dict[str, dict[str, Any]]


class Probe:
    """Measures the quantizers of a model on one batch.

    Args:
        student: A quantized model.
        x: A batch of inputs, or None.
        y: Its labels, or None.
        loss: Function of x, y and the outputs.
    """

    def __init__(
        self,
        student: keras.Model,
        x: Any,
        y: Any,
        loss: Callable[[Any, Any, Any], tf.Tensor],
    ) -> None:
        self._student, self._x, self._y, self._loss = student, x, y, loss
        self.wrappers = wrapped_layers(student)
        self._points = [] if x is None else quantization_points(student)
        if x is not None:
            inputs, outputs = model_structure(student)
            arriving: dict[str, list[Any]] = {p.name: [] for p in self._points}
            for node in nodes_of(student):
                if node.layer.name in arriving:
                    arriving[node.layer.name] += node.keras_inputs
            self._model = keras.Model(inputs, [outputs, arriving], name="probe")
        self._compared = _compared_kernels(student)
        self._traced = tf.function(self._measure)

    @property
    def codes(self) -> dict[str, np.ndarray]:
        """The integers of every measured quantizer, from 0 if they move.

        Of integers that are counted together, the smallest.
        """
        integers = {}
        for layer in self._layers:
            low, high = int(_range(layer).q_min), int(_range(layer).q_max)
            origin = low if _is_learned(layer) else 0
            width = lsq.counted_together(_range(layer))
            integers[layer.name] = np.arange(low, high + 1, width) - origin
        return integers

    @property
    def _layers(self) -> list[Quantizer]:
        """The layers that are measured."""
        return [*self.wrappers, *self._points]

    def measure(self, keep: list[tf.Variable]) -> Measurement:
        """Returns what `Diagnostics` describes, in NumPy; the model stays unchanged.

        Args:
            keep: Further variables to restore, which measuring would change.
        """
        with _kept([*self._student.non_trainable_variables, *keep]):
            measurement = tf.nest.map_structure(lambda t: t.numpy(), self._traced())
        for quantity in set(measurement) - {"counts"}:
            measurement[quantity] = {
                n: float(value) for n, value in measurement[quantity].items()
            }
        return {"step": steps(self._student), **measurement}

    def _measure(self) -> Measurement:
        """Returns the measurement as tensors."""
        measurement: Measurement = {}
        values = {wrapper.name: [wrapper.kernel] for wrapper in self.wrappers}
        with _as_measured(self._student), tf.GradientTape() as tape:
            if self._x is not None:
                outputs, arriving = self._model(self._x, training=True)
                values.update(arriving)
            if self._y is not None:
                loss = self._loss(self._x, self._y, outputs)
        if self._y is not None:
            measurement.update(self._ratios(tape, loss, values))
        used = {layer.name: _use(layer, values[layer.name]) for layer in self._layers}
        for number, quantity in enumerate(("clipped", "counts")):
            measurement[quantity] = {name: pair[number] for name, pair in used.items()}
        return measurement

    def _ratios(
        self, tape: tf.GradientTape, loss: tf.Tensor, values: dict[str, list[Any]]
    ) -> Measurement:
        """Returns R of every step that has kernels to compare with."""
        kernels = {wrapper.name: wrapper.kernel for wrapper in self.wrappers}
        layers = [layer for layer in self._layers if self._compared.get(layer.name)]
        factors = {layer.name: layer.step_variables["step"] for layer in layers}
        gradients: Any = tape.gradient(
            loss,
            (kernels, factors),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        d_kernels, d_factors = gradients
        ratios: Measurement = {"ratio": {}, "unscaled_ratio": {}}
        for layer in layers:
            name, compared = layer.name, self._compared[layer.name]
            # The gradient of the factor is that of the step / unit.
            d_step = d_factors[name] * layer.step_variables["unit"]
            of_step = _norm([d_step]) / _norm([layer.step])
            of_kernels = _norm([d_kernels[n] for n in compared]) / _norm(
                [kernels[n] for n in compared]
            )
            # The scale of every call, if there are several.
            scale = layer.quantizer.gradient_scale(values[name][0], _range(layer).q_max)
            scale = tf.cast(scale, of_step.dtype)
            ratios["ratio"][name] = of_step / of_kernels
            ratios["unscaled_ratio"][name] = of_step / of_kernels / scale
        return ratios


def _compared_kernels(student: keras.Model) -> dict[str, list[str]]:
    """Returns, for every learned step, the kernels to compare it with.

    Layer with a step -> layers with the kernels: itself, or those that read the point.
    """
    compared = {wrapper.name: [wrapper.name] for wrapper in wrapped_layers(student)}
    for node in analyze(student).nodes:
        if not (node.properties.matmul and isinstance(node.model_layer, LSQWrapper)):
            continue
        point = point_of(node.inputs[0])
        if point is not None and point.layer.fixed_step is None:
            readers = compared.setdefault(point.layer.name, [])
            if node.model_layer.name not in readers:
                readers.append(node.model_layer.name)
    return compared


@contextlib.contextmanager
def _as_measured(student: keras.Model) -> Iterator[None]:
    """Uses the plain implementation of the LSQ operator, and no random numbers."""
    with contextlib.ExitStack() as stack:
        for layer in (*wrapped_layers(student), *quantization_points(student)):
            stack.enter_context(replaced_attributes(layer, {"plain_op": True}))
        for layer in random_layers(student):
            stack.enter_context(inference_only(layer))
        yield


@contextlib.contextmanager
def _kept(variables: list[tf.Variable]) -> Iterator[None]:
    """Restores the values of variables on exit."""
    kept = [(variable, tf.identity(variable)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _range(layer: Quantizer) -> lsq.IntegerRange:
    """Returns the integers of a layer whose step has its first value."""
    if isinstance(layer, LSQWrapper):
        return layer.quantizer.integer_range(layer.step_variables)
    if layer.fixed_step is not None:
        return layer.integer_range
    return layer.quantizer.range_when_traced(layer.step_variables)


def _is_learned(layer: Quantizer) -> bool:
    """Returns whether the range of a layer is also learned (LSQ+)."""
    return getattr(layer.quantizer, "asymmetric", False)


def _use(layer: Quantizer, tensors: list[Any]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the clipped share of values, and how often each integer is used."""
    integers = _range(layer)
    if len(tensors) > 1:
        tensors = [tf.concat([tf.reshape(one, [-1]) for one in tensors], axis=0)]
    values = tf.cast(tensors[0], tf.float32)
    limit: Any = getattr(layer.quantizer, "max_value", None)
    if limit is not None:
        values = tf.minimum(values, limit)
    quotients = values / layer.step
    beyond = quotients > integers.q_max + 0.5
    # The ReLU of an unsigned range removes the values below it.
    negative = _is_learned(layer) | (integers.q_min < 0)
    beyond |= (quotients < integers.q_min - 0.5) & negative
    number = tf.cast(tf.size(beyond), tf.float64)
    share = tf.cast(tf.math.count_nonzero(beyond), tf.float64) / number
    codes = lsq.quantize(values, layer.step, integers) - integers.q_min
    length = tf.cast(integers.q_max - integers.q_min + 1, tf.int32)
    codes = tf.reshape(tf.cast(codes, tf.int32), [-1])
    if layer.num_bits > lsq.MAX_NUM_BITS:  # Whose range is known.
        width = lsq.counted_together(integers)
        codes, length = codes // width, -(-length // width)
    counts = tf.math.bincount(codes, minlength=length, maxlength=length)
    return share, counts


def _norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean norm of tensors taken together, float64."""
    squares = [tf.reduce_sum(tf.square(tf.cast(t, tf.float64))) for t in tensors]
    return tf.sqrt(tf.add_n(squares))
