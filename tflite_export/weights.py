"""Kernels and biases as the file holds them: codes, scales, containers.

A bias is an int32 in units of input scale times kernel scale, and with few bits that
unit is coarse. Two integers make it finer without changing a value:

    multiplier   trained codes times this, where the container has room: up to 15 for
                 4-bit codes in int8, 4 for 2-bit codes in INT4.
    widening     codes of the input times this, by an operator in front, where the
                 container has no room. TFLite's own kernels, which run packed
                 convolutions, also round twice, in units of the accumulator: without
                 it a quarter of the codes of a 4-bit network may be off by one. What
                 is left of that, biases make up for as far as they can (`rounding`).

Their product, by which the unit of a bias is divided, is a multiple of the multiplier
of int8 storage where there is room, and divides it elsewhere. So a bias that is on the
coarser of the two grids is on the other one, too.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tf_lsq.folding import affine_part, code_multiplier, input_factor, input_point
from tf_lsq.layers import LSQWrapper
from tf_lsq.operators import Layer, Node
from tf_lsq.quantize_configs import QUANTIZED_WEIGHTS

from .grids import INT8_MAX, INT8_MIN, Grid, final_grid, most_widening, widened
from .packing import CONTAINERS, PACKED, SMALLEST_FIRST
from .quantized_tensor import QuantizedTensor
from .rounding import compensate, half_up_channels
from .targets import STORAGES, Target, container, takes_container

INT32_MAX = 2**31 - 1
# A channel that moves its output by less than this share of one code at most is
# constant: its codes may be replaced by zeros.
NEGLIGIBLE = 2.0**-9
CONSTANT_SHARE = 2.0**-12  # Scale of a constant channel's bias, in output codes.
# A rounded bias may move an output by this many codes at most: with the rounding of
# the output itself, a code is off by one then, and never by more.
LARGEST_BIAS_ERROR = 0.5
BIAS_GRIDS = ("own", "packed")
# Operators whose kernels may be packed -> their name in the file.
PACKABLE = {
    "conv": "CONV_2D",
    "depthwise": "DEPTHWISE_CONV_2D",
    "dense": "FULLY_CONNECTED",
    "pointwise": "FULLY_CONNECTED",
}
AFFINE = ("affine", "hard_sigmoid")


@dataclasses.dataclass(eq=False)
class Weight:
    """The weight and bias of one operator, ready for the file.

    File codes are ``trained codes * sign * multiplier``.

    Attributes:
        codes: The file's codes, or None in float.
        bias: int32 codes, or None in float.
        float_kernel: The folded kernel, for an operator left in float.
        float_bias: The folded bias of such an operator.
        sign: -1, 0 or 1 per channel, from the folded batch norm.
        multiplier: Integer that the trained codes were multiplied with, so that
            the bias gets a finer grid.
        widening: Integer that the codes of the input are multiplied with in front.
        num_bits: Bits of the trained codes.
        container: Type that stores the codes: "int8", "int4" or "int2".
        bias_error: How far rounding the bias moves an output at most, in codes.
        remark: Why the codes are not in the container that was asked for.
    """

    codes: QuantizedTensor | None = None
    bias: QuantizedTensor | None = None
    float_kernel: np.ndarray | None = None
    float_bias: np.ndarray | None = None
    sign: np.ndarray | None = None
    multiplier: int = 1
    widening: int = 1
    num_bits: int | None = None
    container: str = "int8"
    bias_error: float = 0.0
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Storage:
    """How the codes of kernels are stored.

    Attributes:
        name: "int8": one byte per code, the fastest on a CPU. "packed": as small as
            the target can hold. "auto": as small as it can without being slower.
        bias_grid: "own": the finest that each container can hold. "packed": that of
            the packed container, whatever the codes are stored in, so that files of
            all storages compute the same integers.
    """

    name: str = "int8"
    bias_grid: str = "own"

    def __post_init__(self) -> None:
        """Checks both."""
        for name, options in (("name", STORAGES), ("bias_grid", BIAS_GRIDS)):
            value = getattr(self, name)
            if value not in options:
                argument = "storage" if name == "name" else name
                raise ValueError(
                    f"`{argument}` must be one of {list(options)}. Received: {value!r}."
                )


@dataclasses.dataclass(frozen=True)
class Rooms:
    """Where the codes of a kernel may be stored.

    Attributes:
        kind: Operator that it would be in its packed containers: "pointwise" for a 1x1
            convolution, which is then a fully connected operator at every pixel. For
            that XNNPACK has packed kernels.
        stored: The container asked for.
        grid: The container whose grid the bias is on: `stored`, or a smaller one.
        shared: Whether files of all storages shall compute the same.
        symmetric: Whether zero points have to be 0.
        slow: Containers that are left to TFLite's own kernels, which round twice.
    """

    kind: str
    stored: str = "int8"
    grid: str = "int8"
    shared: bool = False
    symmetric: bool = False
    slow: tuple[str, ...] = ()


def rooms_of(node: Node, target: Target, storage: Storage) -> Rooms:
    """Returns where the codes of an operator's kernel may be stored.

    Args:
        node: An operator.
        target: What the file will run on.
        storage: What was asked for.
    """
    wrapper = node.model_layer
    if node.kind not in PACKABLE or not isinstance(wrapper, LSQWrapper):
        return Rooms(node.kind, symmetric=target.symmetric)
    num_bits, channels = wrapper.quantizer.num_bits, int(node.inputs[0].shape[-1])
    kind = "pointwise" if _is_pointwise(node) else node.kind
    code = PACKABLE[kind]
    packed = container(code, num_bits, target, "packed", channels)
    # A widening in front costs about as much as a 1x1 convolution saves.
    asked = PACKABLE[node.kind] if storage.name == "auto" else code
    stored = container(asked, num_bits, target, storage.name, channels)
    shared = storage.bias_grid == "packed"
    return Rooms(
        kind,
        stored,
        packed if shared else stored,
        shared,
        target.symmetric,
        tuple(c for c in PACKED if not takes_container(target, code, c, channels)),
    )


def _is_pointwise(node: Node) -> bool:
    """Returns whether a convolution is a product at every pixel by itself."""
    layer = node.layer
    return node.kind == "conv" and {*layer.kernel_size, *layer.strides} == {1}


def bias_divisions(node: Node, target: Target, storage: Storage) -> int:
    """Returns how finely biases may divide the product of input step and kernel step.

    A bias that does is exact in the file, and in that of int8 storage.

    Args:
        node: An operator with a quantized kernel.
        target: What the file will run on.
        storage: How its codes will be stored.
    """
    room = rooms_of(node, target, storage).grid
    num_bits = node.model_layer.quantizer.num_bits
    point = input_point(node.inputs[0])
    widest = 1
    if point is not None and room in PACKED:
        widest = most_widening(final_grid(point), symmetric=target.symmetric)
    most = code_multiplier(num_bits, CONTAINERS[room].num_bits)
    return max(_divisions(num_bits, most, widest, shared=True))


def freeze_weight(
    node: Node, name: str, grids: tuple[Grid | None, Grid | None], rooms: Rooms
) -> Weight | None:
    """Returns the constants of an operator, None if it has none.

    Args:
        node: The operator in the training graph.
        name: Of its output, for messages.
        grids: Of its input and of its output; None in float. An operator whose output
            is None computes in float.
        rooms: Where its codes may be stored.

    Raises:
        ValueError: If no int32 holds one of its biases.
    """
    source, output = grids
    if node.kind == "prelu":
        return _slope(node, in_float=output is None)
    if not (node.properties.matmul or node.kind in AFFINE):
        return None
    factor, bias = affine_part(node)
    factor = factor * input_factor(node)
    if output is None and node.kind == "hard_sigmoid":
        return None
    if source is None or output is None:
        floats = factor if node.kind == "affine" else _times(node, factor)
        return Weight(float_kernel=floats, float_bias=bias)
    codes, step, num_bits = trained_codes(node)
    if node.kind in AFFINE:
        step, factor = 1.0 / INT8_MAX, affine_part(node)[0]
    kernel = TrainedKernel(name, codes, step * factor, bias, num_bits)
    return _integer_weight(kernel, source, output, rooms)


def trained_codes(node: Node) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns (codes, scale per channel, bits) as the training graph has them.

    Codes of a kernel are read off the training op and have the channels last; a
    depthwise kernel is `[height, width, channels]`, 1D ones have a height of 1. A
    batch norm or scaling by itself is a 1x1 depthwise kernel: codes 127, the rest of
    the factor is scale. The constant slope of a leaky ReLU has the one code 127.
    """
    if node.kind in AFFINE:
        factor, _ = affine_part(node)
        scale = np.abs(factor) / INT8_MAX
        return np.full((1, 1, len(factor)), INT8_MAX), scale, 8
    wrapper = node.model_layer
    if not isinstance(wrapper, LSQWrapper):
        slope = np.array([leaky_slope(node.layer) / INT8_MAX])
        return np.full((1,), INT8_MAX), slope, 8
    codes = _channels_last(node, np.rint(wrapper.codes().numpy()).astype(np.int64))
    step = np.asarray(wrapper.step.numpy(), np.float64).reshape(-1)
    channels = codes.shape[-1]
    return codes, np.broadcast_to(step, (channels,)), wrapper.quantizer.num_bits


