"""The layout transform: puts quantization points where the graph says.

TFLite holds one integer tensor per edge of its fused graph. A tensor gets a
point behind the operator that makes it, with the bits its consumers ask for. A
low-bit operator that shares a tensor with others gets an extra point in front.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from . import lsq
from ._compat import keras, model_structure, tfmot
from .float_layers import SynchronizedBatchNormalization
from .graph import analyze
from .layers import LSQWrapper, QuantizationPoint
from .model import LSQModel
from .operators import Graph, Layer, Node
from .policy import SYMMETRIC_TARGETS, Bits, Options, assign_bits
from .quantize_configs import QUANTIZED_WEIGHTS, LSQQuantizeConfig

# Activations that an unsigned point computes itself -> their largest value.
_MAX_VALUES = {"relu": None, "relu6": 6.0}


@dataclasses.dataclass(eq=False)
class PointSpec:
    """One quantization point; places that share it share its step.

    Attributes:
        name: Name of the Keras layer.
        num_bits: Bits of one integer.
        signed: Whether values can be negative; None: the first batch decides.
        trainable: Whether the step trains.
        fixed_step: Grid prescribed by TFLite, or None.
        float_input: Whether the operator in front is left in float.
        absorbed_relu: Name of the ReLU in front that the point stands for.
        max_value: Of that ReLU, None where it has none.
    """

    name: str
    num_bits: int
    signed: bool | None
    trainable: bool = True
    fixed_step: float | None = None
    float_input: bool = False
    absorbed_relu: str | None = None
    max_value: float | None = None


@dataclasses.dataclass
class Plan:
    """Where the points of a model are.

    Attributes:
        behind: Node -> the point behind it.
        in_front: (consumer, producer) -> the extra point between them.
    """

    behind: dict[Node, PointSpec] = dataclasses.field(default_factory=dict)
    in_front: dict[tuple[Node, Node], PointSpec] = dataclasses.field(
        default_factory=dict
    )


def plan_points(graph: Graph, bits: Mapping[Node, Bits]) -> Plan:
    """Returns where quantization points go, and with how many bits.

    Args:
        graph: The fused graph of a float model.
        bits: The bits of every node.
    """
    demands = _demands(graph, bits)
    plan = Plan()
    for node in graph.nodes:
        if node.properties.joins and not bits[node].is_float:
            _plan_join(node, max(demands[node]), bits, plan)
    for node in graph.nodes:
        if node not in plan.behind and _needs_point(node, bits):
            _plan_behind(node, max(demands[node]), bits[node].is_float, plan)
    extra: dict[tuple[Node, int], PointSpec] = {}
    for node in graph.nodes:
        if node.properties.matmul and not bits[node].is_float:
            _plan_in_front(node, bits[node].activation, plan, extra)
    return plan


def _demands(graph: Graph, bits: Mapping[Node, Bits]) -> dict[Node, set[int]]:
    """Returns the bits that the consumers of every node ask for."""
    demands: dict[Node, set[int]] = {}
    for node in reversed(graph.nodes):
        at_an_end = node.is_output or node.kind == "input" or not node.consumers
        wanted = {lsq.MAX_NUM_BITS} if at_an_end else set()
        for consumer in node.consumers:
            passes_on = consumer.properties.keeps_codes or consumer.properties.joins
            if passes_on and not bits[consumer].is_float:
                wanted |= demands[consumer]
            else:
                wanted.add(bits[consumer].activation)
        demands[node] = wanted
    return demands


def _needs_point(node: Node, bits: Mapping[Node, Bits]) -> bool:
    """Returns whether the output of a node becomes a new integer tensor."""
    if bits[node].is_float:
        return node.is_output or any(not bits[n].is_float for n in node.consumers)
    if node.properties.fixed_step and node.is_output and not node.consumers:
        return False  # Rounding probabilities would blind the loss.
    return not (node.properties.keeps_codes or node.properties.joins)


def _plan_behind(node: Node, num_bits: int, is_float: bool, plan: Plan) -> None:
    """Plans the point behind one operator."""
    if node.properties.keeps_grid and not is_float:
        plan.behind[node] = _grid(plan, node.inputs[0], node)
        return
    fixed = None if is_float else node.properties.fixed_step
    nonnegative = node.nonnegative()
    absorbs = node.activation in _MAX_VALUES and not is_float and not node.shared
    plan.behind[node] = PointSpec(
        name=f"quantize_{node.name}",
        num_bits=lsq.MAX_NUM_BITS if fixed else num_bits,
        signed=None if nonnegative is None else not nonnegative,
        trainable=all(layer.trainable for layer in node.all_layers),
        fixed_step=fixed,
        float_input=is_float,
        absorbed_relu=node.name if absorbs else None,
        max_value=_MAX_VALUES[node.activation] if absorbs else None,
    )


def _plan_join(
    node: Node, num_bits: int, bits: Mapping[Node, Bits], plan: Plan
) -> None:
    """Plans the one grid that all inputs of a concatenation or maximum share."""
    nonnegative = node.nonnegative()
    point = PointSpec(
        name=f"quantize_{node.name}",
        num_bits=num_bits,
        signed=None if nonnegative is None else not nonnegative,
        trainable=node.layer.trainable,
    )
    for source in node.inputs:
        free = not (
            source.properties.keeps_codes
            or source.properties.keeps_grid
            or source.properties.joins
            or source.properties.fixed_step
            or source.is_output
            or bits[source].is_float
        )
        if free and set(source.consumers) == {node}:
            plan.behind[source] = point
        else:
            plan.in_front[node, source] = point


def _plan_in_front(
    node: Node, num_bits: int, plan: Plan, extra: dict[tuple[Node, int], PointSpec]
) -> None:
    """Plans an extra point where the input has more bits than asked for."""
    [source] = node.inputs
    grid = _grid(plan, source, node)
    if grid.num_bits <= num_bits:
        return
    if (source, num_bits) not in extra:
        extra[source, num_bits] = PointSpec(
            name=f"quantize_{source.name}_to_{num_bits}_bits",
            num_bits=num_bits,
            signed=grid.signed,
            trainable=grid.trainable,
        )
    plan.in_front[node, source] = extra[source, num_bits]


def _grid(plan: Plan, source: Node, consumer: Node) -> PointSpec:
    """Returns the point whose grid the tensor between two nodes is on."""
    if (consumer, source) in plan.in_front:
        return plan.in_front[consumer, source]
    if source in plan.behind:
        return plan.behind[source]
    return _grid(plan, source.inputs[0], source)


# --- Building the quantized model --------------------------------------------


@tf.autograph.experimental.do_not_convert  # Nothing to convert, and slow.
def build_model(
    model: keras.Model, graph: Graph, bits: Mapping[Node, Bits], options: Options
) -> LSQModel:
    """Returns the quantized model, with the weights of `model`.

    Args:
        model: The float model that `graph` was made from.
        graph: Its fused graph.
        bits: The bits of every node.
        options: Checked options.
    """
    plan = plan_points(graph, bits)
    builder = _Builder(plan, bits, options)
    for node in graph.nodes:
        builder.add(node)
    inputs = [builder.inputs[node] for node in graph.inputs]
    outputs = [builder.tensors[node] for node in graph.outputs]
    input_structure, output_structure = model_structure(model)
    student = LSQModel(
        tf.nest.pack_sequence_as(input_structure, inputs),
        tf.nest.pack_sequence_as(output_structure, outputs),
        name=model.name,
    )
    student.step_clip = options.step_clip
    builder.transfer_weights()
    return student


class _Builder:
    """Calls the layers of the quantized model on each other, node by node."""

    def __init__(self, plan: Plan, bits: Mapping[Node, Bits], options: Options) -> None:
        self.plan, self.bits, self.options = plan, bits, options
        self.inputs: dict[Node, Any] = {}
        self.tensors: dict[Node, Any] = {}
        self._points: dict[PointSpec, QuantizationPoint] = {}
        self._between: dict[tuple[PointSpec, Node], Any] = {}
        self._copies: dict[int, Layer] = {}
        self._transfers: list[tuple[Node, Node | None, Layer]] = []

    def add(self, node: Node) -> None:
        """Adds the layers of one operator and the point behind it."""
        if node.kind == "input":
            config = node.layer.get_config()
            tensor = keras.Input(
                batch_shape=config["batch_input_shape"],
                dtype=config["dtype"],
                sparse=config["sparse"],
                name=config["name"],
            )
            self.inputs[node] = tensor
        else:
            tensors = [self._input(node, source) for source in node.inputs]
            for part in self._parts(node):
                tensors = [self._call(node, part, tensors)]
            [tensor] = tensors
        if node in self.plan.behind:
            tensor = self._point(self.plan.behind[node])(tensor)
        self.tensors[node] = tensor

    def transfer_weights(self) -> None:
        """Copies the float weights and sets the steps of the kernels."""
        for _, part, copy in self._transfers:
            wrapped = isinstance(copy, LSQWrapper)
            (copy.layer if wrapped else copy).set_weights(part.layer.get_weights())
        for owner, part, copy in self._transfers:
            if isinstance(copy, LSQWrapper):
                if _has_own_batch_norm(owner):
                    batch_norm = self._copies[id(owner.affine.layer)]
                    _make_gamma_positive(part.kind, copy, batch_norm)
                copy.initialise()

    def _absorbs_relu(self, node: Node) -> bool:
        """Returns whether the point behind a node stands for its ReLU."""
        point = self.plan.behind.get(node)
        return point is not None and point.absorbed_relu is not None

    def _parts(self, node: Node) -> list[Node]:
        """Returns the operators whose layers are called for a node, in order."""
        parts = [node, *node.fused]
        if self._absorbs_relu(node):
            parts = [part for part in parts if part.kind != "relu"]
        return parts

    def _input(self, node: Node, source: Node) -> Any:
        """Returns one input of a node, behind the extra point if there is one."""
        point = self.plan.in_front.get((node, source))
        if point is None:
            return self.tensors[source]
        if (point, source) not in self._between:
            self._between[point, source] = self._point(point)(self.tensors[source])
        return self._between[point, source]

    def _call(self, owner: Node, part: Node, inputs: list[Any]) -> Any:
        """Calls the copy of one layer; `part` is the node or one fused into it."""
        if id(part.layer) not in self._copies:
            config = {**part.layer.get_config(), "name": part.layer_name}
            if "activation" in config and self._absorbs_relu(owner):
                config["activation"] = "linear"
            layer_class = type(part.layer)
            if getattr(part.layer, "synchronized", False):
                layer_class = SynchronizedBatchNormalization
            copy = layer_class.from_config(config)
            bits = self.bits[owner]
            if type(part.layer) in QUANTIZED_WEIGHTS and not bits.is_float:
                config = LSQQuantizeConfig(
                    bits.weight,
                    bits.activation,
                    per_channel=bits.per_channel,
                    step_init=bits.step_init,
                )
                copy = LSQWrapper(copy, config)
            self._copies[id(part.layer)] = copy
            self._transfers.append((owner, part, copy))
        return part.call(self._copies[id(part.layer)], inputs)

    def _point(self, spec: PointSpec) -> QuantizationPoint:
        """Returns the layer of a point, one for all its places."""
        if spec not in self._points:
            num_bits, signed = _for_target(spec, self.options.target)
            asymmetric = (
                self.options.asymmetric_activations
                and signed is not False
                and spec.fixed_step is None
            )
            self._points[spec] = QuantizationPoint(
                num_bits,
                signed=True if asymmetric else signed,
                asymmetric=asymmetric,
                step_init=self.options.step_init,
                fixed_step=spec.fixed_step,
                float_input=spec.float_input,
                absorbed_relu=spec.absorbed_relu,
                max_value=spec.max_value,
                target=self.options.target,
                trainable=spec.trainable,
                name=spec.name,
            )
        return self._points[spec]


def _for_target(spec: PointSpec, target: str) -> tuple[int, bool | None]:
    """Returns (bits, signedness) of a point on a target.

    With zero points of 0, int8 holds 0..127 of a tensor that cannot be negative, and
    what only data can tell is taken to be signed.
    """
    if target not in SYMMETRIC_TARGETS or spec.fixed_step is not None:
        return spec.num_bits, spec.signed
    if spec.signed is False:
        return min(spec.num_bits, lsq.MAX_NUM_BITS - 1), False
    return spec.num_bits, True


def _has_own_batch_norm(node: Node) -> bool:
    """Returns whether a batch norm and the kernel it scales serve no one else."""
    affine = node.affine
    if affine is None or node.shared or affine.shared:
        return False
    return isinstance(affine.layer, keras.layers.BatchNormalization)


def _make_gamma_positive(kind: str, wrapper: LSQWrapper, batch_norm: Layer) -> None:
    """Negates channels whose gamma is negative; the output stays the same.

    Folding a negative gamma would turn the code -2^(b-1) into +2^(b-1), which
    b bits cannot hold. ``gamma * (x - mean)`` is unchanged if kernel, bias, mean
    and gamma of a channel all change sign.
    """
    if not batch_norm.scale:
        return
    gamma = batch_norm.gamma.numpy()
    sign = np.where(gamma < 0, -1.0, 1.0).astype(gamma.dtype)
    if (sign > 0).all():
        return
    kernel, layer = wrapper.kernel, wrapper.layer
    channels = {
        "depthwise": kernel.shape[-2:],
        "transposed_conv": (kernel.shape[-2], 1),
    }.get(kind, (-1,))
    kernel.assign(kernel * sign.reshape(channels))
    batch_norm.gamma.assign(gamma * sign)
    batch_norm.moving_mean.assign(batch_norm.moving_mean * sign)
    if layer.use_bias:
        layer.bias.assign(layer.bias * sign)


class LSQLayoutTransform(tfmot.quantization.keras.QuantizeLayoutTransform):
    """TF-MOT's layout transform: float model in, quantized model out.

    Args:
        options: Checked options.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    def apply(
        self, model: keras.Model, layer_quantize_map: dict[str, Any]
    ) -> tuple[LSQModel, dict[str, Any]]:
        """Returns the quantized model; nothing is left for TF-MOT to wrap.

        Args:
            model: A float functional or sequential model.
            layer_quantize_map: The annotated layers by name; a layer's
                "quantize_config" may be an `LSQQuantizeConfig` of its own.

        Raises:
            ValueError: If a layer carries another kind of config, or `model`
                cannot be quantized exactly; all offenders are named.
        """
        configs = {
            name: entry.get("quantize_config")
            for name, entry in layer_quantize_map.items()
        }
        _check_configs(configs)
        graph = analyze(model)
        bits = assign_bits(graph, self.options, configs)
        return build_model(model, graph, bits, self.options), {}


def _check_configs(configs: Mapping[str, Any]) -> None:
    """Refuses configs of other schemes."""
    foreign = {
        name: type(config).__name__
        for name, config in configs.items()
        if config is not None and not isinstance(config, LSQQuantizeConfig)
    }
    if foreign:
        raise ValueError(
            "Layers quantized with `LSQQuantizeScheme` must be annotated without a "
            f"config or with an `LSQQuantizeConfig`. Received: {foreign}."
        )
