"""The accepted forms of `data` arguments.

An ndarray or tensor of inputs; a pair `(x, y)`; or batches of x, `(x, y)` or
`(x, y, sample_weight)`: a `tf.data.Dataset`, a `Sequence` or `PyDataset` of Keras, or
a generator that ends. For a model with several inputs, x is a list or a dict of arrays.
Pairs may be lists where that is clear.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

# A generator that yields more batches than this is taken for one without an end.
_MOST_BATCHES = 10_000


def as_data(data: Any, num_inputs: int) -> Any:
    """Returns data that can be read several times, with every pair as a tuple.

    Args:
        data: See the module docstring; a generator is read to its end.
        num_inputs: How many inputs the model has: a list of two arrays is x for a model
            with two, and `[x, y]` for a model with one.

    Raises:
        ValueError: If a generator does not end.
    """
    if isinstance(data, Iterator):
        elements = list(itertools.islice(data, _MOST_BATCHES + 1))
        if len(elements) > _MOST_BATCHES:
            raise ValueError(
                "`data` must end. Received: a generator that has yielded "
                f"{_MOST_BATCHES:,} batches. Pass `itertools.islice(data, count)`."
            )
        return _Batches(elements)
    return as_pair(data, num_inputs)


def as_pair(element: Any, num_inputs: int) -> Any:
    """Returns `(x, y)` for `[x, y]`, and arrays for lists of numbers.

    Args:
        element: Data, or what a generator or a sequence yields.
        num_inputs: How many inputs the model has.
    """
    if not isinstance(element, list):
        return element
    if not any(hasattr(leaf, "shape") for leaf in tf.nest.flatten(element)):
        return np.asarray(element)
    is_pair = num_inputs == 1 and len(element) in (2, 3)
    return tuple(element) if is_pair else element


class _Batches(list):
    """Batches in memory."""


def is_sequence(data: Any) -> bool:
    """Returns whether data are batches by number, as a `Sequence` of Keras."""
    if isinstance(data, _Batches):
        return True
    plain = isinstance(data, list | tuple | dict | str) or hasattr(data, "shape")
    counted = hasattr(data, "__len__") or hasattr(data, "num_batches")
    return not plain and hasattr(data, "__getitem__") and counted


def batches(data: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Yields `(x, y)` batch by batch; y is None without labels.

    Args:
        data: See the module docstring. A dataset keeps its own batches.
        batch_size: Examples per batch for arrays.

    Raises:
        TypeError: If `data` has none of the accepted forms.
    """
    if isinstance(data, tf.data.Dataset):
        for element in data:
            yield _split(element)
        return
    if isinstance(data, Iterator):
        for element in data:
            yield _split_list(element)
        return
    if is_sequence(data):
        numbers = range(len(data)) if hasattr(data, "__len__") else itertools.count()
        for number in numbers:
            yield _split_list(data[number])
        return
    x, y = _split(data)
    length = _length(x)
    for start in range(0, length, batch_size):
        chosen = slice(start, start + batch_size)
        yield _take(x, chosen), None if y is None else _take(y, chosen)


def num_batches(data: Any, batch_size: int) -> int | None:
    """Returns how many batches `batches` yields, None if unknown."""
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        return count if count >= 0 else None
    if is_sequence(data):
        return len(data) if hasattr(data, "__len__") else None
    return math.ceil(_length(_split(data)[0]) / batch_size)


def first_examples(data: Any, names: list[str], count: int) -> list[np.ndarray]:
    """Returns the first examples of `data`, one array per input of the model.

    Args:
        data: See the module docstring.
        names: Names of the model's inputs.
        count: How many examples; all if there are fewer.

    Raises:
        ValueError: If `data` has no examples.
    """
    parts: list[list[np.ndarray]] = []
    num_collected = 0
    for x, _ in batches(data, count):
        parts.append(inputs_as_list(x, names))
        num_collected += len(parts[-1][0])
        if num_collected >= count:
            break
    if not num_collected:
        raise ValueError("`data` must have at least one example. Received: none.")
    return [np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True)]


def first_batch(data: Any, names: list[str], count: int) -> Any:
    """Returns the first examples of `data` as one batch that a model takes.

    Args:
        data: See the module docstring.
        names: Names of the model's inputs.
        count: How many examples; all if there are fewer.
    """
    return as_batch(first_examples(data, names, count), names)


def as_batch(arrays: list[np.ndarray], names: list[str]) -> Any:
    """Returns one array per input as what a model takes: an array, or a dict."""
    return dict(zip(names, arrays, strict=True)) if len(arrays) > 1 else arrays[0]


def check_num_examples(num_examples: int) -> None:
    """Raises unless at least one example is used.

    Args:
        num_examples: How many of the first examples are used.

    Raises:
        ValueError: If `num_examples` is less than 1.
    """
    if num_examples < 1:
        raise ValueError(
            f"`num_examples` must be at least 1. Received: {num_examples}."
        )


def _split(element: Any) -> tuple[Any, Any]:
    """Returns x and y of one element."""
    if isinstance(element, tuple):
        if not 1 <= len(element) <= 3:
            raise TypeError(
                "`data` must be x, (x, y) or (x, y, sample_weight). "
                f"Received a tuple of length {len(element)}."
            )
        return element[0], element[1] if len(element) > 1 else None
    return element, None


def _split_list(element: Any) -> tuple[Any, Any]:
    """Returns x and y of what a generator yields; Keras takes `[x, y]` as a pair."""
    return _split(tuple(element) if isinstance(element, list) else element)


def _length(x: Any) -> int:
    """Returns the number of examples."""
    arrays = tf.nest.flatten(x)
    if not arrays or not all(hasattr(array, "shape") for array in arrays):
        raise TypeError(
            "`data` must be an array, (x, y), or batches: a tf.data.Dataset, a "
            "Sequence, a PyDataset or a generator. "
            f"Received: {type(x).__name__}."
        )
    lengths = {int(array.shape[0]) for array in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "All inputs of `data` must have the same number of examples, at least "
            f"one. Received lengths: {sorted(lengths)}."
        )
    return lengths.pop()


def _take(x: Any, chosen: slice) -> Any:
    """Returns the chosen examples of every array."""
    return tf.nest.map_structure(lambda array: array[chosen], x)


def inputs_as_list(x: Any, names: list[str]) -> list[np.ndarray]:
    """Returns the arrays of one batch in the order of the model's inputs.

    Args:
        x: An array, or a list, tuple or dict of arrays.
        names: Names of the model's inputs.

    Raises:
        ValueError: If the number or the names of the inputs differ.
    """
    if isinstance(x, dict):
        if set(x) != set(names):
            raise ValueError(
                f"`data` must have the inputs {names}. Received: {sorted(x)}."
            )
        arrays = [x[name] for name in names]
    else:
        arrays = list(x) if isinstance(x, list | tuple) else [x]
    if len(arrays) != len(names):
        raise ValueError(
            f"`data` must have {len(names)} inputs ({names}). Received: {len(arrays)}."
        )
    return [np.asarray(array) for array in arrays]
