"""Builds the quantized Keras model from a plan."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from . import lsq
from ._compat import added_callables, keras, model_structure, name_outputs
from .gamma import make_gamma_positive, negated_channels
from .graph import (
    ForeignCall,
    Graph,
    Layer,
    Node,
    UnaryFunction,
    copied,
    try_float_part,
)
from .layers import (
    QUANTIZED_WEIGHTS,
    FixedPoint,
    LSQActivationQuantizer,
    LSQQuantizeConfig,
    LSQWrapper,
    MaskedPoint,
    PixelPoint,
    QuantizationPoint,
)
from .plan import Plan, PointSpec, plan_points
from .policy import FIXED_BATCH_TARGETS, IN_FLOAT, SYMMETRIC_TARGETS, Bits, Options
from .training import LSQModel


@tf.autograph.experimental.do_not_convert  # Nothing to convert, and conversion is slow.
def build_model(
    model: keras.Model, graph: Graph, bits: Mapping[Node, Bits], options: Options
) -> LSQModel:
    """Returns the quantized model, with the weights of `model`.

    Args:
        model: The float model that `graph` describes.
        graph: Its fused graph.
        bits: The bits of every node.
        options: Checked options.
    """
    _warn_of_sizes(graph)
    in_float = [node for node in graph.nodes if bits[node].is_float]
    try_float_part(in_float, dynamic_batch=options.target not in FIXED_BATCH_TARGETS)
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
    name_outputs(student, model.output_names)
    for term in graph.terms:
        tensor = _as_type(builder.in_term(term.node), term.dtype)
        getattr(student, term.method)(tensor, **term.arguments)
    _check_callables(model, student)
    student.step_clip = options.step_clip
    builder.transfer_weights()
    return student


def _check_callables(model: keras.Model, student: LSQModel) -> None:
    """Refuses losses that cannot be copied, as they read variables of the model."""
    functions = added_callables(model)
    if len(functions) > len(added_callables(student)):
        raise ValueError(
            f"`{model.name}` must not have losses that functions compute, which cannot "
            "be copied: they read the variables of this model. Received functions "
            f"given to `add_loss` of {sorted(set(functions))}. Set "
            "`kernel_regularizer` of these layers before you build the model, or give "
            "functions of its variables to the student's `add_loss`."
        )


def _warn_of_sizes(graph: Graph) -> None:
    """Warns about inputs of several sizes: a file has one."""
    dynamic = {n.name: n.shape[1:] for n in graph.inputs if None in n.shape[1:]}
    if dynamic:
        warnings.warn(
            f"A file has inputs of one size. These have sizes of None: {dynamic}. Give "
            "`input_shapes` to `export_model`, or build the model with "
            "`keras.Input(shape=...)` of full shape.",
            stacklevel=4,
        )


class _Builder:
    """Connects the layers of the quantized model, node by node."""

    def __init__(self, plan: Plan, bits: Mapping[Node, Bits], options: Options) -> None:
        self.plan, self.bits, self.options = plan, bits, options
        self.inputs: dict[Node, Any] = {}
        self.tensors: dict[Node, Any] = {}
        self._points: dict[PointSpec, QuantizationPoint] = {}
        self._between: dict[tuple[PointSpec, Node], Any] = {}
        # Operator, fused ones too -> its tensor, as losses and metrics read it.
        self._in_terms: dict[Node, Any] = {}
        self._copies: dict[int, Layer] = {}
        self._called: dict[ForeignCall, list[Any]] = {}
        self._transfers: list[tuple[Node, Node, Layer]] = []

    def add(self, node: Node) -> None:
        """Adds the layers of one operator and the point after it."""
        if node.kind == "input":
            config = node.layer.get_config()
            tensor = keras.Input(
                batch_shape=config["batch_input_shape"],
                dtype=config["dtype"],
                sparse=config["sparse"],
                name=config["name"],
            )
            self.inputs[node] = self._in_terms[node] = tensor
        else:
            tensors = [self._input(node, source) for source in node.inputs]
            if node.foreign is not None:
                tensors = [self._foreign_output(node, tensors)]
            for part in self._parts(node):
                tensors = [self._call(node, part, tensors)]
                self._in_terms[part] = tensors[0]
            [tensor] = tensors
        last, point = [node, *node.fused][-1], self.plan.after.get(node)
        self._in_terms.setdefault(last, tensor)
        if point is not None:
            tensor = self._point(point)(tensor)
            # A fixed grid, of a softmax or sigmoid, has zeros that have no logarithm.
            if point.fixed_step is None and node.kind != "input":
                self._in_terms[last] = tensor
        self.tensors[node] = tensor

    def in_term(self, node: Node) -> Any:
        """Returns the tensor of an operator, for an added loss or metric.

        It comes after the operator's point, unless that has a fixed step; operators
        that only losses and metrics depend on are computed in float.
        """
        if node not in self._in_terms:
            tensors = [self.in_term(source) for source in node.inputs]
            if node.foreign is not None:
                types = node.input_types or [tensor.dtype for tensor in tensors]
                tensors = list(map(_as_type, tensors, types))
                self._in_terms[node] = self._foreign_output(node, tensors)
            else:
                self._in_terms[node] = self._call(node, node, tensors)
        tensor = self._in_terms[node]
        copy = self._copies.get(id(node.layer))
        if node.affine is None or not isinstance(copy, LSQWrapper):
            return tensor
        if not _has_own_batch_norm(node):
            return tensor
        signs = negated_channels(node.affine.layer)  # See `make_gamma_positive`.
        return tensor if signs is None else tensor * signs

    def transfer_weights(self) -> None:
        """Copies the float weights and sets the steps of the kernels."""
        for _, part, copy in self._transfers:
            wrapped = isinstance(copy, LSQWrapper)
            (copy.layer if wrapped else copy).set_weights(part.layer.get_weights())
        for owner, part, copy in self._transfers:
            if isinstance(copy, LSQWrapper):
                affine = owner.affine
                if affine is not None and _has_own_batch_norm(owner):
                    batch_norm = self._copies[id(affine.layer)]
                    make_gamma_positive(part.kind, copy, batch_norm)
                copy.initialise()

    def _absorbs_relu(self, node: Node) -> bool:
        """Returns whether the point after a node replaces its ReLU."""
        point = self.plan.after.get(node)
        return point is not None and point.absorbed_relu is not None

    def _parts(self, node: Node) -> list[Node]:
        """Returns the operators whose layers are called for a node, in order."""
        parts = [*([] if node.foreign else [node]), *node.fused]
        if self._absorbs_relu(node):
            parts = [part for part in parts if part.kind != "relu"]
        point = self.plan.after.get(node)
        if point is not None and point.mask is not None:
            return []  # The point masks.
        return parts

    def _input(self, node: Node, source: Node) -> Any:
        """Returns one input of a node, after the extra point if there is one."""
        point = self.plan.between.get((node, source))
        if point is None:
            return self.tensors[source]
        if (point, source) not in self._between:
            self._between[point, source] = self._point(point)(self.tensors[source])
        return self._between[point, source]

    def _foreign_output(self, node: Node, inputs: list[Any]) -> Any:
        """Returns an output of a layer without an operator, which is called once."""
        call = node.foreign_call
        if call not in self._called:
            self._called[call] = call.outputs(self._copy(node, node), inputs)
        return self._called[call][node.output]

    def _call(self, owner: Node, part: Node, inputs: list[Any]) -> Any:
        """Calls the copy of one layer; `part` is the node or one fused into it."""
        return part.call(self._copy(owner, part), inputs)

    def _copy(self, owner: Node, part: Node) -> Layer:
        """Returns the copy of one layer, with a quantized kernel if it has bits."""
        if id(part.layer) not in self._copies:
            changes: dict[str, Any] = {"name": part.layer_name}
            if part.foreign is not None and isinstance(part.layer, UnaryFunction):
                changes["in_float"] = True
            absorbed = part.foreign is None and self._absorbs_relu(owner)
            if absorbed and hasattr(part.layer, "activation"):
                changes["activation"] = "linear"
            copy = copied(part.layer, **changes)
            bits = self.bits.get(owner, IN_FLOAT)  # Or only added terms depend on it.
            quantized = type(part.layer) in QUANTIZED_WEIGHTS and not bits.is_float
            if quantized and bits.weight is not None:
                config = LSQQuantizeConfig(
                    bits.weight,
                    bits.activation,
                    per_channel=bits.per_channel,
                    step_init=bits.step_init,
                )
                copy = LSQWrapper(copy, config)
            self._copies[id(part.layer)] = copy
            self._transfers.append((owner, part, copy))
        return self._copies[id(part.layer)]

    def _point(self, spec: PointSpec) -> QuantizationPoint:
        """Returns the layer of a point, the same one for all its places."""
        if spec not in self._points:
            num_bits, signed = _for_target(spec, self.options.target)
            asymmetric = (
                self.options.asymmetric_activations
                and signed is not False
                and spec.fixed_step is None
                and not spec.symmetric
                and spec.mask is None
                and num_bits <= lsq.MAX_NUM_BITS
            )
            quantizer = LSQActivationQuantizer(
                num_bits,
                signed=True if asymmetric else signed,
                step_init=self._step_init(spec),
                max_value=spec.max_value,
                asymmetric=asymmetric,
                min_step=spec.min_step,
            )
            settings = {
                "float_input": spec.float_input,
                "absorbed_relu": spec.absorbed_relu,
                "target": self.options.target,
                "symmetric": spec.symmetric,
                "trainable": spec.trainable,
                "name": spec.name,
            }
            if spec.mask is not None:
                point = MaskedPoint(quantizer, mask=spec.mask.tolist(), **settings)
            elif spec.pixel_grid is not None:
                point = PixelPoint(spec.pixel_grid, **settings)
            elif spec.fixed_step is None:
                point = QuantizationPoint(quantizer, **settings)
            else:
                point = FixedPoint(quantizer, fixed_step=spec.fixed_step, **settings)
            self._points[spec] = point
        return self._points[spec]

    def _step_init(self, spec: PointSpec) -> str:
        """Returns the first value of a point's step.

        Nothing of an output is clipped. Nor is anything of 16 bits: with so small a
        step, the step of least error is that of the largest value, which a search in a
        sample of the values would not see.
        """
        if spec.wide:
            return "wide"
        many = spec.num_bits > lsq.MAX_NUM_BITS and self.options.step_init == "mse"
        return "max" if spec.is_output or many else self.options.step_init


def _as_type(tensor: Any, dtype: tf.DType) -> Any:
    """Returns a tensor of a type."""
    return tensor if tensor.dtype == dtype else tf.cast(tensor, dtype)


def _for_target(spec: PointSpec, target: str) -> tuple[int, bool | None]:
    """Returns (bits, signedness) of a point on a target.

    With zero points of 0, int8 holds 0..127 of a tensor that cannot be negative, and
    a tensor whose sign depends on the data counts as signed.
    """
    symmetric = target in SYMMETRIC_TARGETS or spec.symmetric
    in_int8 = spec.num_bits <= lsq.MAX_NUM_BITS
    if not (symmetric and in_int8) or spec.fixed_step is not None:
        return spec.num_bits, spec.signed
    if spec.signed is False:
        return min(spec.num_bits, lsq.MAX_NUM_BITS - 1), False
    return spec.num_bits, True


def _has_own_batch_norm(node: Node) -> bool:
    """Returns whether a batch norm and the kernel it scales are both unshared."""
    affine = node.affine
    if affine is None or node.shared or affine.shared:
        return False
    return isinstance(affine.layer, keras.layers.BatchNormalization)
