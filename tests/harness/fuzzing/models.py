"""Builds the small model of a call, in the Keras of its item."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from . import (
    hints_images,
    hints_layers,
    hints_operations,
    hints_shared,
    hints_tensorflow,
)
from .calls import Call, generic_calls
from .discovery import FRAMEWORKS, Item
from .operands import Stems, examples, head, randomize

NUM_EXAMPLES = 16
MAX_OUTPUTS = 3
MAX_RANKS = 2
HINTS = {
    **hints_shared.HINTS,
    **hints_tensorflow.HINTS,
    **hints_images.HINTS,
    **hints_operations.HINTS,
    **hints_layers.HINTS,
}
# Functions that ask whether a value is 0. Values near 0 are 0 on a grid.
ASK_FOR_ZERO = frozenset(
    "all any and_ or_ xor not_ count_nonzero nonzero truth heaviside sign logical_and "
    "logical_or logical_xor logical_not".split()
)
# Functions with a pole at 0, to which a grid rounds what is near it.
DIVIDE = frozenset(
    "categorical_crossentropy digamma floor_divide floordiv floor_div floormod fmod "
    "lbeta lgamma mod reciprocal remainder truncatediv truncatemod xdivy".split()
)


class NotRecordedError(Exception):
    """Raised if a call does not become part of a Keras model; says why."""


class NotFiniteError(NotRecordedError):
    """Raised if results are not finite numbers: for other values they may be."""


@dataclasses.dataclass(frozen=True)
class Built:
    """The model of a call.

    Attributes:
        call: The call.
        model: The model: inputs, a layer with a kernel, the call, another such layer.
        inputs: Random values for its inputs.
        asks_for_zero: Whether the function asks whether a value is 0.
    """

    call: Call
    model: Any
    inputs: list[np.ndarray]
    asks_for_zero: bool = False


def built_models(item: Item, seed: int) -> Iterator[Built | NotRecordedError]:
    """Yields models of an item: one per hint, or of up to `MAX_RANKS` ranks.

    Yields the first reason instead if no call can be recorded.
    """
    hints = HINTS.get(item.name) or HINTS.get(f"*.{item.short_name}") or []
    reason, found = NotRecordedError("its arguments are unknown"), False
    for call in hints:
        try:
            yield _build_first(item, [call], seed)
            found = True
        except NotRecordedError as error:
            reason = error
    if found:
        return
    count = 0
    for number, calls in enumerate(generic_calls(item)):
        try:
            yield _build_first(item, calls, seed)
            count += 1
        except NotRecordedError as error:
            reason = error if number == 0 and not hints else reason
        if count == MAX_RANKS:
            return
    if not count:
        yield reason


def _build_first(item: Item, calls: list[Call], seed: int) -> Built:
    """Returns the model of the first call that can be recorded.

    Raises:
        NotRecordedError: If none can; with the reason of the first.
    """
    reasons = []
    for call in calls:
        try:
            recorded(item, call)
            return _build_finite(item, call, seed)
        except NotRecordedError as error:
            reasons.append(error)
    raise reasons[0] if reasons else NotRecordedError("its arguments are unknown")


def _build_finite(item: Item, call: Call, seed: int) -> Built:
    """Returns the model of a call, on values for which its results are finite."""
    divides = item.short_name in DIVIDE
    for domain in ("above_one",) if divides else call.domains:
        try:
            return build(item, call.within(domain), seed)
        except NotFiniteError as error:
            reason = error
    raise reason


def recorded(item: Item, call: Call) -> list[Any]:
    """Returns the tensors that a call computes from inputs of a Keras model.

    Raises:
        NotRecordedError: If Keras or TensorFlow refuses it, or if it computes no
            numbers for each example.
    """
    stems = Stems(FRAMEWORKS[item.framework])
    return _apply(item, call, [stems.plain(operand) for operand in call.operands])


def _apply(item: Item, call: Call, tensors: list[Any]) -> list[Any]:
    """Returns the tensors that a call computes."""
    with quiet():
        try:
            result = call.apply(item.target, *tensors)
        except Exception as error:
            raise NotRecordedError(_reason(error)) from error
        return _results(result, item.framework, tensors)


def build(item: Item, call: Call, seed: int) -> Built:
    """Returns the model of one call.

    Raises:
        NotRecordedError: If the call cannot be recorded, or if its results are random
            or infinite.
    """
    framework = FRAMEWORKS[item.framework]
    start(framework, seed)
    stems = Stems(framework)
    with quiet():
        results = _apply(item, call, [stems.tensor(op) for op in call.operands])
        try:
            ids = all(operand.domain == "ids" for operand in call.operands)
            outputs = [head(framework, x, of_integers=ids) for x in results]
            model = framework.Model(stems.inputs, outputs, name="model")
        except Exception as error:
            raise NotRecordedError(_reason(error)) from error
        rng = np.random.default_rng(seed)
        randomize(model, rng)
        zero = item.short_name in ASK_FOR_ZERO
        built = Built(call, model, examples(model, NUM_EXAMPLES, rng), zero)
        _check_types(built, framework.Model(stems.inputs, results))
        _check_results(built)
    return built


def start(framework: Any, seed: int) -> None:
    """Resets names and random numbers."""
    if framework is FRAMEWORKS["keras"]:
        framework.backend.clear_session(free_memory=False)
    else:
        framework.backend.clear_session()
    framework.utils.set_random_seed(seed)


def outputs_of(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of a model at inference, complex numbers as pairs."""
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    arrays = [np.asarray(output) for output in tf.nest.flatten(outputs)]
    return [
        np.stack([a.real, a.imag], -1) if np.iscomplexobj(a) else a.astype(np.float64)
        for a in arrays
    ]


