"""`QuantizedTensor`: integer codes with their scale, NumPy only."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A constant of a TFLite file: ``values = codes * scale``, zero point 0.

    Invariants: `codes` have an integer dtype; `scale` is float32, positive and finite,
    of shape `[1]` (per tensor) or `[codes.shape[axis]]` (per channel).

    Attributes:
        codes: Integers, any shape.
        scale: Difference between the values of consecutive codes.
        axis: Axis of the channels; 0 for one scale per tensor.
    """

    codes: np.ndarray
    scale: np.ndarray
    axis: int = 0

    def __post_init__(self) -> None:
        """Checks the invariants."""
        if not np.issubdtype(self.codes.dtype, np.integer):
            raise TypeError(
                f"`codes` must be integers. Received: dtype={self.codes.dtype}."
            )
        if self.scale.dtype != np.float32 or self.scale.ndim != 1:
            raise TypeError(
                "`scale` must be a float32 vector. "
                f"Received: dtype={self.scale.dtype}, shape={self.scale.shape}."
            )
        if len(self.scale) not in (1, self.codes.shape[self.axis]):
            raise ValueError(
                f"`scale` must have 1 or {self.codes.shape[self.axis]} values (axis "
                f"{self.axis}). Received: {len(self.scale)}."
            )
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("`scale` must be positive and finite.")

    def dequantize(self) -> np.ndarray:
        """Returns the values, float64."""
        shape = [1] * self.codes.ndim
        shape[self.axis] = len(self.scale)
        return self.codes.astype(np.float64) * self.scale.astype(np.float64).reshape(
            shape
        )
