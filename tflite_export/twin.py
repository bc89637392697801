"""`integer_twin`: a Keras model that computes the integers of a file.

It runs at the speed of Keras, on whole batches and on any device, so `evaluate` gives
the accuracy on a phone. Products of integers are convolutions in float32, which are
exact as long as every partial sum is below 2**24; beyond that they are computed in
float64. The rounding after them is that of the kernel that LiteRT would choose for the
operator, see `runtimes`.

Operators pass on codes minus their zero point, as float32 tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lsq._compat import (
    deep_recursion,
    is_keras3_model,
    keras,
    model_structure,
    name_outputs,
)

from .freezing import (
    FrozenModel,
    FrozenNode,
    Grid,
    InputShapes,
    Storage,
    at_shapes,
    check_quantized,
    freeze_model,
    read_model,
)
from .operators import OPERATORS, Compute, Context, decoded, exact_output, quantized
from .runtimes import RUNTIMES, Runtime, find_runtime
from .targets import TARGETS


def integer_twin(
    model: keras.Model,
    *,
    storage: str = "int8",
    bias_grid: str = "own",
    runtime: str | None = None,
    kernels: str = "xnnpack",
    input_shapes: InputShapes | None = None,
) -> keras.Model:
    """Returns a Keras model that computes the integers of the exported file.

    The twin has the inputs and outputs of `model`, with each output on the grid of the
    file. `evaluate` and `predict` work as usual; the twin cannot be trained or saved.

    It equals LiteRT on x86-64, on emulated arm64 cores and in a browser, and TFLite
    Micro, in every integer tensor compared. Next to ties, TANH and ELU depend on the C
    library of a device: their codes can be off by one there. Layers left in float are
    computed in float, and quantized afterwards. Inputs are quantized as by the code in
    a report's `snippets`, which rounds ties to even; in a file with float32 inputs,
    TFLite Micro rounds them away from zero. Inputs that are pixels take the values that
    `model` takes, which are turned into the bytes that an app copies.

    Args:
        model: A quantized model, trained or calibrated.
        storage: As given to `export_model`.
        bias_grid: As given to `export_model`.
        runtime: What runs the file: "arm64", LiteRT on phones; "x86-64", LiteRT on
            most other computers; "wasm", LiteRT.js in browsers; "tflm", TFLite Micro.
            None: that of the target of `model`.
        kernels: "xnnpack": LiteRT as it is. "builtin": without XNNPACK, on one thread.
        input_shapes: As given to `export_model`.

    Returns:
        A model of the Keras of `model`, with its inputs and outputs, uncompiled. Each
        layer has the name of its operator in the file, with "." for "/" and for
        other characters that TensorFlow does not allow in names.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If an option is unknown, or `model` cannot be exported.
        RuntimeError: If `model` was never trained or calibrated.
    """
    stored = Storage(storage, bias_grid)
    quantized = at_shapes(check_quantized(model), input_shapes)
    trained = read_model(quantized)
    chosen = target_runtime(trained.target)
    if runtime is not None:
        chosen = find_runtime(runtime)
    chosen = chosen.with_kernels(kernels)
    twin = build_twin(freeze_model(trained, stored), quantized, chosen)
    if not is_keras3_model(model):
        return twin
    from tf_lsq.keras3 import ModelView  # Needs the backend TensorFlow.

    return ModelView(twin)


def target_runtime(name: str) -> Runtime:
    """Returns what runs the files of a target.

    Args:
        name: A key of `targets.TARGETS`.
    """
    return RUNTIMES[TARGETS[name].runtime]


def build_twin(
    frozen: FrozenModel, model: keras.Model, runtime: Runtime
) -> keras.Model:
    """Returns the twin of a file.

    Args:
        frozen: The numbers of the file.
        model: The model that the numbers come from.
        runtime: What runs the file.
    """
    operators = twin_operators(frozen, runtime)
    nodes, tensors, inputs = frozen.by_name(), {}, {}
    for node in frozen.nodes:
        if node.kind == "input":
            tensor = inputs[node.name] = _input_like(model, node.trained.layer)
            if node.grid is not None:
                codes = f"{_plain(node.name)}_codes"
                to_codes = quantized(node.grid)
                if node.pixel_grid is not None:
                    to_codes = decoded(node.pixel_grid)
                tensor = _Operator(to_codes, codes)(tensor)
            tensors[node.name] = tensor
        else:
            layer = _Operator(operators[node.name], _plain(node.name))
            tensors[node.name] = layer([tensors[name] for name in node.inputs])
    outputs = []
    for name, tensor in frozen.outputs.items():
        values = _Operator(_real_values(nodes[tensor].grid), f"{_plain(name)}_values")
        outputs.append(values(tensors[tensor]))
    ends = [inputs[tensor] for tensor in frozen.inputs.values()]
    input_structure, output_structure = model_structure(model)
    with deep_recursion():
        twin = keras.Model(
            tf.nest.pack_sequence_as(input_structure, ends),
            tf.nest.pack_sequence_as(output_structure, outputs),
            name=f"{model.name}_twin",
        )
    name_outputs(twin, list(frozen.outputs))
    return twin


def twin_operators(frozen: FrozenModel, runtime: Runtime) -> dict[str, Compute]:
    """Returns what each operator of a file computes, by the name of its output.

    Args:
        frozen: The operators of the file.
        runtime: What runs the file.

    Returns:
        Functions from the inputs to the output; integer tensors as codes minus their
        zero point, others as real values, all float32.
    """
    nodes = frozen.by_name()
    functions = {}
    for node in frozen.nodes:
        if node.kind == "input":
            continue
        sources = [nodes[name] for name in node.inputs]
        context = Context(
            node,
            sources,
            runtime,
            OPERATORS[node.kind],
            one_at_a_time=not frozen.dynamic_batch,
        )
        if node.is_float:
            functions[node.name] = _in_float(context)
        else:
            functions[node.name] = context.operator.integers(context)
    return functions


class TwinRunner:
    """Computes tensors of a file, one operator at a time, without a trace."""

    def __init__(
        self, frozen: FrozenModel, runtime: Runtime, wanted: Collection[str]
    ) -> None:
        """Prepares the operators.

        Args:
            frozen: The operators of the file.
            runtime: What runs the file.
            wanted: Names of the tensors to compute.
        """
        self._operators = twin_operators(frozen, runtime)
        self._nodes, self._wanted = frozen.by_name(), wanted
        self._inputs = [n.name for n in frozen.nodes if n.kind == "input"]
        last = {s: name for name in self._operators for s in self._nodes[name].inputs}
        # Operator -> the tensors that nothing needs after it.
        self._done: dict[str, list[str]] = {name: [] for name in self._operators}
        for tensor, reader in last.items():
            if tensor not in wanted:
                self._done[reader].append(tensor)

    def run(self, codes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the wanted tensors of one batch.

        Args:
            codes: The inputs of the file by the name of their tensor; others are
                ignored.

        Returns:
            Name of the tensor -> codes of its type; values of tensors without a grid.
        """
        computed = {name: centered(self._nodes[name], codes) for name in self._inputs}
        for name, compute in self._operators.items():
            sources = [computed[source] for source in self._nodes[name].inputs]
            computed[name] = compute(sources)
            for tensor in self._done[name]:
                del computed[tensor]
        return {
            name: _stored(self._nodes[name].grid, computed[name])
            for name in self._wanted
        }


