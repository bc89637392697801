"""A trained model as plain numbers, independent of how a file stores them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..file import TFLiteGraph
from .grids import Grid

# Operators whose kernel is a factor per channel, which was not trained as codes.
AFFINE = ("affine", "hard_sigmoid")
# Elementwise functions that a file may hold as a table.
TABLES = ("exp", "gelu", "log", "table")
# A function of codes of 16 bits, which a file holds as a table.
LOOKUP = "lookup"
# Operators whose second input is a constant with its own grid.
CONSTANT = ("add_constant", "multiply_constant")


class Pixels(Protocol):
    """How the values that a model takes encode bytes: a `tf_lsq.Pixels`."""

    @property
    def mean(self) -> float | tuple[float, ...]:
        """Subtracted from bytes."""
        ...

    @property
    def std(self) -> float | tuple[float, ...]:
        """Divides the difference."""
        ...

    @property
    def order(self) -> str:
        """Order of the channels, "rgb" or "bgr"."""
        ...

    def decode(self, x: Any) -> Any:
        """Returns the bytes of float32 values, not rounded, `[..., channels]`."""
        ...

    def bytes_of(self, x: np.ndarray) -> np.ndarray:
        """Returns the bytes of values, uint8, `[..., channels]`."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain data."""
        ...


