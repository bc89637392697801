"""The losses of this library for Keras 3."""

from __future__ import annotations

from typing import Any

from .. import training
from .._compat import import_keras3
from ..training import CrossEntropyOfClasses, DistillationOfClasses

keras3: Any = import_keras3()


@keras3.saving.register_keras_serializable(package="tf_lsq")
class CrossEntropy(CrossEntropyOfClasses, keras3.losses.Loss):
    """`tf_lsq.CrossEntropy` for Keras 3."""

    tf_keras_class = training.CrossEntropy


@keras3.saving.register_keras_serializable(package="tf_lsq")
class DistillationLoss(DistillationOfClasses, keras3.losses.Loss):
    """`tf_lsq.DistillationLoss` for Keras 3."""

    tf_keras_class = training.DistillationLoss
