"""Objects of tf_keras for a Keras 3 model."""

from __future__ import annotations

from typing import Any

from .._compat import import_keras3
from ..training import (
    AdamWOnKernels,
    CrossEntropy,
    DistillationLoss,
    SGDWithL2,
    replaced,
)
from . import losses, optimizers

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
    return replaced(value, import_keras3(), _OWN, "Keras 3")
