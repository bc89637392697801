"""Operators with a kernel: convolutions, fully connected layers, batch norms."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..file import QuantizedTensor, TensorQuantization
from ..freezing import (
    INT8_MAX,
    PACKABLE,
    FloatKernelWeight,
    FrozenNode,
    KernelWeight,
)
from ..runtimes import arithmetic, fixed_point
from ..targets import TARGETS, takes_container
from .base import Compute, Context, Operator, exact_type
from .builder import FUSED, Builder, image_shape

_CPU = TARGETS["phone"]
_NO_DILATION: dict[str, Any] = {"dilation_h_factor": 1, "dilation_w_factor": 1}


class KernelOperator(Operator):
    """A product with a kernel, and a bias.

    Attributes:
        order: Axes of the kernel, channels last, in the order of the file; -1 is a new
            axis of size 1.
        axis: Axis of the channels in the file.
        one_scale: Whether a single scale for all channels is multiplied in float32, in
            int8.
        matrix: Whether its operator is FULLY_CONNECTED.
    """

    order: ClassVar[tuple[int, ...]] = (3, 0, 1, 2)
    axis: ClassVar[int] = 0
    one_scale: ClassVar[bool] = False
    matrix: ClassVar[bool] = False

    @abc.abstractmethod
    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the product of input and kernel, of any float type.

        Args:
            node: The operator.
            x: Its input.
            kernel: Channels last.
        """

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Multiplies by the quantized kernel, adds the bias, applies the batch norm."""
        trained = node.trained
        kernel = trained.any_kernel.real_values()
        result = self.product(node, inputs[0], tf.constant(kernel, tf.float64))
        if trained.bias is not None:
            result = result + trained.bias
        return result if trained.affine is None else trained.affine.apply(result)

    def integers(self, context: Context) -> Compute:
        """Returns the product of codes times sign and multiplier, plus the bias."""
        product, requantize = self._products(context), self._requantize(context)
        weight = context.node.kernel_weight
        factor = tf.constant(weight.sign.astype(np.int64) * weight.multiplier)
        bias = tf.constant(weight.bias.codes)
        return lambda x: context.limited(requantize(product(x) * factor + bias))

    def has_kernel(self, context: Context) -> bool:
        """Returns whether XNNPACK supports the kernel in its container."""
        node = context.node
        if node.kind not in PACKABLE:
            return True
        channels = context.sources[0].shape[-1] // node.groups
        code, container = PACKABLE[node.kind], node.integer_weight.container
        return takes_container(_CPU, code, container, channels)

    def channels_last(self, data: np.ndarray) -> np.ndarray:
        """Returns the codes of a file with output channels last.

        Args:
            data: In the order of the file.
        """
        if self.order[0] == -1:
            return data[0]
        return data.transpose(np.argsort(self.order))

    def _products(self, context: Context) -> Compute:
        """Returns input codes times trained kernel codes, as int64."""
        node, trained = context.node, context.node.trained
        reach = context.source_grid.reach
        weight = node.kernel_weight
        codes = np.abs(weight.codes.codes) // weight.multiplier
        largest = reach * int(codes.reshape(-1, codes.shape[-1]).sum(axis=0).max())
        dtype = exact_type(largest)
        kernel = tf.constant(trained.quantized_kernel.codes, dtype)

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            products = self.product(node, tf.cast(inputs[0], dtype), kernel)
            return tf.cast(tf.round(products), tf.int64)

        return compute

    def _requantize(self, context: Context) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns accumulator -> codes of the output."""
        source, output = context.scales
        weight = context.node.kernel_weight.codes
        scale = weight.scale
        if context.family == "xnnpack":
            ratio = source * scale / output
            return lambda acc: arithmetic.float_requantize(acc, ratio)
        ratio = np.float64(source) * np.float64(scale)
        if self.one_scale and len(scale) == 1 and not context.in_int16:
            ratio = np.float64(source * scale)
        multiplier, exponent = fixed_point(ratio / np.float64(output))
        kind = context.node.kernel_kind
        if context.in_int16:
            exact = context.runtime.exact_int16_matrix and self.matrix
            wide = arithmetic.round_wide if exact else arithmetic.round_reduced
            return lambda acc: wide(acc, multiplier, exponent)
        positions = math.prod(context.node.shape[1:-1])
        *sizes, channels = weight.codes.shape
        shape = (*sizes, channels // context.node.groups)
        if not context.runtime.rounds_twice(kind, shape, positions):
            return lambda acc: arithmetic.round_once(acc, multiplier, exponent)
        half_up = context.runtime.half_up(kind, len(scale))
        return lambda acc: arithmetic.fixed_requantize(
            acc, multiplier, exponent, half_up=half_up
        )

    def constants(self, builder: Builder, node: FrozenNode) -> tuple[str, str]:
        """Adds weight and bias, with axes in the order of the file."""
        return self._add_constants(builder, node, node.name, _kernel_of(node))

    def _add_constants(
        self,
        builder: Builder,
        node: FrozenNode,
        name: str,
        weight: FloatKernelWeight | KernelWeight,
    ) -> tuple[str, str]:
        """Adds weight and bias of one operator of the file."""
        if isinstance(weight, FloatKernelWeight):
            kernel, bias = weight.values, weight.bias
            return (
                builder.constant(
                    f"{name}/weight", self.in_file(kernel.astype(np.float32))
                ),
                builder.constant(f"{name}/bias", bias.astype(np.float32)),
            )
        scale, bias = weight.codes.scale, weight.bias
        in_int16 = builder.nodes[node.inputs[0]].integer_grid.in_int16
        return (
            builder.constant(
                f"{name}/weight",
                self.in_file(weight.codes.codes.astype(np.int8)),
                TensorQuantization(scale, 0, self.axis if len(scale) > 1 else 0),
                weight.container,
            ),
            builder.constant(
                f"{name}/bias",
                bias.codes.astype(np.int64 if in_int16 else np.int32),
                TensorQuantization(bias.scale, 0, 0),
            ),
        )

    def add_groups(
        self,
        builder: Builder,
        node: FrozenNode,
        source: str,
        output: str,
        code: str,
        **options: Any,
    ) -> None:
        """Adds a SPLIT, an operator for each group, and a CONCATENATION.

        Args:
            builder: Builder of the graph.
            node: The operator.
            source: Its input, of as many axes as the operator takes.
            output: Its output, likewise.
            code: Name of the TFLite operator of a group.
            **options: Options of that operator.
        """
        parts: list[str] = []
        sources = builder.split(source, [f"{part}/input" for part in node.parts])
        channels = node.shape[-1] // node.groups
        for number, (part, own) in enumerate(zip(node.parts, sources, strict=True)):
            chosen = slice(number * channels, (number + 1) * channels)
            weight = _channels(_kernel_of(node), chosen)
            inputs = [own, *self._add_constants(builder, node, part, weight)]
            shape = (*builder.graph.tensors[output].shape[:-1], channels)
            parts.append(builder.tensor(part, shape, node.grid))
            builder.op(code, inputs, part, **options)
        builder.concatenate(parts, output)

    def in_file(self, kernel: np.ndarray) -> np.ndarray:
        """Returns a kernel in the order of the file.

        Args:
            kernel: Output channels last.
        """
        if self.order[0] == -1:
            return kernel[np.newaxis].transpose(
                0, *[axis + 1 for axis in self.order[1:]]
            )
        return kernel.transpose(self.order)


def _kernel_of(node: FrozenNode) -> FloatKernelWeight | KernelWeight:
    """Returns the kernel and bias of an operator, in float or as integers."""
    if isinstance(node.weight, FloatKernelWeight):
        return node.weight
    return node.kernel_weight


def _channels(
    weight: FloatKernelWeight | KernelWeight, chosen: slice
) -> FloatKernelWeight | KernelWeight:
    """Returns some of the output channels of a kernel and its bias."""
    if isinstance(weight, FloatKernelWeight):
        return FloatKernelWeight(weight.values[..., chosen], weight.bias[chosen])

    def part(tensor: QuantizedTensor) -> QuantizedTensor:
        scale = tensor.scale[chosen] if len(tensor.scale) > 1 else tensor.scale
        return QuantizedTensor(tensor.codes[..., chosen], scale, tensor.axis)

    return dataclasses.replace(
        weight,
        codes=part(weight.codes),
        bias=part(weight.bias),
        sign=weight.sign[chosen],
    )


def _strides(node: FrozenNode) -> dict[str, Any]:
    """Returns strides, padding and dilation of a convolution."""
    options = node.trained.options
    (stride_h, stride_w), (dilation_h, dilation_w) = (
        options["strides"],
        options["dilations"],
    )
    return {
        "padding": options["padding"],
        "stride_h": int(stride_h),
        "stride_w": int(stride_w),
        "dilation_h_factor": int(dilation_h),
        "dilation_w_factor": int(dilation_w),
    }


def _as_image(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Makes a function of images also take 1D tensors, as images of height 1."""

    def on_image(x: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        flat = x.shape.rank == 3
        result = function(x[:, tf.newaxis] if flat else x, *args, **kwargs)
        return result[:, 0] if flat else result

    return on_image


class Conv(KernelOperator):
    """Convolution: weights as [out, height, width, in]."""

    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves."""
        options = node.trained.options
        return _as_image(tf.nn.conv2d)(
            x,
            kernel,
            options["strides"],
            options["padding"],
            dilations=options["dilations"],
        )

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a CONV_2D, or one per group.

        Where strides are picked, a MAX_POOL_2D of pixels comes before.
        """
        options, picked = _strides(node), (1, 1)
        options["fused_activation_function"] = FUSED[node.activation]
        if builder.strided_1x1 == "pick" and _is_strided_1x1(node):
            picked = node.trained.options["strides"]
            options |= {"stride_h": 1, "stride_w": 1}
        if not node.split:
            sources = [inputs[0], *self.constants(builder, node)]
            builder.on_image(node, "CONV_2D", sources, picked=picked, **options)
            return
        image = builder.image_input(node, inputs[0], picked)
        output = builder.image_output(node)
        self.add_groups(builder, node, image, output, "CONV_2D", **options)
        builder.leave_image(node)


def _is_strided_1x1(node: FrozenNode) -> bool:
    """Returns whether an integer convolution of single pixels skips some of them.

    Float convolutions compute right everywhere.
    """
    sizes = node.trained.any_kernel.values.shape[:2]
    strided = max(node.trained.options["strides"]) > 1
    return set(sizes) == {1} and strided and not node.is_float


class Depthwise(KernelOperator):
    """Depthwise convolution: weights as [1, height, width, channels]."""

    order = (-1, 0, 1, 2)
    axis = 3

    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves every channel separately."""
        options = node.trained.options
        multiplier = options["depth_multiplier"]
        shape = (*kernel.shape[:2], kernel.shape[-1] // multiplier, multiplier)
        return _as_image(tf.nn.depthwise_conv2d)(
            x,
            tf.reshape(kernel, shape),
            [1, *options["strides"], 1],
            options["padding"],
            dilations=options["dilations"],
        )

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a DEPTHWISE_CONV_2D."""
        builder.on_image(
            node,
            "DEPTHWISE_CONV_2D",
            [inputs[0], *self.constants(builder, node)],
            depth_multiplier=node.trained.options["depth_multiplier"],
            fused_activation_function=FUSED[node.activation],
            **_strides(node),
        )


class TransposedConv(KernelOperator):
    """Transposed convolution: weights as [out, height, width, in]."""

    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Computes the transposed convolution."""
        options = node.trained.options
        sizes = image_shape(node.shape)[1:]
        return _as_image(tf.nn.conv2d_transpose)(
            x,
            tf.transpose(kernel, [0, 1, 3, 2]),
            tf.stack([tf.shape(x)[0], *sizes]),
            options["strides"],
            options["padding"],
        )

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a TRANSPOSE_CONV."""
        options = node.trained.options
        weight, bias = self.constants(builder, node)
        sizes = np.array(image_shape(node.shape), np.int32)
        image = node.name if len(node.shape) == 4 else f"{node.name}/image_output"
        shape = builder.constant(f"{image}/shape", sizes)
        builder.on_image(
            node,
            "TRANSPOSE_CONV",
            [inputs[0], bias],
            before=(shape, weight),
            padding=options["padding"],
            stride_h=int(options["strides"][0]),
            stride_w=int(options["strides"][1]),
            fused_activation_function=FUSED[node.activation],
        )

    def has_kernel(self, context: Context) -> bool:
        """Returns whether every output position has an input, as XNNPACK requires."""
        options = context.node.trained.options
        sizes = zip(options["kernel_size"], options["strides"], strict=True)
        gaps = any(size < stride for size, stride in sizes)
        return not (gaps and options["padding"] == "SAME")


class Dense(KernelOperator):
    """Fully connected: weights as [out, in]."""

    order = (1, 0)
    one_scale = True
    matrix = True

    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Multiplies vectors by a matrix."""
        return tf.tensordot(x, kernel, axes=[[-1], [0]])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a FULLY_CONNECTED, or one per group; keeps the axes before the last."""
        code, output = "FULLY_CONNECTED", builder.output(node)
        options = {
            "fused_activation_function": FUSED[node.activation],
            "keep_num_dims": len(node.shape) > 2,
            "asymmetric_quantize_inputs": False,
            "weights_format": "DEFAULT",
        }
        if node.split:
            self.add_groups(builder, node, inputs[0], output, code, **options)
            return
        sources = [inputs[0], *self.constants(builder, node)]
        builder.op(code, sources, output, **options)


class Pointwise(Dense):
    """A 1x1 convolution as a fully connected layer per pixel: weights as [out, in].

    XNNPACK has packed kernels for it, but not for convolutions.
    """

    one_scale = False

    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Multiplies vectors by a matrix, or the vectors of each group by its own."""
        matrices = tf.split(tf.reshape(kernel, kernel.shape[-2:]), node.groups, axis=-1)
        vectors = tf.split(x, node.groups, axis=-1)
        multiply = super().product
        pairs = zip(vectors, matrices, strict=True)
        return tf.concat([multiply(node, *pair) for pair in pairs], axis=-1)

    def in_file(self, kernel: np.ndarray) -> np.ndarray:
        """Returns the kernel as a matrix in the order of the file."""
        return super().in_file(kernel.reshape(kernel.shape[-2:]))

    def channels_last(self, data: np.ndarray) -> np.ndarray:
        """Returns the codes of a file in the shape of a 1x1 convolution."""
        return super().channels_last(data)[np.newaxis, np.newaxis]


class Affine(KernelOperator):
    """Separate batch norm or scaling: a 1x1 depthwise convolution."""

    order = (-1, 0, 1, 2)
    axis = 3

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Normalizes, or scales."""
        return node.trained.scaling.apply(inputs[0])

    def product(self, node: FrozenNode, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Multiplies every channel."""
        return x * kernel[0, 0]

    def _products(self, context: Context) -> Compute:
        """Returns input codes times 127, the only code of the kernel."""
        return lambda inputs: tf.cast(inputs[0], tf.int64) * INT8_MAX

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a DEPTHWISE_CONV_2D."""
        builder.on_image(
            node,
            "DEPTHWISE_CONV_2D",
            [inputs[0], *self.constants(builder, node)],
            depth_multiplier=1,
            fused_activation_function=FUSED[node.activation],
            padding="VALID",
            stride_h=1,
            stride_w=1,
            **_NO_DILATION,
        )


class HardSigmoid(Affine):
    """Hard sigmoid: a scaling; its grid ends at 0 and 1, where integers saturate."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Clips a line."""
        slope = node.trained.options["slope"]
        return tf.clip_by_value(slope * inputs[0] + 0.5, 0.0, 1.0)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the scaling; in float, the line and its limits."""
        if not node.is_float:
            super().write(builder, node, inputs)
            return
        slope = node.trained.options["slope"]
        constants = {"slope": slope, "offset": 0.5, "one": 1.0}
        names = {
            name: builder.constant(f"{node.name}/{name}", np.array([value], np.float32))
            for name, value in constants.items()
        }
        scaled = builder.tensor(f"{node.name}/scaled", node.shape, None)
        plain = {"fused_activation_function": "NONE"}
        builder.op("MUL", [inputs[0], names["slope"]], scaled, **plain)
        line = builder.tensor(f"{node.name}/line", node.shape, None)
        relu = {"fused_activation_function": "RELU"}
        builder.op("ADD", [scaled, names["offset"]], line, **relu)
        builder.op("MINIMUM", [line, names["one"]], builder.output(node))


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "conv": Conv(),
    "depthwise": Depthwise(),
    "transposed_conv": TransposedConv(),
    "dense": Dense(),
    "pointwise": Pointwise(),
    "affine": Affine(),
    "hard_sigmoid": HardSigmoid(),
}
