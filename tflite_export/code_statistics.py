"""How quantizers use their integers: counts, clipping, and the step beside its best."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_lsq import lsq
from tf_lsq.layers import LSQWrapper, QuantizationPoint

from .grids import integer_bounds
from .report import CodeStatistics


def kernel_statistics(wrapper: LSQWrapper) -> CodeStatistics:
    """Returns how a trained kernel uses its integers.

    Args:
        wrapper: A layer with a quantized kernel.
    """
    kernel, step = wrapper.kernel.numpy(), wrapper.step
    num_bits = wrapper.quantizer.num_bits
    bounds = lsq.weight_range(num_bits)
    best = lsq.initial_step(kernel, bounds, step_shape=tuple(step.shape))
    codes = np.rint(wrapper.codes().numpy()).astype(np.int64)
    return _statistics(
        num_bits,
        (bounds.q_min, bounds.q_max),
        codes,
        kernel / step.numpy(),
        _geometric_mean(step),
        _geometric_mean(best),
    )


def activation_statistics(
    point: QuantizationPoint, codes: np.ndarray, values: np.ndarray
) -> CodeStatistics:
    """Returns how a quantization point uses its integers.

    Args:
        point: The point.
        codes: Its integers.
        values: The values in front of it, unit of the tensor, shape of `codes`.
    """
    q_min, q_max = integer_bounds(point)
    best = lsq.initial_step(values, lsq.IntegerRange(q_min, q_max))
    step = float(point.step.numpy())
    return _statistics(
        point.num_bits, (q_min, q_max), codes, values / step, step, float(best)
    )


def _statistics(
    num_bits: int,
    bounds: tuple[int, int],
    codes: np.ndarray,
    quotients: np.ndarray,
    step: float,
    mse_step: float,
) -> CodeStatistics:
    """Counts; `quotients` are values in units of their step."""
    q_min, q_max = bounds
    beyond = quotients > q_max + 0.5
    if q_min < 0:
        beyond |= quotients < q_min - 0.5
    counts = np.bincount(np.ravel(codes) - q_min, minlength=q_max - q_min + 1)
    return CodeStatistics(
        num_bits, q_min, q_max, counts.tolist(), float(beyond.mean()), step, mse_step
    )


def _geometric_mean(steps: tf.Tensor) -> float:
    """Returns the typical size of positive numbers."""
    return float(np.exp(np.log(np.asarray(steps, np.float64)).mean()))
