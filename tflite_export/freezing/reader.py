"""Reads the numbers of a trained Keras model.

This is the only part of the exporter that sees Keras layers and the training graph. A
*step* in training is called a *scale* from `freeze` on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lsq._compat import keras
from tf_lsq.graph import (
    FloatPart,
    Graph,
    Layer,
    Node,
    affine_part,
    analyze,
    convert_float_part,
    copied,
    input_factor,
    takes_as_is,
    tf_keras_model,
)
from tf_lsq.layers import (
    QUANTIZED_WEIGHTS,
    ChannelScaling,
    LSQWrapper,
    MaskedPoint,
    PixelPoint,
)
from tf_lsq.training import (
    LSQModel,
    StepTraining,
    check_calibrated,
    quantization_points,
)

from ..file import from_bytes
from ..targets import TARGETS, Target
from .grids import clipped_grid, container_of, first_grid, masked_grids
from .sizes import at_shapes
from .trained import (
    AFFINE,
    LOOKUP,
    TABLES,
    BatchNorm,
    ConvertedPart,
    Folded,
    ForeignLayer,
    PixelGrid,
    QuantizedKernel,
    Scaling,
    TrainedKernel,
    TrainedModel,
    TrainedNode,
    TrainedPoint,
)


def read_model(model: keras.Model) -> TrainedModel:
    """Reads the numbers of a trained model.

    Args:
        model: A model from `quantize_model`, or from `quantize_apply` with
            `LSQQuantizeScheme`, trained or calibrated.

    Raises:
        TypeError: If `model` is not a tf_keras model.
        ValueError: If it is not quantized, was quantized by another scheme, or has
            dynamic shapes, see `at_shapes`.
        RuntimeError: If it was never trained or calibrated.
    """
    check_quantized(model)
    model = at_shapes(model, None)
    graph = analyze(model)
    check_calibrated(model)
    graph.check(lambda node: True)
    _check_outputs(model, graph)
    target = TARGETS[target_of(model)]
    # A transposed convolution takes the shape of its output as a constant.
    fixed = any(node.kind == "transposed_conv" for node in graph.nodes)
    fixed = fixed or all(node.shape[0] == 1 for node in graph.inputs)
    dynamic_batch = target.dynamic_batch and not fixed
    reader = _Reader(target)
    for node in graph.nodes:
        reader.add(node)
    nodes = reader.nodes
    converted = None
    part = FloatPart.of(graph.nodes)
    if part.nodes:
        content, dynamic_batch = convert_float_part(part, dynamic_batch=dynamic_batch)
        converted = _converted(content, part, nodes)
    return TrainedModel(
        name=model.name,
        target=target.name,
        dynamic_batch=dynamic_batch,
        nodes=list(nodes.values()),
        inputs=[nodes[node] for node in graph.inputs],
        outputs={
            name: nodes[node]
            for name, node in zip(
                _output_names(model, graph), graph.outputs, strict=True
            )
        },
        converted=converted,
    )


def _converted(
    content: bytes, part: FloatPart, nodes: dict[Node, TrainedNode]
) -> ConvertedPart:
    """Reads what TFLiteConverter made of the layers that have no operator here.

    A layer that turns out to compute nothing becomes an identity.
    """
    graph = from_bytes(content)
    inputs: dict[str, TrainedNode] = {}
    for number, source in enumerate(part.sources):
        if f"input_{number}" in graph.inputs:
            inputs[graph.inputs[f"input_{number}"]] = nodes[source]
    known = dict(inputs)
    for number, node in enumerate(part.nodes):
        tensor, read = graph.outputs[f"output_{number}"], nodes[node]
        if tensor in known:
            read.kind, read.inputs, read.foreign_layer = (
                "identity",
                [known[tensor]],
                None,
            )
        known.setdefault(tensor, read)
    outputs = {name: node for name, node in known.items() if name not in inputs}
    return ConvertedPart(graph, inputs, outputs)


def target_of(model: keras.Model) -> str:
    """Returns the target that a model was quantized for."""
    [target] = {point.target for point in quantization_points(model)}
    return target


class _Reader:
    """Reads the nodes of the training graph, in its order."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.nodes: dict[Node, TrainedNode] = {}
        self._points: dict[int, TrainedPoint] = {}

    def add(self, node: Node) -> None:
        """Reads one node."""
        properties = node.properties
        read = TrainedNode(
            name=node.name,
            kind=node.kind,
            inputs=[self.nodes[source] for source in node.inputs],
            shape=node.shape,
            layer=node.layer.name,
            options=dict(node.options),
            activation=node.activation,
            integer_type=_integer_type(node),
            input_factor=input_factor(node) if node.inputs else 1.0,
            matmul=properties.matmul,
            keeps_codes=properties.keeps_codes,
            keeps_grid=properties.keeps_grid,
            leaves_range=properties.leaves_range,
            joins=properties.joins,
            narrow_inputs=properties.narrow_inputs,
            fixed_step=properties.fixed_step,
            signed=properties.range == "signed",
            own_types=properties.own_types,
            is_output=node.is_output,
            **self._constants(node),
        )
        for source in dict.fromkeys(read.inputs):
            source.readers.append(read)
        self.nodes[node] = read

    def _constants(self, node: Node) -> dict[str, Any]:
        """Returns what a node holds: a point, a float layer, or kernel and bias."""
        if node.kind == "point":
            return {"point": self._point(node)}
        if node.kind == "foreign":
            return {"foreign_layer": ForeignLayer(_keras_function(node))}
        if node.kind == "embedding":
            return {"table": _table(node)}
        if node.kind in (*TABLES, LOOKUP):
            return {"function": _elementwise_function(node.layer)}
        matmul = node.properties.matmul
        has_bias = matmul and node.layer.use_bias
        folds = matmul or node.kind in AFFINE
        affine = node if node.kind == "affine" else node.affine
        return {
            "kernel": _kernel(node),
            "folded": Folded(*affine_part(node)) if folds else None,
            "bias": node.layer.bias.numpy().astype(np.float64) if has_bias else None,
            "affine": None if affine is None else _affine(affine.layer),
        }

    def _point(self, node: Node) -> TrainedPoint:
        """Returns the numbers of a point, one object for all its occurrences."""
        point = node.layer
        if id(point) not in self._points:
            q_min, q_max = _integer_range(node)
            step = float(np.float32(point.step.numpy()))
            symmetric = self._target.symmetric or point.symmetric
            container = container_of(point.num_bits)
            # If only the data are nonnegative, nothing in the file clips below.
            cut_below = q_min == 0 and point.quantizer.signed is False
            ends = {
                "cut_below": cut_below,
                "symmetric": symmetric,
                "container": container,
            }
            grids = {
                "grid": first_grid(step, q_min, q_max, **ends),
                "clipped": clipped_grid(step, q_min, q_max, **ends),
            }
            if isinstance(point, MaskedPoint):
                grids = masked_grids(step, q_min, q_max)
            self._points[id(point)] = TrainedPoint(
                layer=point.name,
                num_bits=point.num_bits,
                step=step,
                q_min=q_min,
                q_max=q_max,
                has_offset=point.quantizer.asymmetric or isinstance(point, PixelPoint),
                float_input=point.float_input,
                **grids,
                pixel_grid=_pixel_grid(node),
            )
        return self._points[id(point)]


