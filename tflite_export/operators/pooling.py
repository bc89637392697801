"""Pooling and reductions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..freezing import ONE_IN_INT16, FrozenNode, Grid
from ..runtimes import arithmetic
from .base import Compute, Context, MovingOperator, Operator, integers_of
from .builder import Builder, per_tensor


class Pool(Operator):
    """A pooling operator; 1D tensors are images of height 1.

    Attributes:
        code: Name of the TFLite operator.
    """

    code: ClassVar[str]

    def pooled(
        self, function: Callable[..., tf.Tensor], node: FrozenNode, x: tf.Tensor
    ) -> tf.Tensor:
        """Pools images or 1D tensors.

        Args:
            function: TensorFlow's pooling function for images.
            node: The operator.
            x: Its input.
        """
        options = node.trained.options
        flat = x.shape.rank == 3
        images = x[:, tf.newaxis] if flat else x
        settings = (options["size"], options["strides"], options["padding"])
        result = function(images, *settings)
        return result[:, 0] if flat else result

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the pooling of an image."""
        options = node.trained.options
        builder.on_image(
            node,
            self.code,
            inputs,
            padding=options["padding"],
            stride_h=int(options["strides"][0]),
            stride_w=int(options["strides"][1]),
            filter_height=int(options["size"][0]),
            filter_width=int(options["size"][1]),
            fused_activation_function="NONE",
        )


class MaxPool(Pool, MovingOperator):
    """Largest value of every window."""

    code = "MAX_POOL_2D"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Compares."""
        return self.pooled(tf.nn.max_pool2d, node, inputs[0])


class AveragePool(Pool):
    """Mean of every window."""

    code = "AVERAGE_POOL_2D"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Averages."""
        return self.pooled(tf.nn.avg_pool2d, node, inputs[0])

    def integers(self, context: Context) -> Compute:
        """Sums codes, and divides by their count."""
        node, zero_point = context.node, context.grid.zero_point
        count = _pool_counts(context)

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            average = self.exact(node, [tf.cast(inputs[0], tf.float64)])
            acc = integers_of(tf.round(average * tf.cast(count, tf.float64)))
            raw = arithmetic.rounded_average(acc + count * zero_point, count)
            return context.limited(raw - zero_point)

        return compute


def _pool_counts(context: Context) -> tf.Tensor:
    """Returns how many image pixels are in each window of a pooling, int64."""
    options, shape = context.node.trained.options, context.sources[0].shape
    counts = []
    spatial = shape[1:-1] if len(shape) == 4 else (1, *shape[1:-1])
    for size, window, stride in zip(
        spatial, options["size"], options["strides"], strict=True
    ):
        inside = tf.ones([1, size, 1])
        total = tf.nn.conv1d(
            inside, tf.ones([window, 1, 1]), stride, options["padding"]
        )
        counts.append(tf.cast(tf.reshape(total, [-1]), tf.int64))
    grid = (counts[0][:, None] * counts[1])[..., None]
    return grid if len(shape) == 4 else grid[0]


class Reduce(Operator):
    """A reduction over axes.

    Attributes:
        code: Name of the TFLite operator.
    """

    code: ClassVar[str]

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds the reduction."""
        self.reduce(builder, node, self.code, inputs[0], builder.output(node))

    def reduce(
        self, builder: Builder, node: FrozenNode, code: str, source: str, output: str
    ) -> None:
        """Adds one reduction over the axes of the operator.

        Args:
            builder: Builder of the graph.
            node: The operator.
            code: Name of the TFLite operator.
            source: Its input tensor.
            output: Its output tensor.
        """
        options = node.trained.options
        axes = builder.constant(f"{node.name}/axes", np.int32(options["axes"]))
        builder.op(code, [source, axes], output, keep_dims=options["keepdims"])


class ReduceMax(Reduce, MovingOperator):
    """Largest value over axes."""

    code = "REDUCE_MAX"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Compares."""
        return _reduced(tf.reduce_max, node, inputs[0])


class ReduceMin(Reduce, MovingOperator):
    """Smallest value over axes."""

    code = "REDUCE_MIN"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Compares."""
        return _reduced(tf.reduce_min, node, inputs[0])


class Sum(Reduce):
    """Sum over axes."""

    code = "SUM"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Adds up."""
        return _reduced(tf.reduce_sum, node, inputs[0])

    def integers(self, context: Context) -> Compute:
        """Sums codes, and rounds."""
        if context.in_int16:
            return _sums_in_int16(context, context.scales[-1])
        scales = context.scales
        zeros = context.source_grid.zero_point, context.grid.zero_point
        count = _reduced_count(context.node, context.sources[0])
        requantize = context.requantize(np.float64(scales[0]) / np.float64(scales[1]))

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            acc = _reduced(tf.reduce_sum, context.node, integers_of(inputs[0]))
            raw, ratio = acc + count * zeros[0], scales[0] / scales[1]
            if context.runtime.fixed_sum:
                return context.limited(requantize(acc))
            if context.family == "builtin":
                total = arithmetic.away_sum(raw, count, ratio, zeros[0])
                return context.limited(total)
            # A sum is a mean of one value with as many zero points.
            total = arithmetic.float_mean(
                raw,
                1,
                ratio,
                (count * zeros[0], zeros[1]),
                fused=context.runtime.fused_mean,
            )
            return context.limited(total - zeros[1])

        return compute


