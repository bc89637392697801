"""Trained model -> operators of the file with their constants and integer grids.

The only bridge between `tf_lsq` and `tflite_export`, with `grids` and `weights`: what
was a *step* in training is a *scale* from here on. The result is plain data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from tf_lsq._compat import keras
from tf_lsq.graph import Graph, Layer, Node, analyze, point_of
from tf_lsq.layers import QUANTIZED_WEIGHTS, LSQWrapper, QuantizationPoint
from tf_lsq.training import StepTraining, check_calibrated, quantization_points

from .containers import Storage, rooms_of
from .convert import convert_layer
from .grids import Grid, clipped_grid, fixed_grid, grid_of, widened
from .packing import PACKED
from .targets import TARGETS, Target
from .tflite_graph import TFLiteGraph
from .weights import Weight, freeze_weight


@dataclasses.dataclass(eq=False)
class FrozenNode:
    """One operator of the file.

    Attributes:
        name: Name of its output tensor.
        kind: A key of `tf_lsq.graph.KINDS`; "quantize"; "clip_high" and "clip_low",
            which clip codes to the end of `grid`; "widen", which multiplies them by an
            integer; or "pointwise", a 1x1 convolution as a fully connected operator.
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
    freezer = _Freezer(graph, dynamic_batch, TARGETS[target], storage)
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


class _Freezer:
    """Walks the training graph and gives every tensor its grid."""

    def __init__(
        self, graph: Graph, dynamic_batch: bool, target: Target, storage: Storage
    ) -> None:
        self.dynamic_batch, self.target, self.storage = dynamic_batch, target, storage
        # Names of the model, which tensors that storage adds must not take.
        self._reserved = {node.name for node in graph.nodes}
        self.nodes: list[FrozenNode] = []
        self._tensors: dict[Node, FrozenNode] = {}
        self._wide: dict[tuple[str, int], FrozenNode] = {}
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
            frozen.grid = fixed_grid(node)
        rooms = rooms_of(node, self.target, self.storage)
        grids = (inputs[0].grid if inputs else None, frozen.grid)
        frozen.weight = freeze_weight(node, frozen.name, grids, rooms)
        if frozen.weight is not None and frozen.weight.container in PACKED:
            frozen.kind = rooms.kind
        if frozen.weight is not None and frozen.weight.widening > 1:
            factor = frozen.weight.widening
            frozen.inputs[0] = self._widened(node.inputs[0], inputs[0], factor).name
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

    def _widened(self, node: Node, source: FrozenNode, factor: int) -> FrozenNode:
        """Adds the operator that multiplies the codes of a tensor, once."""
        key = source.name, factor
        if key not in self._wide:
            point = point_of(node)
            grid = widened(source.grid, factor, symmetric=self.target.symmetric)
            self._wide[key] = FrozenNode(
                name=self._unique(f"{source.name}_x{factor}", self._reserved),
                kind="widen",
                inputs=[source.name],
                shape=source.shape,
                grid=grid,
                layer=point.layer,
                node=point,
            )
            self.nodes.append(self._wide[key])
        return self._wide[key]

    def _append(self, node: Node, frozen: FrozenNode) -> FrozenNode:
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
    if isinstance(model, StepTraining) and model.quantized is not model:
        raise ValueError(
            "`model` must be the quantized model itself. Received the "
            f"{type(model).__name__} `{model.name}`: export its `student`."
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