def twin_codes(
    frozen: FrozenModel, codes: Mapping[str, np.ndarray], runtime: Runtime
) -> dict[str, np.ndarray]:
    """Returns what a runtime computes, as the twin predicts it.

    Args:
        frozen: The operators of the file.
        codes: As for `TwinRunner.run`.
        runtime: What runs the file.

    Returns:
        As `TwinRunner.run`, for all tensors.
    """
    return TwinRunner(frozen, runtime, frozen.by_name().keys()).run(codes)


def _stored(grid: Grid | None, result: tf.Tensor) -> np.ndarray:
    """Returns what an operator of the twin computed as codes of its tensor's type."""
    if grid is None:
        return result.numpy()
    return (result.numpy() + grid.zero_point).astype(grid.container)


def centered(node: FrozenNode, codes: Mapping[str, np.ndarray]) -> tf.Tensor:
    """Returns a tensor as operators of the integer twin take it.

    Args:
        node: The operator that computes the tensor.
        codes: Codes, or values, by the name of the tensor.
    """
    stored = codes[node.name]
    if node.grid is None:
        return tf.constant(stored)
    return tf.constant(stored.astype(np.float32) - node.grid.zero_point)


def _in_float(context: Context) -> Compute:
    """Returns the function of an operator that is left in float."""
    grids = [source.grid for source in context.sources]

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        values = [_exact_values(x, grid) for x, grid in zip(inputs, grids, strict=True)]
        result = exact_output(context.node, values)
        return tf.cast(result, tf.float32) if result.dtype.is_floating else result

    return compute


def _exact_values(tensor: tf.Tensor, grid: Grid | None) -> tf.Tensor:
    """Returns the values of a tensor in float64; integers without a scale stay so."""
    if grid is not None:
        return tf.cast(tensor, tf.float64) * grid.scale
    return tf.cast(tensor, tf.float64) if tensor.dtype.is_floating else tensor


def _input_like(model: keras.Model, layer: str) -> Any:
    """Returns an input with the shape and type of one of the model's inputs."""
    config = model.get_layer(layer).get_config()
    return keras.Input(
        batch_shape=config["batch_input_shape"], dtype=config["dtype"], name=layer
    )


def _real_values(grid: Grid | None) -> Compute:
    """Returns codes minus zero point -> real values; leaves others unchanged."""
    if grid is None:
        return lambda inputs: inputs[0]
    return lambda inputs: inputs[0] * np.float32(grid.scale)


def _plain(name: str) -> str:
    """Returns a tensor's name in the form TensorFlow allows for layers with ops."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", ".", name)
    return plain if plain[0].isalnum() else f".{plain}"


class _Operator(keras.layers.Layer):
    """A function of tensors as a layer without weights."""

    def __init__(self, compute: Compute, name: str) -> None:
        super().__init__(name=name, dtype="float32", trainable=False)
        # There is nothing to convert, and conversion is slow.
        self._compute = tf.autograph.experimental.do_not_convert(compute)

    def call(self, inputs: Any) -> tf.Tensor:
        """Computes the operator."""
        return self._compute(inputs if isinstance(inputs, list) else [inputs])

    def get_config(self) -> Any:
        """Raises an error: a twin is always built from the trained model."""
        raise NotImplementedError(
            "A twin cannot be saved. Save the trained model, and build the twin again "
            "with `integer_twin`."
        )
