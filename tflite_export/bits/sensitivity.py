"""Measures how much fewer bits in one layer change the outputs of a model.

One model with 8 bits everywhere is run operator by operator. At the start of a layer,
the rest of the model is run again for every number of bits, with that layer's kernel
(and input) on a coarser grid. Nothing is rebuilt, and the operators before the layer
are not computed again.

This ignores the effect of training: a model learns to adapt to few bits, most of all to
2. Only the order of layers matters here, not the size of the numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.graph import Node, analyze
from tf_lsq.layers import LSQWrapper, replaced_attributes
from tf_lsq.lsq import lsq_plus

BATCH_SIZE = 32
DIVERGENCES = ("kl", "mse")
_SMALLEST_PROBABILITY = 1e-7


@dataclasses.dataclass(frozen=True)
class Trial:
    """Fewer bits in one layer.

    Attributes:
        layer: Name of the user's layer.
        weight_bits: Bits of its kernels.
        activation_bits: Bits of their inputs.
    """

    layer: str
    weight_bits: int
    activation_bits: int


def measure_sensitivities(
    model: keras.Model,
    student: keras.Model,
    layer_names: Mapping[str, str],
    trials: Sequence[Trial],
    examples: Sequence[np.ndarray],
    divergence: str,
    *,
    verbose: bool,
) -> dict[Trial, float]:
    """Measures how much further each trial moves the outputs from the float model's.

    Steps of kernels, and of inputs with fewer than 8 bits, minimize the squared error,
    the latter on the first batch.

    Args:
        model: The float model.
        student: The same model with 8 bits, calibrated. Its quantization points define
            which inputs have an offset (LSQ+).
        layer_names: Name of a layer with a kernel in `student` -> user's layer.
        trials: What to try.
        examples: One array per input of the model.
        divergence: "kl": Kullback-Leibler divergence from the float model's outputs,
            which are probabilities after a softmax, else logits; nats, mean of all
            rows. "mse": squared error, as a share of the variance of the float
            model's outputs. Both are summed over the outputs.
        verbose: Whether to show progress.

    Returns:
        The divergence of each trial minus that of `student` itself, at least 0.
    """
    runner = _Runner(student, layer_names, trials)
    starts = range(0, len(examples[0]), BATCH_SIZE)
    batches = [[array[i : i + BATCH_SIZE] for array in examples] for i in starts]
    wanted = [_outputs_of(model, batch) for batch in batches]
    measures = [
        _measure(node, np.concatenate(parts), divergence)
        for node, parts in zip(runner.outputs, zip(*wanted, strict=True), strict=True)
    ]
    sums: dict[Trial | None, float] = dict.fromkeys([None, *trials], 0.0)
    with tqdm(
        desc="Measuring sensitivities",
        total=len(batches) * len(trials),
        disable=not verbose,
        leave=False,
    ) as progress:
        for batch, expected in zip(batches, wanted, strict=True):
            for trial, results in runner.run(batch):
                ends = zip(measures, expected, results, strict=True)
                value = sum(measure(one, other) for measure, one, other in ends)
                sums[trial] += value * len(batch[0]) / len(examples[0])
                progress.update(trial is not None)
    return {trial: max(0.0, sums[trial] - sums[None]) for trial in trials}


def _outputs_of(model: keras.Model, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of the float model."""
    inputs = dict(zip(model.input_names, map(tf.convert_to_tensor, batch), strict=True))
    outputs = model(inputs if len(batch) > 1 else tf.constant(batch[0]), training=False)
    return [output.numpy() for output in tf.nest.flatten(outputs)]


