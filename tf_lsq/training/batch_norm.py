"""Re-estimates batch norm statistics for the weights a training ends with.

With few bits, some weights lie between two codes and change codes until the end of a
training, however small the learning rate. The moving averages of batch norms then
mix statistics of codes that the final network does not have. Re-estimating them
fixes that: M. Nagel et al., "Overcoming Oscillations in Quantization-Aware Training",
ICML 2022, https://arxiv.org/abs/2203.11086.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .._compat import keras, nodes_of
from ..data import as_pair, batches
from .biases import round_biases
from .learned_steps import check_calibrated, student_of


def reestimate_batch_norm(
    model: keras.Model, data: Any, *, num_batches: int = 100, batch_size: int = 32
) -> None:
    """Sets the moving averages of batch norms to the means over some batches.

    The batches flow through the model as in training, with its current weights.
    Batch norms with `trainable=False`, or called with `training=False`, are left
    unchanged. Biases are rounded afterwards, see `round_biases`.

    Args:
        model: A trained quantized model.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`: the
            training data, augmented as in training.
        num_batches: How many batches are used; all if there are fewer.
        batch_size: Examples per batch for arrays; ideally as in training.

    Raises:
        RuntimeError: If `model` has not been trained or calibrated.
        ValueError: If `num_batches` or `batch_size` is less than 1, or `data` has no
            batch.

    References:
        Nagel et al., https://arxiv.org/abs/2203.11086
    """
    _check_counts(num_batches, batch_size)
    model = student_of(model)
    check_calibrated(model)
    data = as_pair(data, len(model.inputs))
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]

    calls = collections.Counter(id(node.layer) for node in nodes_of(model))

    @tf.function(reduce_retracing=True)
    def measure(x: Any, seen: tf.Tensor) -> None:
        with contextlib.ExitStack() as stack:
            for norm in norms:
                stack.enter_context(_averaging(norm, seen * calls[id(norm)]))
            model(x, training=True)

    seen = 0
    for x, _ in itertools.islice(batches(data, batch_size), num_batches):
        x = tf.nest.map_structure(tf.convert_to_tensor, x)
        measure(x, tf.constant(seen, tf.float32))
        seen += 1
    if not seen:
        raise ValueError("`data` must have at least one batch. Received: none.")
    round_biases(model)


@contextlib.contextmanager
def _averaging(norm: Any, seen: tf.Tensor) -> Iterator[None]:
    """Makes moving averages the means of all tensors, of which `seen` came before."""
    kept, number = norm.momentum, itertools.count()

    def call(*args: Any, **kwargs: Any) -> Any:
        before = seen + next(number)  # Several in a batch, if the layer is shared.
        norm.momentum = before / (before + 1.0)
        return type(norm).call(norm, *args, **kwargs)

    vars(norm)["call"] = call
    try:
        yield
    finally:
        del vars(norm)["call"]
        norm.momentum = kept


class BatchNormReestimation(keras.callbacks.Callback):
    """Calls `reestimate_batch_norm` at the end of `fit`.

    Args:
        data: See `reestimate_batch_norm`.
        num_batches: See `reestimate_batch_norm`.
        batch_size: See `reestimate_batch_norm`.

    Raises:
        ValueError: If `num_batches` or `batch_size` is less than 1.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((64, 8, 8, 3), np.float32)
        >>> callbacks = [BatchNormReestimation(images, batch_size=16)]

    References:
        Nagel et al., https://arxiv.org/abs/2203.11086
    """

    def __init__(self, data: Any, *, num_batches: int = 100, batch_size: int = 32):
        super().__init__()
        _check_counts(num_batches, batch_size)
        self._data = data
        self._counts = {"num_batches": num_batches, "batch_size": batch_size}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Re-estimates the statistics."""
        reestimate_batch_norm(self.model, self._data, **self._counts)


def _check_counts(num_batches: int, batch_size: int) -> None:
    """Raises unless both are positive."""
    for name, value in (("num_batches", num_batches), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {value}.")
