"""Values of arguments that a model computes from shapes: `[tf.shape(x)[0], -1]`.

They depend on nothing but the batch size. The functions that the model recorded are
called with shapes that have a batch size, instead of with tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from .functions.recorded import BatchMoved, Unsupported
from .nodes import Node

# Batch sizes that show whether a value depends on the batch size, and how.
_BATCHES = (2, 3)


def known(value: Any) -> np.ndarray:
    """Returns an argument that is constant, or that a model computes from sizes.

    Raises:
        Unsupported: If it depends on the batch size or on the values of a tensor.
    """
    first, second = (at_batch_size(value, batch) for batch in _BATCHES)
    if not np.array_equal(first, second):
        raise Unsupported("an argument depends on the batch size")
    return first


def at_batch_size(value: Any, batch: int) -> np.ndarray:
    """Returns an argument for one batch size.

    Args:
        value: A number, or nested numbers; the model may compute some of them.
        batch: The batch size.

    Raises:
        Unsupported: If it depends on the values of a tensor, or on a size that is not
            known.
    """
    return np.asarray(tf.nest.map_structure(lambda v: _evaluated(v, batch), value))


def by_axis(value: Any, shape: tuple[int | None, ...]) -> list[int | None]:
    """Returns an argument with one entry per axis, None for the size of the batch.

    Args:
        value: The argument.
        shape: Shape of the tensor.

    Raises:
        Unsupported: If more than the first entry depends on the batch size.
    """
    batches = _BATCHES if shape[0] is None else (shape[0],)
    rows = [at_batch_size(value, batch).tolist() for batch in batches]
    if any(row[1:] != rows[0][1:] for row in rows):
        raise Unsupported("an argument depends on the batch size")
    first = {row[0] for row in rows}
    if len(first) == 1 and first != set(batches):
        return rows[0]
    if [row[0] for row in rows] != list(batches):
        raise Unsupported("an argument depends on the batch size")
    return [None, *rows[0][1:]]


def reshaped(shape: tuple[int | None, ...], target: Any) -> tuple[int | None, ...]:
    """Returns the shape after `tf.reshape`, with the batch axis of the input.

    Args:
        shape: Shape of the input.
        target: The argument of `tf.reshape`.

    Raises:
        BatchMoved: If the batch axis changes.
        Unsupported: If a size is not known.
    """
    batches = _BATCHES if shape[0] is None else (shape[0],)
    found = [_resolved(at_batch_size(target, b), sizes(shape, b)) for b in batches]
    whole = np.prod(found[0]) == np.prod(sizes(shape, batches[0]))
    kept = [one[:1] == (b,) for one, b in zip(found, batches, strict=True)]
    if not (whole and all(kept)) or any(one[1:] != found[0][1:] for one in found):
        raise BatchMoved(
            "a reshape must keep the batch axis first and whole, received "
            f"{list(found[0])} from {list(sizes(shape, batches[0]))} for a batch of "
            f"{batches[0]}; start its shape with -1 and give the other sizes"
        )
    return (shape[0], *found[0][1:])


def sizes(shape: tuple[int | None, ...], batch: int) -> tuple[int, ...]:
    """Returns a shape with its batch size.

    Raises:
        Unsupported: If another size is not known.
    """
    first, *others = shape
    known_sizes = [size for size in others if size is not None]
    if len(known_sizes) < len(others):
        raise Unsupported(f"every size but the batch must be known, received {shape}")
    return (batch if first is None else first, *known_sizes)


def _resolved(target: np.ndarray, source: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the target of a reshape without -1."""
    wanted, total = [int(size) for size in np.ravel(target)], int(np.prod(source))
    if -1 in wanted:
        others = int(np.prod([size for size in wanted if size != -1]))
        wanted[wanted.index(-1)] = total // max(others, 1)
    return tuple(wanted)


def _evaluated(value: Any, batch: int) -> Any:
    """Returns one value that a model may compute."""
    if not isinstance(value, Node):
        return value
    if value.foreign is None or not value.of_shapes:
        raise Unsupported("the model computes an argument that must be constant")
    if value.reads_shape:
        tensors = [tf.zeros(sizes(source.shape, batch)) for source in value.inputs]
    else:
        tensors = [_evaluated(source, batch) for source in value.inputs]
    return np.asarray(value.foreign.outputs(value.layer, tensors)[value.output])
