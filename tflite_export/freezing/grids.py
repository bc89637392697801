"""Integer grids of activation tensors, and the place of a point's integers on them.

    unsigned, b bits   zero point 127 - Q_P. The fused ReLU clips below, int8
                       itself saturates above: the codes are exactly 0..Q_P.
    others, 8 bits     zero point 127 - Q_P: 0 for signed ones, any with an offset.
    others, b < 8      two tensors. The first has zero point 127 - Q_P and
                       saturates above, the second -128 + Q_N and saturates
                       below; there is a QUANTIZE between them.

On a symmetric target all zero points are 0, and MINIMUM and MAXIMUM clip where int8
itself does not. A point after limited values ends at the integers of the limits.
"""

from __future__ import annotations

import dataclasses

import numpy as np

INT8_MIN, INT8_MAX = -128, 127
ONE = 64  # Code of 1.0 in constants; a power of two, so that 1/64 is exact.


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid of an int8 activation tensor.

    Attributes:
        scale: Value of one code, exactly representable in float32.
        zero_point: File code of the value 0.
        low: Smallest file code in use.
        high: Largest file code in use.
    """

    scale: float
    zero_point: int
    low: int = INT8_MIN
    high: int = INT8_MAX

    @property
    def reach(self) -> int:
        """Largest distance of a code from the zero point."""
        return max(self.high - self.zero_point, self.zero_point - self.low)


def first_grid(
    scale: float, q_min: int, q_max: int, *, cut_below: bool, symmetric: bool
) -> Grid:
    """Returns the grid on which a point's codes are computed.

    Args:
        scale: The point's trained step.
        q_min: Its smallest integer.
        q_max: Its largest integer.
        cut_below: Whether the operator before it clips values below `q_min`.
        symmetric: Whether the zero point must be 0.
    """
    if symmetric:
        return Grid(scale, 0, 0 if cut_below else INT8_MIN, INT8_MAX)
    zero_point = INT8_MAX - q_max
    return Grid(scale, zero_point, max(zero_point + q_min, INT8_MIN), INT8_MAX)


def clipped_grid(
    scale: float, q_min: int, q_max: int, *, cut_below: bool, symmetric: bool
) -> Grid | None:
    """Returns the grid that clips the codes of `first_grid`, None if none is needed.

    Args:
        scale: The point's trained step.
        q_min: Its smallest integer.
        q_max: Its largest integer.
        cut_below: Whether the operator before it clips values below `q_min`.
        symmetric: Whether the zero point must be 0.
    """
    if symmetric:
        grid = Grid(scale, 0, q_min, q_max)
        first = first_grid(scale, q_min, q_max, cut_below=cut_below, symmetric=True)
        return None if grid == first else grid
    if cut_below or q_max - q_min == INT8_MAX - INT8_MIN:
        return None
    zero_point = INT8_MIN - q_min
    return Grid(scale, zero_point, INT8_MIN, zero_point + q_max)


def fixed_grid(step: float, *, signed: bool) -> Grid:
    """Returns the grid that TFLite prescribes for an output without a point.

    Args:
        step: The prescribed step.
        signed: Whether values can be negative.
    """
    return Grid(float(np.float32(step)), 0 if signed else -128)


def most_widening(grid: Grid, *, symmetric: bool) -> int:
    """Returns the largest factor by which codes of a grid can be multiplied in int8.

    Args:
        grid: The grid of a tensor.
        symmetric: Whether the zero point must stay 0.
    """
    if symmetric:
        return max(INT8_MAX // max(grid.reach, 1), 1)
    return max((INT8_MAX - INT8_MIN) // max(grid.high - grid.low, 1), 1)


def widened(grid: Grid, factor: int, *, symmetric: bool) -> Grid:
    """Returns the grid of the same values with codes multiplied by an integer.

    Args:
        grid: The grid of a tensor.
        factor: At most `most_widening`.
        symmetric: Whether the zero point must stay 0.
    """
    if factor == 1:
        return grid
    zero_point = 0 if symmetric else INT8_MIN + factor * (grid.zero_point - grid.low)
    return Grid(
        float(np.float32(grid.scale / factor)),
        zero_point,
        zero_point - factor * (grid.zero_point - grid.low),
        zero_point + factor * (grid.high - grid.zero_point),
    )