class PixelGrid(Protocol):
    """The grid of an input whose codes are bytes: a `tf_lsq.pixels.PixelGrid`."""

    @property
    def pixels(self) -> Pixels:
        """How the values that the model takes encode bytes."""
        ...

    @property
    def zero(self) -> int:
        """The byte that stands for 0."""
        ...

    @property
    def divisor(self) -> float:
        """How many bytes stand for 1."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedPoint:
    """The trained quantization of an activation tensor.

    Attributes:
        layer: Name of the quantization point.
        num_bits: Bits of one integer.
        step: Width of one integer, exactly representable in float32.
        q_min: Smallest integer.
        q_max: Largest integer.
        has_offset: Whether its range may begin anywhere: at a learned offset (LSQ+), or
            where bytes prescribe it.
        float_input: Whether the operator before it was left in float.
        grid: The grid on which its codes are computed.
        clipped: The grid that clips them, None if that is not needed.
        pixel_grid: Grid of bytes, of an input that is pixels.
    """

    layer: str
    num_bits: int
    step: float
    q_min: int
    q_max: int
    has_offset: bool
    float_input: bool
    grid: Grid
    clipped: Grid | None
    pixel_grid: PixelGrid | None = None

    @property
    def final_grid(self) -> Grid:
        """The grid of the codes after clipping at both ends."""
        return self.clipped or self.grid


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedKernel:
    """A kernel as it was trained.

    Attributes:
        layer: Name of the Keras layer.
        values: Float values, output channels last; a depthwise kernel is
            `[height, width, channels]`, 1D kernels have a height of 1.
    """

    layer: str
    values: np.ndarray

    def real_values(self) -> np.ndarray:
        """Returns the values that the training graph computes with, float64."""
        return self.values.astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedKernel(TrainedKernel):
    """A kernel that was trained as integers.

    Attributes:
        codes: Its integers, read from the training op, int64, shape of `values`.
        step: Width of one integer, float64, `[1]` or `[channels]`.
        num_bits: Bits of one integer.
    """

    codes: np.ndarray
    step: np.ndarray
    num_bits: int

    def real_values(self) -> np.ndarray:
        """Returns the exact products of codes and step, not rounded to float32."""
        return self.codes.astype(np.float64) * self.step


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """What an operator does to the product of input and kernel, batch norm folded.

    The output is ``factor * product + shift``, float64, `[channels]` each.

    Attributes:
        factor: See above.
        shift: See above.
    """

    factor: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class BatchNorm:
    """A batch norm in inference mode, float64, `[channels]` each.

    Attributes:
        mean: Moving mean.
        variance: Moving variance, plus epsilon.
        gamma: Its gamma, None if it has none.
        beta: Its beta, None if it has none.
    """

    mean: np.ndarray
    variance: np.ndarray
    gamma: np.ndarray | None
    beta: np.ndarray | None

    def apply(self, x: Any) -> Any:
        """Returns the normalized tensor.

        Args:
            x: float64, channels last; an array or a tensor.
        """
        result = (x - self.mean) / np.sqrt(self.variance)
        if self.gamma is not None:
            result = result * self.gamma
        return result if self.beta is None else result + self.beta


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """A multiplication and an addition of constants, float64, `[]` or `[channels]`.

    Attributes:
        scale: Factor.
        offset: Summand.
    """

    scale: np.ndarray
    offset: np.ndarray

    def apply(self, x: Any) -> Any:
        """Returns the scaled tensor.

        Args:
            x: float64, channels last; an array or a tensor.
        """
        return x * self.scale + self.offset


@dataclasses.dataclass(frozen=True, eq=False)
class ForeignLayer:
    """A layer that is left in float and has no operator here.

    Attributes:
        compute: What Keras computes. Floats are float64.
    """

    compute: Callable[[list[Any]], Any]


@dataclasses.dataclass(eq=False)
class TrainedNode:
    """One operator of the training graph.

    Attributes:
        name: Unique in the graph.
        kind: A key of `tf_lsq.graph.KINDS`.
        inputs: The operators that compute its inputs.
        shape: Output shape, None for a dynamic batch.
        layer: Name of the Keras layer.
        options: Settings of the operator.
        activation: "relu", "relu6" or None.
        integer_type: Type of an output that holds integers without a scale, else "".
        point: The quantization point, for the kind "point".
        kernel: The trained constant, None if there is none.
        bias: float64, `[channels]`, None if there is none.
        affine: The batch norm or scaling after the product, or the operator itself.
        folded: How the operator changes the product of input and kernel; None if it has
            neither kernel nor factors.
        input_factor: Factor between the values an operator reads and its input
            tensor, from a scaling of the model's input.
        matmul: Whether it multiplies its input by a kernel.
        keeps_codes: Whether it leaves integer codes unchanged.
        keeps_grid: Whether its output has the grid of its input, but is rounded.
        leaves_range: Whether its output can exceed the range of that grid.
        joins: Whether its inputs and its output share one grid.
        narrow_inputs: Which of its inputs stay in int8 where it computes in int16.
        fixed_step: Step of the output that TFLite prescribes, or None.
        signed: Whether that output can be negative.
        own_types: Whether it reads and writes every tensor in the type of its grid.
        foreign_layer: For a layer that is left in float and has no operator here.
        table: Integers of the table of an embedding, `[ids, channels]`.
        function: What a table holds, float64 to float64, for the kinds `TABLES` and
            `LOOKUP`.
        readers: Operators that read the output, each once.
        is_output: Whether the output is one of the model's outputs.
    """

    name: str
    kind: str
    inputs: list[TrainedNode]
    shape: tuple[int | None, ...]
    layer: str
    options: dict[str, Any]
    activation: str | None = None
    integer_type: str = ""
    point: TrainedPoint | None = None
    kernel: TrainedKernel | None = None
    bias: np.ndarray | None = None
    affine: BatchNorm | Scaling | None = None
    folded: Folded | None = None
    input_factor: float = 1.0
    matmul: bool = False
    keeps_codes: bool = False
    keeps_grid: bool = False
    leaves_range: bool = False
    joins: bool = False
    narrow_inputs: tuple[int, ...] = ()
    fixed_step: float | None = None
    signed: bool = False
    own_types: bool = False
    foreign_layer: ForeignLayer | None = None
    table: np.ndarray | None = None
    function: Callable[[Any], Any] | None = None
    readers: list[TrainedNode] = dataclasses.field(
        default_factory=lambda: list[TrainedNode]()
    )
    is_output: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the output without the batch.

        Raises:
            TypeError: If one is only known at run time.
        """
        sizes = tuple(size for size in self.shape[1:] if size is not None)
        if len(sizes) != len(self.shape[1:]):
            raise TypeError(f"`{self.name}` has the dynamic shape {self.shape}.")
        return sizes

    @property
    def groups(self) -> int:
        """How many groups its channels have; most operators have one."""
        return self.options.get("groups", 1)

    @property
    def quantized_kernel(self) -> QuantizedKernel:
        """The kernel of an operator that was trained as integers.

        Raises:
            TypeError: If it has none.
        """
        if not isinstance(self.kernel, QuantizedKernel):
            raise TypeError(f"`{self.name}` ({self.kind}) has no quantized kernel.")
        return self.kernel

    @property
    def any_kernel(self) -> TrainedKernel:
        """The kernel of an operator that has one.

        Raises:
            TypeError: If it has none.
        """
        if self.kernel is None:
            raise TypeError(f"`{self.name}` ({self.kind}) has no kernel.")
        return self.kernel

    @property
    def scaling(self) -> BatchNorm | Scaling:
        """The batch norm or scaling that an operator is, or ends with.

        Raises:
            TypeError: If there is none.
        """
        if self.affine is None:
            raise TypeError(f"`{self.name}` ({self.kind}) is no batch norm or scaling.")
        return self.affine

    @property
    def foreign(self) -> ForeignLayer:
        """What a layer that is left in float, without an operator here, computes.

        Raises:
            TypeError: If it is not such a layer.
        """
        if self.foreign_layer is None:
            raise TypeError(f"`{self.name}` ({self.kind}) has its own operator.")
        return self.foreign_layer

    @property
    def tabulated(self) -> Callable[[Any], Any]:
        """What a table holds: a function of float64 tensors.

        Raises:
            TypeError: If the operator is no elementwise function.
        """
        if self.function is None:
            raise TypeError(f"`{self.name}` ({self.kind}) is no elementwise function.")
        return self.function

    @property
    def looked_up(self) -> np.ndarray:
        """The table of an embedding.

        Raises:
            TypeError: If it is none.
        """
        if self.table is None:
            raise TypeError(f"`{self.name}` ({self.kind}) is no embedding.")
        return self.table

    @property
    def folding(self) -> Folded:
        """How an operator with a kernel, or with factors, changes the product.

        Raises:
            TypeError: If it has neither.
        """
        if self.folded is None:
            raise TypeError(f"`{self.name}` ({self.kind}) has no kernel or factor.")
        return self.folded

    @property
    def source_point(self) -> TrainedNode | None:
        """The point whose grid the output is on, None without one."""
        node = self
        while node.kind != "point":
            if not (node.keeps_codes or node.keeps_grid or node.joins):
                return None
            node = node.inputs[0]
        return node

    @property
    def in_int16(self) -> bool:
        """Whether it is computed in int16, as all tensors of an operator must be.

        It is if any of its inputs, or its output, has more than 8 bits, unless each has
        its own type.
        """
        if self.own_types:
            return False
        points = [source.source_point for source in self.inputs]
        known = [node.point for node in points if node is not None]
        return any(
            point is not None and point.grid.in_int16
            for point in (*known, self.next_point)
        )

    @property
    def next_point(self) -> TrainedPoint | None:
        """The point that is the only reader of the output, None if there is none."""
        if self.keeps_codes or self.joins or self.is_output or len(self.readers) != 1:
            return None
        return self.readers[0].point


@dataclasses.dataclass(frozen=True, eq=False)
class ConvertedPart:
    """What TFLiteConverter makes of the layers that have no operator here.

    Attributes:
        graph: Their operators.
        inputs: Tensor of `graph` -> the operator that computes it.
        outputs: Tensor of `graph` -> the operator that it is the output of.
    """

    graph: TFLiteGraph
    inputs: dict[str, TrainedNode]
    outputs: dict[str, TrainedNode]


@dataclasses.dataclass(eq=False)
class TrainedModel:
    """A trained model as plain numbers.

    Attributes:
        name: Name of the model.
        target: The target that it was quantized for.
        dynamic_batch: Whether the batch size may change at run time.
        nodes: Operators in topological order.
        inputs: The operators that are the model's inputs, in order.
        outputs: Name of the output in the user's model -> operator that computes it.
        converted: The layers that have no operator here, None without any.
    """

    name: str
    target: str
    dynamic_batch: bool
    nodes: list[TrainedNode]
    inputs: list[TrainedNode]
    outputs: dict[str, TrainedNode]
    converted: ConvertedPart | None = None

    def by_name(self) -> dict[str, TrainedNode]:
        """Returns the operators by name."""
        return {node.name: node for node in self.nodes}