def _integer_range(node: Node) -> tuple[int, int]:
    """Returns the integers of a point; limits of the values before it are its ends."""
    point, limits = node.layer, node.inputs[0].options.get("limits")
    if limits is None:
        return int(point.integer_range.q_min), int(point.integer_range.q_max)
    ends = np.rint((point(np.float32(limits)) / point.step).numpy())
    return int(ends[0]), int(ends[1])


def _pixel_grid(node: Node) -> PixelGrid | None:
    """Returns the grid of bytes of the point of an input, None if it is no pixels."""
    of_pixels = isinstance(node.layer, PixelPoint) and node.inputs[0].kind == "input"
    return node.layer.pixel_grid if of_pixels else None


def _kernel(node: Node) -> TrainedKernel | None:
    """Reads the trained constant of an operator."""
    if type(node.layer) not in QUANTIZED_WEIGHTS:
        return None
    wrapper = node.model_layer
    attribute = QUANTIZED_WEIGHTS[type(node.layer)].attribute
    values = _channels_last(node, getattr(node.layer, attribute).numpy())
    if not isinstance(wrapper, LSQWrapper):
        return TrainedKernel(node.layer.name, values)
    codes = _channels_last(node, np.rint(wrapper.codes().numpy()).astype(np.int64))
    step = np.asarray(wrapper.step.numpy(), np.float64).reshape(-1)
    return QuantizedKernel(node.layer.name, values, codes, step, wrapper.num_bits)


def _table(node: Node) -> np.ndarray:
    """Reads the integers of the table of an embedding, from the point after it."""
    [point] = [reader.layer for reader in node.consumers if reader.kind == "point"]
    values = point(tf.convert_to_tensor(node.layer.embeddings), training=False)
    return np.rint((values / point.step).numpy()).astype(np.int64)


