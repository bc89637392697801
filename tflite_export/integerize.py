"""Frozen model -> TFLite operators and tensors, still as plain data.

One function per kind of operator. Batch norms, ReLUs and points are gone by
now; what is left maps one to one to TFLite, but for DEQUANTIZE in front of
operators left in float, and the conversions at inputs and outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .freeze import FrozenModel, FrozenNode
from .grids import ONE, Grid
from .op_versions import newest
from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

IO_TYPES = ("int8", "uint8", "float32")
_UINT8_OFFSET = 128
_ONE_NAME = "rescale/one"
_FUSED = {"relu": "RELU", "relu6": "RELU6", None: "NONE"}
_ENDS = ("inputs", "outputs")
_SIDES = ("positive", "negative", "sloped")  # Of a leaky ReLU.
_PLAIN = {"fused_activation_function": "NONE"}


def integerize(
    frozen: FrozenModel,
    *,
    input_type: str = "int8",
    output_type: str = "int8",
) -> TFLiteGraph:
    """Returns the graph of the `.tflite` file.

    Args:
        frozen: A trained model as plain numbers.
        input_type: "int8", "uint8" or "float32", for all inputs.
        output_type: The same for all outputs.

    Raises:
        ValueError: If a type is unknown.
    """
    for name, value in (("input_type", input_type), ("output_type", output_type)):
        if value not in IO_TYPES:
            raise ValueError(
                f"`{name}` must be one of {list(IO_TYPES)}. Received: {value!r}."
            )
    builder = _Builder(frozen, input_type)
    for node in frozen.nodes:
        builder.add(node)
    builder.finish(output_type)
    return builder.graph


class _Builder:
    """Adds tensors and operators to a `TFLiteGraph`."""

    def __init__(self, frozen: FrozenModel, input_type: str) -> None:
        self.frozen, self.input_type = frozen, input_type
        self.dynamic_batch = frozen.dynamic_batch
        self.nodes = frozen.by_name()
        self.graph = TFLiteGraph(
            tensors={}, ops=[], inputs={}, outputs={}, metadata={}, description=""
        )

    def add(self, node: FrozenNode) -> None:
        """Adds one node."""
        if node.kind == "input":
            self._add_input(node)
            return
        inputs = [
            self._as_float(name) if node.is_float else name for name in node.inputs
        ]
        OPERATORS[node.kind](self, node, inputs)

    def activation(self, name: str, node: FrozenNode, shape: Any = None) -> str:
        """Adds an activation tensor with the type and grid of a node's output."""
        shape = node.shape if shape is None else shape
        return self.tensor(name, shape, node.grid)

    def tensor(self, name: str, shape: tuple[int, ...], grid: Grid | None) -> str:
        """Adds an activation tensor."""
        self.graph.tensors[name] = TFLiteTensor(
            name,
            tuple(shape),
            "float32" if grid is None else "int8",
            None if grid is None else _per_tensor(grid.scale, grid.zero_point),
            dynamic_batch=self.dynamic_batch,
        )
        return name

    def constant(
        self, name: str, values: Any, quantization: Any = None, dtype: str = ""
    ) -> str:
        """Adds a constant tensor, of the type of `values` unless given."""
        data = np.ascontiguousarray(values)
        self.graph.tensors[name] = TFLiteTensor(
            name, data.shape, dtype or data.dtype.name, quantization, data=data
        )
        return name

    def op(self, code: str, inputs: list[str], output: str, **options: Any) -> None:
        """Adds an operator."""
        self.graph.ops.append(TFLiteOp(code, inputs, [output], options))

    def reshape(self, source: str, name: str, shape: Any, grid: Grid | None) -> str:
        """Adds a RESHAPE."""
        batch = -1 if self.dynamic_batch else shape[0]
        target = np.array([batch, *shape[1:]], np.int32)
        constant = self.constant(f"{name}/shape", target)
        output = self.tensor(name, tuple(shape), grid)
        self.op("RESHAPE", [source, constant], output, new_shape=target.tolist())
        return output

    def finish(self, output_type: str) -> None:
        """Names the outputs, converts them, and puts inputs in the model's order."""
        inputs = self.graph.inputs
        self.graph.inputs = {name: inputs[name] for name in self.frozen.inputs}
        for name, tensor in self.frozen.outputs.items():
            self.graph.outputs[name] = self._convert_output(tensor, output_type)

    def _add_input(self, node: FrozenNode) -> None:
        """Adds an input tensor, and its conversion to int8."""
        name = node.name
        if self.input_type == "int8":
            self.graph.inputs[name] = self.activation(name, node)
            return
        outer = f"{name}/{self.input_type}"
        if self.input_type == "float32":
            self.tensor(outer, node.shape, None)
        else:
            self._uint8(outer, node.shape, node.grid)
        self.graph.inputs[name] = outer
        self.op("QUANTIZE", [outer], self.activation(name, node))

    def _convert_output(self, tensor: str, output_type: str) -> str:
        """Adds the conversion of an output from int8."""
        if output_type == "int8":
            return tensor
        outer = f"{tensor}/{output_type}"
        node = self.nodes[tensor]
        if outer not in self.graph.tensors:
            if output_type == "float32":
                self.op("DEQUANTIZE", [tensor], self.tensor(outer, node.shape, None))
            else:
                self.op("QUANTIZE", [tensor], self._uint8(outer, node.shape, node.grid))
        return outer

    def _uint8(self, name: str, shape: tuple[int, ...], grid: Any) -> str:
        """Adds a uint8 tensor on the same grid."""
        quantization = _per_tensor(grid.scale, grid.zero_point + _UINT8_OFFSET)
        self.graph.tensors[name] = TFLiteTensor(
            name, shape, "uint8", quantization, dynamic_batch=self.dynamic_batch
        )
        return name

    def _as_float(self, name: str) -> str:
        """Returns a float version of a tensor."""
        node = self.nodes[name]
        if node.grid is None:
            return name
        output = f"{name}/dequantized"
        if output not in self.graph.tensors:
            self.op("DEQUANTIZE", [name], self.tensor(output, node.shape, None))
        return output


