"""LSQ in NumPy float64, written from the paper alone."""

from __future__ import annotations

import numpy as np


def lsq(x, step, q_min, q_max):
    """(codes, dy/dx, dy/dstep) per element; the quotient is taken in float32."""
    v = (np.asarray(x, np.float32) / np.asarray(step, np.float32)).astype(np.float64)
    inside = (q_min < v) & (v < q_max)
    codes = np.rint(np.clip(v, q_min, q_max))
    d_step = np.where(inside, np.rint(v) - v, np.where(v <= q_min, q_min, q_max))
    return codes, inside.astype(np.float64), d_step
