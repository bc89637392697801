"""The gradients of a quantized model in float64, from the equations of the paper.

    PYTHONPATH=tests python -m harness.gradient_reference

writes `docs/gradients.md`: the largest error of every kind of layer. Quantizers are
written in NumPy here; all other layers are the same Keras layers in float64. Codes and
masks come from the float32 quotients, as everywhere: a near tie that float64 rounds the
other way is not a gradient error.

The gradient of a step is a sum of many terms that cancel. Its error is given relative
to the root of the sum of their squares, which is the size of such a sum with random
signs. Errors of other variables are relative to the largest value of their gradient.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import multiprocessing
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf
from tqdm import tqdm

from harness import reference
from tf_lsq._compat import inference_only, keras, random_layers
from tf_lsq.layers import (
    FixedPoint,
    LSQWrapper,
    QuantizationPoint,
    replaced_attributes,
)
from tf_lsq.lsq import lsq_plus
from tf_lsq.training import quantization_points, wrapped_layers

# Errors are relative to the largest value of a gradient, but at least to this share of
# the largest gradient of the model.
SMALL = 1e-2
# A gradient that is 0 in float64, as for a bias before a batch norm, is rounding error
# of a sum that cancels: it is compared with the largest gradient of the model.
ZERO = 1e-9
# A score that a mask excludes is so many steps below 0.
EXCLUDED = 64.0 + 128.0


@dataclasses.dataclass
class Errors:
    """The largest relative errors of a model's gradients.

    Attributes:
        steps: Of steps and offsets.
        weights: Of all other variables.
    """

    steps: float = 0.0
    weights: float = 0.0


class Reference:
    """What one quantizer computes from the values of the float32 model.

    Args:
        layer: A wrapper or a point of the float32 model.
        calls: Its inputs and outputs in float32, call by call.
    """

    def __init__(self, layer, calls):
        self.layer, self.calls = layer, iter(calls)
        self.step = np.asarray(layer.step, np.float32)
        self.terms = {"step": [], "offset": []}  # Gradient times derivative.

    def __call__(self, x):
        """Returns float64 values on the grid; gradients pass through NumPy."""
        values, given = next(self.calls)
        kept = np.asarray(getattr(self.layer, "mask", 1.0), np.float32)
        values, given = values * kept, given * kept
        codes, inside, d_step, d_offset = self._derivatives(values)
        # Means of integers may be ties, which the operator may round the other way.
        other = np.rint(given / self.step) - codes
        v = (values / self.step).astype(np.float64)
        assert np.abs(np.abs(v - codes) - 0.5)[other != 0].max(initial=0) < 1e-4
        codes, d_step = codes + other, (d_step + other * inside) * kept
        inside, codes = inside * kept, codes - EXCLUDED * (1.0 - kept)

        @tf.custom_gradient
        def quantized(x):
            def gradient(upstream):
                dy = upstream.numpy()
                self.terms["step"].append(dy * d_step)
                self.terms["offset"].append(dy * d_offset)
                return tf.constant(dy * inside)

            return tf.constant(codes * np.float64(self.step)), gradient

        return quantized(x)

    def _derivatives(self, values):
        """Codes and the derivatives for x, step and offset."""
        integers = self.layer.quantizer.integer_range(self.layer.step_variables)
        q_min, q_max = float(integers.q_min), float(integers.q_max)
        if not self.is_asymmetric:
            return *reference.lsq(values, self.step, q_min, q_max), 0.0
        # Both ends of the range belong to it; beyond it the offset moves the bounds.
        v = (values / self.step).astype(np.float64)
        end = 1 + 2.0**-22
        inside = (v >= q_min * end) & (v <= q_max * end)
        codes = np.rint(np.clip(v, q_min, q_max))
        d_step = np.where(inside, codes - v, codes - q_min)
        return codes, inside.astype(np.float64), d_step, 1.0 - inside

    @property
    def is_asymmetric(self):
        return getattr(self.layer.quantizer, "asymmetric", False)

    def gradients(self):
        """Variable name -> (gradient, root of the sum of squares of its terms)."""
        variables = self.layer.step_variables
        if not variables or not self.terms["step"]:
            return {}
        levels = lsq_plus.num_levels(self.layer.quantizer.num_bits)
        unit = variables["unit"].numpy().astype(np.float64)
        units = {"step": unit, "offset": unit * levels}
        found = {}
        for name in ("step", "offset") if self.is_asymmetric else ("step",):
            axes = tuple(i for i, size in enumerate(self.step.shape) if size == 1)
            axes = axes if self.step.ndim else None
            terms = [
                self._g(one) * one / units[name]
                if self.step.ndim
                else self._g(one) * one / float(units[name])
                for one in self.terms[name]
            ]
            keep = bool(self.step.ndim)
            total = sum(t.sum(axis=axes, keepdims=keep) for t in terms)
            squares = sum((t**2).sum(axis=axes, keepdims=keep) for t in terms)
            found[name] = total, np.sqrt(squares)
        return found

    def _g(self, values):
        """The paper's 1 / sqrt(N Q_P)."""
        if isinstance(self.layer, LSQWrapper):
            count = values.size // self.step.size
            q_max = 2 ** (self.layer.quantizer.num_bits - 1) - 1
        else:
            count = values[0].size
            q_max = self.layer.quantizer.integer_range(self.layer.step_variables).q_max
            if self.is_asymmetric:
                q_max = lsq_plus.num_levels(self.layer.quantizer.num_bits)
        return 1.0 / math.sqrt(count * float(q_max))


