"""Chooses the container of a kernel's codes, and how finely its biases are divided.

A bias is an int32 in units of input scale times kernel scale, and with few bits that
unit is coarse. Two integers divide it without changing a value:

    multiplier   multiplies trained codes, where the container has headroom: up to 15
                 for 4-bit codes in int8, 4 for 2-bit codes in INT4.
    widening     multiplies codes of the input, with an operator before the kernel,
                 where the container has no headroom.

Where the kernels of the target's runtime round once, inputs are widened only as far as
biases need it to be exact. Where they round twice, in units of the accumulator, a
quarter of the codes of a packed 4-bit network might be off by one: inputs are widened
as far as possible, and biases compensate for the remaining differences as far as they
can (`rounding`).

Their product, which divides the unit of a bias, is a multiple of the multiplier of int8
storage where there is headroom, and divides it elsewhere. So a bias that is on the
coarser of the two grids is also on the other one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from tf_lsq.graph import code_multiplier

from ..file import CONTAINERS, PACKED, SMALLEST_FIRST
from ..runtimes import RUNTIMES
from ..targets import (
    STORAGES,
    Target,
    container,
    fitting_containers,
    takes_container,
)
from .grids import Grid, most_widening
from .trained import QuantizedKernel, TrainedNode

INT32_MAX = 2**31 - 1
# The kernels for int16 have biases of 64 bits, and accumulators that fit 48.
INT48_MAX = 2**47 - 1
# A rounded bias may move an output by at most this many codes: with the rounding of the
# output itself, a code is then off by one, and never by more.
LARGEST_BIAS_ERROR = 0.5
# In output codes: what rounding to float32 leaves of a bias that is on the grid.
_NO_BIAS_ERROR = 1e-3
# What a file needs for one of the operators that a convolution with groups is split
# into, besides its codes.
BYTES_OF_GROUP = 750
BIAS_GRIDS = ("own", "packed")
# Operators whose kernels may be packed -> their name in the file.
PACKABLE = {
    "conv": "CONV_2D",
    "depthwise": "DEPTHWISE_CONV_2D",
    "dense": "FULLY_CONNECTED",
    "pointwise": "FULLY_CONNECTED",
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """How the codes of kernels are stored.

    Attributes:
        name: "int8": one byte per code, the fastest on a CPU. "packed": as small as
            the target allows. "auto": as small as possible without being slower.
        bias_grid: "own": the finest grid that each container allows. "packed": the
            grid of the packed container, whatever container stores the codes,
            including widened inputs: files of all storages compute the same integers
            under TFLite's own kernels.
    """

    name: str = "int8"
    bias_grid: str = "own"

    def __post_init__(self) -> None:
        """Checks both attributes."""
        for name, options in (("name", STORAGES), ("bias_grid", BIAS_GRIDS)):
            value = getattr(self, name)
            if value not in options:
                argument = "storage" if name == "name" else name
                raise ValueError(
                    f"`{argument}` must be one of {list(options)}. Received: {value!r}."
                )


@dataclasses.dataclass(frozen=True)
class AllowedContainers:
    """The containers in which the codes of a kernel may be stored.

    Attributes:
        kind: Kind of the operator if its kernel is packed: "pointwise" for a 1x1
            convolution, which is then a fully connected operator at every pixel, for
            which XNNPACK has packed kernels.
        stored: The requested container.
        grid: The container whose grid the bias is on: `stored`, or a smaller one.
        shared: Whether files of all storages must compute the same integers.
        symmetric: Whether zero points must be 0.
        builtin: Containers that TFLite's own kernels run.
        builtin_rounds_twice: Whether those of the target's runtime round twice.
        one_scale: Whether a packed kernel must have one scale for all channels.
        runtime: Name of the target's runtime.
        remark: Why a smaller container is not allowed.
    """

    kind: str
    stored: str = "int8"
    grid: str = "int8"
    shared: bool = False
    symmetric: bool = False
    builtin: tuple[str, ...] = ()
    builtin_rounds_twice: bool = False
    one_scale: bool = False
    runtime: str = "arm64"
    remark: str = ""

    def compensates(self, container: str) -> bool:
        """Returns whether biases compensate for the rounding of a container's kernel.

        Files that must compute the same with all kernels cannot.
        """
        twice = self.builtin_rounds_twice and container in self.builtin
        return twice and not self.shared

    def has_finest_grid(self, container: str) -> bool:
        """Returns whether biases in a container are on the finest grid that fits."""
        return self.shared or self.compensates(container)


def allowed_containers(
    node: TrainedNode, target: Target, storage: Storage
) -> AllowedContainers:
    """Returns the containers in which an operator's kernel may be stored.

    Args:
        node: An operator.
        target: What the file will run on.
        storage: The requested storage.
    """
    kernel, runtime = node.kernel, RUNTIMES[target.runtime]
    of_group = _shape_of_group(node)
    if node.in_int16:
        target = target.for_int16()
    positions = math.prod(size or 2 for size in node.shape[1:-1])  # None: several.
    kind = node.kind
    whole = node.groups > 1 and not target.split_groups
    if target.dense_pointwise and _is_pointwise(node) and not whole:
        kind = "pointwise"
    allowed = AllowedContainers(
        kind,
        symmetric=target.symmetric,
        builtin=() if runtime.xnnpack or node.in_int16 else SMALLEST_FIRST,
        builtin_rounds_twice=runtime.rounds_twice(kind, of_group, positions),
        runtime=runtime.name,
    )
    if node.kind not in PACKABLE or not isinstance(kernel, QuantizedKernel):
        return allowed
    num_bits, channels = kernel.num_bits, node.inputs[0].sizes[-1] // node.groups
    code = PACKABLE[kind]
    packed = container(code, num_bits, target, "packed", channels)
    stored = container(code, num_bits, target, storage.name, channels)
    larger = _splitting_costs(node, target, packed)
    if larger:
        packed = stored = "int8"
    if storage.name == "auto" and any(size != 1 for size in node.shape[1:-1]):
        stored = "int8"  # Widening every position of the input takes time.
    shared = storage.bias_grid == "packed"
    slow = tuple(c for c in PACKED if not takes_container(target, code, c, channels))
    missing = itertools.takewhile(packed.__ne__, fitting_containers(num_bits))
    inputs = " with int16 inputs" if node.in_int16 else ""
    remarks = [f"no {name} for {code}{inputs} on {target.name}" for name in missing]
    if larger:
        remarks = [f"one {code} per group would take more bytes than int8"]
    return dataclasses.replace(
        allowed,
        stored=stored,
        grid=packed if shared else stored,
        shared=shared,
        builtin=slow if runtime.xnnpack and not node.in_int16 else allowed.builtin,
        one_scale=code in target.one_scale,
        remark="; ".join(remarks) if storage.name == "packed" else "",
    )


def _shape_of_group(node: TrainedNode) -> tuple[int, ...]:
    """Returns the shape of a kernel, or its groups, channels last.

    Batch norms have none.
    """
    if node.kernel is None:
        return (1,)
    *sizes, channels = node.kernel.values.shape
    return (*sizes, channels // node.groups)


def _splitting_costs(node: TrainedNode, target: Target, packed: str) -> bool:
    """Returns whether one operator per group takes more bytes than a container saves.

    Args:
        node: An operator with a kernel.
        target: What the file will run on.
        packed: The container.
    """
    groups = node.groups
    if groups == 1 or packed not in target.split_groups or packed not in PACKED:
        return False
    saved = node.any_kernel.values.size * (8 - CONTAINERS[packed].num_bits) // 8
    return saved < groups * BYTES_OF_GROUP


def _is_pointwise(node: TrainedNode) -> bool:
    """Returns whether a convolution is a separate product at every pixel."""
    if node.kind != "conv" or node.kernel is None:
        return False
    return {*node.kernel.values.shape[:2], *node.options["strides"]} == {1}


def bias_divisions(node: TrainedNode, target: Target, storage: Storage) -> int:
    """Returns how finely biases may divide the product of input step and kernel step.

    A bias on this grid is exact in the file, and in the file with int8 storage.

    Args:
        node: An operator with a quantized kernel.
        target: What the file will run on.
        storage: How its codes will be stored.
    """
    kernel = node.quantized_kernel
    num_bits = kernel.num_bits
    codes = kernel.codes * np.sign(node.folding.factor).astype(np.int64)
    allowed = allowed_containers(node, target, storage)
    grid = allowed.grid
    larger = SMALLEST_FIRST[SMALLEST_FIRST.index(grid) :]
    holder = next(name for name in larger if multiplier_of(codes, num_bits, name))
    source = node.inputs[0].source_point
    widest = 1
    widens = holder in PACKED and allowed.has_finest_grid(holder)
    widens = widens and not node.in_int16
    if source is not None and source.point is not None and widens:
        widest = most_widening(source.point.final_grid, symmetric=target.symmetric)
    most = multiplier_of(codes, num_bits, holder)
    base = code_multiplier(num_bits)  # int8 storage divides by this.
    return max(d for d in _divisions(num_bits, most, widest) if base % d == 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Fitting:
    """Checks whether biases fit a grid that divides input scale times kernel scale.

    Attributes:
        bias: Real bias per channel.
        scale: Positive kernel scale per channel, undivided.
        source: The grid of the input, not widened.
        output: The grid of the output.
        reach: Largest sum of products of codes per channel, undivided.
    """

    bias: np.ndarray
    scale: np.ndarray
    source: Grid
    output: Grid
    reach: np.ndarray

    def error(self, divisions: int) -> float:
        """Returns the most that a rounded bias moves an output, in codes."""
        unit = self.source.scale * self.scale / divisions
        moved = np.rint(self.bias / unit) * unit - self.bias
        return float(np.abs(moved).max() / self.output.scale)

    def fits(self, divisions: int) -> bool:
        """Returns whether every bias and accumulator fits the kernel's."""
        scale, reach = self.scale / divisions, self.reach * divisions
        return bool(fits_accumulator(self.bias, scale, self.source, reach).all())


