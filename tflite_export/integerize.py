"""Frozen model -> TFLite operators and tensors, still as plain data.

One function per kind of operator. Batch norms, ReLUs and points are gone by
now; what is left maps one to one to TFLite, but for DEQUANTIZE in front of
operators left in float, and the conversions at inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .freeze import FrozenModel, FrozenNode, Grid
from .tflite_graph import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

IO_TYPES = ("int8", "uint8", "float32")
_UINT8_OFFSET = 128
_ONE = 64  # Stands for 1.0; a power of two, so that 1/64 is exact.
_FUSED = {"relu": "RELU", "relu6": "RELU6", None: "NONE"}


def integerize(
    frozen: FrozenModel,
    *,
    input_type: str = "int8",
    output_type: str = "int8",
    dynamic_batch: bool = True,
) -> TFLiteGraph:
    """Returns the graph of the `.tflite` file.

    Args:
        frozen: A trained model as plain numbers.
        input_type: "int8", "uint8" or "float32", for all inputs.
        output_type: The same for all outputs.
        dynamic_batch: Whether the batch size may change at run time.

    Raises:
        ValueError: If a type is unknown.
    """
    for name, value in (("input_type", input_type), ("output_type", output_type)):
        if value not in IO_TYPES:
            raise ValueError(
                f"`{name}` must be one of {list(IO_TYPES)}. Received: {value!r}."
            )
    builder = _Builder(frozen, input_type, dynamic_batch)
    for node in frozen.nodes:
        builder.add(node)
    builder.finish(output_type)
    return builder.graph


class _Builder:
    """Adds tensors and operators to a `TFLiteGraph`."""

    def __init__(
        self, frozen: FrozenModel, input_type: str, dynamic_batch: bool
    ) -> None:
        self.frozen, self.input_type = frozen, input_type
        self.dynamic_batch = dynamic_batch
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

    def constant(self, name: str, values: Any, quantization: Any = None) -> str:
        """Adds a constant tensor."""
        data = np.ascontiguousarray(values)
        self.graph.tensors[name] = TFLiteTensor(
            name, data.shape, data.dtype.name, quantization, data=data
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
        """Names the outputs and converts them to the wanted type."""
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
    if node.kind == "dense" and (scale == scale[0]).all():
        scale = scale[:1]
        axis = 0
    codes = _reorder(weight.codes.codes.astype(np.int8), order)
    bias_scale = bias.scale[: len(scale)]
    return (
        builder.constant(
            f"{node.name}/weight", codes, TensorQuantization(scale, 0, axis)
        ),
        builder.constant(
            f"{node.name}/bias",
            bias.codes.astype(np.int32),
            TensorQuantization(bias_scale, 0, 0),
        ),
    )


def _reorder(values: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Transposes; an axis numbered -1 is a new one of size 1 at the front."""
    if order[0] == -1:
        return values[np.newaxis].transpose(0, *[axis + 1 for axis in order[1:]])
    return values.transpose(order)


def _strides(layer: Any) -> dict[str, Any]:
    """Returns strides, padding and dilation of a convolution."""
    return {
        "padding": layer.padding.upper(),
        "stride_h": int(layer.strides[0]),
        "stride_w": int(layer.strides[1]),
        "dilation_h_factor": int(layer.dilation_rate[0]),
        "dilation_w_factor": int(layer.dilation_rate[1]),
    }


