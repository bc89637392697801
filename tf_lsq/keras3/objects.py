"""Objects of tf_keras for a Keras 3 model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._compat import import_keras3
from ..data import as_pair, is_sequence
from ..training import (
    AdamWOnKernels,
    CrossEntropy,
    DistillationLoss,
    SGDWithL2,
    replaced,
)
from . import losses, optimizers

keras3: Any = import_keras3()

# Classes of this library for tf_keras -> for Keras 3.
_OWN: dict[type, type] = {
    SGDWithL2: optimizers.SGDWithL2,
    AdamWOnKernels: optimizers.AdamWOnKernels,
    CrossEntropy: losses.CrossEntropy,
    DistillationLoss: losses.DistillationLoss,
}


def as_keras3(value: Any) -> Any:
    """Returns arguments of `compile` with every object of tf_keras replaced.

    Args:
        value: An object, or a list or dict of them; what is not of tf_keras is
            returned as it is.

    Raises:
        ValueError: If an object has no equal in Keras 3.
    """
    return replaced(value, keras3, _OWN, "Keras 3")


def as_keras3_data(x: Any) -> Any:
    """Returns data for `fit` in a form that Keras 3 takes.

    Lists of numbers become arrays; what a generator or a sequence yields as `[x, y]`
    becomes `(x, y)`.
    """
    if isinstance(x, list):
        return as_pair(x, 2)
    if isinstance(x, Iterator):
        return (tuple(one) if isinstance(one, list) else one for one in x)
    return _AsPyDataset(x) if is_sequence(x) else x


class _AsPyDataset(keras3.utils.PyDataset):
    """Batches by number as a `PyDataset` that yields tuples."""

    def __init__(self, batches: Any) -> None:
        names = ("workers", "use_multiprocessing", "max_queue_size")
        settings = {name: getattr(batches, name, None) for name in names}
        super().__init__(**{n: v for n, v in settings.items() if v is not None})
        self._wrapped = batches

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has, None without an end."""
        wrapped = self._wrapped
        return len(wrapped) if hasattr(wrapped, "__len__") else None

    def __getitem__(self, index: int) -> Any:
        batch = self._wrapped[index]
        return tuple(batch) if isinstance(batch, list) else batch

    def on_epoch_begin(self) -> None:
        """Passes on the beginning of an epoch."""
        getattr(self._wrapped, "on_epoch_begin", lambda: None)()

    def on_epoch_end(self) -> None:
        """Passes on the end of an epoch."""
        getattr(self._wrapped, "on_epoch_end", lambda: None)()
