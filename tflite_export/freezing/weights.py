"""Converts kernels and biases to the form of the file: codes, scales, containers."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..file import PACKED, QuantizedTensor
from ..runtimes import RUNTIMES, compensate
from .containers import (
    AllowedContainers,
    Choice,
    Fitting,
    choose_container,
    fits_accumulator,
)
from .grids import INT8_MAX, ONE, Grid, widened
from .trained import AFFINE, CONSTANT, TrainedNode

# A channel that moves its output by less than this share of one code is constant: its
# codes may be replaced by zeros.
NEGLIGIBLE = 2.0**-9
CONSTANT_SHARE = 2.0**-12  # Scale of a constant channel's bias, in output codes.


@dataclasses.dataclass(frozen=True, eq=False)
class FloatWeight:
    """The constants of an operator that is left in float.

    Attributes:
        values: The folded kernel, or slopes; output channels last.
    """

    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class FloatKernelWeight(FloatWeight):
    """A kernel and its bias in float.

    Attributes:
        bias: The folded bias.
    """

    bias: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerWeight:
    """The integer constant of an operator.

    File codes are ``trained codes * sign * multiplier``.

    Attributes:
        codes: The file's codes.
        sign: -1, 0 or 1 per channel, from the folded batch norm.
        num_bits: Bits of the trained codes.
        multiplier: Integer by which the trained codes are multiplied, so that the bias
            has a finer grid.
        widening: Integer by which the input's codes are multiplied before the kernel.
        container: Type that stores the codes: "int8", "int4" or "int2".
        bias_error: The most that rounding the bias moves an output, in codes.
        remark: Why the codes are not in the requested container.
    """

    codes: QuantizedTensor
    sign: np.ndarray
    num_bits: int
    multiplier: int = 1
    widening: int = 1
    container: str = "int8"
    bias_error: float = 0.0
    remark: str = ""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class KernelWeight(IntegerWeight):
    """A kernel and its bias.

    Attributes:
        bias: int32 codes; int64 for an input in int16.
    """

    bias: QuantizedTensor


Weight = FloatWeight | IntegerWeight


def freeze_weight(
    node: TrainedNode,
    name: str,
    grids: tuple[Grid | None, Grid | None],
    allowed: AllowedContainers,
) -> Weight | None:
    """Returns the constants of an operator, None if it has none.

    Args:
        node: The operator in the training graph.
        name: Name of its output, for messages.
        grids: Grids of its input and of its output; None in float. An operator whose
            output is None computes in float.
        allowed: The containers in which its codes may be stored.

    Raises:
        ValueError: If one of its biases does not fit int32.
    """
    source, output = grids
    if node.kind == "prelu":
        return _slope(node, in_float=output is None)
    if node.kind in CONSTANT:
        return _constant(node, in_float=output is None)
    if not (node.matmul or node.kind in AFFINE):
        return None
    if output is None and node.kind == "hard_sigmoid":
        return None
    factor, shift = node.folding.factor * node.input_factor, node.folding.shift
    if source is None or output is None:
        floats = factor.reshape(1, 1, -1)
        if node.kernel is not None:
            floats = node.kernel.values.astype(np.float64) * factor
        return FloatKernelWeight(floats, shift)
    if node.kind in AFFINE:
        folded = _affine_kernel(node, name)
    else:
        kernel = node.quantized_kernel
        scale = np.broadcast_to(kernel.step, factor.shape) * factor
        folded = FoldedKernel(name, kernel.codes, scale, shift, kernel.num_bits)
    return _integer_weight(folded, source, output, allowed)


def _affine_kernel(node: TrainedNode, name: str) -> FoldedKernel:
    """Returns a separate batch norm or scaling as a 1x1 depthwise kernel.

    Its codes are 127; the rest of the factor is its scale.
    """
    factor, shift = node.folding.factor, node.folding.shift
    codes = np.full((1, 1, len(factor)), INT8_MAX)
    return FoldedKernel(name, codes, 1.0 / INT8_MAX * factor, shift, 8)


def _slope(node: TrainedNode, *, in_float: bool) -> Weight:
    """Returns the slopes of a leaky ReLU for negative values.

    A constant slope has the single code 64, so that its scale equals the slope to the
    last bit, except for a power of two.
    """
    kernel = node.kernel
    if in_float:
        slope = node.options["slope"] if kernel is None else kernel.values
        return FloatWeight(np.atleast_1d(np.asarray(slope, np.float64)))
    codes, scale, num_bits = np.full((1,), ONE), 0.0, 8
    if kernel is None:
        scale = node.options["slope"] / ONE
    else:
        trained = node.quantized_kernel
        codes, scale, num_bits = trained.codes, trained.step[0], trained.num_bits
    quantized = QuantizedTensor(codes, np.array([scale], np.float32))
    return IntegerWeight(quantized, np.ones(1), num_bits)


def _constant(node: TrainedNode, *, in_float: bool) -> Weight:
    """Returns the constant that an operator adds, or multiplies by."""
    if in_float:
        return FloatWeight(node.any_kernel.values)
    trained = node.quantized_kernel
    quantized = QuantizedTensor(trained.codes, trained.step.astype(np.float32))
    return IntegerWeight(quantized, np.ones(1), trained.num_bits)


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedKernel:
    """A kernel and its bias as they were trained, with folded batch norm.

    Attributes:
        name: Name of the operator's output.
        codes: Trained codes, channels last.
        signed_scale: Kernel step times batch norm factor, per channel.
        bias: Real bias per channel.
        num_bits: Bits of the codes.
    """

    name: str
    codes: np.ndarray
    signed_scale: np.ndarray
    bias: np.ndarray
    num_bits: int


def _integer_weight(
    kernel: FoldedKernel, source: Grid, output: Grid, allowed: AllowedContainers
) -> KernelWeight:
    """Returns weight and bias codes, with the bias on the finest grid that fits.

    Args:
        kernel: The trained kernel and bias.
        source: The grid of the operator's input.
        output: The grid of its output.
        allowed: The containers in which the codes may be stored.
    """
    codes = kernel.codes
    sums = np.abs(codes).reshape(-1, codes.shape[-1]).sum(axis=0)
    reach = sums * source.reach
    moves = reach * np.abs(kernel.signed_scale) * source.scale
    bias = _clip_bias(kernel.bias, output, moves)
    sign, scale = _channel_signs(kernel, source, output, reach, bias)
    signed = codes * sign.astype(np.int64)
    fitting = Fitting(bias, scale, source, output, np.where(sign == 0, 0, reach))
    choice = choose_container(signed, kernel.num_bits, allowed, fitting)
    tensor_scale = (scale / choice.multiplier).astype(np.float32)
    if _may_be_per_tensor(choice, allowed) and (tensor_scale == tensor_scale[0]).all():
        tensor_scale = tensor_scale[:1]
    grid = widened(source, choice.widening, symmetric=allowed.symmetric)
    bias_scale = np.float32(grid.scale) * tensor_scale
    return KernelWeight(
        codes=QuantizedTensor(signed * choice.multiplier, tensor_scale, codes.ndim - 1),
        bias=QuantizedTensor(
            _bias_codes(bias, bias_scale, output, choice, allowed), bias_scale
        ),
        sign=sign,
        multiplier=choice.multiplier,
        widening=choice.widening,
        num_bits=kernel.num_bits,
        container=choice.container,
        bias_error=fitting.error(choice.multiplier * choice.widening),
        remark=choice.remark,
    )


def _may_be_per_tensor(choice: Choice, allowed: AllowedContainers) -> bool:
    """Returns whether an operator may have a single scale for all its channels.

    Older runtimes support only that for fully connected operators; packed kernels of
    XNNPACK, and those that must equal them, have one scale per channel.
    """
    several = allowed.shared or choice.container in PACKED
    return allowed.kind == "dense" and (allowed.one_scale or not several)


def _bias_codes(
    bias: np.ndarray,
    scale: np.ndarray,
    output: Grid,
    choice: Choice,
    allowed: AllowedContainers,
) -> np.ndarray:
    """Converts real biases to codes, for the kernel that will add them."""
    codes = bias / scale.astype(np.float64)
    if not allowed.compensates(choice.container):
        return np.rint(codes).astype(np.int64)
    return compensate(
        codes,
        scale.astype(np.float64) / np.float32(output.scale),
        choice.multiplier * choice.widening,
        (output.low - output.zero_point, output.high - output.zero_point),
        RUNTIMES[allowed.runtime].half_up(allowed.kind, len(codes)),
    )


def _channel_signs(
    kernel: FoldedKernel,
    grid: Grid,
    output: Grid,
    reach: np.ndarray,
    bias: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (sign, positive scale) per channel.

    A channel is constant, with sign 0, if its gamma is 0 or so small that its output
    cannot move by `NEGLIGIBLE` of a code; or by half a code, where the grid of its
    weights is too fine for an int32 bias.

    Raises:
        ValueError: If a bias does not fit, and the channel is not constant.
    """
    scale = np.abs(kernel.signed_scale)
    moves = reach * scale * grid.scale / output.scale
    constant_scale = output.scale / grid.scale * CONSTANT_SHARE
    constant = moves < NEGLIGIBLE
    fits = fits_accumulator(
        bias, np.where(constant, constant_scale, scale), grid, reach
    )
    constant |= ~fits & (moves < 0.5)
    too_large = np.flatnonzero(~fits & ~constant)
    if too_large.size:
        raise ValueError(
            f"`{kernel.name}`: every bias must fit {48 if grid.in_int16 else 32} bits "
            "on the grid of input step times kernel step. Received channels that do "
            f"not: {too_large.tolist()}. Their kernel is almost 0 compared with their "
            "bias; prune them or train further."
        )
    sign = np.where(constant, 0.0, np.sign(kernel.signed_scale))
    return sign, np.where(constant, constant_scale, scale)


def _clip_bias(bias: np.ndarray, grid: Grid, moves: np.ndarray) -> np.ndarray:
    """Clips biases that saturate the output for any input.

    Args:
        bias: Real bias per channel.
        grid: The output's grid.
        moves: How far the kernel can move the output, per channel.
    """
    margin = moves + 2 * grid.scale
    lowest, highest = grid.bounds
    low = (lowest - grid.zero_point) * grid.scale - margin
    high = (highest - grid.zero_point) * grid.scale + margin
    return np.clip(bias, low, high)