class quiet(warnings.catch_warnings):
    """Silences warnings and logs of what is tried."""

    def __enter__(self) -> Any:
        logging.disable(logging.ERROR)
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        return entered

    def __exit__(self, *args: Any) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*args)


def _results(result: Any, framework: str, tensors: list[Any]) -> list[Any]:
    """Returns the tensors that a call computed."""
    given = {id(tensor) for tensor in tensors}
    is_tensor = FRAMEWORKS[framework].backend.is_keras_tensor
    found: dict[int, Any] = {}
    try:
        flat = tf.nest.flatten(result)
    except TypeError:
        flat = [result]
    for value in flat:
        if _is(is_tensor, value) and id(value) not in given:
            found[id(value)] = value
    if not found:
        raise NotRecordedError("returns no tensor that depends on its arguments")
    kinds = {type(value).__name__ for value in found.values()} - {"KerasTensor"}
    if kinds:
        raise NotRecordedError(f"returns a {sorted(kinds)[0]}")
    if any("string" in str(value.dtype) for value in found.values()):
        raise NotRecordedError("returns text")
    outputs = list(found.values())[:MAX_OUTPUTS]
    if any(not len(x.shape) or x.shape[0] is not None for x in outputs):
        raise NotRecordedError("its result has no batch axis")
    return outputs


def _is(is_tensor: Any, value: Any) -> bool:
    """Returns whether a value is a tensor of Keras."""
    try:
        return bool(is_tensor(value))
    except (TypeError, ValueError):
        return False


def _check_results(built: Built) -> None:
    """Refuses models that cannot run, or whose outputs are random or not numbers."""
    try:
        first, second = (outputs_of(built.model, built.inputs) for _ in range(2))
    except Exception as error:
        raise NotRecordedError(f"does not run: {_reason(error)}") from error
    if any(len(x) != NUM_EXAMPLES for x in first):
        raise NotRecordedError("its result has no batch axis")
    _check_tracing(built)
    if not all(x.size for x in first):
        raise NotRecordedError("its result is empty")
    for x, output in zip(first, built.model.outputs, strict=True):
        sizes = zip(output.shape, x.shape, strict=False)
        if any(size not in (None, real) for size, real in sizes):
            raise NotRecordedError(f"its result has the shape {x.shape} when it runs")
    if not all(np.isfinite(x).all() for x in first):
        raise NotFiniteError("its results are not finite")
    if any(not np.array_equal(x, y) for x, y in zip(first, second, strict=True)):
        raise NotRecordedError("its results are random")
    _check_batches(built, first)


def _check_types(built: Built, model: Any) -> None:
    """Refuses functions for whose results Keras infers another type."""
    inputs = built.inputs if len(built.inputs) > 1 else built.inputs[0]
    try:
        found = tf.nest.flatten(model(inputs, training=False))
    except Exception as error:
        raise NotRecordedError(f"does not run: {_reason(error)}") from error
    for tensor, value in zip(model.outputs, found, strict=True):
        inferred, real = tf.as_dtype(tensor.dtype), tf.as_dtype(value.dtype)
        if inferred != real:
            text = f"Keras infers {inferred.name}, but its result is {real.name}"
            raise NotRecordedError(text)


def _check_tracing(built: Built) -> None:
    """Refuses models that Keras itself cannot run in `predict`."""
    try:
        for batch in (None, NUM_EXAMPLES):
            shapes = [(batch, *x.shape[1:]) for x in built.inputs]
            specs = [
                tf.TensorSpec(s, x.dtype)
                for s, x in zip(shapes, built.inputs, strict=True)
            ]
            inputs = [specs] if len(specs) > 1 else specs
            tf.function(built.model).get_concrete_function(*inputs)
    except Exception as error:
        raise NotRecordedError(f"fails in `predict`: {_reason(error)}") from error
    shapes = [tuple(output.shape[1:]) for output in built.model.outputs]
    if any(None in shape for shape in shapes):
        raise NotRecordedError(f"Keras does not know the sizes of its result: {shapes}")


def _check_batches(built: Built, outputs: list[np.ndarray]) -> None:
    """Refuses models that need some number of examples, or mix them."""
    try:
        few = outputs_of(built.model, [x[:2] for x in built.inputs])
    except Exception as error:
        raise NotRecordedError(f"fails for 2 examples: {_reason(error)}") from error
    for x, whole in zip(few, outputs, strict=True):
        if x.shape != whole[:2].shape or not np.allclose(
            x, whole[:2], 1e-3, 1e-3 * abs(whole).max(), equal_nan=True
        ):
            raise NotRecordedError("its results depend on the other examples")


def _reason(error: Exception) -> str:
    """Returns the first line of an error."""
    text = str(error).strip() or type(error).__name__
    lines = [line for line in text.splitlines() if line.strip()]
    wrapped = lines[0].startswith("Exception encountered when calling")
    line = lines[1] if wrapped and len(lines) > 1 else lines[0]
    return f"{type(error).__name__}: {line.strip()[:160]}"
