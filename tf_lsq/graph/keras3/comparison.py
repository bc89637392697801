"""Compares a Keras 3 model with its twin on random numbers, call by call.

Both run every call on the same tensors, those of the Keras 3 model. So a difference
belongs to one call, and rounding does not add up from layer to layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..._compat import deep_recursion, import_keras3, keras
from ..expansions import EXPANSIONS
from .differences import (
    compare,
    computable,
    is_finite,
    relative_difference,
    tolerance,
)
from .graph import CallTwin, ModelTwin, reason_of

_OVERALL_TOLERANCE = 1e-2  # Of the mean difference after all layers.
# Rounding errors of inputs, larger than one of float32, since every layer adds its own;
# and how often they are drawn.
_MOVE, _NUM_MOVES = 2.0**-20, 4
_BATCH, _LARGE = 2, 2**16  # One example if it has more values than this.
# For axes of unknown size; tried in this order until the model runs.
_SIZES = (32, 64, 128, 256, 16, 8, 4, 2, 1)
_REMEDY = "Write that part of the model with other layers"


class _Failed(Exception):
    """Raised if the Keras 3 model does not run on some inputs."""


def check_twin(twin: ModelTwin, example: Any = None) -> None:
    """Refuses a twin that computes something else than its Keras 3 model.

    A call that draws random numbers is not compared; Keras 3 runs it in the twin.

    Args:
        twin: The twin of a model.
        example: A batch of inputs in the structure of the model's; None: random ones.

    Raises:
        ValueError: If a call differs, by name, or the model does not run.
    """
    failure: Any = None
    for inputs in _batches(twin.original, example):
        comparison = _Comparison(twin)
        try:
            comparison.run(inputs)
        except _Failed as error:
            failure = failure or error
        else:
            return
    raise ValueError(
        f"`{twin.model.name}` cannot be compared with its twin, because it does not "
        f"run on random numbers. Pass a batch of its inputs: `tf_lsq.from_keras3(model,"
        f" example=batch)`; the twin can be quantized. Received: {failure}"
    )


@contextlib.contextmanager
def _in_float32() -> Iterator[None]:
    """Runs everything with the rounding of float32; GPUs may round to 10 bits."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with tf.device("CPU"):
            yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)


