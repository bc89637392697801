"""Converts trained numbers to operators of a file, with constants and integer grids.

A *step* in training is called a *scale* from here on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from ..file import PACKED
from ..targets import TARGETS, Target
from .containers import AllowedContainers, Storage, allowed_containers
from .grids import (
    INT8_MIN,
    Grid,
    computed_in_int16,
    fixed_grid,
    widened,
    widened_to_int16,
)
from .trained import (
    TABLES,
    ConvertedPart,
    PixelGrid,
    Pixels,
    QuantizedKernel,
    TrainedModel,
    TrainedNode,
    TrainedPoint,
)
from .weights import (
    IntegerWeight,
    KernelWeight,
    Weight,
    freeze_weight,
)

# How convolutions with groups are written:
#   conv   one CONV_2D where the target's kernel is fast, else one per group
#   split  always a SPLIT, one CONV_2D per group, and a CONCATENATION
GROUPED = ("conv", "split")


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenNode:
    """One operator of the file.

    Attributes:
        name: Name of its output tensor.
        kind: A key of `operators.OPERATORS`: a kind of the training graph; "quantize";
            "clip_high" and "clip_low", which clip codes to the end of `grid`; "widen",
            which multiplies them by an integer; "to_int16", which only stores them in
            int16; or "pointwise", a 1x1 convolution as a fully connected operator.
        inputs: Names of its input tensors.
        shape: Output shape with batch 1.
        grid: Grid of the output; None: float.
        trained: The operator of the training graph that it computes, or the
            quantization point.
        point: The quantization point that defines `grid`.
        is_float: Whether it computes in float.
        integer_type: Type of an output that holds integers without a scale, else "".
        weight: Its constants.
        activation: "relu", "relu6" or None.
        split: Whether a convolution with groups is one operator per group, between a
            SPLIT and a CONCATENATION.
    """

    name: str
    kind: str
    inputs: list[str]
    shape: tuple[int, ...]
    grid: Grid | None
    trained: TrainedNode
    point: TrainedPoint | None = None
    is_float: bool = False
    integer_type: str = ""
    weight: Weight | None = None
    activation: str | None = None
    split: bool = False

    @property
    def groups(self) -> int:
        """How many groups its channels have."""
        return self.trained.groups

    @property
    def parts(self) -> list[str]:
        """Names of the operators with its kernel: its own, or one per group."""
        if not self.split:
            return [self.name]
        return [f"{self.name}/group_{number}" for number in range(self.groups)]

    @property
    def kernel_kind(self) -> str:
        """Kind of TFLite's own kernel: that of groups in one operator is another."""
        in_one = self.groups > 1 and not self.split
        return "grouped_conv" if in_one else self.kind

    @property
    def computes_floats(self) -> bool:
        """Whether it reads or writes float tensors; others move integers."""
        types = [source.integer_type for source in self.trained.inputs]
        return self.is_float and not (self.integer_type and types and all(types))

    @property
    def layer_name(self) -> str:
        """What reports call it: the layer with its kernel, else its output tensor."""
        kernel = self.trained.kernel
        return self.name if kernel is None else kernel.layer

    @property
    def pixel_grid(self) -> PixelGrid | None:
        """The grid of bytes of an input that is pixels, else None."""
        if self.kind != "input" or self.point is None:
            return None
        return self.point.pixel_grid

    @property
    def pixels(self) -> Pixels | None:
        """How the values that the model takes encode the bytes that the file takes.

        None for what is no input, or no pixels. A float32 end takes neither, but the
        values of `grid`: bytes if its scale is 1, or normalized bytes.
        """
        return None if self.pixel_grid is None else self.pixel_grid.pixels

    @property
    def own_point(self) -> TrainedPoint:
        """The point of a tensor that has one.

        Raises:
            TypeError: If it has none.
        """
        if self.point is None:
            raise TypeError(f"`{self.name}` ({self.kind}) has no quantization point.")
        return self.point

    @property
    def integer_grid(self) -> Grid:
        """The grid of an integer output.

        Raises:
            TypeError: If it is a float output.
        """
        if self.grid is None:
            raise TypeError(f"`{self.name}` ({self.kind}) is a float tensor.")
        return self.grid

    @property
    def integer_weight(self) -> IntegerWeight:
        """The integer constant of an operator that has one.

        Raises:
            TypeError: If it has none.
        """
        if not isinstance(self.weight, IntegerWeight):
            raise TypeError(f"`{self.name}` ({self.kind}) has no integer weight.")
        return self.weight

    @property
    def kernel_weight(self) -> KernelWeight:
        """The integer kernel and bias of an operator that has them.

        Raises:
            TypeError: If it has none.
        """
        if not isinstance(self.weight, KernelWeight):
            raise TypeError(f"`{self.name}` ({self.kind}) has no integer kernel.")
        return self.weight

    @property
    def is_final(self) -> bool:
        """Whether the tensor has the integers of its point, clipped at both ends.

        A tensor whose grid has no point (softmax) does not, nor does the first of the
        two tensors of signed low-bit codes, which is only clipped above, nor one in
        int16 that becomes int8 next.
        """
        return self.point is not None and self.grid == self.point.final_grid


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenModel:
    """A trained model as the operators of a file.

    Attributes:
        nodes: Operators in topological order.
        inputs: Name of the user's input layer -> tensor.
        outputs: Name of the user's output layer -> tensor.
        target: What the model was quantized for.
        name: Name of the model.
        dynamic_batch: Whether the batch size may change at run time. It may not in a
            model with transposed convolutions, which take the shape of their output
            as a constant.
        storage: How the codes are stored.
        converted: The operators of the layers that have none here, None without any.
        tensors: Name of an operator of the training graph -> tensor with its output.
    """

    nodes: list[FrozenNode]
    inputs: dict[str, str]
    outputs: dict[str, str]
    target: str
    name: str
    dynamic_batch: bool
    storage: Storage
    converted: ConvertedPart | None = None
    tensors: dict[str, str] = dataclasses.field(
        default_factory=lambda: dict[str, str]()
    )

    def by_name(self) -> dict[str, FrozenNode]:
        """Returns the nodes by the name of their output tensor."""
        return {node.name: node for node in self.nodes}


