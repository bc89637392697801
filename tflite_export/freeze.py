"""Trained model -> batch norms folded, integer codes, scales, integer grids.

The only bridge between `tf_lsq` and `tflite_export`: what was a *step* in
training is a *scale* from here on. The result is plain data.

How a point's integers sit in an int8 tensor:

    unsigned, b bits   zero point 127 - Q_P. The fused ReLU clips below, int8
                       itself saturates above: the codes are exactly 0..Q_P.
    signed, 8 bits     zero point 0.
    signed, b < 8      two tensors. The first has zero point 127 - Q_P and
                       saturates above, the second -128 + Q_N and saturates
                       below; a QUANTIZE stands between them.

On a symmetric target all zero points are 0, and MINIMUM and MAXIMUM clip what int8
itself does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_lsq._compat import keras
from tf_lsq.folding import affine_part, code_multiplier, input_factor
from tf_lsq.graph import analyze
from tf_lsq.layers import LSQWrapper, QuantizationPoint
from tf_lsq.model import check_calibrated, quantization_points
from tf_lsq.operators import Graph, Layer, Node
from tf_lsq.quantize_configs import QUANTIZED_WEIGHTS

from .convert import convert_layer
from .packing import CONTAINERS, PACKED, SMALLEST_FIRST
from .quantized_tensor import QuantizedTensor
from .targets import STORAGES, TARGETS, Target, container
from .tflite_graph import TFLiteGraph

INT8_MIN, INT8_MAX = -128, 127
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
}


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


@dataclasses.dataclass(eq=False)
class FrozenNode:
    """One operator of the file.

    Attributes:
        name: Name of its output tensor.
        kind: A key of `tf_lsq.graph.KINDS`, "quantize", or "clip_high" and "clip_low",
            which clip codes to the end of `grid`.
        inputs: Names of its input tensors.
        shape: Output shape with batch 1.
        grid: Grid of the output; None: float.
        layer: The Keras layer that holds the settings.
        node: The node of the training graph.
        point: The quantization point that set `grid`.
        is_float: Whether it computes in float.
        weight: Its constants.
        activation: "relu", "relu6" or None.
        converted: What TFLiteConverter made of a layer that is left in float and has
            no row of its own.
    """

    name: str
    kind: str
    inputs: list[str]
    shape: tuple[int, ...]
    grid: Grid | None
    layer: Layer
    node: Node
    point: QuantizationPoint | None = None
    is_float: bool = False
    weight: Weight | None = None
    activation: str | None = None
    converted: TFLiteGraph | None = None


@dataclasses.dataclass
class FrozenModel:
    """A trained model as plain numbers.

    Attributes:
        nodes: Operators in topological order.
        inputs: Name of the user's input layer -> tensor.
        outputs: Name of the user's output layer -> tensor.
        target: What the model was quantized for.
        name: Name of the model.
        dynamic_batch: Whether the batch size may change at run time. It cannot in a
            model with transposed convolutions, which take their output's shape as a
            constant.
        storage: How the codes are stored.
    """

    nodes: list[FrozenNode]
    inputs: dict[str, str]
    outputs: dict[str, str]
    target: str
    name: str
    dynamic_batch: bool
    storage: Storage

    def by_name(self) -> dict[str, FrozenNode]:
        """Returns the nodes by the name of their output tensor."""
        return {node.name: node for node in self.nodes}


def freeze_model(model: keras.Model, storage: Storage | None = None) -> FrozenModel:
    """Returns the numbers of a trained model.

    Args:
        model: A model made by `quantize_model`, or by `quantize_apply` with
            `LSQQuantizeScheme`, trained or calibrated.
        storage: How its codes will be stored; None: one byte each.

    Raises:
        TypeError: If `model` is no tf_keras model.
        ValueError: If it is not quantized, was quantized by another scheme, has
            dynamic shapes, or numbers that no int32 bias can hold.
        RuntimeError: If it was never trained or calibrated.
    """
    check_quantized(model)
    graph = analyze(model)
    check_calibrated(model)
    _check_shapes(graph)
    graph.check(lambda node: True)
    [target] = {point.target for point in quantization_points(model)}
    fixed = any(node.kind == "transposed_conv" for node in graph.nodes)
    dynamic_batch = TARGETS[target].dynamic_batch and not fixed
    storage = Storage() if storage is None else storage
    freezer = _Freezer(dynamic_batch, TARGETS[target], storage)
    for node in graph.nodes:
        freezer.add(node)
    return FrozenModel(
        freezer.nodes,
        {node.name: freezer.tensor(node) for node in graph.inputs},
        {_output_name(node): freezer.tensor(node) for node in graph.outputs},
        target,
        model.name,
        dynamic_batch,
        storage,
    )


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
    if q_min == 0 or q_max - q_min == INT8_MAX - INT8_MIN:
        return None
    zero_point = INT8_MIN - q_min
    return Grid(_scale(point), zero_point, INT8_MIN, zero_point + q_max)


def _fixed_grid(node: Node) -> Grid:
    """Returns the grid that TFLite prescribes for an output without a point."""
    signed = node.properties.range == "signed"
    return Grid(float(np.float32(node.properties.fixed_step)), 0 if signed else -128)


def integer_bounds(point: QuantizationPoint) -> tuple[int, int]:
    """Returns the smallest and largest integer of a point."""
    bounds = point.integer_range
    return int(bounds.q_min), int(bounds.q_max)


def _scale(point: QuantizationPoint) -> float:
    """Returns the trained step, the scale of the tensor."""
    return float(np.float32(point.step.numpy()))


class _Freezer:
    """Walks the training graph and gives every tensor its grid."""

    def __init__(self, dynamic_batch: bool, target: Target, storage: Storage) -> None:
        self.dynamic_batch, self.target, self.storage = dynamic_batch, target, storage
        self.nodes: list[FrozenNode] = []
        self._tensors: dict[Node, FrozenNode] = {}
        self._names: set[str] = set()

    def tensor(self, node: Node) -> str:
        """Returns the name of the tensor that holds a node's output."""
        return self._tensors[node].name

    def add(self, node: Node) -> None:
        """Adds the operators of one node."""
        if node.kind in ("identity", "scale"):
            self._tensors[node] = self._tensors[node.inputs[0]]
        elif node.kind == "point":
            self._add_point(node)
        else:
            self._add_operator(node)

    def _add_operator(self, node: Node) -> None:
        """Adds an operator with the grid of the point behind it."""
        inputs = [self._tensors[source] for source in node.inputs]
        point = _point_behind(node)
        frozen = FrozenNode(
            name=self._unique(node.name),
            kind=node.kind,
            inputs=[source.name for source in inputs],
            shape=(1, *node.shape[1:]),
            grid=None if point is None else grid_of(point),
            layer=node.layer,
            node=node,
            point=point,
            activation=node.activation,
        )
        frozen.is_float = _is_float(node, inputs)
        if frozen.is_float:
            frozen.grid = frozen.point = None
        elif node.properties.keeps_codes or node.properties.keeps_grid:
            frozen.grid = inputs[0].grid
            frozen.point = inputs[0].point
        elif node.properties.joins:
            frozen.grid, frozen.point = inputs[0].grid, inputs[0].point
        elif node.properties.fixed_step and point is None:
            frozen.grid = _fixed_grid(node)
        rooms = containers_of(node, self.target, self.storage)
        frozen.weight = _freeze_weight(frozen, inputs, rooms)
        if node.kind == "foreign":
            frozen.converted = convert_layer(node, dynamic_batch=self.dynamic_batch)
        self._append(node, frozen)

    def _add_point(self, node: Node) -> None:
        """Adds what a point needs beyond the operator in front of it."""
        source = self._tensors[node.inputs[0]]
        point = node.layer
        if _point_behind(node.inputs[0]) is not point or source.is_float:
            source = self._append(node, self._quantize(node, source, grid_of(point)))
        clipped = clipped_grid(point)
        if clipped is not None and source.grid != clipped:
            source = self._clip(node, source, clipped)
        self._tensors[node] = source

    def _clip(self, node: Node, source: FrozenNode, grid: Grid) -> FrozenNode:
        """Adds the operators that clip a point's codes."""
        if not self.target.symmetric:
            return self._append(node, self._quantize(node, source, grid))
        for kind, low, high in (
            ("clip_high", source.grid.low, grid.high),
            ("clip_low", grid.low, grid.high),
        ):
            bounds = Grid(grid.scale, grid.zero_point, low, high)
            if bounds != source.grid:
                clip = self._quantize(node, source, bounds)
                source = self._append(node, dataclasses.replace(clip, kind=kind))
        return source

    def _quantize(self, node: Node, source: FrozenNode, grid: Grid) -> FrozenNode:
        """Returns a QUANTIZE operator."""
        return FrozenNode(
            name=self._unique(node.name),
            kind="quantize",
            inputs=[source.name],
            shape=source.shape,
            grid=grid,
            layer=node.layer,
            node=node,
            point=node.layer,
        )

    def _append(self, node: Node, frozen: FrozenNode) -> FrozenNode:
        """Adds an operator whose output is that of `node`."""
        self.nodes.append(frozen)
        self._tensors[node] = frozen
        return frozen

    def _unique(self, name: str) -> str:
        """Returns a tensor name that is not taken."""
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate


