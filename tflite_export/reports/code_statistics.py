"""Counts how quantizers use their integers: codes, clipping, and the optimal step."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_lsq import lsq

from ..freezing import QuantizedKernel, TrainedPoint
from .verification_report import CodeStatistics


def kernel_statistics(kernel: QuantizedKernel) -> CodeStatistics:
    """Counts how a trained kernel uses its integers.

    Args:
        kernel: A quantized kernel.
    """
    shape = (1,) * (kernel.values.ndim - 1) + kernel.step.shape
    step_shape = () if len(kernel.step) == 1 else shape
    bounds = lsq.weight_range(kernel.num_bits)
    values = tf.constant(kernel.values)
    best = lsq.initial_step(values, bounds, step_shape=step_shape)
    return _statistics(
        kernel.num_bits,
        (bounds.q_min, bounds.q_max),
        kernel.codes,
        kernel.values / kernel.step.astype(np.float32),
        _geometric_mean(kernel.step),
        _geometric_mean(best.numpy()),
    )


def activation_statistics(
    point: TrainedPoint, codes: np.ndarray, values: np.ndarray
) -> CodeStatistics:
    """Counts how a quantization point uses its integers.

    Args:
        point: The point.
        codes: Its integers.
        values: The values before it, in the unit of the tensor, shape of `codes`.
    """
    bounds = lsq.IntegerRange(point.q_min, point.q_max)
    best = lsq.initial_step(tf.constant(values), bounds)
    return _statistics(
        point.num_bits,
        (point.q_min, point.q_max),
        codes,
        values / point.step,
        point.step,
        float(best),
    )


def _statistics(
    num_bits: int,
    bounds: tuple[int, int],
    codes: np.ndarray,
    quotients: np.ndarray,
    step: float,
    mse_step: float,
) -> CodeStatistics:
    """Counts the codes; `quotients` are values in units of their step."""
    q_min, q_max = bounds
    beyond = quotients > q_max + 0.5
    if q_min < 0:
        beyond |= quotients < q_min - 0.5
    width = lsq.counted_together(lsq.IntegerRange(q_min, q_max))
    counts = np.bincount(
        (np.ravel(codes) - q_min) // width, minlength=-(-(q_max - q_min + 1) // width)
    )
    return CodeStatistics(
        num_bits,
        q_min,
        q_max,
        counts.tolist(),
        float(beyond.mean()),
        step,
        mse_step,
        width,
    )


def _geometric_mean(steps: np.ndarray) -> float:
    """Returns the geometric mean of positive numbers."""
    return float(np.exp(np.log(np.asarray(steps, np.float64)).mean()))