def freeze_model(
    trained: TrainedModel,
    storage: Storage | None = None,
    grouped: str = "conv",
) -> FrozenModel:
    """Returns the operators of the file of a trained model.

    Args:
        trained: The numbers of the model, from `read_model`.
        storage: How its codes will be stored; None: one byte each.
        grouped: How convolutions with groups are written, one of `GROUPED`.

    Raises:
        ValueError: If there are numbers that do not fit an int32 bias.
    """
    storage = Storage() if storage is None else storage
    freezer = _Freezer(trained, TARGETS[trained.target], storage, grouped)
    for node in trained.nodes:
        freezer.add(node)
    return FrozenModel(
        nodes=freezer.nodes,
        inputs={node.name: freezer.tensor(node) for node in trained.inputs},
        outputs={n: freezer.tensor(node) for n, node in trained.outputs.items()},
        target=trained.target,
        name=trained.name,
        dynamic_batch=trained.dynamic_batch,
        storage=storage,
        converted=trained.converted,
        tensors={node.name: freezer.tensor(node) for node in trained.nodes},
    )


class _Freezer:
    """Walks the training graph and gives every tensor its grid."""

    def __init__(
        self, trained: TrainedModel, target: Target, storage: Storage, grouped: str
    ) -> None:
        self.target, self.storage, self.grouped = target, storage, grouped
        # Names in the model, which the tensors added for storage must not use.
        self._reserved = {node.name for node in trained.nodes}
        self.nodes: list[FrozenNode] = []
        self._tensors: dict[TrainedNode, FrozenNode] = {}
        self._wide: dict[tuple[str, int], FrozenNode] = {}
        self._in_int16: dict[str, FrozenNode] = {}
        self._names: set[str] = set()

    def tensor(self, node: TrainedNode) -> str:
        """Returns the name of the tensor of a node's output."""
        return self._tensors[node].name

    def add(self, node: TrainedNode) -> None:
        """Adds the operators of one node."""
        if node.kind in ("identity", "scale"):
            self._tensors[node] = self._tensors[node.inputs[0]]
        elif node.point is not None:
            self._add_point(node, node.point)
        else:
            self._add_operator(node)

    def _add_operator(self, node: TrainedNode) -> None:
        """Adds an operator with the grid of the point after it."""
        sources = [self._tensors[source] for source in node.inputs]
        is_float = _is_float(node, sources)
        name = self._unique(node.name)
        grid, point = (None, None) if is_float else _output_grid(node, sources)
        if node.in_int16 and not is_float:
            sources = self._in_common_type(node)
            if grid is not None and not grid.in_int16:
                grid = computed_in_int16(grid)
        allowed = allowed_containers(node, self.target, self.storage)
        grids = (sources[0].grid if sources else None, grid)
        weight = freeze_weight(node, name, grids, allowed)
        inputs = [source.name for source in sources]
        if isinstance(weight, IntegerWeight) and weight.widening > 1:
            wide = self._widened(node.inputs[0], sources[0], weight.widening)
            inputs[0] = wide.name
        self._append(
            node,
            FrozenNode(
                name=name,
                kind=self._kind_in_file(node, weight, allowed, grid),
                inputs=inputs,
                shape=_shape(node),
                grid=grid,
                trained=node,
                point=point,
                is_float=is_float,
                integer_type=node.integer_type,
                weight=weight,
                activation=node.activation,
                split=self._is_split(node, weight),
            ),
        )

    def _in_common_type(self, node: TrainedNode) -> list[FrozenNode]:
        """Returns the inputs of an operator in int16, in the types that it takes."""
        stay = node.narrow_inputs
        if node.kind == "matmul" and not self.target.mixed_products:
            stay = ()
        return [
            self._tensors[source] if position in stay else self._to_int16(source)
            for position, source in enumerate(node.inputs)
        ]

    def _kind_in_file(
        self,
        node: TrainedNode,
        weight: Weight | None,
        allowed: AllowedContainers,
        grid: Grid | None,
    ) -> str:
        """Returns the kind of an operator in the file."""
        if grid is not None and node.kind in TABLES:
            is_table = node.kind in self.target.tables
            is_table = is_table or _has_logarithm_of_zero(node, grid)
            return "table" if is_table else node.kind
        packed = isinstance(weight, IntegerWeight) and weight.container in PACKED
        return allowed.kind if packed else node.kind

    def _is_split(self, node: TrainedNode, weight: Weight | None) -> bool:
        """Returns whether a convolution is written as one per group."""
        if node.groups == 1:
            return False
        container = weight.container if isinstance(weight, IntegerWeight) else "float32"
        asked = self.grouped == "split" or container in self.target.split_groups
        return asked or node.in_int16  # No kernel for int16 was measured with groups.

    def _add_point(self, node: TrainedNode, point: TrainedPoint) -> None:
        """Adds the operators that a point needs after the operator before it."""
        before = node.inputs[0]
        source = self._tensors[before]
        # A layer left in float of which TFLite keeps nothing.
        skipped = before.kind == "identity" and source.point is not point
        moved = skipped or before.next_point is not point or source.is_float
        if moved or source.integer_grid.container != point.grid.container:
            if point.grid.in_int16 and not source.is_float:
                source = self._to_int16(before)
            source = self._append(node, self._quantize(node, source, point.grid))
        if point.clipped is not None and source.grid != point.clipped:
            source = self._clip(node, source, point.clipped)
        self._tensors[node] = source

    def _clip(self, node: TrainedNode, source: FrozenNode, grid: Grid) -> FrozenNode:
        """Adds the operators that clip a point's codes."""
        if source.integer_grid.zero_point != grid.zero_point:
            return self._append(node, self._quantize(node, source, grid))
        for kind, low, high in (
            ("clip_high", source.integer_grid.low, grid.high),
            ("clip_low", grid.low, grid.high),
        ):
            bounds = dataclasses.replace(grid, low=low, high=high)
            if bounds != source.grid:
                clip = self._quantize(node, source, bounds, kind)
                source = self._append(node, clip)
        return source

    def _quantize(
        self, node: TrainedNode, source: FrozenNode, grid: Grid, kind: str = "quantize"
    ) -> FrozenNode:
        """Returns an operator that moves a tensor to a point's grid."""
        return FrozenNode(
            name=self._unique(node.name),
            kind=kind,
            inputs=[source.name],
            shape=source.shape,
            grid=grid,
            trained=node,
            point=node.point,
        )

    def _widened(
        self, node: TrainedNode, source: FrozenNode, factor: int
    ) -> FrozenNode:
        """Adds the operator that multiplies the codes of a tensor, only once."""
        key = source.name, factor
        point = node.source_point
        if point is None:
            raise TypeError(f"`{node.name}` is on the grid of no point.")
        if key not in self._wide:
            self._wide[key] = FrozenNode(
                name=self._unique(f"{source.name}_x{factor}", self._reserved),
                kind="widen",
                inputs=[source.name],
                shape=source.shape,
                grid=widened(
                    source.integer_grid, factor, symmetric=self.target.symmetric
                ),
                trained=point,
            )
            self.nodes.append(self._wide[key])
        return self._wide[key]

    def _to_int16(self, node: TrainedNode) -> FrozenNode:
        """Adds the operator that stores the output of a node in int16, only once."""
        source, point = self._tensors[node], node.source_point
        if source.integer_grid.in_int16:
            return source
        if point is None:
            raise TypeError(f"`{source.name}` is on the grid of no point.")
        if source.name not in self._in_int16:
            self._in_int16[source.name] = FrozenNode(
                name=self._unique(f"{source.name}_in_int16", self._reserved),
                kind="to_int16",
                inputs=[source.name],
                shape=source.shape,
                grid=widened_to_int16(source.integer_grid),
                trained=point,
            )
            self.nodes.append(self._in_int16[source.name])
        return self._in_int16[source.name]

    def _append(self, node: TrainedNode, frozen: FrozenNode) -> FrozenNode:
        """Adds an operator whose output is that of `node`."""
        self.nodes.append(frozen)
        self._tensors[node] = frozen
        return frozen

    def _unique(self, name: str, reserved: Collection[str] = ()) -> str:
        """Returns a tensor name that is neither taken nor reserved."""
        candidate, number = name, 1
        while candidate in self._names or candidate in reserved:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate


