"""Builds a TFLite graph by adding tensors and operators one by one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    tensor_type,
)
from ..freezing import ONE, ONE_IN_INT16, FrozenModel, FrozenNode, Grid
from ..targets import TARGETS

FUSED = {"relu": "RELU", "relu6": "RELU6", None: "NONE"}
# How 1x1 convolutions with strides are written:
#   conv   a CONV_2D with strides
#   pick   a MAX_POOL_2D of single pixels with the strides, then a CONV_2D without
STRIDED_1X1 = ("conv", "pick")
PICKED = "/picked"  # The tensor of the pixels is the operator's, with this suffix.
# Container of the tensors beside it -> name and code of the constant 1.
_ONES = {
    "int8": ("rescale/one", ONE),
    "int16": ("rescale/one_in_int16", ONE_IN_INT16),
}


class Builder:
    """Adds tensors and operators to a `TFLiteGraph`.

    Args:
        frozen: The model whose operators are written.
        strided_1x1: How strided 1x1 convolutions are written, one of `STRIDED_1X1`.
    """

    def __init__(self, frozen: FrozenModel, strided_1x1: str) -> None:
        self.dynamic_batch = frozen.dynamic_batch
        self.strided_1x1 = strided_1x1
        self.nodes = frozen.by_name()
        self.casts = TARGETS[frozen.target].casts
        self.int32_places = TARGETS[frozen.target].int32_places
        self.graph = TFLiteGraph(tensors={}, ops=[], inputs={}, outputs={})

    def tensor(
        self, name: str, shape: Sequence[int], grid: Grid | None, dtype: str = ""
    ) -> str:
        """Adds an activation tensor.

        Args:
            name: Unique in the graph.
            shape: With batch 1.
            grid: Its grid; None: floats, or integers without a scale.
            dtype: Its type; "": that of its grid, float32 without one.

        Returns:
            The name.
        """
        self.graph.tensors[name] = TFLiteTensor(
            name,
            tuple(shape),
            dtype or ("float32" if grid is None else grid.container),
            None if grid is None else per_tensor(grid.scale, grid.zero_point),
            dynamic_batch=self.dynamic_batch,
        )
        return name

    def output(self, node: FrozenNode) -> str:
        """Adds the output tensor of a node."""
        return self.tensor(node.name, node.shape, node.grid, node.integer_type)

    def set_aside(self, node: FrozenNode) -> str:
        """Renames the output of the last operator, so that others can follow it.

        Args:
            node: The operator, whose own name the output of those others gets.

        Returns:
            The new name.
        """
        name, op = f"{node.name}/unlimited", self.graph.ops[-1]
        self.graph.ops[-1] = dataclasses.replace(op, outputs=[name])
        return self.tensor(name, node.shape, node.grid)

    def constant(
        self,
        name: str,
        values: Any,
        quantization: TensorQuantization | None = None,
        dtype: str = "",
    ) -> str:
        """Adds a constant tensor, by default of the type of `values`."""
        data = np.ascontiguousarray(values)
        self.graph.tensors[name] = TFLiteTensor(
            name, data.shape, dtype or data.dtype.name, quantization, data=data
        )
        return name

    def op(self, code: str, inputs: list[str], output: str, **options: Any) -> None:
        """Adds an operator."""
        self.graph.ops.append(TFLiteOp(code, inputs, [output], options))

    def cast(self, source: str, output: str) -> None:
        """Adds a CAST to the type of a tensor.

        Args:
            source: The tensor to read.
            output: The tensor to write.
        """
        ends = {"in_data_type": source, "out_data_type": output}
        types = {end: self.graph.tensors[name].dtype for end, name in ends.items()}
        options = {end: tensor_type(dtype) for end, dtype in types.items()}
        self.op("CAST", [source], output, **options)

    def split(self, source: str, names: Sequence[str]) -> Sequence[str]:
        """Adds a SPLIT of the channels of a tensor into equal parts.

        Args:
            source: The tensor.
            names: Names of the parts.

        Returns:
            The names.
        """
        tensor, count = self.graph.tensors[source], len(names)
        shape = (*tensor.shape[:-1], tensor.shape[-1] // count)
        for name in names:
            self.graph.tensors[name] = dataclasses.replace(
                tensor, name=name, shape=shape
            )
        axis = self.constant(f"{names[0]}/axis", np.int32(len(shape) - 1))
        op = TFLiteOp("SPLIT", [axis, source], [*names], {"num_splits": count})
        self.graph.ops.append(op)
        return names

    def concatenate(self, parts: Sequence[str], output: str) -> None:
        """Adds a CONCATENATION along the channels.

        Args:
            parts: Tensors on the grid of the output.
            output: The output.
        """
        axis = len(self.graph.tensors[output].shape) - 1
        plain = {"fused_activation_function": "NONE"}
        self.op("CONCATENATION", [*parts], output, axis=axis, **plain)

    def reshape(
        self, source: str, name: str, shape: Sequence[int], grid: Grid | None
    ) -> str:
        """Adds a RESHAPE."""
        batch = -1 if self.dynamic_batch else shape[0]
        target = np.array([batch, *shape[1:]], np.int32)
        constant = self.constant(f"{name}/shape", target)
        output = self.tensor(name, shape, grid)
        self.op("RESHAPE", [source, constant], output, new_shape=target.tolist())
        return output

    def rescale(self, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a change of scale: a multiplication by the constant 1.

        XNNPACK's MUL keeps the ratio of the scales in float32 and rounds once. In int16
        the product has 14 bits more than the output, so that rounding it twice hardly
        matters.
        """
        self.op(
            "MUL",
            [inputs[0], self.one(node.integer_grid.container)],
            self.output(node),
            fused_activation_function=FUSED[node.activation],
        )

    def one(self, container: str) -> str:
        """Returns the constant 1.

        Args:
            container: Type of its code, as of the tensors beside it.
        """
        name, code = _ONES[container]
        if name not in self.graph.tensors:
            one = np.array([code], container)
            self.constant(name, one, per_tensor(1.0 / code, 0))
        return name

    def as_float(self, name: str) -> str:
        """Returns a float version of a tensor."""
        node = self.nodes[name]
        if node.grid is None:
            return name
        output = f"{name}/dequantized"
        if output not in self.graph.tensors:
            self.op("DEQUANTIZE", [name], self.tensor(output, node.shape, None))
        return output

    def on_image(
        self,
        node: FrozenNode,
        code: str,
        inputs: list[str],
        *,
        before: Sequence[str] = (),
        picked: Sequence[int] = (1, 1),
        **options: Any,
    ) -> None:
        """Adds an operator on images; reshapes other tensors before and after it.

        Args:
            node: The operator.
            code: Name of the TFLite operator.
            inputs: The image, and the inputs after it.
            before: The inputs before the image.
            picked: Strides with which the operator's pixels are picked from the image.
            **options: Options of the operator.
        """
        image = self.image_input(node, inputs[0], picked)
        output = self.image_output(node)
        self.op(code, [*before, image, *inputs[1:]], output, **options)
        self.leave_image(node)

    def image_input(
        self, node: FrozenNode, tensor: str, picked: Sequence[int] = (1, 1)
    ) -> str:
        """Returns the input of an operator as an image.

        Args:
            node: The operator.
            tensor: Its input.
            picked: Strides with which the operator's pixels are picked from the image.
        """
        source = self.nodes[node.inputs[0]]
        grid = None if node.is_float else source.grid
        image, shape = tensor, image_shape(source.shape)
        if len(source.shape) != 4:
            image = self.reshape(image, f"{node.name}/image", shape, grid)
        if max(picked) > 1:
            image = self._picked(image, f"{node.name}{PICKED}", shape, grid, picked)
        return image

    def image_output(self, node: FrozenNode) -> str:
        """Adds the output tensor of an operator on images, which `leave_image` ends."""
        if len(self.nodes[node.inputs[0]].shape) == 4:
            return self.output(node)
        name = f"{node.name}/image_output"
        return self.tensor(name, image_shape(node.shape), node.grid)

    def leave_image(self, node: FrozenNode) -> None:
        """Reshapes the image that an operator computed, unless its output is one."""
        if node.name not in self.graph.tensors:
            image = f"{node.name}/image_output"
            self.reshape(image, node.name, node.shape, node.grid)

    def _picked(
        self,
        image: str,
        name: str,
        shape: tuple[int, ...],
        grid: Grid | None,
        strides: Sequence[int],
    ) -> str:
        """Adds a MAX_POOL_2D of single pixels.

        It is faster than STRIDED_SLICE and AVERAGE_POOL_2D, see
        `benchmarks/strided_1x1.py`.
        """
        sizes = [
            -(-size // stride) for size, stride in zip(shape[1:3], strides, strict=True)
        ]
        output = self.tensor(name, (shape[0], *sizes, shape[3]), grid)
        self.op(
            "MAX_POOL_2D",
            [image],
            output,
            padding="VALID",
            stride_h=int(strides[0]),
            stride_w=int(strides[1]),
            filter_height=1,
            filter_width=1,
            fused_activation_function="NONE",
        )
        return output


def per_tensor(scale: float, zero_point: int) -> TensorQuantization:
    """Returns the quantization of an activation tensor."""
    return TensorQuantization(np.array([scale], np.float32), zero_point, 0)


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a tensor as an image: more axes become one height.

    Args:
        shape: Any shape of at least 2 axes, the batch first and channels last.
    """
    batch, sizes = shape[0], shape[1:]
    if len(sizes) > 3:
        sizes = (math.prod(sizes[:-2]), *sizes[-2:])
    return (batch, *(1,) * (3 - len(sizes)), *sizes)
