"""TF-MOT `Quantizer` classes that wrap `lsq`.

A quantizer holds only settings. Its variables live in the layer that builds it,
under the name of what is quantized (`kernel`, `activation`, ...):

    <name>_step        trainable, the learned factor of the step, 1 at first
    <name>_step_unit   not trainable, first value of the step, 0 until it is known
    <name>_signed      not trainable, 1 if the first batch had negative values;
                       only if the graph does not decide it
    <name>_offset      trainable, where the range begins (LSQ+); only if asymmetric

The step in the unit of the values is ``lsq.learned_step(step, step_unit)``.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .. import lsq
from .._compat import infers_shapes_only, keras, tfmot
from ..lsq import fast, lsq_plus

Variables = dict[str, tf.Variable]
_ALL_SUMS = fast.OwnSums()


@keras.utils.register_keras_serializable(package="tf_lsq")
class KeepPositive(keras.constraints.Constraint):
    """Keeps the learned factor of a step above its lower bound."""

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """Returns `w`, at least `lsq.MIN_STEP_FACTOR`."""
        return tf.maximum(w, tf.cast(lsq.MIN_STEP_FACTOR, w.dtype))


class KeepBelow(KeepPositive):
    """Also keeps the step at or below its largest value.

    A larger factor has no effect, and would have to shrink again to have one.

    Args:
        unit: First value of the step, 0 until it is known.
        max_step: Largest value of the step.
    """

    def __init__(self, unit: tf.Variable, max_step: float) -> None:
        self.unit, self.max_step = unit, max_step

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """Returns `w`, at most ``max_step / unit``."""
        unit = tf.convert_to_tensor(self.unit)
        largest = tf.where(unit > 0.0, self.max_step / unit, 1.0)
        return super().__call__(tf.minimum(w, largest))


class KeepAbove(KeepPositive):
    """Also keeps the step at or above its smallest value.

    It stays above it by a rounding, because no gradient passes to a step below it.

    Args:
        unit: First value of the step, 0 until it is known.
        min_step: Smallest value of the step.
    """

    def __init__(self, unit: tf.Variable, min_step: float) -> None:
        self.unit, self.min_step = unit, min_step

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """Returns `w`, at least ``min_step / unit``."""
        unit = tf.convert_to_tensor(self.unit)
        least = self.min_step * (1.0 + 2.0**-20)
        smallest = tf.where(unit > 0.0, least / unit, 0.0)
        return super().__call__(tf.maximum(w, smallest))


@keras.utils.register_keras_serializable(package="tf_lsq")
class KeepInRange(keras.constraints.Constraint):
    """Keeps a learned offset at most one range width below 0, and not above 0."""

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        """Returns `w`, from -1 to 0."""
        return tf.clip_by_value(w, -1.0, 0.0)


class _LSQQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Base class of weight and activation quantizers: variables, first value, call."""

    num_bits: int
    step_init: str

    @abc.abstractmethod
    def integer_range(self, weights: Variables) -> lsq.IntegerRange:
        """Returns the integers that this quantizer may use."""

    def range_when_traced(self, weights: Variables) -> lsq.IntegerRange:
        """Returns the range for a graph that is being built."""
        return self.integer_range(weights)

    @abc.abstractmethod
    def gradient_scale(self, inputs: tf.Tensor, q_max: Any) -> Any:
        """Returns the paper's g for these inputs."""

    def _add_variables(
        self, name: str, layer: keras.layers.Layer, step_shape: tuple[int, ...]
    ) -> Variables:
        """Creates the variables of one quantizer in `layer`."""
        unit = layer.add_weight(
            name=f"{name}_step_unit",
            shape=step_shape,
            initializer="zeros",
            dtype=tf.float32,
            trainable=False,
            experimental_autocast=False,
        )
        constraint = KeepPositive()
        if not math.isinf(self._max_step()):
            constraint = KeepBelow(unit, self._max_step())
        elif self._min_step() > 0.0:
            constraint = KeepAbove(unit, self._min_step())
        step = layer.add_weight(
            name=f"{name}_step",
            shape=step_shape,
            initializer="ones",
            dtype=tf.float32,
            trainable=True,
            constraint=constraint,
            experimental_autocast=False,
        )
        return {"step": step, "unit": unit}

    @tf.autograph.experimental.do_not_convert
    def __call__(
        self,
        inputs: tf.Tensor,
        training: Any,
        weights: Variables,
        *,
        plain_op: bool = False,
        own_sums: fast.OwnSums = _ALL_SUMS,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Returns `inputs` rounded to the quantizer's grid.

        Args:
            inputs: Float values.
            training: Whether the layer trains; only in training can `inputs` be
                the first batch.
            weights: The variables that `build` returned.
            plain_op: Whether to use `lsq.fake_quantize` even where `fast` has a
                faster implementation.
            own_sums: See `fast.fake_quantize`.
            **kwargs: Ignored, part of TF-MOT's interface.

        Returns:
            Same shape, dtype and unit as `inputs`.

        Raises:
            RuntimeError: If the step has no value yet and may not be
                initialised from these inputs.
        """
        if infers_shapes_only():
            return tf.identity(inputs)
        ready = self._ensure_initialised(inputs, training, weights)
        with tf.control_dependencies(ready):
            integer_range = self.range_when_traced(weights)
            step = self.step(weights) if own_sums.step is None else own_sums.step
            if "offset" in weights:
                return self._asymmetric(inputs, step, weights)
            is_fast = not plain_op and fast.is_supported(inputs, step, integer_range)
            scale = self.gradient_scale(inputs, integer_range.q_max)
            if is_fast:
                return fast.fake_quantize(
                    inputs,
                    step,
                    integer_range,
                    gradient_scale=scale,
                    own_sums=own_sums,
                )
            return lsq.fake_quantize(inputs, step, integer_range, gradient_scale=scale)

    def step(self, weights: Variables) -> tf.Tensor:
        """Returns the step, in the unit of the quantized values."""
        step = lsq.learned_step(weights["step"], weights["unit"], self._max_step())
        return tf.maximum(step, self._min_step()) if self._min_step() else step

    def _min_step(self) -> float:
        """Returns the smallest allowed step."""
        return 0.0

    def _max_step(self) -> float:
        """Returns the largest allowed step."""
        return math.inf

    def initialise(self, inputs: tf.Tensor, weights: Variables) -> None:
        """Sets the step (and the signedness or offset, if undecided) from `inputs`."""
        for name, value in self.first_values(inputs, weights).items():
            weights[name].assign(value)

    def first_values(
        self, inputs: tf.Tensor, weights: Variables
    ) -> dict[str, tf.Tensor]:
        """Returns the values that `initialise` sets, by the name of the variable."""
        values = {}
        if "signed" in weights:
            negative = tf.reduce_any(inputs < tf.cast(0, inputs.dtype))
            values["signed"] = tf.cast(negative, tf.float32)
        unit = lsq.initial_step(
            inputs,
            self.integer_range({**weights, **values}),
            step_shape=tuple(weights["unit"].shape),
            method=self.step_init,
        )
        unit = tf.maximum(tf.minimum(unit, self._max_step()), self._min_step())
        return {**values, "unit": unit, "step": tf.ones_like(unit)}

    def _may_initialise(self, training: Any) -> bool:
        """Returns whether a call may take its inputs as the first batch."""
        raise NotImplementedError

    def _ensure_initialised(
        self, inputs: tf.Tensor, training: Any, weights: Variables
    ) -> list[tf.Operation]:
        """Initialises the step if it has no value; returns ops to wait for."""
        if is_initialised(weights):
            return []
        allowed = self._may_initialise(training)
        if tf.executing_eagerly():
            if not allowed:
                raise RuntimeError(_not_calibrated(weights))
            self.initialise(inputs, weights)
            return []
        if allowed and tf.distribute.has_strategy():
            raise RuntimeError(
                f"{_not_calibrated(weights)} Under tf.distribute a step cannot be "
                "initialised inside a compiled training step."
            )
        missing = tf.reduce_any(weights["unit"] <= 0.0)
        if allowed:
            return [tf.cond(missing, _effect(self.initialise, inputs, weights), _no)]
        return [tf.debugging.Assert(~missing, [_not_calibrated(weights)])]

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def is_initialised(weights: Variables) -> bool:
    """Returns whether the variables of one quantizer have their first value.

    Inside a function that is being traced, this reads the variable's value at
    trace time, so a trained model contains no conditional.
    """
    with tf.init_scope():
        if not tf.executing_eagerly():
            return False
        return bool(tf.reduce_all(weights["unit"] > 0.0))


def _effect(function: Callable[..., None], *args: Any) -> Callable[[], tf.Tensor]:
    """Wraps a function called for its side effect as a branch of `tf.cond`."""

    def branch() -> tf.Tensor:
        function(*args)
        return tf.constant(True)

    return branch


def _no() -> tf.Tensor:
    """No-op branch for `tf.cond`."""
    return tf.constant(False)


def _not_calibrated(weights: Variables) -> str:
    """Returns the message for a quantizer without a first value."""
    name = weights["unit"].name.split(":")[0].removesuffix("_step_unit")
    return (
        f"The quantizer `{name}` has no step yet: the model has neither been "
        "trained nor calibrated. Train it, or call `tf_lsq.calibrate(model, data)`."
    )


@keras.utils.register_keras_serializable(package="tf_lsq")
@dataclasses.dataclass(frozen=True)
class LSQWeightQuantizer(_LSQQuantizer):
    """Quantizes a weight with one learned step, or one per channel.

    Attributes:
        num_bits: Bits of one integer, 2 to 8.
        channel_axis: Axes of the weight with one step per index, or None for
            one step per tensor (the paper's setting).
        step_init: First value of the step, see `lsq.initial_step`.

    References:
        Esser et al., Section 2, https://arxiv.org/abs/1902.08153
    """

    num_bits: int = 4
    channel_axis: tuple[int, ...] | None = None
    step_init: str = "mse"

    def __post_init__(self) -> None:
        """Checks the settings."""
        lsq.check_num_bits(self.num_bits)
        lsq.check_step_init(self.step_init)
        if self.channel_axis is not None:
            object.__setattr__(self, "channel_axis", tuple(self.channel_axis))

    def build(
        self, tensor_shape: Any, name: str, layer: keras.layers.Layer
    ) -> Variables:
        """Creates the variables; see the module docstring for their names."""
        return self._add_variables(name, layer, self._step_shape(tensor_shape))

    def integer_range(self, weights: Variables) -> lsq.IntegerRange:
        """Returns the signed range of `num_bits`, narrow at 8 bits."""
        return lsq.weight_range(self.num_bits)

    def _step_shape(self, tensor_shape: Any) -> tuple[int, ...]:
        """Returns `()`, or size 1 on every axis that shares a step."""
        if self.channel_axis is None:
            return ()
        axes = [axis % len(tensor_shape) for axis in self.channel_axis]
        return tuple(
            size if axis in axes else 1 for axis, size in enumerate(tensor_shape)
        )

    def gradient_scale(self, inputs: tf.Tensor, q_max: Any) -> float:
        """Returns the paper's g, from the elements that share one step."""
        shape: Any = inputs.shape.as_list()
        shared = math.prod(shape) // math.prod(self._step_shape(shape))
        return lsq.step_gradient_scale(shared, q_max)

    def _may_initialise(self, training: Any) -> bool:
        """Returns True: weights are known at any time."""
        return True


@keras.utils.register_keras_serializable(package="tf_lsq")
@dataclasses.dataclass(frozen=True)
class LSQActivationQuantizer(_LSQQuantizer):
    """Quantizes an activation with one learned step.

    Attributes:
        num_bits: Bits of one integer, 2 to 16; more than 8 are int16 in a file.
        signed: Whether values can be negative. None: the first batch decides.
        step_init: First value of the step, see `lsq.initial_step`.
        max_value: Unsigned values above it count as this value (6: the quantizer
            also acts as a ReLU6). The step is at most ``max_value / q_max``.
        asymmetric: Whether the range of a signed activation has a learned offset, see
            `lsq_plus`.
        min_step: Smallest step; 0: any.

    References:
        Esser et al., Section 2, https://arxiv.org/abs/1902.08153
    """

    num_bits: int = 4
    signed: bool | None = None
    step_init: str = "mse"
    max_value: float | None = None
    asymmetric: bool = False
    min_step: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        lsq.check_num_bits(self.num_bits, most=lsq.MAX_ACTIVATION_BITS)
        lsq.check_step_init(self.step_init)
        if self.max_value is not None and self.signed is not False:
            raise ValueError(
                "A quantizer with a `max_value` must be unsigned. "
                f"Received: max_value={self.max_value}, signed={self.signed}."
            )
        if self.asymmetric and not self.signed:
            raise ValueError(
                "An asymmetric quantizer must be signed. "
                f"Received: asymmetric=True, signed={self.signed}."
            )
        if self.asymmetric and self.num_bits > lsq.MAX_NUM_BITS:
            raise ValueError(
                f"An asymmetric quantizer must have at most {lsq.MAX_NUM_BITS} bits: "
                "int16 tensors of TFLite have zero points of 0. "
                f"Received: asymmetric=True, num_bits={self.num_bits}."
            )

    def build(
        self, tensor_shape: Any, name: str, layer: keras.layers.Layer
    ) -> Variables:
        """Creates the variables; needs no shape, as TF-MOT may pass none."""
        variables = self._add_variables(name, layer, ())
        scalar = functools.partial(
            layer.add_weight,
            shape=(),
            initializer="zeros",
            dtype=tf.float32,
            experimental_autocast=False,
        )
        if self.asymmetric:
            variables["offset"] = scalar(
                name=f"{name}_offset", trainable=True, constraint=KeepInRange()
            )
        if self.signed is None:
            variables["signed"] = scalar(name=f"{name}_signed", trainable=False)
        return variables

    def integer_range(self, weights: Variables) -> lsq.IntegerRange:
        """Returns the range; as tensors if it is learned or the data decides it."""
        if self.asymmetric:
            return lsq_plus.offset_range(
                self.offset(weights), self.step(weights), self.num_bits
            )
        if self.signed is not None:
            return lsq.activation_range(self.num_bits, signed=self.signed)
        ranges = (lsq.activation_range(self.num_bits, signed=s) for s in (True, False))
        wide, positive = ranges
        is_signed = weights["signed"] > 0.0
        return lsq.IntegerRange(
            tf.where(is_signed, float(wide.q_min), 0.0),
            tf.where(is_signed, float(wide.q_max), float(positive.q_max)),
        )

    def offset(self, weights: Variables) -> tf.Tensor:
        """Returns the value of the smallest integer, not yet on the grid."""
        return lsq_plus.learned_offset(
            weights["offset"], weights["unit"], self.num_bits
        )

    def _asymmetric(
        self, inputs: tf.Tensor, step: tf.Tensor, weights: Variables
    ) -> tf.Tensor:
        """Returns `inputs` on the grid that begins at the offset."""
        scale = self.gradient_scale(inputs, lsq_plus.num_levels(self.num_bits))
        return lsq_plus.fake_quantize(
            inputs, step, self.offset(weights), self.num_bits, gradient_scale=scale
        )

    def range_when_traced(self, weights: Variables) -> lsq.IntegerRange:
        """Returns plain integers if the first batch has already decided them."""
        if self.signed is not None or not is_initialised(weights):
            return self.integer_range(weights)
        with tf.init_scope():
            signed = bool(weights["signed"] > 0.0)
        return lsq.activation_range(self.num_bits, signed=signed)

    def gradient_scale(self, inputs: tf.Tensor, q_max: Any) -> Any:
        """Returns the paper's g, from the features of one example without the batch."""
        if self.asymmetric:
            q_max = lsq_plus.num_levels(self.num_bits)
        features: Any = inputs.shape[1:].num_elements()
        if features is None:
            features = tf.reduce_prod(tf.shape(inputs)[1:])
        if isinstance(features, int) and isinstance(q_max, int):
            return lsq.step_gradient_scale(features, q_max)
        product = tf.cast(features, tf.float32) * tf.cast(q_max, tf.float32)
        return tf.math.rsqrt(product)

    def _min_step(self) -> float:
        """Returns the smallest allowed step."""
        return self.min_step

    def _max_step(self) -> float:
        """Returns the step at which the largest integer is the largest value."""
        if self.max_value is None:
            return math.inf
        return self.max_value / self.integer_range({}).q_max

    def first_values(
        self, inputs: tf.Tensor, weights: Variables
    ) -> dict[str, tf.Tensor]:
        """Returns the values that `initialise` sets; `max_value` limits `inputs`."""
        if self.asymmetric:
            unit, offset = lsq_plus.initial_values(
                inputs, self.num_bits, method=self.step_init
            )
            width = unit * lsq_plus.num_levels(self.num_bits)
            return {"unit": unit, "step": tf.ones_like(unit), "offset": offset / width}
        if self.max_value is not None:
            inputs = tf.minimum(inputs, tf.cast(self.max_value, inputs.dtype))
        return super().first_values(inputs, weights)

    def widened(self, unit: tf.Tensor, factor: float) -> tf.Tensor:
        """Returns a first step times a factor, limited to the largest allowed step."""
        return tf.minimum(factor * unit, self._max_step())

    def clipped(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns `inputs` unchanged, except for what a ReLU would remove."""
        if self.signed is not False:
            return inputs
        inputs = tf.nn.relu(inputs)
        if self.max_value is None:
            return inputs
        return tf.minimum(inputs, tf.cast(self.max_value, inputs.dtype))

    def _may_initialise(self, training: Any) -> bool:
        """Returns whether this is a training batch; only those set the step."""
        return isinstance(training, bool | int) and bool(training)