class _Comparison:
    """Runs a Keras 3 model and its twin on one batch."""

    def __init__(self, twin: ModelTwin) -> None:
        self._twin = twin
        # Whether the values after some call are not those of the model.
        self._changed = False
        self._rng = np.random.default_rng(0)

    def run(self, inputs: list[Any]) -> None:
        """Compares all calls, then the outputs of the whole model."""
        with import_keras3().StatelessScope(), _in_float32():  # Keeps all variables.
            expected = self._model(self._twin, inputs, "")
            if not self._changed:
                self._whole(inputs, expected)

    def _model(self, twin: ModelTwin, inputs: list[Any], path: str) -> list[Any]:
        """Compares the calls of one model; returns the outputs of Keras 3."""
        tensors = twin.original.inputs
        values = {id(t): value for t, value in zip(tensors, inputs, strict=True)}
        for node, call in twin.steps:
            if call.inner is not None:
                inner = call.inner.original
                args, kwargs = _filled(node, values)
                [first, *_] = [*args, *kwargs.values()]
                flat = inner._standardize_inputs(first)
                name = f"{path}{node.operation.name}/"
                outputs = self._model(call.inner, flat, name)
            else:
                outputs = self._call(twin, node, call, values, path)
            for tensor, value in zip(node.output_tensors, outputs, strict=True):
                values[id(tensor)] = self._finite(value)
        return [values[id(tensor)] for tensor in twin.original.outputs]

    def _call(
        self, twin: ModelTwin, node: Any, call: CallTwin, values: Any, path: str
    ) -> list[Any]:
        """Compares one call; returns the outputs of Keras 3."""
        operation = node.operation
        name = f"{path}{operation.name}"
        args, kwargs = _filled(node, values)
        if getattr(operation, "_call_has_training_arg", False):
            kwargs["training"] = False
        expected = _outputs_of_keras3(operation, args, kwargs, name)
        if getattr(operation, "stateful", False):
            self._changed = True  # Its states are not those of the twin.
            return expected
        problem = self._difference(twin, node, call, values, expected)
        if problem and call.runs_keras3:
            again = _outputs_of_keras3(operation, args, kwargs, name)
            if _compare(again, expected, tolerance(operation, _arrays(expected))):
                self._changed = True  # It draws random numbers.
                return expected
        if problem:
            own = EXPANSIONS.get(type(operation))
            remedy = f"Correct the function registered for {_kind(operation)}"
            named = f"`{name}` ({_kind(operation)})"
            raise ValueError(_refusal(named, problem, remedy if own else _REMEDY))
        return expected

    def _difference(
        self, twin: ModelTwin, node: Any, call: CallTwin, values: Any, expected: Any
    ) -> str | None:
        """Returns how the outputs of a twin differ, None if they do not."""
        args, kwargs = tf.nest.map_structure(
            lambda value: (
                _as_tensor(values[id(value)], twin.tensors[id(value)].dtype)
                if id(value) in values
                else twin.constant(value)
            ),
            (list(node.arguments.args), dict(node.arguments.kwargs)),
        )
        if getattr(node.operation, "_call_has_training_arg", False):
            kwargs["training"] = False
        try:
            found = tf.nest.flatten(call.call(*args, **kwargs))
        except Exception as error:  # A layer of tf_keras may raise anything.
            return f"it fails: {reason_of(error)}"
        limit = tolerance(node.operation, _arrays(expected))
        return _compare(found, expected, limit)

    def _finite(self, value: Any) -> Any:
        """Returns a tensor with random numbers in place of infinities and NaNs.

        They would hide all differences after them.
        """
        [array] = _arrays([value])
        if array.dtype.kind not in "fV" or is_finite(computable(array)):
            return value
        self._changed = True
        noise = self._rng.uniform(0.1, 1, array.shape).astype(array.dtype)
        array = np.where(np.isfinite(computable(array)), array, noise)
        return import_keras3().ops.convert_to_tensor(array)

    def _batch(self, inputs: list[Any]) -> list[Any]:
        """Returns the inputs of the twin."""
        types = [tensor.dtype for tensor in self._twin.model.inputs]
        return [_as_tensor(*pair) for pair in zip(inputs, types, strict=True)]

    def _whole(self, inputs: list[Any], expected: list[Any]) -> None:
        """Compares the outputs of the whole model."""
        twin, original = self._twin.model, self._twin.original
        limit = 4 * tolerance(original, _arrays(expected))
        limit = max(_OVERALL_TOLERANCE, limit)
        batch = tf.nest.pack_sequence_as(original._inputs_struct, self._batch(inputs))
        found = tf.nest.flatten(twin(batch, training=False))
        problem = _compare(found, expected, limit, np.mean)
        if problem and not self._is_rounding(inputs, found, expected):
            name = self._first_difference(inputs, limit)
            raise ValueError(_refusal(f"`{name}`", problem, _REMEDY))

    def _is_rounding(
        self, inputs: list[Any], found: list[Any], expected: list[Any]
    ) -> bool:
        """Returns whether the model amplifies rounding to such a difference.

        Its own outputs then change as much if its inputs change by rounding errors, as
        those of deep networks with random weights do. Every call has been compared.
        """
        original, arrays = self._twin.original, _arrays(inputs)
        limit = 0.0
        for _ in range(_NUM_MOVES):
            moved = [self._moved(array) for array in arrays]
            batch = tf.nest.pack_sequence_as(original._inputs_struct, moved)
            outputs = _arrays(tf.nest.flatten(original(batch, training=False)))
            for one, other in zip(outputs, _arrays(expected), strict=True):
                limit = max(limit, 4 * relative_difference(one, other, np.mean))
        return _compare(found, expected, limit, np.mean) is None

    def _moved(self, array: np.ndarray) -> np.ndarray:
        """Returns an input with rounding errors; integers stay as they are."""
        if array.dtype.kind not in "fV":
            return array
        factors = self._rng.uniform(1 - _MOVE, 1 + _MOVE, array.shape)
        return (computable(array) * factors).astype(array.dtype)

    def _first_difference(self, inputs: list[Any], limit: float) -> str:
        """Returns the name of the first call after which the models differ."""
        twin, keras3 = self._twin, import_keras3()
        nodes = [node for node, _ in twin.steps]
        tensors = [tensor for node in nodes for tensor in node.output_tensors]
        with deep_recursion():
            original = keras3.Model(twin.original.inputs, tensors)
            ends = [twin.tensors[id(tensor)] for tensor in tensors]
            copy = keras.Model(twin.model.inputs, ends)
        pairs = zip(
            tensors,
            original(inputs, training=False),
            copy(self._batch(inputs)),
            strict=True,
        )
        for tensor, expected, found in pairs:
            if _compare([found], [expected], limit, np.mean):
                return tensor._keras_history.operation.name
        return twin.model.name