def _per_tensor(scale: float, zero_point: int) -> TensorQuantization:
    """Returns the quantization of an activation tensor."""
    return TensorQuantization(np.array([scale], np.float32), zero_point, 0)


# --- Operators ---------------------------------------------------------------


def _constants(
    builder: _Builder, node: FrozenNode, order: tuple[int, ...], axis: int
) -> tuple[str, str]:
    """Adds weight and bias, axes reordered for the operator."""
    weight = node.weight
    if weight.codes is None:
        kernel = weight.float_kernel.astype(np.float32)
        names = (
            builder.constant(f"{node.name}/weight", _reorder(kernel, order)),
            builder.constant(f"{node.name}/bias", weight.float_bias.astype(np.float32)),
        )
        return names
    scale, bias = weight.codes.scale, weight.bias
    codes = _reorder(weight.codes.codes.astype(np.int8), order)
    return (
        builder.constant(
            f"{node.name}/weight",
            codes,
            TensorQuantization(scale, 0, axis if len(scale) > 1 else 0),
            weight.container,
        ),
        builder.constant(
            f"{node.name}/bias",
            bias.codes.astype(np.int32),
            TensorQuantization(bias.scale, 0, 0),
        ),
    )


def _reorder(values: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Transposes; an axis numbered -1 is a new one of size 1 at the front."""
    if order[0] == -1:
        return values[np.newaxis].transpose(0, *[axis + 1 for axis in order[1:]])
    return values.transpose(order)


def _strides(layer: Any) -> dict[str, Any]:
    """Returns strides, padding and dilation of a convolution."""
    strides, dilation = (
        (1,) * (2 - layer.rank) + tuple(found)
        for found in (layer.strides, layer.dilation_rate)
    )
    if layer.rank == 1 and hasattr(layer, "depth_multiplier"):
        strides = strides[1:] * 2  # Depthwise kernels have one stride for both axes.
    return {
        "padding": layer.padding.upper(),
        "stride_h": int(strides[0]),
        "stride_w": int(strides[1]),
        "dilation_h_factor": int(dilation[0]),
        "dilation_w_factor": int(dilation[1]),
    }


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a shape of 2 to 4 axes as that of an image."""
    return (shape[0], *(1,) * (4 - len(shape)), *shape[1:])


def _on_image(
    builder: _Builder, node: FrozenNode, code: str, inputs: list[str], **options: Any
) -> None:
    """Adds an operator that takes images; other tensors are reshaped around it."""
    shape = builder.nodes[node.inputs[0]].shape
    if len(shape) == 4:
        builder.op(code, inputs, builder.activation(node.name, node), **options)
        return
    grid = None if node.is_float else builder.nodes[node.inputs[0]].grid
    source = builder.reshape(inputs[0], f"{node.name}/image", _image_shape(shape), grid)
    output = builder.activation(
        f"{node.name}/image_output", node, _image_shape(node.shape)
    )
    builder.op(code, [source, *inputs[1:]], output, **options)
    builder.reshape(output, node.name, node.shape, node.grid)


def _conv(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Convolution: weights as [out, height, width, in]."""
    _on_image(
        builder,
        node,
        "CONV_2D",
        [inputs[0], *_constants(builder, node, (3, 0, 1, 2), 0)],
        fused_activation_function=_FUSED[node.activation],
        **_strides(node.layer),
    )


def _depthwise(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Depthwise convolution: weights as [1, height, width, channels]."""
    _on_image(
        builder,
        node,
        "DEPTHWISE_CONV_2D",
        [inputs[0], *_constants(builder, node, (-1, 0, 1, 2), 3)],
        depth_multiplier=int(node.layer.depth_multiplier),
        fused_activation_function=_FUSED[node.activation],
        **_strides(node.layer),
    )


def _transposed_conv(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Transposed convolution: weights as [out, height, width, in]."""
    weight, bias = _constants(builder, node, (3, 0, 1, 2), 0)
    shape = builder.constant(f"{node.name}/shape", np.array(node.shape, np.int32))
    builder.op(
        "TRANSPOSE_CONV",
        [shape, weight, inputs[0], bias],
        builder.activation(node.name, node),
        padding=node.layer.padding.upper(),
        stride_h=int(node.layer.strides[0]),
        stride_w=int(node.layer.strides[1]),
        fused_activation_function=_FUSED[node.activation],
    )


def _dense(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Fully connected: weights as [out, in]."""
    _fully_connected(builder, node, [inputs[0], *_constants(builder, node, (1, 0), 0)])


def _fully_connected(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Adds the operator; axes in front of the last are kept."""
    builder.op(
        "FULLY_CONNECTED",
        inputs,
        builder.activation(node.name, node),
        fused_activation_function=_FUSED[node.activation],
        keep_num_dims=len(node.shape) > 2,
        asymmetric_quantize_inputs=False,
        weights_format="DEFAULT",
    )


def _pointwise(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Fully connected at every pixel: the weights of a 1x1 convolution as [out, in].

    XNNPACK has packed kernels for it, which convolutions lack.
    """
    weight, bias = _constants(builder, node, (3, 0, 1, 2), 0)
    tensor = builder.graph.tensors[weight]
    tensor.data = tensor.data.reshape(tensor.shape[0], -1)
    tensor.shape = tensor.data.shape
    _fully_connected(builder, node, [inputs[0], weight, bias])


def _affine(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Batch norm or scaling by itself: a 1x1 depthwise convolution."""
    if node.is_float:
        kernel = node.weight.float_kernel
        node.weight.float_kernel = kernel.reshape(1, 1, -1)
    _on_image(
        builder,
        node,
        "DEPTHWISE_CONV_2D",
        [inputs[0], *_constants(builder, node, (-1, 0, 1, 2), 3)],
        depth_multiplier=1,
        fused_activation_function=_FUSED[node.activation],
        padding="VALID",
        stride_h=1,
        stride_w=1,
        dilation_h_factor=1,
        dilation_w_factor=1,
    )


def _hard_sigmoid(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Hard sigmoid: a scaling; its grid ends at 0 and 1, where integers saturate."""
    if not node.is_float:
        _affine(builder, node, inputs)
        return
    constants = {"slope": node.layer.slope, "offset": 0.5, "one": 1.0}
    names = {
        name: builder.constant(f"{node.name}/{name}", np.float32([value]))
        for name, value in constants.items()
    }
    scaled = builder.tensor(f"{node.name}/scaled", node.shape, None)
    builder.op("MUL", [inputs[0], names["slope"]], scaled, **_PLAIN)
    line = builder.tensor(f"{node.name}/line", node.shape, None)
    builder.op("ADD", [scaled, names["offset"]], line, fused_activation_function="RELU")
    builder.op("MINIMUM", [line, names["one"]], builder.activation(node.name, node))


def _prelu(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Leaky ReLU, with a constant slope or trained ones.

    The kernel of PRELU rounds twice where it changes the scale. So each side of zero
    is brought to the grid of the output by itself; their sum is exact, as one of them
    is zero.
    """
    weight = node.weight
    name = f"{node.name}/weight"
    if weight.codes is None:
        slope = builder.constant(name, weight.float_kernel.astype(np.float32))
        builder.op("PRELU", [inputs[0], slope], builder.activation(node.name, node))
        return
    quantization = TensorQuantization(weight.codes.scale, 0, 0)
    slope = builder.constant(name, weight.codes.codes.astype(np.int8), quantization)
    positive, negative, sloped = (f"{node.name}/{n}" for n in _SIDES)
    grid = builder.nodes[node.inputs[0]].grid
    zero = builder.constant(
        f"{node.name}/zero",
        np.array([grid.zero_point], np.int8),
        _per_tensor(grid.scale, grid.zero_point),
    )
    builder.tensor(negative, node.shape, grid)
    builder.op("MINIMUM", [inputs[0], zero], negative)
    builder.op("MUL", [negative, slope], builder.activation(sloped, node), **_PLAIN)
    builder.op(
        "MUL",
        [inputs[0], _one(builder)],
        builder.activation(positive, node),
        fused_activation_function="RELU",
    )
    output = builder.activation(node.name, node)
    builder.op("ADD", [positive, sloped], output, **_PLAIN, pot_scale_int16=False)


def _binary(code: str, **options: Any) -> Callable[..., None]:
    """Returns the function of an operator for two tensors with a fused ReLU."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        builder.op(
            code,
            inputs,
            builder.activation(node.name, node),
            fused_activation_function=_FUSED[node.activation],
            **options,
        )

    return add


def _plain(code: str, **options: Any) -> Callable[..., None]:
    """Returns the function of an operator whose options are always the same."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        builder.op(code, inputs, builder.activation(node.name, node), **options)

    return add


def _relu(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """A ReLU that nothing could take in.

    The kernel of RELU rounds twice where it changes the scale.
    """
    if not node.is_float:
        _rescale(builder, node, inputs)
        return
    code = _FUSED[node.activation]
    builder.op(code, inputs, builder.activation(node.name, node))


def _reduce(code: str) -> Callable[..., None]:
    """Returns the function for a reduction."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        options = node.node.options
        axes = builder.constant(f"{node.name}/axes", np.int32(options["axes"]))
        builder.op(
            code,
            [inputs[0], axes],
            builder.activation(node.name, node),
            keep_dims=options["keepdims"],
        )

    return add


def _pool(code: str) -> Callable[..., None]:
    """Returns the function for a pooling operator."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        options = node.node.options
        _on_image(
            builder,
            node,
            code,
            inputs,
            padding=options["padding"],
            stride_h=int(options["strides"][0]),
            stride_w=int(options["strides"][1]),
            filter_height=int(options["size"][0]),
            filter_width=int(options["size"][1]),
            **_PLAIN,
        )

    return add


def _resize(code: str) -> Callable[..., None]:
    """Returns the function for a resizing operator."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        size = np.int32(node.node.options["size"])
        _on_image(
            builder,
            node,
            code,
            [inputs[0], builder.constant(f"{node.name}/size", size)],
            align_corners=False,
            half_pixel_centers=True,
        )

    return add


def _concat(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Concatenation of tensors on one grid."""
    builder.op(
        "CONCATENATION",
        inputs,
        builder.activation(node.name, node),
        axis=int(node.layer.axis) % len(node.shape),
        **_PLAIN,
    )


def _pad(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Zero padding; TFLite pads integers with the zero point."""
    amounts = np.array([(0, 0), *node.node.options["paddings"]], np.int32)
    paddings = builder.constant(f"{node.name}/paddings", amounts)
    builder.op("PAD", [inputs[0], paddings], builder.activation(node.name, node))


def _slice(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Strided slice; masks keep the batch axis whole."""
    bounds = [
        builder.constant(
            f"{node.name}/{name}",
            np.int32([int(name == "strides"), *node.node.options[name]]),
        )
        for name in ("begin", "end", "strides")
    ]
    builder.op(
        "STRIDED_SLICE",
        [inputs[0], *bounds],
        builder.activation(node.name, node),
        begin_mask=1,
        end_mask=1,
        ellipsis_mask=0,
        new_axis_mask=0,
        shrink_axis_mask=0,
    )


def _transpose(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Transposition."""
    perm = builder.constant(f"{node.name}/perm", np.int32(node.node.options["perm"]))
    builder.op("TRANSPOSE", [inputs[0], perm], builder.activation(node.name, node))


def _reshape(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Flatten or Reshape."""
    builder.reshape(inputs[0], node.name, node.shape, node.grid)


def _foreign(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """A layer left in float: the operators that TFLiteConverter made of it."""
    part = node.converted
    [output] = part.outputs.values()
    # Keras numbers the layers inside by how many there were before: no names to keep.
    names = {name: f"{node.name}/{i}" for i, name in enumerate(part.tensors)}
    names |= {part.inputs[f"input_{i}"]: name for i, name in enumerate(inputs)}
    names |= {output: node.name, "": ""}
    for name, tensor in part.tensors.items():
        if names[name] not in builder.graph.tensors:
            renamed = dataclasses.replace(tensor, name=names[name])
            builder.graph.tensors[names[name]] = renamed
    for op in part.ops:
        ends = {end: [names[name] for name in getattr(op, end)] for end in _ENDS}
        builder.graph.ops.append(dataclasses.replace(op, **ends))
    releases = [builder.graph.min_runtime, part.min_runtime]
    builder.graph.min_runtime = newest(releases)


def _quantize(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """From float, or from another grid.

    XNNPACK's QUANTIZE from int8 to int8 rounds the ratio of the two scales to
    1/256, which moves codes.
    """
    source = builder.nodes[node.inputs[0]].grid
    if source is None or source.scale == node.grid.scale:
        builder.op("QUANTIZE", inputs, builder.activation(node.name, node))
    else:
        _rescale(builder, node, inputs)


def _rescale(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """A change of scale: a multiplication by the constant 1.

    XNNPACK's MUL keeps the ratio of the scales in float32 and rounds once.
    """
    builder.op(
        "MUL",
        [inputs[0], _one(builder)],
        builder.activation(node.name, node),
        fused_activation_function=_FUSED[node.activation],
    )


def _one(builder: _Builder) -> str:
    """Returns the constant 1."""
    if _ONE_NAME not in builder.graph.tensors:
        one = np.array([ONE], np.int8)
        builder.constant(_ONE_NAME, one, _per_tensor(1.0 / ONE, 0))
    return _ONE_NAME


def _clip(code: str, end: str) -> Callable[..., None]:
    """Returns the function that clips codes to one end of their grid."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        limit = builder.constant(
            f"{node.name}/limit",
            np.array([getattr(node.grid, end)], np.int8),
            _per_tensor(node.grid.scale, node.grid.zero_point),
        )
        builder.op(code, [inputs[0], limit], builder.activation(node.name, node))

    return add


OPERATORS: dict[str, Callable[[_Builder, FrozenNode, list[str]], None]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "transposed_conv": _transposed_conv,
    "dense": _dense,
    "pointwise": _pointwise,
    "affine": _affine,
    "hard_sigmoid": _hard_sigmoid,
    "prelu": _prelu,
    "add": _binary("ADD", pot_scale_int16=False),
    "subtract": _binary("SUB", pot_scale_int16=False),
    "multiply": _binary("MUL"),
    "maximum": _plain("MAXIMUM"),
    "minimum": _plain("MINIMUM"),
    "concat": _concat,
    "relu": _relu,
    "softmax": _plain("SOFTMAX", beta=1.0),
    "sigmoid": _plain("LOGISTIC"),
    "tanh": _plain("TANH"),
    "mean": _reduce("MEAN"),
    "reduce_max": _reduce("REDUCE_MAX"),
    "max_pool": _pool("MAX_POOL_2D"),
    "average_pool": _pool("AVERAGE_POOL_2D"),
    "resize_nearest": _resize("RESIZE_NEAREST_NEIGHBOR"),
    "resize_bilinear": _resize("RESIZE_BILINEAR"),
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "foreign": _foreign,
    "quantize": _quantize,
    "widen": _rescale,
    "clip_high": _clip("MINIMUM", "high"),
    "clip_low": _clip("MAXIMUM", "low"),
}
