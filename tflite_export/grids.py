"""Integer grids of activation tensors, and how a point's integers sit in them.

    unsigned, b bits   zero point 127 - Q_P. The fused ReLU clips below, int8
                       itself saturates above: the codes are exactly 0..Q_P.
    others, 8 bits     zero point 127 - Q_P: 0 for signed ones, anything with an offset.
    others, b < 8      two tensors. The first has zero point 127 - Q_P and
                       saturates above, the second -128 + Q_N and saturates
                       below; a QUANTIZE stands between them.

On a symmetric target all zero points are 0, and MINIMUM and MAXIMUM clip what int8
itself does not.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tf_lsq.graph import Node
from tf_lsq.layers import QuantizationPoint

from .targets import TARGETS

INT8_MIN, INT8_MAX = -128, 127
ONE = 64  # Stands for 1.0 in constants; a power of two, so that 1/64 is exact.


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid of an int8 activation tensor.

    Attributes:
        scale: Unit of the tensor per code, exactly representable in float32.
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


def grid_of(point: QuantizationPoint) -> Grid:
    """Returns the grid on which a point's codes are computed.

    Where `clipped_grid` is not None, the codes still need it behind them.
    """
    q_min, q_max = integer_bounds(point)
    if TARGETS[point.target].symmetric:
        return Grid(_scale(point), 0, INT8_MIN if q_min else 0, INT8_MAX)
    zero_point = INT8_MAX - q_max
    low = zero_point + q_min
    return Grid(_scale(point), zero_point, max(low, INT8_MIN), INT8_MAX)


def clipped_grid(point: QuantizationPoint) -> Grid | None:
    """Returns the grid behind `grid_of` that clips the codes, None where not needed."""
    q_min, q_max = integer_bounds(point)
    if TARGETS[point.target].symmetric:
        grid = Grid(_scale(point), 0, q_min, q_max)
        return None if grid == grid_of(point) else grid
    # Where only the data are not negative, nothing in the file cuts below.
    cut_in_front = q_min == 0 and point.quantizer.signed is False
    if cut_in_front or q_max - q_min == INT8_MAX - INT8_MIN:
        return None
    zero_point = INT8_MIN - q_min
    return Grid(_scale(point), zero_point, INT8_MIN, zero_point + q_max)


def fixed_grid(node: Node) -> Grid:
    """Returns the grid that TFLite prescribes for an output without a point."""
    signed = node.properties.range == "signed"
    return Grid(float(np.float32(node.properties.fixed_step)), 0 if signed else -128)


def integer_bounds(point: QuantizationPoint) -> tuple[int, int]:
    """Returns the smallest and largest integer of a point."""
    bounds = point.integer_range
    return int(bounds.q_min), int(bounds.q_max)


def final_grid(point: QuantizationPoint) -> Grid:
    """Returns the grid that holds a point's codes, clipped at both ends."""
    return clipped_grid(point) or grid_of(point)


def most_widening(grid: Grid, *, symmetric: bool) -> int:
    """Returns by how much the codes of a grid can be multiplied within int8.

    Args:
        grid: The grid of a tensor.
        symmetric: Whether the zero point has to stay 0.
    """
    if symmetric:
        return max(INT8_MAX // max(grid.reach, 1), 1)
    return max((INT8_MAX - INT8_MIN) // (grid.high - grid.low), 1)


def widened(grid: Grid, factor: int, *, symmetric: bool) -> Grid:
    """Returns the grid of the same values with codes multiplied by an integer.

    Args:
        grid: The grid of a tensor.
        factor: At most `most_widening`.
        symmetric: Whether the zero point has to stay 0.
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


def _scale(point: QuantizationPoint) -> float:
    """Returns the trained step, the scale of the tensor."""
    return float(np.float32(point.step.numpy()))
