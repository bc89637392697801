"""`MaskedPoint`: a point of scores, some of which a constant mask excludes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from .point import SETTINGS, QuantizationPoint
from .quantizers import LSQActivationQuantizer

# Distance of a masked score from the smallest other one, in steps.
DISTANCE = 128


@keras.utils.register_keras_serializable(package="tf_lsq")
class MaskedPoint(QuantizationPoint):
    """Quantizes scores; those that a mask excludes are far below all others.

    Args:
        quantizer: 7 bits, signed, with a smallest step.
        mask: Whether a score is kept, nested lists of numbers, with as many axes as the
            scores; those of size 1 are broadcast.
        **kwargs: Arguments of `QuantizationPoint`.
    """

    def __init__(
        self, quantizer: LSQActivationQuantizer, *, mask: Sequence[Any], **kwargs: Any
    ) -> None:
        super().__init__(quantizer, **kwargs)
        self.mask = np.asarray(mask, bool).astype(int).tolist()

    @property
    def excluded(self) -> tf.Tensor:
        """The value of a masked score, shape `[]`."""
        return self.step * float(self.integer_range.q_min - DISTANCE)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Returns the scores on the grid; no gradient passes where they are masked."""
        kept = tf.cast(tf.constant(self.mask), tf.bool)
        scores = super().call(tf.where(kept, inputs, tf.zeros_like(inputs)), training)
        excluded = tf.cast(tf.stop_gradient(self.excluded), scores.dtype)
        return tf.where(kept, scores, excluded)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "mask": self.mask}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Rebuilds the point."""
        config = dict(config)
        chosen = {name: config.pop(name) for name in SETTINGS}
        return cls(LSQActivationQuantizer(**chosen), **config)
