"""Integer grids of activation tensors, and the place of a point's integers on them.

    unsigned, b bits   zero point 127 - Q_P. The fused ReLU clips below, int8
                       itself saturates above: the codes are exactly 0..Q_P.
    others, 8 bits     zero point 127 - Q_P: 0 for signed ones, any with an offset.
    others, b < 8      two tensors. The first has zero point 127 - Q_P and
                       saturates above, the second -128 + Q_N and saturates
                       below; there is a QUANTIZE between them.

A tensor of more than 8 bits is stored in int16, which has zero points of 0, as have all
tensors on a symmetric target. There MINIMUM and MAXIMUM clip where the container itself
does not. A point after limited values ends at the integers of the limits.
"""

from __future__ import annotations

import dataclasses

import numpy as np

INT8_MIN, INT8_MAX = -128, 127
# Type of an activation tensor -> its smallest and largest code.
ACTIVATION_CONTAINERS = {"int8": (INT8_MIN, INT8_MAX), "int16": (-(2**15), 2**15 - 1)}
# Code of 1.0 in constants: powers of two, whose reciprocals are exact.
ONE = 64
ONE_IN_INT16 = 2**14


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid of an activation tensor.

    Attributes:
        scale: Value of one code, exactly representable in float32.
        zero_point: File code of the value 0.
        low: Smallest file code in use.
        high: Largest file code in use.
        container: Type that stores the codes, a key of `ACTIVATION_CONTAINERS`.
    """

    scale: float
    zero_point: int
    low: int = INT8_MIN
    high: int = INT8_MAX
    container: str = "int8"

    @property
    def in_int16(self) -> bool:
        """Whether its codes are stored in int16."""
        return self.container == "int16"

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest code of its container."""
        return ACTIVATION_CONTAINERS[self.container]

    @property
    def reach(self) -> int:
        """Largest distance of a code from the zero point."""
        return max(self.high - self.zero_point, self.zero_point - self.low)


def container_of(num_bits: int) -> str:
    """Returns the type that stores activations of so many bits.

    Args:
        num_bits: Bits of one integer, at most 16.
    """
    return "int16" if num_bits > 8 else "int8"


def first_grid(
    scale: float,
    q_min: int,
    q_max: int,
    *,
    cut_below: bool,
    symmetric: bool,
    container: str = "int8",
) -> Grid:
    """Returns the grid on which a point's codes are computed.

    Args:
        scale: The point's trained step.
        q_min: Its smallest integer.
        q_max: Its largest integer.
        cut_below: Whether the operator before it clips values below `q_min`.
        symmetric: Whether the zero point must be 0, as it must in int16.
        container: A key of `ACTIVATION_CONTAINERS`.
    """
    low, high = ACTIVATION_CONTAINERS[container]
    if symmetric or container == "int16":
        return Grid(scale, 0, 0 if cut_below else low, high, container)
    zero_point = INT8_MAX - q_max
    return Grid(scale, zero_point, max(zero_point + q_min, INT8_MIN), INT8_MAX)


def clipped_grid(
    scale: float,
    q_min: int,
    q_max: int,
    *,
    cut_below: bool,
    symmetric: bool,
    container: str = "int8",
) -> Grid | None:
    """Returns the grid that clips the codes of `first_grid`, None if none is needed.

    Args:
        scale: The point's trained step.
        q_min: Its smallest integer.
        q_max: Its largest integer.
        cut_below: Whether the operator before it clips values below `q_min`.
        symmetric: Whether the zero point must be 0, as it must in int16.
        container: A key of `ACTIVATION_CONTAINERS`.
    """
    if symmetric or container == "int16":
        grid = Grid(scale, 0, q_min, q_max, container)
        first = first_grid(
            scale,
            q_min,
            q_max,
            cut_below=cut_below,
            symmetric=True,
            container=container,
        )
        return None if grid == first else grid
    if cut_below or q_max - q_min == INT8_MAX - INT8_MIN:
        return None
    zero_point = INT8_MIN - q_min
    return Grid(scale, zero_point, INT8_MIN, zero_point + q_max)


def masked_grids(scale: float, q_min: int, q_max: int) -> dict[str, Grid]:
    """Returns the grid on which scores are computed, and that which clips them.

    They are in the upper half of int8; the smallest code of int8 is a masked score.

    Args:
        scale: The point's trained step.
        q_min: Its smallest integer, of 7 bits.
        q_max: Its largest integer.
    """
    zero_point = INT8_MAX - q_max
    return {
        "grid": Grid(scale, zero_point),
        "clipped": Grid(scale, zero_point, zero_point + q_min, INT8_MAX),
    }


def widened_to_int16(grid: Grid) -> Grid:
    """Returns the grid of the same codes minus their zero point, in int16.

    Args:
        grid: The grid of an int8 tensor.
    """
    low, high = grid.low - grid.zero_point, grid.high - grid.zero_point
    return Grid(grid.scale, 0, low, high, "int16")


def computed_in_int16(grid: Grid) -> Grid:
    """Returns the grid on which an operator in int16 computes codes of an int8 tensor.

    Args:
        grid: The grid of the int8 tensor.
    """
    return Grid(grid.scale, 0, *ACTIVATION_CONTAINERS["int16"], "int16")


def fixed_grid(step: float, *, signed: bool) -> Grid:
    """Returns the grid that TFLite prescribes for an output without a point.

    Args:
        step: The prescribed step.
        signed: Whether values can be negative.
    """
    return Grid(float(np.float32(step)), 0 if signed else -128)


def most_widening(grid: Grid, *, symmetric: bool) -> int:
    """Returns the largest factor by which codes of a grid can be multiplied in int8.

    It is 1 in int16, where biases are fine enough.

    Args:
        grid: The grid of a tensor.
        symmetric: Whether the zero point must stay 0.
    """
    if grid.in_int16:
        return 1
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