def _point_behind(node: Node) -> QuantizationPoint | None:
    """Returns the point that is the only reader of an operator's output."""
    if node.properties.keeps_codes or node.properties.joins:
        return None
    readers = set(node.consumers)
    if len(readers) == 1 and not node.is_output:
        [reader] = readers
        if reader.kind == "point":
            return reader.layer
    return None


def _is_float(node: Node, inputs: list[FrozenNode]) -> bool:
    """Returns whether an operator computes in float.

    Operators with a kernel say it themselves: quantized kernels are wrapped.
    The others follow the tensors around them.
    """
    if node.kind == "input":
        return False
    if node.kind == "foreign":
        return True
    if type(node.layer) in QUANTIZED_WEIGHTS:
        return not isinstance(node.model_layer, LSQWrapper)
    if any(source.grid is None for source in inputs):
        return True
    if any(n.kind == "point" and n.layer.float_input for n in node.consumers):
        return True
    if node.properties.joins:
        return len({source.grid for source in inputs}) > 1
    if node.properties.keeps_codes or node.properties.fixed_step:
        return False
    return _point_behind(node) is None


# --- Weights -----------------------------------------------------------------


_AFFINE = ("affine", "hard_sigmoid")


def containers_of(node: Node, target: Target, storage: Storage) -> tuple[str, str]:
    """Returns (container of the codes, container that sets the grid of the bias)."""
    wrapper = node.model_layer
    if node.kind not in PACKABLE or not isinstance(wrapper, LSQWrapper):
        return "int8", "int8"
    stored, packed = (
        container(
            PACKABLE[node.kind],
            wrapper.quantizer.num_bits,
            target,
            name,
            int(node.inputs[0].shape[-1]),
        )
        for name in (storage.name, "packed")
    )
    return stored, packed if storage.bias_grid == "packed" else stored