def _channels_last(node: Node, kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel in the layout of the file's operators, output channels last."""
    if getattr(node.layer, "rank", 2) == 1:
        kernel = kernel[np.newaxis]
    if node.kind == "depthwise":
        return kernel.reshape(*kernel.shape[:2], -1)
    if node.kind == "transposed_conv":
        return kernel.transpose(0, 1, 3, 2)
    return kernel


def _affine(layer: Layer) -> BatchNorm | Scaling:
    """Reads a batch norm or a scaling by constants, not folded."""
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = (np.asarray(v, np.float64) for v in (layer.scale, layer.offset))
        return Scaling(scale, offset)

    def number(variable: Any) -> np.ndarray:
        return variable.numpy().astype(np.float64)

    if isinstance(layer, ChannelScaling):
        return Scaling(
            number(layer.gamma) if layer.scale else np.ones([]),
            number(layer.beta) if layer.center else np.zeros([]),
        )
    return BatchNorm(
        number(layer.moving_mean),
        number(layer.moving_variance) + layer.epsilon,
        number(layer.gamma) if layer.scale else None,
        number(layer.beta) if layer.center else None,
    )


def _keras_function(node: Node) -> Callable[[list[Any]], Any]:
    """Returns the function that Keras computes for a layer left in float."""
    types = [source.dtype for source in node.inputs]
    layer, call = _in_float32(node), node.foreign_call
    if getattr(layer, "_expects_training_arg", False):
        # Some layers train unless told otherwise.
        kwargs = {"training": False, **call.kwargs}
        call = dataclasses.replace(call, kwargs=kwargs)

    def compute(inputs: list[Any]) -> Any:
        read = [
            tf.cast(x, tf.float32 if dtype.is_floating else dtype)
            for x, dtype in zip(inputs, types, strict=True)
        ]
        result = call.outputs(layer, read)[node.output]
        return result if node.is_integer else tf.cast(result, tf.float64)

    return compute


def _elementwise_function(layer: Layer) -> Callable[[Any], Any]:
    """Returns the function of a layer of TensorFlow functions, in float64."""
    # Not a call of the layer, which would cast its input to float32.
    return lambda x: layer.call(tf.cast(x, tf.float64))


def _in_float32(node: Node) -> Layer:
    """Returns a layer that computes as the file does, whatever its own policy."""
    layer = node.layer
    if layer.dtype_policy.compute_dtype in (None, "float32"):
        return layer
    copy = copied(layer, dtype="float32")
    node.call(copy, [tf.zeros((1, *s.shape[1:]), s.dtype) for s in node.inputs])
    copy.set_weights(layer.get_weights())
    return copy


def _integer_type(node: Node) -> str:
    """Returns the type of an output that holds integers without a scale, else ""."""
    as_is = [takes_as_is(reader, node) for reader in node.consumers]
    if node.kind == "input" and as_is and all(as_is):
        ids = all(reader.kind == "embedding" for reader in node.consumers)
        return "int32" if ids and node.dtype != tf.int64 else node.dtype.name
    if node.kind == "arg_max" and not node.consumers:
        return "int32"  # What apps read.
    without_step = node.kind in ("foreign", "arg_max") and node.is_integer
    return node.dtype.name if without_step else ""


# --- Checks ------------------------------------------------------------------


def check_quantized(model: Any) -> keras.Model:
    """Returns the tf_keras model of a student.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If this library did not quantize it.
    """
    model = tf_keras_model(model)
    if isinstance(model, StepTraining) and model.quantized is not model:
        raise ValueError(
            "`model` must be the quantized model itself. Received the "
            f"{type(model).__name__} `{model.name}`: export its `student`."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a quantized Keras model. "
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
    inside = [la.name for la in model.layers if isinstance(la, LSQModel)]
    if inside:
        raise ValueError(
            f"`model` must be the quantized model itself. Received: `{model.name}`, "
            f"which has `{inside[0]}` as a layer: export that."
        )
    if not quantization_points(model):
        raise ValueError(
            f"`model` must be quantized. Received the float model `{model.name}`. "
            "Call `tf_lsq.quantize_model` and train it first."
        )
    return model


def _check_outputs(model: keras.Model, graph: Graph) -> None:
    """Raises an error for outputs on no grid: of a student that was cut or extended."""
    added, cut = [], []
    for node in graph.outputs:
        while _keeps_grid(node) and node.inputs:
            node = node.inputs[0]
        if node.kind == "point" or node.is_integer:
            continue
        quantized = isinstance(node.model_layer, LSQWrapper) or not node.layer.weights
        (cut if quantized else added).append(f"`{node.origin}`")
    if cut or added:
        raise ValueError(
            f"Every output of `{model.name}` must be a quantized tensor. "
            + (f"Received outputs before their quantization: {cut}. " if cut else "")
            + (
                f"Received layers that were added unquantized: {added}. "
                if added
                else ""
            )
            + "Cut or extend the float model, and quantize that; or cut the quantized "
            "model after a `QuantizationPoint` (`quantize_...`, or the ReLU's name)."
        )


def _keeps_grid(node: Node) -> bool:
    """Returns whether the output of an operator needs no point of its own."""
    properties = node.properties
    moves = properties.keeps_codes or properties.keeps_grid or properties.joins
    ends = bool(properties.fixed_step) and not node.consumers
    return node.kind != "point" and (moves or ends or node.kind == "arg_max")


def _output_names(model: keras.Model, graph: Graph) -> list[str]:
    """Returns the user's names of the outputs."""
    if isinstance(model, LSQModel):
        return list(model.output_names)
    names = []
    for node in graph.outputs:
        while node.kind == "point":
            node = node.inputs[0]
        names.append(node.name)
    return names