class ReferencePoint(keras.layers.Layer):
    """A quantization point in float64."""

    reference = None

    def call(self, inputs):
        inputs = tf.cast(inputs, tf.float64)
        return inputs if self.reference is None else self.reference(inputs)


class ReferenceWrapper(keras.layers.Layer):
    """A layer with a quantized kernel in float64."""

    reference = None

    def __init__(self, wrapper, **kwargs):
        super().__init__(name=wrapper.name, dtype="float64", **kwargs)
        self.attribute = wrapper.weight_attribute
        self.layer = in_float64(wrapper.layer)

    def build(self, input_shape):
        self.layer.build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        if self.reference is None:
            return self.layer(inputs)
        kernel = self.reference(tf.convert_to_tensor(self.kernel))
        with replaced_attributes(self.layer, {self.attribute: kernel}):
            return self.layer.call(inputs)

    @property
    def kernel(self):
        return getattr(self.layer, self.attribute)


def in_float64(layer):
    """The same layer in float64."""
    return type(layer).from_config({**layer.get_config(), "dtype": "float64"})


def in_float64_model(student):
    """The same model in float64, with the references of its quantizers unset."""

    def clone(layer):
        if isinstance(layer, QuantizationPoint):
            return ReferencePoint(name=layer.name, dtype="float64")
        if isinstance(layer, LSQWrapper):
            return ReferenceWrapper(layer)
        if isinstance(layer, keras.layers.InputLayer):
            return type(layer).from_config(layer.get_config())
        return in_float64(layer)

    model = keras.models.clone_model(student, clone_function=clone)
    for layer in student.layers:
        copy = model.get_layer(layer.name)
        if isinstance(layer, LSQWrapper):
            layer, copy = layer.layer, copy.layer
        if not isinstance(layer, QuantizationPoint):
            copy.set_weights([w.astype(np.float64) for w in layer.get_weights()])
    return model


def float32_gradients(student, x, weights, training=True):
    """Gradients by variable, and the inputs and outputs of every quantizer."""
    calls = collections.defaultdict(list)

    def recording_point(original):
        def call(self, inputs, *args, **kwargs):
            outputs = original(self, inputs, *args, **kwargs)
            pair = (np.asarray(tf.cast(t, tf.float32)) for t in (inputs, outputs))
            calls[self.name].append(tuple(pair))
            return outputs

        return call

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for kind in (QuantizationPoint, FixedPoint):
            patch.setattr(kind, "call", recording_point(kind.call))
        for layer in random_layers(student):
            stack.enter_context(inference_only(layer))
        with tf.GradientTape() as tape:
            value = loss(student(x, training=training), weights)
        variables = student.trainable_variables
        gradients = tape.gradient(value, variables, unconnected_gradients="zero")
    for wrapper in wrapped_layers(student):
        pair = wrapper.kernel.numpy(), wrapper.quantized_kernel().numpy()
        calls[wrapper.name] = [pair] * 9  # Layers may be called several times.
    found = {id(v): dense(g) for v, g in zip(variables, gradients, strict=True)}
    return found, calls