def _freeze_weight(
    frozen: FrozenNode, inputs: list[FrozenNode], rooms: tuple[str, str]
) -> Weight | None:
    """Returns the constants of an operator, None if it has none."""
    node = frozen.node
    if node.kind == "prelu":
        return _slope(frozen)
    if not (node.properties.matmul or node.kind in _AFFINE):
        return None
    factor, bias = affine_part(node)
    factor = factor * input_factor(node)
    if frozen.is_float and node.kind == "hard_sigmoid":
        return None
    if frozen.is_float:
        kernel = factor if node.kind == "affine" else _times(node, factor)
        return Weight(float_kernel=kernel, float_bias=bias)
    codes, step, num_bits = trained_codes(node)
    if frozen.kind in _AFFINE:
        step, factor = 1.0 / INT8_MAX, affine_part(node)[0]
    found = TrainedKernel(codes, step * factor, bias, num_bits)
    return _integer_weight(frozen, inputs[0].grid, found, rooms)


def trained_codes(node: Node) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns (codes, scale per channel, bits) as the training graph has them.

    Codes of a kernel are read off the training op and have the channels last; a
    depthwise kernel is `[height, width, channels]`, 1D ones have a height of 1. A
    batch norm or scaling by itself is a 1x1 depthwise kernel: codes 127, the rest of
    the factor is scale. The constant slope of a leaky ReLU has the one code 127.
    """
    if node.kind in _AFFINE:
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


def _slope(frozen: FrozenNode) -> Weight:
    """Returns the slopes of a leaky ReLU for negative values."""
    if frozen.is_float:
        layer = frozen.layer
        slope = layer.alpha.numpy() if hasattr(layer.alpha, "numpy") else layer.alpha
        return Weight(float_kernel=np.atleast_1d(np.float64(slope)))
    codes, scale, num_bits = trained_codes(frozen.node)
    scale = scale.astype(np.float32)
    return Weight(
        codes=QuantizedTensor(codes, scale[:1]), sign=np.ones(1), num_bits=num_bits
    )


@dataclasses.dataclass(eq=False)
class TrainedKernel:
    """A kernel and its bias as they were trained, batch norm folded.

    Attributes:
        codes: Trained codes, channels last.
        signed_scale: Kernel step times batch norm factor, per channel.
        bias: Real bias per channel.
        num_bits: Bits of the codes.
    """

    codes: np.ndarray
    signed_scale: np.ndarray
    bias: np.ndarray
    num_bits: int


def _integer_weight(
    frozen: FrozenNode, grid: Grid, kernel: TrainedKernel, rooms: tuple[str, str]
) -> Weight:
    """Returns weight and bias codes, the bias on the finest grid there is room for.

    Args:
        frozen: The operator.
        grid: The grid of its input.
        kernel: What was trained.
        rooms: Container of the codes, and the one that sets the grid of the bias.
    """
    codes = kernel.codes
    reach = np.abs(codes).reshape(-1, codes.shape[-1]).sum(axis=0) * _reach(grid)
    bias = _clip_bias(
        kernel.bias, frozen.grid, reach * np.abs(kernel.signed_scale) * grid.scale
    )
    sign, scale = _channel_signs(frozen, grid, reach, kernel.signed_scale, bias)
    signed = codes * sign.astype(np.int64)
    reach = np.where(sign == 0, 0, reach)
    error = _bias_error(bias, scale, grid, frozen.grid)
    stored, multiplier, remark = _choose_container(
        signed, kernel.num_bits, rooms, error
    )
    while not _fits(bias, scale / multiplier, grid, reach * multiplier).all():
        multiplier -= 1
    tensor_scale = (scale / multiplier).astype(np.float32)
    bias_scale = np.float32(grid.scale) * tensor_scale
    bias_codes = np.rint(bias / bias_scale.astype(np.float64)).astype(np.int64)
    return Weight(
        codes=QuantizedTensor(signed * multiplier, tensor_scale, codes.ndim - 1),
        bias=QuantizedTensor(bias_codes, bias_scale),
        sign=sign,
        multiplier=multiplier,
        num_bits=kernel.num_bits,
        container=stored,
        bias_error=error(multiplier),
        remark=remark,
    )


def _choose_container(
    codes: np.ndarray,
    num_bits: int,
    rooms: tuple[str, str],
    bias_error: Callable[[int], float],
) -> tuple[str, int, str]:
    """Returns (container, multiplier, why it is not the container asked for).

    Args:
        codes: Trained codes times the sign of their channel.
        num_bits: Bits of the trained codes.
        rooms: Container of the codes, and the one that sets the grid of the bias.
        bias_error: Multiplier -> how far the rounded bias moves an output.
    """
    stored, room = rooms
    remarks = []
    for candidate in SMALLEST_FIRST[SMALLEST_FIRST.index(room) :]:
        multiplier = multiplier_of(codes, num_bits, candidate)
        error = bias_error(multiplier) if multiplier else 0.0
        room = candidate
        if multiplier == 0:
            remarks.append(f"{room} cannot hold its codes times the sign of gamma")
        elif room in PACKED and error > LARGEST_BIAS_ERROR:
            remarks.append(f"in {room} its bias would move an output by {error:.2g}")
        else:
            break
    stored = max(stored, room, key=SMALLEST_FIRST.index)
    return stored, multiplier, "; ".join(remarks)


def multiplier_of(codes: np.ndarray, num_bits: int, room: str) -> int:
    """Returns by how much codes are multiplied in a container; 0 if they do not fit.

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


