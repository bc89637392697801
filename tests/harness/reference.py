"""LSQ in NumPy float64, as in the paper except at the ends of the range.

The paper's interval is open; here it includes both ends, except 0 if it is unsigned.
"""

from __future__ import annotations

import numpy as np


def lsq(x, step, q_min, q_max):
    """(codes, dy/dx, dy/dstep) per element; the quotient is taken in float32."""
    v = (np.asarray(x, np.float32) / np.asarray(step, np.float32)).astype(np.float64)
    end = 1 + 2.0**-22  # Includes the end of the range despite rounding.
    inside = (v >= q_min * end if q_min < 0 else v > 0) & (v <= q_max * end)
    codes = np.rint(np.clip(v, q_min, q_max))
    d_step = np.where(inside, np.rint(v) - v, np.where(v <= q_min, q_min, q_max))
    return codes, inside.astype(np.float64), d_step
