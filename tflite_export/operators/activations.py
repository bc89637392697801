"""Activation functions that are separate operators."""

from __future__ import annotations

import abc

import numpy as np
import tensorflow as tf

from ..file import TensorQuantization, xnnpack_has
from ..freezing import (
    INT8_MAX,
    INT8_MIN,
    ONE,
    ONE_IN_INT16,
    FloatWeight,
    FrozenNode,
)
from ..runtimes import arithmetic, softmax, tables
from .base import (
    Compute,
    Context,
    MovingOperator,
    Operator,
    PlainOperator,
    integers_of,
    tabulated,
)
from .builder import FUSED, Builder, per_tensor
from .limits import write_limits

_SIDES = ("positive", "negative", "sloped")
_PLAIN = {"fused_activation_function": "NONE"}
_CODES = range(INT8_MIN, INT8_MAX + 1)
_EXCLUDED = -1e9  # What Keras adds to masked scores.


class Relu(Operator):
    """A ReLU that is not fused into another operator."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns its input; the fused activation does the rest."""
        return inputs[0]

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a change of scale, as the kernel of RELU rounds twice in one call."""
        if not node.is_float:
            builder.rescale(node, inputs)
            return
        builder.op(FUSED[node.activation], inputs, builder.output(node))

    def integers(self, context: Context) -> Compute:
        """Changes the scale."""
        return context.rescaled()


class Clip(Relu):
    """Limits other than those of a ReLU."""

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a change of scale; in float the limits."""
        if node.is_float:
            write_limits(builder, node, inputs[0])
        else:
            builder.rescale(node, inputs)