def _conv(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Convolution: weights as [out, height, width, in]."""
    weight, bias = _constants(builder, node, (3, 0, 1, 2), 0)
    builder.op(
        "CONV_2D",
        [inputs[0], weight, bias],
        builder.activation(node.name, node),
        fused_activation_function=_FUSED[node.activation],
        **_strides(node.layer),
    )


def _depthwise(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Depthwise convolution: weights as [1, height, width, channels]."""
    weight, bias = _constants(builder, node, (-1, 0, 1, 2), 3)
    builder.op(
        "DEPTHWISE_CONV_2D",
        [inputs[0], weight, bias],
        builder.activation(node.name, node),
        depth_multiplier=int(node.layer.depth_multiplier),
        fused_activation_function=_FUSED[node.activation],
        **_strides(node.layer),
    )


def _dense(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Fully connected: weights as [out, in]."""
    weight, bias = _constants(builder, node, (1, 0), 0)
    builder.op(
        "FULLY_CONNECTED",
        [inputs[0], weight, bias],
        builder.activation(node.name, node),
        fused_activation_function=_FUSED[node.activation],
        keep_num_dims=len(node.shape) > 2,
        asymmetric_quantize_inputs=False,
        weights_format="DEFAULT",
    )


def _affine(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Batch norm by itself: a 1x1 depthwise convolution."""
    if node.is_float:
        kernel = node.weight.float_kernel
        node.weight.float_kernel = kernel.reshape(1, 1, -1)
    weight, bias = _constants(builder, node, (-1, 0, 1, 2), 3)
    source, flat = inputs[0], len(node.shape) == 2
    image = (1, 1, 1, node.shape[-1])
    if flat:
        grid = None if node.is_float else builder.nodes[node.inputs[0]].grid
        source = builder.reshape(source, f"{node.name}/image", image, grid)
    output = builder.activation(
        f"{node.name}/scaled" if flat else node.name, node, image if flat else None
    )
    builder.op(
        "DEPTHWISE_CONV_2D",
        [source, weight, bias],
        output,
        depth_multiplier=1,
        fused_activation_function=_FUSED[node.activation],
        padding="VALID",
        stride_h=1,
        stride_w=1,
        dilation_h_factor=1,
        dilation_w_factor=1,
    )
    if flat:
        builder.reshape(output, node.name, node.shape, node.grid)


def _add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Addition of two tensors; the graph analysis splits longer sums."""
    builder.op(
        "ADD",
        inputs,
        builder.activation(node.name, node),
        fused_activation_function=_FUSED[node.activation],
        pot_scale_int16=False,
    )


def _relu(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """A ReLU that nothing could take in."""
    code = _FUSED[node.activation]
    builder.op(code, inputs, builder.activation(node.name, node))


def _softmax(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Softmax over the last axis."""
    builder.op("SOFTMAX", inputs, builder.activation(node.name, node), beta=1.0)


def _reduce(code: str) -> Callable[[_Builder, FrozenNode, list[str]], None]:
    """Returns the function for a reduction over height and width."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        axes = builder.constant(f"{node.name}/axes", np.array([1, 2], np.int32))
        builder.op(
            code,
            [inputs[0], axes],
            builder.activation(node.name, node),
            keep_dims=bool(node.layer.keepdims),
        )

    return add


def _pool(code: str) -> Callable[[_Builder, FrozenNode, list[str]], None]:
    """Returns the function for a pooling operator."""

    def add(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
        layer = node.layer
        builder.op(
            code,
            inputs,
            builder.activation(node.name, node),
            padding=layer.padding.upper(),
            stride_h=int(layer.strides[0]),
            stride_w=int(layer.strides[1]),
            filter_height=int(layer.pool_size[0]),
            filter_width=int(layer.pool_size[1]),
            fused_activation_function="NONE",
        )

    return add


def _concat(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Concatenation of tensors on one grid."""
    builder.op(
        "CONCATENATION",
        inputs,
        builder.activation(node.name, node),
        axis=int(node.layer.axis) % len(node.shape),
        fused_activation_function="NONE",
    )


def _pad(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Zero padding; TFLite pads integers with the zero point."""
    amounts = np.array([[0, 0], *node.layer.padding, [0, 0]], np.int32)
    paddings = builder.constant(f"{node.name}/paddings", amounts)
    builder.op("PAD", [inputs[0], paddings], builder.activation(node.name, node))


def _reshape(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """Flatten or Reshape."""
    builder.reshape(inputs[0], node.name, node.shape, node.grid)


def _quantize(builder: _Builder, node: FrozenNode, inputs: list[str]) -> None:
    """From float, or from another grid.

    XNNPACK's QUANTIZE from int8 to int8 rounds the ratio of the two scales to
    1/256, which moves codes. Its MUL keeps the ratio in float32. So a change of
    scale is written as a multiplication by the constant 1.
    """
    source = builder.nodes[node.inputs[0]].grid
    if source is None or source.scale == node.grid.scale:
        builder.op("QUANTIZE", inputs, builder.activation(node.name, node))
        return
    one = builder.constant(
        f"{node.name}/one", np.array([_ONE], np.int8), _per_tensor(1.0 / _ONE, 0)
    )
    builder.op(
        "MUL",
        [inputs[0], one],
        builder.activation(node.name, node),
        fused_activation_function="NONE",
    )


OPERATORS: dict[str, Callable[[_Builder, FrozenNode, list[str]], None]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "affine": _affine,
    "add": _add,
    "relu": _relu,
    "softmax": _softmax,
    "mean": _reduce("MEAN"),
    "global_max": _reduce("REDUCE_MAX"),
    "max_pool": _pool("MAX_POOL_2D"),
    "average_pool": _pool("AVERAGE_POOL_2D"),
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "quantize": _quantize,
}