def _measure(
    node: Node, wanted: np.ndarray, divergence: str
) -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns the function that measures one output against another, mean of a batch.

    Args:
        node: The operator that computes the output.
        wanted: The float model's output for all examples.
        divergence: One of `DIVERGENCES`.
    """
    if divergence == "mse":
        variance = float(np.var(wanted, dtype=np.float64)) or 1.0

        def squared_error(wanted: np.ndarray, found: np.ndarray) -> float:
            difference = wanted.astype(np.float64) - found
            return float(np.mean(difference**2)) / variance

        return squared_error
    softmax = is_softmax(node)

    def kl_divergence(wanted: np.ndarray, found: np.ndarray) -> float:
        p, q = (_log_probabilities(output, softmax) for output in (wanted, found))
        return float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1)))

    return kl_divergence


def _log_probabilities(output: np.ndarray, softmax: bool) -> np.ndarray:
    """Returns the logarithms of the probabilities, `[..., classes]`, float64."""
    output = output.astype(np.float64)
    if softmax:
        return np.log(np.maximum(output, _SMALLEST_PROBABILITY))
    output = output - output.max(axis=-1, keepdims=True)
    return output - np.log(np.exp(output).sum(axis=-1, keepdims=True))


def is_softmax(node: Node) -> bool:
    """Returns whether an output of a model has the probabilities of a softmax.

    Args:
        node: The operator that computes it, or the quantization point after that.
    """
    while node.kind == "point":
        node = node.inputs[0]
    return node.kind == "softmax"


class _Runner:
    """Runs a quantized model operator by operator."""

    def __init__(
        self,
        student: keras.Model,
        layer_names: Mapping[str, str],
        trials: Sequence[Trial],
    ) -> None:
        graph = analyze(student)
        self._nodes, self._inputs = graph.nodes, graph.inputs
        self.outputs = graph.outputs
        self._last_reader = {
            source: node for node in self._nodes for source in node.inputs
        }
        self._layers: dict[Node, str] = {}
        for node in self._nodes:
            if node.properties.matmul and isinstance(node.model_layer, LSQWrapper):
                self._layers[node] = layer_names[node.model_layer.layer.name]
        self._trials: dict[Node, list[Trial]] = {}
        first = {layer: node for node, layer in reversed(self._layers.items())}
        for trial in trials:
            self._trials.setdefault(first[trial.layer], []).append(trial)
        self._kernels: dict[tuple[str, int], tf.Tensor] = {}
        self._grids: dict[tuple[Node, int], tuple[tf.Tensor, lsq.IntegerRange]] = {}

    def run(
        self, arrays: Sequence[np.ndarray]
    ) -> Iterator[tuple[Trial | None, list[np.ndarray]]]:
        """Yields every trial with its outputs, and None with the student's outputs.

        Args:
            arrays: One batch, one array per input of the model.
        """
        tensors = {
            node: tf.cast(array, node.layer.dtype)
            for node, array in zip(self._inputs, arrays, strict=True)
        }
        for number, node in enumerate(self._nodes):
            for trial in self._trials.get(node, []):
                changed = dict(tensors)
                for later in self._nodes[number:]:
                    self._compute(later, changed, trial)
                yield trial, self._found(changed)
            self._compute(node, tensors, None)
        yield None, self._found(tensors)

    def _found(self, tensors: dict[Node, tf.Tensor]) -> list[np.ndarray]:
        """Returns the outputs of the model."""
        return [tensors[output].numpy() for output in self.outputs]

    def _compute(
        self, node: Node, tensors: dict[Node, tf.Tensor], trial: Trial | None
    ) -> None:
        """Adds the output of an operator, and drops tensors that are no longer read."""
        if node.kind == "input":
            return
        values = [tensors[source] for source in node.inputs]
        for source in node.inputs:
            if self._last_reader[source] is node and not source.is_output:
                tensors.pop(source, None)
        if trial is not None and self._layers.get(node) == trial.layer:
            values = [self._coarser(node, values[0], trial)]
        else:
            values = [node.call(node.model_layer, values)]
        for part in node.fused:
            values = [part.call(part.model_layer, values)]
        [tensors[node]] = values

    def _coarser(self, node: Node, x: tf.Tensor, trial: Trial) -> tf.Tensor:
        """Returns the output of a layer for `x` with the bits of a trial."""
        if trial.activation_bits < lsq.MAX_NUM_BITS:
            step, integers = self._input_grid(node, x, trial.activation_bits)
            x = lsq.fake_quantize(x, step, integers)
        wrapper = node.model_layer
        kernel = self._kernel(wrapper, trial.weight_bits)
        with replaced_attributes(wrapper.layer, {wrapper.weight_attribute: kernel}):
            # Unlike `call`, this casts input and bias under mixed precision.
            return node.call(wrapper.layer, [x])

    def _input_grid(
        self, node: Node, x: tf.Tensor, num_bits: int
    ) -> tuple[tf.Tensor, lsq.IntegerRange]:
        """Returns the step and integers of an input, from the first batch."""
        key = node, num_bits
        if key not in self._grids:
            if _is_asymmetric(node):
                step, offset = lsq_plus.initial_values(x, num_bits)
                integers = lsq_plus.offset_range(offset, step, num_bits)
            else:
                signed = bool(tf.reduce_any(x < 0))
                integers = lsq.activation_range(num_bits, signed=signed)
                step = lsq.initial_step(x, integers)
            self._grids[key] = step, integers
        return self._grids[key]

    def _kernel(self, wrapper: LSQWrapper, num_bits: int) -> tf.Tensor:
        """Returns a kernel on the grid of `num_bits`, in the dtype of the sum."""
        key = wrapper.name, num_bits
        if key not in self._kernels:
            integers = lsq.weight_range(num_bits)
            step = lsq.initial_step(
                wrapper.kernel, integers, step_shape=tuple(wrapper.step.shape)
            )
            kernel = lsq.fake_quantize(wrapper.kernel, step, integers)
            self._kernels[key] = tf.cast(kernel, wrapper.compute_dtype)
        return self._kernels[key]


def _is_asymmetric(node: Node) -> bool:
    """Returns whether the point that an input comes from has a learned offset."""
    source = node.inputs[0]
    while source.kind != "point" and source.inputs:
        source = source.inputs[0]
    return source.kind == "point" and source.model_layer.quantizer.asymmetric
