"""The base of all operators of a file: exact meaning, TFLite form, and integers."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_lsq.pixels import LARGEST_BYTE

from ..freezing import CONSTANT, ONE, ONE_IN_INT16, FrozenNode, Grid, PixelGrid
from ..runtimes import Runtime, arithmetic, fixed_point
from .builder import FUSED, Builder

_RELU6 = np.float32(6.0)
_EXACT_FLOAT32 = 2**24  # Whole numbers below are exact.

# From inputs to the output: integer tensors as codes minus their zero point, others as
# real values, all float32.
Compute = Callable[[list[tf.Tensor]], tf.Tensor]


class Operator(abc.ABC):
    """One kind of operator.

    The three methods are independent of each other: the verifier compares the file and
    the integer twin with the exact meaning.
    """

    @abc.abstractmethod
    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns what the training graph computes, without a fused activation.

        It uses kernels as quantized by the training op, batch norms that are not
        folded, and biases in full precision.

        Args:
            node: The operator.
            inputs: Its inputs, float64, in the unit of the training graph.
        """

    @abc.abstractmethod
    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the operator to a TFLite graph.

        Args:
            builder: Builder of the graph.
            node: The operator.
            inputs: Names of its input tensors, which are float if the operator is.
        """

    @abc.abstractmethod
    def integers(self, context: Context) -> Compute:
        """Returns what a runtime computes, with the rounding of its kernels.

        Args:
            context: The operator, its inputs, and the kernels that run it.
        """

    def channels_last(self, data: np.ndarray) -> np.ndarray:
        """Returns the codes of a file's weight with output channels last.

        Args:
            data: In the order of the file.

        Raises:
            TypeError: If the operator has no weight.
        """
        raise TypeError(f"{type(self).__name__} has no weight. Received codes of one.")

    def has_kernel(self, context: Context) -> bool:
        """Returns whether XNNPACK runs the operator as it is stored."""
        return True


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """One operator, its inputs, and the runtime that runs it.

    Attributes:
        node: The operator.
        sources: The operators that compute its inputs.
        runtime: What runs the file.
        operator: The operator class of `node.kind`.
        one_at_a_time: Whether the runtime gets one example at a time.
    """

    node: FrozenNode
    sources: list[FrozenNode]
    runtime: Runtime
    operator: Operator
    one_at_a_time: bool

    @property
    def family(self) -> str:
        """The kernels that run the operator: XNNPACK does not support all operators."""
        supported = self.runtime.xnnpack and not self.in_int16
        delegated = supported and self.operator.has_kernel(self)
        return "xnnpack" if delegated else "builtin"

    @property
    def in_int16(self) -> bool:
        """Whether it reads or writes codes in int16."""
        nodes = (*self.sources, self.node)
        return any(n.grid is not None and n.grid.in_int16 for n in nodes)

    @property
    def grid(self) -> Grid:
        """The grid of the output."""
        return self.node.integer_grid

    @property
    def source_grid(self) -> Grid:
        """The grid of the first input."""
        return self.sources[0].integer_grid

    @property
    def scales(self) -> list[np.float32]:
        """Scales of the inputs, then of a constant, then of the output."""
        scales = [np.float32(node.integer_grid.scale) for node in self.sources]
        if self.node.kind in CONSTANT:
            scales.append(self.node.integer_weight.codes.scale[0])
        return [*scales, np.float32(self.grid.scale)]

    def limited(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns the operator's result with its fused activation."""
        return limited(codes, self.grid, self.node.activation)

    def product(self, first: np.float32, second: np.float32) -> Any:
        """Returns output codes per unit of a product of codes on two scales."""
        if self.runtime.double_products:
            return np.float64(first) * np.float64(second) / np.float64(self.scales[-1])
        return first * second / self.scales[-1]

    def requantize(self, ratio: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns accumulator -> codes of the output, for an elementwise operator.

        Args:
            ratio: Output codes per unit of the accumulator.
        """
        multiplier, exponent = fixed_point(np.float64(ratio))
        if self.family == "xnnpack":
            if self.runtime.exact_product:
                return lambda acc: arithmetic.round_once(acc, multiplier, exponent)
            return lambda acc: arithmetic.float_requantize(acc, ratio)
        return lambda acc: arithmetic.fixed_requantize(
            acc, multiplier, exponent, half_up=False
        )

    def rescaled(self) -> Compute:
        """Returns a change of scale: the product with a constant 1."""
        one = ONE_IN_INT16 if self.in_int16 else ONE
        requantize = self.requantize(self.product(self.scales[0], np.float32(1 / one)))
        return lambda inputs: self.limited(requantize(integers_of(inputs[0]) * one))


def limited(codes: tf.Tensor, grid: Grid, activation: str | None = None) -> tf.Tensor:
    """Clips codes minus their zero point to their type and the fused activation.

    Args:
        codes: Whole numbers.
        grid: Their grid.
        activation: "relu", "relu6" or None.
    """
    low, high = (bound - grid.zero_point for bound in grid.bounds)
    if activation:
        low = max(low, 0)
    if activation == "relu6":
        high = min(high, int(np.floor(_RELU6 / np.float32(grid.scale) + 0.5)))
    return tf.clip_by_value(tf.cast(codes, tf.float32), float(low), float(high))


def integers_of(codes: tf.Tensor) -> tf.Tensor:
    """Returns whole numbers as int64."""
    return tf.cast(codes, tf.int64)


def quantized(grid: Grid, *, by_reciprocal: bool = False) -> Compute:
    """Returns real values -> codes minus their zero point.

    Args:
        grid: The grid of the codes.
        by_reciprocal: Whether values are multiplied by 1 / scale, as TFLite's kernel
            does in int16; else divided by the scale.
    """
    scale = np.float32(grid.scale)

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        values = tf.cast(inputs[0], tf.float32)
        if by_reciprocal:
            units = values * (np.float32(1) / scale)
        else:
            # In graphs, TensorFlow replaces a division by a constant by a product,
            # which in float32 is another number. Through float64 both are the same.
            exact = tf.cast(values, tf.float64) / np.float64(scale)
            units = tf.cast(exact, tf.float32)
        return limited(tf.round(units), grid)

    return compute


def decoded(grid: PixelGrid) -> Compute:
    """Returns values that encode bytes -> codes minus their zero point."""

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        whole = tf.round(grid.pixels.decode(tf.cast(inputs[0], tf.float32)))
        return tf.clip_by_value(whole, 0.0, float(LARGEST_BYTE)) - grid.zero

    return compute


def exact_type(largest: int) -> tf.DType:
    """Returns the faster type in which sums of whole numbers are exact.

    Args:
        largest: The largest sum.
    """
    return tf.float32 if largest < _EXACT_FLOAT32 else tf.float64


def tabulated(node: FrozenNode, source: Grid, codes: Sequence[int]) -> np.ndarray:
    """Returns the results of a function for codes, in the type of its output.

    Args:
        node: The operator of the function.
        source: Grid of its input.
        codes: Codes of its input.
    """
    grid = node.integer_grid
    units = np.asarray(codes) - source.zero_point
    values = np.asarray(node.trained.tabulated(units * np.float64(source.scale)))
    scaled = np.rint(values / grid.scale) + grid.zero_point
    return np.clip(scaled, *grid.bounds).astype(grid.container)


class MovingOperator(Operator):
    """An operator that moves or compares codes, which is also exact on integers."""

    def integers(self, context: Context) -> Compute:
        """Returns the same operation on codes."""
        node = context.node
        return lambda inputs: context.limited(self.exact(node, inputs))


class PlainOperator(Operator):
    """An operator whose TFLite form takes its inputs without changes.

    Attributes:
        code: Name of the TFLite operator.
        options: Its options.
        fuses: Whether it can fuse a ReLU.
    """

    code: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    fuses: ClassVar[bool] = False

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds one operator."""
        options = dict(self.options)
        if self.fuses:
            options["fused_activation_function"] = FUSED[node.activation]
        builder.op(self.code, inputs, builder.output(node), **options)
