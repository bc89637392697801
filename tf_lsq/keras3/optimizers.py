"""The optimizers of this library for Keras 3."""

from __future__ import annotations

from typing import Any

from .. import training
from .._compat import import_keras3
from ..training import DecaysKernels, HasL2

keras3: Any = import_keras3()


@keras3.saving.register_keras_serializable(package="tf_lsq")
class SGDWithL2(HasL2, keras3.optimizers.SGD):
    """`tf_lsq.SGDWithL2` for Keras 3."""

    tf_keras_class = training.SGDWithL2


@keras3.saving.register_keras_serializable(package="tf_lsq")
class AdamWOnKernels(DecaysKernels, keras3.optimizers.AdamW):
    """`tf_lsq.AdamWOnKernels` for Keras 3."""

    tf_keras_class = training.AdamWOnKernels