def dense(gradient):
    """A gradient as an array; that of a table of embeddings has only some rows."""
    return np.asarray(tf.convert_to_tensor(gradient))


def loss(outputs, weights):
    """A linear function of all outputs."""
    return tf.add_n(
        [
            tf.reduce_sum(tf.cast(y, tf.float64) * w)
            for y, w in zip(tf.nest.flatten(outputs), weights, strict=True)
        ]
    )


def errors(student, x, rng, *, training=True):
    """The largest errors of all gradients of a model, in its current form.

    The model must be calibrated; its weights are left as they are.
    """
    kept = student.get_weights()
    shapes = [y.shape for y in tf.nest.flatten(student(x, training=training))]
    student.set_weights(kept)
    weights = [rng.normal(size=shape) for shape in shapes]
    found, calls = float32_gradients(student, x, weights, training)
    student.set_weights(kept)
    model = in_float64_model(student)
    references = {}
    with contextlib.ExitStack() as stack:
        for layer in (*wrapped_layers(student), *quantization_points(student)):
            one = Reference(layer, calls[layer.name])
            references[layer.name] = model.get_layer(layer.name).reference = one
        for layer in random_layers(model):
            stack.enter_context(inference_only(layer))
        pairs = list(_weights(student, model))
        inputs = tf.nest.map_structure(tf.constant, x)
        floats = [x for x in tf.nest.flatten(inputs) if x.dtype.is_floating]
        sources = [*(copy for _, copy in pairs), *floats]
        with tf.GradientTape() as tape:
            # Every quantizer must compute the gradient of its input.
            tape.watch(sources)
            value = loss(model(inputs, training=training), weights)
        expected = tape.gradient(value, sources, unconnected_gradients="zero")
        expected = expected[: len(pairs)]
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    compared = set()
    result = Errors()
    compared |= {id(variable) for variable, _ in pairs}
    pairs = [
        (found[id(variable)], dense(gradient))
        for (variable, _), gradient in zip(pairs, expected, strict=True)
        if id(variable) in found
    ]
    top = max((np.abs(gradient).max() for _, gradient in pairs), default=0.0)
    for one, gradient in pairs:
        largest = np.abs(gradient).max()
        size = top if largest < ZERO * top else max(largest, SMALL * top)
        if size > 0:
            result.weights = max(result.weights, np.abs(one - gradient).max() / size)
    for name, one in references.items():
        layer = student.get_layer(name)
        for key, (gradient, size) in one.gradients().items():
            variable = layer.step_variables[key]
            compared.add(id(variable))
            if id(variable) in found:
                error = np.abs(found[id(variable)] - gradient)
                share = error / np.maximum(size, 1e-30)
                result.steps = max(result.steps, float(np.max(share)))
    assert set(found) <= compared
    return result


def _weights(student, model):
    """Pairs of a variable that no quantizer owns, and its copy in float64."""
    for layer in student.layers:
        copy = model.get_layer(layer.name)
        if isinstance(layer, LSQWrapper):
            layer, copy = layer.layer, copy.layer
        if not isinstance(layer, QuantizationPoint):
            yield from zip(layer.weights, copy.weights, strict=True)


def measured_row(key):
    """The errors of one row of the table at one width, as the tests measure them."""
    import test_gradients

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    name, bits = key
    return test_gradients.ROWS[name](bits)


def main():
    """Writes the table."""
    import test_gradients

    keys = list(itertools.product(test_gradients.ROWS, test_gradients.BITS))
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(mp_context=spawned) as pool:
        found = list(tqdm(pool.map(measured_row, keys, chunksize=8), total=len(keys)))
    lines = [(*key, *forms) for key, forms in zip(keys, found, strict=True)]
    path = Path(__file__).parents[2] / "docs" / "gradients.md"
    path.write_text(test_gradients.table(lines))


if __name__ == "__main__":
    main()