class Mean(Reduce):
    """Mean over axes."""

    code = "MEAN"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Averages."""
        return _reduced(tf.reduce_mean, node, inputs[0])

    def integers(self, context: Context) -> Compute:
        """Sums codes, divides, and rounds."""
        if context.in_int16:
            return self._in_int16(context)
        options, shape = context.node.trained.options, context.sources[0].shape
        count = _reduced_count(context.node, context.sources[0])
        scales = context.scales
        zeros = context.source_grid.zero_point, context.grid.zero_point
        axes = sorted(options["axes"])
        image = len(shape) == 4 and axes == [1, 2] and options["keepdims"]

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            acc = _reduced(tf.reduce_sum, context.node, integers_of(inputs[0]))
            raw = acc + count * zeros[0]
            ratio = scales[0] / scales[1]
            if context.family == "xnnpack":
                mean = arithmetic.float_mean(
                    raw, count, ratio, zeros, fused=context.runtime.fused_mean
                )
                mean = mean - zeros[1]
            elif image and context.runtime.image_mean:
                mean = arithmetic.fixed_image_mean(raw, count, scales, zeros)
                mean = mean - zeros[1]
            else:
                exact = np.float64(scales[0]) / np.float64(scales[1])
                mean = arithmetic.fixed_mean(acc, count, exact)
            return context.limited(mean)

        return compute

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a MEAN; in int16 a SUM and a MUL, which are much faster, and round once.

        The sum is on the grid of the mean times the number of values.
        """
        source = builder.nodes[node.inputs[0]]
        if node.grid is None or not node.grid.in_int16:
            super().write(builder, node, inputs)
            return
        count = _reduced_count(node, source)
        grid = dataclasses.replace(node.grid, scale=_scale_of_sum(node.grid, count))
        total = builder.tensor(f"{node.name}/sum", node.shape, grid)
        self.reduce(builder, node, "SUM", inputs[0], total)
        share = builder.constant(
            f"{node.name}/share",
            np.array([ONE_IN_INT16], np.int16),
            per_tensor(_share(count), 0),
        )
        plain = {"fused_activation_function": "NONE"}
        builder.op("MUL", [total, share], builder.output(node), **plain)

    def _in_int16(self, context: Context) -> Compute:
        """Sums codes, and multiplies by the share of one value."""
        count = _reduced_count(context.node, context.sources[0])
        scale = np.float32(_scale_of_sum(context.grid, count))
        total = _sums_in_int16(context, scale)
        requantize = context.requantize(
            context.product(scale, np.float32(_share(count)))
        )
        return lambda inputs: context.limited(
            requantize(integers_of(total(inputs)) * ONE_IN_INT16)
        )


def _scale_of_sum(grid: Grid, count: int) -> float:
    """Returns the scale of a sum whose codes are those of the mean."""
    return float(np.float32(grid.scale * count))


def _share(count: int) -> float:
    """Returns the scale of the constant by which a sum becomes a mean."""
    return float(np.float32(1.0 / (count * ONE_IN_INT16)))


def _sums_in_int16(context: Context, scale: np.float32) -> Compute:
    """Returns sums of codes, on a scale; LiteRT multiplies them in float32."""
    source = context.scales[0]
    requantize = context.requantize(np.float64(source) / np.float64(scale))
    count = _reduced_count(context.node, context.sources[0])

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        acc = _reduced(tf.reduce_sum, context.node, integers_of(inputs[0]))
        if context.runtime.fixed_sum:
            return context.limited(requantize(acc))
        return context.limited(arithmetic.away_sum(acc, count, source / scale, 0))

    return compute


def _reduced_count(node: FrozenNode, source: FrozenNode) -> int:
    """Returns how many values are reduced to one."""
    axes = node.trained.options["axes"]
    return int(np.prod([source.shape[axis] for axis in axes]))


def _reduced(function: Any, node: FrozenNode, x: tf.Tensor) -> tf.Tensor:
    """Reduces a tensor over the axes of a node."""
    options = node.trained.options
    return function(x, axis=options["axes"], keepdims=options["keepdims"])


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "max_pool": MaxPool(),
    "average_pool": AveragePool(),
    "reduce_max": ReduceMax(),
    "reduce_min": ReduceMin(),
    "sum": Sum(),
    "mean": Mean(),
}
