"""`PixelPoint`: a quantization point on a grid that bytes prescribe."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .. import lsq
from .._compat import keras
from ..lsq import MAX_NUM_BITS
from ..pixels import LARGEST_BYTE, PixelGrid
from .point import FixedPoint
from .quantizers import LSQActivationQuantizer


@keras.utils.register_keras_serializable(package="tf_lsq")
class PixelPoint(FixedPoint):
    """A point on the grid of bytes, or on one that they prescribe: nothing is learned.

    The values that arrive are turned into bytes, those into what they stand for. The
    gradient is that of this linear map where a byte is less than one half away, and 0
    elsewhere.

    Args:
        pixel_grid: How values encode bytes, and what bytes stand for.
        **kwargs: Arguments of `QuantizationPoint` except the quantizer.
    """

    def __init__(self, pixel_grid: PixelGrid, **kwargs: Any) -> None:
        quantizer = LSQActivationQuantizer(MAX_NUM_BITS, signed=pixel_grid.zero > 0)
        super().__init__(quantizer, fixed_step=pixel_grid.step, **kwargs)
        self.pixel_grid = pixel_grid

    @property
    def integer_range(self) -> lsq.IntegerRange:
        """The integers in use: bytes minus the one that stands for 0."""
        zero = self.pixel_grid.zero
        return lsq.IntegerRange(-zero, LARGEST_BYTE - zero)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Returns what the bytes of `inputs` stand for.

        Args:
            inputs: Values, `[batch, ..., channels]`; integers become float32.
            training: Has no effect.

        Returns:
            Shape of `inputs`, with channels in the app's order. A visitor gets the same
            values, neither rounded nor limited.
        """
        grid = self.pixel_grid
        decoded = grid.pixels.decode(tf.cast(inputs, tf.float32))
        if self.visitor is not None:
            self.visitor(self, grid.represented(decoded))
        values = grid.represented(_nearest_bytes(decoded))
        return tf.cast(values, inputs.dtype) if inputs.dtype.is_floating else values

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "pixel_grid": self.pixel_grid.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Rebuilds the point; the grid decides on the quantizer."""
        names = ("float_input", "absorbed_relu", "target", "name", "trainable", "dtype")
        kwargs = {name: config[name] for name in names if name in config}
        return cls(PixelGrid.from_dict(config["pixel_grid"]), **kwargs)


def _nearest_bytes(decoded: tf.Tensor) -> tf.Tensor:
    """Returns the nearest whole numbers from 0 to 255, ties to even."""
    reach = tf.clip_by_value(decoded, -0.5, LARGEST_BYTE + 0.5)
    whole = tf.clip_by_value(tf.round(reach), 0.0, float(LARGEST_BYTE))
    # Exact: the two are at most one half apart.
    return reach + tf.stop_gradient(whole - reach)