class TableOperator(PlainOperator):
    """A function of one number, which kernels look up in a table of 256 codes."""

    @abc.abstractmethod
    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Returns the function of every value, float32."""

    def has_kernel(self, context: Context) -> bool:
        """Returns whether XNNPACK has the function."""
        return xnnpack_has(self.code)

    def integers(self, context: Context) -> Compute:
        """Looks up every code."""
        grid, (source, output) = context.source_grid, context.scales
        codes = np.arange(INT8_MIN, INT8_MAX + 1) - grid.zero_point
        values = self.function(codes.astype(np.float32) * source, context)
        zero_point = context.grid.zero_point
        table = tables.to_codes(values, output, zero_point, context.family)
        return lambda inputs: context.limited(
            arithmetic.look_up(integers_of(inputs[0]) + grid.zero_point, table)
        )


class Sigmoid(TableOperator):
    """Logistic function."""

    code = "LOGISTIC"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the sigmoid."""
        return tf.sigmoid(inputs[0])

    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Computes the sigmoid."""
        return tables.sigmoid(x, context.family)


class Tanh(TableOperator):
    """Hyperbolic tangent."""

    code = "TANH"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the tangent."""
        return tf.tanh(inputs[0])

    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Computes the tangent."""
        return tables.tanh(x, own=context.runtime.own_math)


class Elu(TableOperator):
    """Exponential linear unit."""

    code = "ELU"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the ELU."""
        return tf.nn.elu(inputs[0])

    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Computes the ELU."""
        return tables.elu(x, own=context.runtime.own_math)


class Exp(TableOperator):
    """Exponential function."""

    code = "EXP"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the power."""
        return tf.exp(inputs[0])

    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Computes the power."""
        return tables.exp(x, own=context.runtime.own_math)


class Log(TableOperator):
    """Natural logarithm."""

    code = "LOG"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the logarithm, as trained where there is none."""
        return node.trained.tabulated(inputs[0])

    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Computes the logarithm."""
        return tables.log(x, own=context.runtime.own_math)


class Gelu(TableOperator):
    """Gaussian error linear unit."""

    code = "GELU"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the GELU."""
        return tf.nn.gelu(inputs[0], _is_approximate(node))

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds one operator."""
        output = builder.output(node)
        builder.op("GELU", inputs, output, approximate=_is_approximate(node))

    def function(self, x: np.ndarray, context: Context) -> np.ndarray:
        """Computes the GELU."""
        own, approximate = context.runtime.own_math, _is_approximate(context.node)
        return tables.gelu(x, approximate=approximate, own=own)


def _is_approximate(node: FrozenNode) -> bool:
    """Returns whether a GELU is the form with the hyperbolic tangent."""
    return bool(node.trained.options.get("approximate", False))


class Table(Operator):
    """Any function of one number, as its results for all codes of the input."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the function."""
        return node.trained.tabulated(inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds CAST, ADD and GATHER: codes become places in the table."""
        source, grid = builder.nodes[node.inputs[0]], node.integer_grid
        codes = tabulated(node, source.integer_grid, _CODES)
        table = builder.constant(
            f"{node.name}/table", codes, per_tensor(grid.scale, grid.zero_point)
        )
        first = builder.constant(f"{node.name}/first", np.array([-INT8_MIN], np.int32))
        code, place = (
            builder.tensor(f"{node.name}/{name}", source.shape, None, "int32")
            for name in ("code", "place")
        )
        builder.cast(inputs[0], code)
        builder.op("ADD", [code, first], place, **_PLAIN, pot_scale_int16=False)
        builder.op("GATHER", [table, place], builder.output(node), axis=0, batch_dims=0)

    def integers(self, context: Context) -> Compute:
        """Looks up every code."""
        grid, zero_point = context.source_grid, context.grid.zero_point
        codes = tabulated(context.node, grid, _CODES)
        table = codes.astype(np.int64) - zero_point
        return lambda inputs: context.limited(
            arithmetic.look_up(integers_of(inputs[0]) + grid.zero_point, table)
        )


class Softmax(Operator):
    """Softmax over the last axis."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the softmax."""
        return tf.nn.softmax(_beta(node) * inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds one operator."""
        builder.op("SOFTMAX", inputs, builder.output(node), beta=_beta(node))

    def integers(self, context: Context) -> Compute:
        """Computes the softmax as the kernel of the runtime does."""
        (source, output), beta = context.scales, _beta(context.node)
        kind = context.runtime.softmax
        if context.grid.in_int16:
            kind = "floats"  # On every processor.
        return lambda inputs: context.limited(
            softmax.compute(kind, integers_of(inputs[0]), source, output, beta)
        )


def _beta(node: FrozenNode) -> float:
    """Returns the factor of a softmax's input."""
    return float(node.trained.options.get("beta", 1.0))


class Mask(Operator):
    """Scores without those that a constant mask excludes, which get the smallest code.

    In float, they are those that Keras subtracts a large number from.
    """

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Masks."""
        kept = node.trained.options["mask"]
        if node.is_float:
            return inputs[0] + np.where(kept, 0.0, _EXCLUDED)
        grid = node.integer_grid
        excluded = np.float64(grid.scale) * (grid.low - grid.zero_point)
        return tf.where(kept, inputs[0], excluded)

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds a MINIMUM with the largest code of every score; in float, an ADD."""
        kept, output = node.trained.options["mask"], builder.output(node)
        if node.is_float:
            numbers = np.where(kept, 0.0, _EXCLUDED).astype(np.float32)
            mask = builder.constant(f"{node.name}/mask", numbers)
            builder.op("ADD", [inputs[0], mask], output, **_PLAIN)
            return
        grid = node.integer_grid
        codes = np.where(kept, grid.high, grid.low).astype(np.int8)
        quantization = per_tensor(grid.scale, grid.zero_point)
        mask = builder.constant(f"{node.name}/mask", codes, quantization)
        builder.op("MINIMUM", [inputs[0], mask], output)

    def integers(self, context: Context) -> Compute:
        """Masks."""
        grid, kept = context.grid, context.node.trained.options["mask"]
        excluded = float(grid.low - grid.zero_point)
        return lambda inputs: tf.where(kept, inputs[0], excluded)


class Abs(PlainOperator, MovingOperator):
    """Absolute value; the kernel is exact only on the scale of the input."""

    code = "ABS"

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Computes the absolute value."""
        return tf.abs(inputs[0])


class PRelu(Operator):
    """Leaky ReLU, with a constant slope or trained slopes."""

    def exact(self, node: FrozenNode, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Multiplies negative values by the slope."""
        slope = np.float64(node.trained.options.get("slope", 0.0))
        if node.trained.kernel is not None:
            slope = node.trained.kernel.real_values()
        return tf.nn.relu(inputs[0]) - slope * tf.nn.relu(-inputs[0])

    def write(self, builder: Builder, node: FrozenNode, inputs: list[str]) -> None:
        """Adds each side of zero separately, then their sum.

        The kernel of PRELU rounds twice where it changes the scale. So each side is
        moved to the grid of the output separately; their sum is exact, as one of them
        is zero.
        """
        name = f"{node.name}/weight"
        if isinstance(node.weight, FloatWeight):
            slope = builder.constant(name, node.weight.values.astype(np.float32))
            builder.op("PRELU", [inputs[0], slope], builder.output(node))
            return
        weight = node.integer_weight
        quantization = TensorQuantization(weight.codes.scale, 0, 0)
        grid = builder.nodes[node.inputs[0]].integer_grid
        container = grid.container
        slope = builder.constant(
            name, weight.codes.codes.astype(container), quantization
        )
        positive, negative, sloped = (f"{node.name}/{side}" for side in _SIDES)
        zero = builder.constant(
            f"{node.name}/zero",
            np.array([grid.zero_point], container),
            per_tensor(grid.scale, grid.zero_point),
        )
        builder.tensor(negative, node.shape, grid)
        builder.op("MINIMUM", [inputs[0], zero], negative)
        builder.tensor(sloped, node.shape, node.grid)
        builder.op("MUL", [negative, slope], sloped, **_PLAIN)
        builder.op(
            "MUL",
            [inputs[0], builder.one(container)],
            builder.tensor(positive, node.shape, node.grid),
            fused_activation_function="RELU",
        )
        output = builder.output(node)
        builder.op("ADD", [positive, sloped], output, **_PLAIN, pot_scale_int16=False)

    def integers(self, context: Context) -> Compute:
        """Rounds each side of zero separately."""
        source, weight = context.scales[0], context.node.integer_weight.codes
        one = ONE_IN_INT16 if context.in_int16 else ONE
        keep = context.requantize(context.product(source, np.float32(1.0 / one)))
        tilt = context.requantize(context.product(source, weight.scale[0]))
        slope = tf.constant(weight.codes)

        def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
            codes = integers_of(inputs[0])
            positive = context.limited(keep(codes * one))
            sloped = context.limited(tilt(codes * slope))
            return tf.where(codes >= 0, positive, sloped)

        return compute

    def channels_last(self, data: np.ndarray) -> np.ndarray:
        """Returns the codes of a file, which already have this order."""
        return data


# Kind -> its operator.
OPERATORS: dict[str, Operator] = {
    "relu": Relu(),
    "clip": Clip(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "elu": Elu(),
    "exp": Exp(),
    "gelu": Gelu(),
    "log": Log(),
    "table": Table(),
    "softmax": Softmax(),
    "mask": Mask(),
    "abs": Abs(),
    "prelu": PRelu(),
}