def _filled(node: Any, values: dict[int, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments of a call in Keras 3, with values for its tensors."""
    args, kwargs = node.arguments.fill_in(values)
    return list(args), dict(kwargs)


def _outputs_of_keras3(operation: Any, args: Any, kwargs: Any, name: str) -> list[Any]:
    """Returns the outputs of a call in Keras 3.

    Raises:
        _Failed: If it raises an error.
    """
    try:
        return tf.nest.flatten(operation(*args, **kwargs))
    except Exception as error:  # The operation may be the user's.
        raise _Failed(f"`{name}` ({_kind(operation)}): {reason_of(error)}") from error


def _compare(found: Any, expected: Any, limit: float, over: Any = np.max) -> str | None:
    """Returns how tensors of any backend differ, see `compare`."""
    return compare(_arrays(found), _arrays(expected), limit, over)


def _arrays(values: Any) -> list[np.ndarray]:
    """Returns the values of tensors of any backend; PyTorch's keep gradients."""
    convert = import_keras3().ops.convert_to_numpy
    return [np.asarray(v) if tf.is_tensor(v) else convert(v) for v in values]


def _as_tensor(value: Any, dtype: tf.DType) -> Any:
    """Returns a tensor of any backend as the twin receives it, with its mask.

    Args:
        value: The tensor.
        dtype: Its type in the twin; Keras 3 may have computed it in float64.
    """
    if tf.is_tensor(value) and value.dtype == dtype:
        return value
    [array] = _arrays([value])
    tensor: Any = tf.cast(tf.constant(array), dtype)
    mask = getattr(value, "_keras_mask", None)
    if mask is not None:
        [array] = _arrays([mask])
        tensor._keras_mask = tf.constant(array)
    return tensor


def _batches(model: Any, example: Any) -> Iterator[list[Any]]:
    """Yields batches of inputs: the example, or random ones of several sizes."""
    convert = import_keras3().ops.convert_to_tensor
    if example is not None:
        flat = tf.nest.flatten(example)
        yield [
            convert(np.asarray(value), dtype=tensor.dtype)
            for value, tensor in zip(flat, model.inputs, strict=True)
        ]
        return
    is_fixed = all(None not in tensor.shape[1:] for tensor in model.inputs)
    for size in _SIZES[:1] if is_fixed else _SIZES:
        rng = np.random.default_rng(0)
        yield [
            convert(_random(tensor, size, rng), dtype=tensor.dtype)
            for tensor in model.inputs
        ]


def _random(tensor: Any, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns random values for an input.

    Integers are 0 or 1, which every embedding has; pixels are 0 to 255.
    """
    batch, *sizes = tensor.shape
    sizes = [size if length is None else length for length in sizes]
    shape = [batch or (_BATCH if np.prod(sizes) <= _LARGE else 1), *sizes]
    if tensor.dtype == "string":
        return np.full(shape, "a")
    if "float" in tensor.dtype:
        return rng.uniform(-1, 1, shape).astype(np.float32)
    return rng.integers(0, 256 if tensor.dtype == "uint8" else 2, shape)


def _refusal(what: str, problem: str, remedy: str) -> str:
    """Returns the message about a twin that differs."""
    return (
        f"The tf_keras twin of {what} must compute what Keras 3 computes. Received, on "
        f"the same numbers: {problem}. {remedy}."
    )


def _kind(operation: Any) -> str:
    """Returns the class name of a layer or operation."""
    return type(operation).__name__