def _bias_error(
    bias: np.ndarray, scale: np.ndarray, grid: Grid, output: Grid
) -> Callable[[int], float]:
    """Returns how far a bias on the grid of a multiplier moves an output, in codes."""

    def error(multiplier: int) -> float:
        unit = grid.scale * scale / multiplier
        return float(np.abs(np.rint(bias / unit) * unit - bias).max() / output.scale)

    return error


def _channel_signs(
    frozen: FrozenNode,
    grid: Grid,
    reach: np.ndarray,
    signed_scale: np.ndarray,
    bias: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (sign, positive scale) per channel.

    A channel is constant, sign 0, if its gamma is 0 or so small that its output
    cannot move by `NEGLIGIBLE` of a code; or by half a code, where the grid of
    its weights is too fine for an int32 bias.

    Raises:
        ValueError: If a bias does not fit, and the channel does move.
    """
    scale = np.abs(signed_scale)
    moves = reach * scale * grid.scale / frozen.grid.scale
    constant_scale = frozen.grid.scale / grid.scale * CONSTANT_SHARE
    constant = moves < NEGLIGIBLE
    fits = _fits(bias, np.where(constant, constant_scale, scale), grid, reach)
    constant |= ~fits & (moves < 0.5)
    too_large = np.flatnonzero(~fits & ~constant)
    if too_large.size:
        raise ValueError(
            f"`{frozen.name}`: every bias must fit 32 bits on the grid of input step "
            f"times kernel step. Received channels that do not: {too_large.tolist()}. "
            "Their kernel is almost 0 beside their bias; prune them or train further."
        )
    sign = np.where(constant, 0.0, np.sign(signed_scale))
    return sign, np.where(constant, constant_scale, scale)


def _fits(
    bias: np.ndarray, scale: np.ndarray, grid: Grid, reach: np.ndarray
) -> np.ndarray:
    """Returns per channel whether bias and accumulator fit 32 bits."""
    return np.abs(bias) / (grid.scale * scale) + reach < INT32_MAX


def _reach(grid: Grid) -> int:
    """Returns the largest distance of an input code from its zero point."""
    return max(grid.high - grid.zero_point, grid.zero_point - grid.low)


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


# --- Checks ------------------------------------------------------------------


def check_quantized(model: Any) -> None:
    """Refuses models that this library did not quantize."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a quantized tf_keras model. "
            f"Received: {type(model).__name__}."
        )
    foreign = [
        f"`{layer.name}` ({type(layer).__name__})"
        for layer in model.layers
        if type(layer).__module__.startswith("tensorflow_model_optimization")
    ]
    if foreign:
        raise ValueError(
            "`model` must be quantized with `tf_lsq.quantize_model`, or by TF-MOT's "
            "`quantize_apply` with `tf_lsq.LSQQuantizeScheme()`. Received layers "
            f"that another scheme wrapped: {foreign}. Pass `LSQQuantizeScheme()` as "
            "`scheme` to `quantize_apply`."
        )
    if not quantization_points(model):
        raise ValueError(
            f"`model` must be quantized. Received the float model `{model.name}`. "
            "Call `tf_lsq.quantize_model` and train it first."
        )


def _check_shapes(graph: Graph) -> None:
    """Refuses shapes that are only known at run time, batch aside."""
    dynamic = [
        f"`{node.name}` {node.shape}"
        for node in graph.inputs
        if any(size is None for size in node.shape[1:])
    ]
    if dynamic:
        raise ValueError(
            "Every input size but the batch must be static. Received inputs: "
            f"{dynamic}. Build the model with `keras.Input(shape=...)` of full shape."
        )


def _output_name(node: Node) -> str:
    """Returns the name under which the user knows an output."""
    while node.kind == "point":
        node = node.inputs[0]
    return node.name