def leaky_slope(layer: Layer) -> float:
    """Returns the slope of a `LeakyReLU` layer for negative values."""
    return float(layer.alpha)


def _channels_last(node: Node, kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel as the file's operators know it, output channels last."""
    if getattr(node.layer, "rank", 2) == 1:
        kernel = kernel[np.newaxis]
    if node.kind == "depthwise":
        return kernel.reshape(*kernel.shape[:2], -1)
    if node.kind == "transposed_conv":
        return kernel.transpose(0, 1, 3, 2)
    return kernel


def _times(node: Node, factor: np.ndarray) -> np.ndarray:
    """Returns a float kernel with the batch norm folded, channels last."""
    attribute, _ = QUANTIZED_WEIGHTS[type(node.layer)]
    kernel = getattr(node.layer, attribute).numpy().astype(np.float64)
    return _channels_last(node, kernel) * factor


def _slope(node: Node, *, in_float: bool) -> Weight:
    """Returns the slopes of a leaky ReLU for negative values."""
    if in_float:
        layer = node.layer
        slope = layer.alpha.numpy() if hasattr(layer.alpha, "numpy") else layer.alpha
        return Weight(float_kernel=np.atleast_1d(np.float64(slope)))
    codes, scale, num_bits = trained_codes(node)
    scale = scale.astype(np.float32)
    return Weight(
        codes=QuantizedTensor(codes, scale[:1]), sign=np.ones(1), num_bits=num_bits
    )


@dataclasses.dataclass(eq=False)
class TrainedKernel:
    """A kernel and its bias as they were trained, batch norm folded.

    Attributes:
        name: Of the operator's output.
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
    kernel: TrainedKernel, source: Grid, output: Grid, rooms: Rooms
) -> Weight:
    """Returns weight and bias codes, the bias on the finest grid there is room for.

    Args:
        kernel: What was trained.
        source: The grid of the operator's input.
        output: The grid of its output.
        rooms: Where the codes may be stored.
    """
    codes = kernel.codes
    sums = np.abs(codes).reshape(-1, codes.shape[-1]).sum(axis=0)
    reach = sums * source.reach
    moves = reach * np.abs(kernel.signed_scale) * source.scale
    bias = _clip_bias(kernel.bias, output, moves)
    sign, scale = _channel_signs(kernel, source, output, reach, bias)
    signed = codes * sign.astype(np.int64)
    fitting = _Fitting(bias, scale, source, output, np.where(sign == 0, 0, reach))
    choice = _choose_container(signed, kernel.num_bits, rooms, fitting)
    grid = widened(source, choice.widening, symmetric=rooms.symmetric)
    tensor_scale = (scale / choice.multiplier).astype(np.float32)
    bias_scale = np.float32(grid.scale) * tensor_scale
    exact = bias / bias_scale.astype(np.float64)
    bias_codes = np.rint(exact).astype(np.int64)
    if choice.room in rooms.slow:
        bias_codes = compensate(
            exact,
            bias_scale.astype(np.float64) / np.float32(output.scale),
            choice.multiplier * choice.widening,
            (output.low - output.zero_point, output.high - output.zero_point),
            half_up_channels(rooms.kind, len(exact)),
        )
    # Older runtimes know one scale per tensor only; packed kernels of XNNPACK, and
    # those that shall equal them, have one per channel.
    per_tensor = rooms.kind == "dense" and not rooms.shared
    per_tensor = per_tensor and choice.container not in PACKED
    if per_tensor and (tensor_scale == tensor_scale[0]).all():
        tensor_scale, bias_scale = tensor_scale[:1], bias_scale[:1]
    signed = signed * choice.multiplier
    return Weight(
        codes=QuantizedTensor(signed, tensor_scale, codes.ndim - 1),
        bias=QuantizedTensor(bias_codes, bias_scale),
        sign=sign,
        multiplier=choice.multiplier,
        widening=choice.widening,
        num_bits=kernel.num_bits,
        container=choice.container,
        bias_error=fitting.error(choice.multiplier * choice.widening),
        remark=choice.remark,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Fitting:
    """Whether biases fit a grid that divides input scale times kernel scale.

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
        """Returns how far a rounded bias moves an output at most, in codes."""
        unit = self.source.scale * self.scale / divisions
        moved = np.rint(self.bias / unit) * unit - self.bias
        return float(np.abs(moved).max() / self.output.scale)

    def fits(self, divisions: int) -> bool:
        """Returns whether every bias and accumulator fits 32 bits."""
        scale, reach = self.scale / divisions, self.reach * divisions
        return bool(_fits(self.bias, scale, self.source, reach).all())


@dataclasses.dataclass(frozen=True)
class _Choice:
    """Where a kernel is stored.

    Attributes:
        container: Type of the codes.
        room: Container whose grid of biases, and whose kernel, is assumed.
        multiplier: See the module's head.
        widening: See the module's head.
        remark: Why it is not as asked for.
    """

    container: str
    room: str
    multiplier: int
    widening: int
    remark: str


def _choose_container(
    codes: np.ndarray, num_bits: int, rooms: Rooms, fitting: _Fitting
) -> _Choice:
    """Returns where a kernel is stored: as asked for, or in the next that can hold it.

    Args:
        codes: Trained codes times the sign of their channel.
        num_bits: Bits of the trained codes.
        rooms: Where they may be stored.
        fitting: Tells how coarse a bias may be.
    """
    remarks = []
    widest = most_widening(fitting.source, symmetric=rooms.symmetric)
    divisions = 1
    for room in SMALLEST_FIRST[SMALLEST_FIRST.index(rooms.grid) :]:
        most = multiplier_of(codes, num_bits, room)
        if most == 0:
            remarks.append(f"{room} cannot hold its codes times the sign of gamma")
            continue
        room_widest = widest if room in PACKED else 1
        found = _divisions(num_bits, most, room_widest, shared=rooms.shared)
        divisions = max([d for d in found if fitting.fits(d)], default=1)
        if room not in PACKED or fitting.error(divisions) <= LARGEST_BIAS_ERROR:
            break
        moved = fitting.error(divisions)
        remarks.append(f"in {room} its bias would move an output by {moved:.2g}")
    stored = max(rooms.stored, room, key=SMALLEST_FIRST.index)
    most = multiplier_of(codes, num_bits, stored)
    multiplier = max(m for m in _divisors(divisions) if m <= most)
    widening = divisions // multiplier
    return _Choice(stored, room, multiplier, widening, "; ".join(remarks))


def multiplier_of(codes: np.ndarray, num_bits: int, room: str) -> int:
    """Returns by how much codes can be multiplied in a container; 0: they do not fit.

    Args:
        codes: Trained codes times the sign of their channel.
        num_bits: Bits of the trained codes.
        room: A key of `packing.CONTAINERS`.
    """
    limits = CONTAINERS[room]
    multiplier = code_multiplier(num_bits, limits.num_bits)
    low, high = int(codes.min()), int(codes.max())
    while low * multiplier < limits.low or high * multiplier > limits.high:
        multiplier -= 1
    return multiplier


def _divisions(num_bits: int, most: int, widest: int, *, shared: bool) -> list[int]:
    """Returns the products of multiplier and widening that a file may divide by.

    Args:
        num_bits: Bits of the trained codes.
        most: Largest multiplier.
        widest: Largest widening.
        shared: Whether int8 storage must be able to divide alike, without a widening.
    """
    base = code_multiplier(num_bits)
    multiples = [] if shared else range(2 * base, most * widest + 1, base)
    return [
        product
        for product in (*_divisors(base), *multiples)
        if any(product // m <= widest for m in _divisors(product) if m <= most)
    ]


def _divisors(number: int) -> list[int]:
    """Returns the positive divisors of a number."""
    return [d for d in range(1, number + 1) if number % d == 0]


def _channel_signs(
    kernel: TrainedKernel,
    grid: Grid,
    output: Grid,
    reach: np.ndarray,
    bias: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (sign, positive scale) per channel.

    A channel is constant, sign 0, if its gamma is 0 or so small that its output
    cannot move by `NEGLIGIBLE` of a code; or by half a code, where the grid of
    its weights is too fine for an int32 bias.

    Raises:
        ValueError: If a bias does not fit, and the channel does move.
    """
    scale = np.abs(kernel.signed_scale)
    moves = reach * scale * grid.scale / output.scale
    constant_scale = output.scale / grid.scale * CONSTANT_SHARE
    constant = moves < NEGLIGIBLE
    fits = _fits(bias, np.where(constant, constant_scale, scale), grid, reach)
    constant |= ~fits & (moves < 0.5)
    too_large = np.flatnonzero(~fits & ~constant)
    if too_large.size:
        raise ValueError(
            f"`{kernel.name}`: every bias must fit 32 bits on the grid of input step "
            f"times kernel step. Received channels that do not: {too_large.tolist()}. "
            "Their kernel is almost 0 beside their bias; prune them or train further."
        )
    sign = np.where(constant, 0.0, np.sign(kernel.signed_scale))
    return sign, np.where(constant, constant_scale, scale)


def _fits(
    bias: np.ndarray, scale: np.ndarray, grid: Grid, reach: np.ndarray
) -> np.ndarray:
    """Returns per channel whether bias and accumulator fit 32 bits."""
    return np.abs(bias) / (grid.scale * scale) + reach < INT32_MAX


def _clip_bias(bias: np.ndarray, grid: Grid, moves: np.ndarray) -> np.ndarray:
    """Clips biases that saturate the output whatever the input is.

    Args:
        bias: Real bias per channel.
        grid: The output's grid.
        moves: How far the kernel can move the output, per channel.
    """
    room = moves + 2 * grid.scale
    low = (INT8_MIN - grid.zero_point) * grid.scale - room
    high = (INT8_MAX - grid.zero_point) * grid.scale + room
    return np.clip(bias, low, high)