@dataclasses.dataclass(frozen=True)
class Choice:
    """The container of a kernel, and the divisors of its bias grid.

    Attributes:
        container: Type that stores the codes.
        multiplier: See the docstring of this module.
        widening: See the docstring of this module.
        remark: Why the container is not the requested one.
    """

    container: str
    multiplier: int
    widening: int
    remark: str


def choose_container(
    codes: np.ndarray, num_bits: int, allowed: AllowedContainers, fitting: Fitting
) -> Choice:
    """Chooses the requested container of a kernel, or the next larger one that fits.

    Args:
        codes: Trained codes times the sign of their channel.
        num_bits: Bits of the trained codes.
        allowed: The containers in which they may be stored.
        fitting: Determines how coarse the grid of a bias may be.
    """
    remarks = [allowed.remark] if allowed.remark else []
    widest = most_widening(fitting.source, symmetric=allowed.symmetric)
    divisions = 1
    for holder in SMALLEST_FIRST[SMALLEST_FIRST.index(allowed.grid) :]:
        most = multiplier_of(codes, num_bits, holder)
        if most == 0:
            remarks.append(f"{holder} cannot hold its codes times the sign of gamma")
            continue
        if holder in PACKED and allowed.one_scale and len(set(fitting.scale)) > 1:
            remarks.append(f"{holder} must have one scale for all channels")
            continue
        products = _divisions(num_bits, most, widest if holder in PACKED else 1)
        finest = allowed.has_finest_grid(holder)
        divisions = _best_divisions(products, most, fitting, finest=finest)
        if holder not in PACKED or fitting.error(divisions) <= LARGEST_BIAS_ERROR:
            break
        moved = fitting.error(divisions)
        remarks.append(f"in {holder} its bias would move an output by {moved:.2g}")
    # Any container stores the same integers, so files on one grid compute the same.
    stored = max(allowed.stored, holder, key=SMALLEST_FIRST.index)
    widening = _widening(divisions, most)
    return Choice(stored, divisions // widening, widening, "; ".join(remarks))


def _best_divisions(
    products: list[int], most: int, fitting: Fitting, *, finest: bool
) -> int:
    """Returns how finely a file divides the unit of a bias.

    Args:
        products: What it may divide by.
        most: Largest multiplier.
        fitting: Determines which of them fit, and which are exact.
        finest: Whether to take the finest grid; else, of those on which biases are
            exact, the finest that widens the input least.
    """
    fitting_grids = [d for d in products if fitting.fits(d)] or [1]
    exact = [d for d in fitting_grids if fitting.error(d) < _NO_BIAS_ERROR]
    if finest or not exact:
        return max(fitting_grids)
    return min(exact, key=lambda d: (_widening(d, most), -d))


def _widening(divisions: int, most: int) -> int:
    """Returns the factor of the input's codes, beside the largest multiplier.

    Args:
        divisions: Product of multiplier and widening.
        most: Largest multiplier.
    """
    return divisions // max(m for m in _divisors(divisions) if m <= most)


def multiplier_of(codes: np.ndarray, num_bits: int, container: str) -> int:
    """Returns the largest multiplier of codes in a container; 0: they do not fit.

    Args:
        codes: Trained codes times the sign of their channel.
        num_bits: Bits of the trained codes.
        container: A key of `file.CONTAINERS`.
    """
    limits = CONTAINERS[container]
    multiplier = code_multiplier(num_bits, limits.num_bits)
    low, high = int(codes.min()), int(codes.max())
    while low * multiplier < limits.low or high * multiplier > limits.high:
        multiplier -= 1
    return multiplier


def _divisions(num_bits: int, most: int, widest: int) -> list[int]:
    """Returns the products of multiplier and widening that a file may divide by.

    Args:
        num_bits: Bits of the trained codes.
        most: Largest multiplier.
        widest: Largest widening.
    """
    base = code_multiplier(num_bits)
    multiples = range(2 * base, most * widest + 1, base)
    return [
        product
        for product in (*_divisors(base), *multiples)
        if any(product // m <= widest for m in _divisors(product) if m <= most)
    ]


def _divisors(number: int) -> list[int]:
    """Returns the positive divisors of a number."""
    return [d for d in range(1, number + 1) if number % d == 0]


def fits_accumulator(
    bias: np.ndarray, scale: np.ndarray, grid: Grid, reach: np.ndarray
) -> np.ndarray:
    """Returns per channel whether a bias and the sums with it fit the kernel's bits.

    They have 32 bits, for an input in int16 48.

    Args:
        bias: Real bias.
        scale: Positive kernel scale.
        grid: The grid of the input.
        reach: Largest sum of products of codes.
    """
    largest = INT48_MAX if grid.in_int16 else INT32_MAX
    return np.abs(bias) / (grid.scale * scale) + reach < largest