def _has_logarithm_of_zero(node: TrainedNode, grid: Grid) -> bool:
    """Returns whether a grid has what was trained as the logarithm of 0.

    The kernel of LOG returns the smallest code for 0 and below.
    """
    if node.kind != "log":
        return False
    smallest = float(node.tabulated(np.zeros([])))
    return round(smallest / grid.scale) + grid.zero_point > INT8_MIN


def _output_grid(
    node: TrainedNode, sources: list[FrozenNode]
) -> tuple[Grid | None, TrainedPoint | None]:
    """Returns an integer operator's output grid, and the point that defines it."""
    source = sources[0] if sources else None
    if node.kind == "mask" and source is not None:
        return dataclasses.replace(source.integer_grid, low=INT8_MIN), None
    if node.leaves_range and source is not None and source.point is not None:
        return source.point.grid, source.point  # The point after it clips.
    if source is not None and (node.keeps_codes or node.keeps_grid or node.joins):
        return source.grid, source.point
    point = node.next_point
    if node.table is not None and point is not None:
        return point.final_grid, point  # Constants are clipped already.
    if node.fixed_step is not None and point is None:
        return fixed_grid(node.fixed_step, signed=node.signed), None
    return (None, None) if point is None else (point.grid, point)


def _shape(node: TrainedNode) -> tuple[int, ...]:
    """Returns the shape of an operator's output for one example.

    That of a layer left in float is only used where it is known: its tensor in the file
    is the one that TFLiteConverter made, and its first axis may not be the batch.
    """
    if node.kind == "foreign":
        return tuple(size or 1 for size in node.shape)
    return (1, *node.sizes)


def _is_float(node: TrainedNode, sources: list[FrozenNode]) -> bool:
    """Returns whether an operator computes in float.

    For operators with a kernel, the kernel decides: quantized kernels have codes.
    Other operators follow the tensors around them.
    """
    if node.kind == "input":
        return False
    if node.kind == "foreign":
        return True
    if node.integer_type:
        return any(source.grid is None for source in sources)
    if node.kernel is not None:
        return not isinstance(node.kernel, QuantizedKernel)
    if node.table is None and any(source.grid is None for source in sources):
        return True
    if any(n.point is not None and n.point.float_input for n in node.readers):
        return True
    if node.joins:
        return len({source.grid for source in sources}) > 1
    if node.keeps_codes or node.fixed_step is not None or node.table is not None:
        return False
    return node.next_point is None
