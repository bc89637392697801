"""The two Keras layers that carry learned steps.

`LSQWrapper` quantizes the kernel of the layer it wraps. `QuantizationPoint`
quantizes the tensor that flows through it; there is one wherever the TFLite
file holds an integer tensor with a grid of its own.

TF-MOT's own wrapper replaces the kernel variable of the wrapped layer by a
tensor at every call, which breaks saving, loading and `trainable`. `LSQWrapper`
leaves the wrapped layer as it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from . import fast_lsq, lsq
from ._compat import keras, value_as_stored
from .quantize_configs import QUANTIZED_WEIGHTS, LSQQuantizeConfig
from .quantizers import LSQActivationQuantizer, Variables, is_initialised


@keras.utils.register_keras_serializable(package="tf_lsq")
class LSQWrapper(keras.layers.Wrapper):
    """Quantizes the kernel of the layer it wraps; the bias stays float.

    Args:
        layer: A layer of a class in `quantize_configs.QUANTIZED_WEIGHTS`.
        quantize_config: Bits of the kernel and how its steps are shared.
        **kwargs: Keras' layer arguments. The name is `quant_<layer's name>`
            unless given; `trainable` and `dtype` are the layer's own.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        quantize_config: LSQQuantizeConfig,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", f"quant_{layer.name}")
        kwargs.setdefault("trainable", layer.trainable)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.layer.trainable = kwargs["trainable"]
        self.quantize_config = quantize_config
        self.plain_op = False  # See `LSQModel.use_plain_op`.
        self.lends_to = None  # See `borrowed_sums`: a step, and its gradient scale.
        self.weight_attribute = quantize_config.weight_attribute(layer)
        if self.weight_attribute is None:
            raise ValueError(
                "`layer` must have a kernel that can be quantized. "
                f"Received: `{layer.name}` ({type(layer).__name__})."
            )

    def build(self, input_shape: Any = None) -> None:
        """Builds the wrapped layer and the variables of its quantizer."""
        super().build(input_shape)
        [(kernel, self.quantizer)] = self.quantize_config.get_weights_and_quantizers(
            self.layer
        )
        self._step_variables = _untracked(
            self.quantizer.build(kernel.shape, self.weight_attribute, self)
        )

    @property
    def is_bilinear(self) -> bool:
        """Whether the output, without bias, is linear in the kernel and the input."""
        return QUANTIZED_WEIGHTS[type(self.layer)].bilinear

    @property
    def kernel(self) -> tf.Variable:
        """The float kernel that is trained."""
        return getattr(self.layer, self.weight_attribute)

    @property
    def num_bits(self) -> int:
        """Bits of one integer of the kernel."""
        return self.quantizer.num_bits

    @property
    def step_variables(self) -> Variables:
        """The quantizer's variables."""
        return self._step_variables.variables

    @property
    def step(self) -> tf.Tensor:
        """The learned step, unit of the kernel; size 1 on axes that share it."""
        return self.quantizer.step(self.step_variables)

    def initialise(self) -> None:
        """Sets the step from the kernel's present values."""
        self.quantizer.initialise(self.kernel, self.step_variables)

    def quantized_kernel(self) -> tf.Tensor:
        """Returns learned step times codes, float32 under any policy."""
        return self.quantizer(
            value_as_stored(self.kernel),
            training=False,
            weights=self.step_variables,
            plain_op=self.plain_op,
        )

    def codes(self) -> tf.Tensor:
        """Returns the trained integers, read off `quantized_kernel`."""
        return tf.round(self.quantized_kernel() / self.step)

    def call(self, inputs: Any) -> tf.Tensor:
        """Calls the wrapped layer with the quantized kernel in place."""
        kernel = tf.cast(self.quantized_kernel(), self.compute_dtype)
        if self.lends_to is not None:
            step, scale = self.lends_to
            [kernel] = fast_lsq.lend_sum([kernel], step, scale)
        with replaced_attributes(self.layer, {self.weight_attribute: kernel}):
            return self.layer.call(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings, the wrapped layer's included."""
        config = super().get_config()
        config["quantize_config"] = self.quantize_config.get_config()
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds the wrapper; needs no custom-object scope."""
        config = dict(config)
        layer = keras.layers.deserialize(
            config.pop("layer"), custom_objects=custom_objects
        )
        quantize_config = LSQQuantizeConfig(**config.pop("quantize_config"))
        return cls(layer, quantize_config, **config)


@keras.utils.register_keras_serializable(package="tf_lsq")
class QuantizationPoint(keras.layers.Layer):
    """Quantizes the tensor that flows through it, in the dtype that arrives.

    Args:
        num_bits: Bits of one integer, 2 to 8.
        signed: Whether values can be negative; None: the first batch decides.
        step_init: First value of the step, see `lsq.initial_step`.
        fixed_step: A step that is not learned, for tensors whose grid TFLite
            prescribes (softmax: 1/256). None: the step is learned.
        float_input: Whether the operator in front was left in float, so that the
            file converts here.
        absorbed_relu: Name of the ReLU that stood in front. An unsigned point is a
            ReLU itself: its lowest integer is 0, and no gradient passes below.
        max_value: Of that ReLU, None where it has none; see
            `LSQActivationQuantizer`.
        asymmetric: Whether the integer range has a learned offset (LSQ+).
        target: Name of the target the model was quantized for.
        **kwargs: Keras' layer arguments.
    """

    def __init__(
        self,
        num_bits: int,
        *,
        signed: bool | None = None,
        step_init: str = "mse",
        fixed_step: float | None = None,
        float_input: bool = False,
        absorbed_relu: str | None = None,
        max_value: float | None = None,
        asymmetric: bool = False,
        target: str = "phone",
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.quantizer = LSQActivationQuantizer(
            num_bits, signed, step_init, max_value, asymmetric
        )
        if fixed_step is not None and signed is None:
            raise ValueError("A `fixed_step` needs `signed`. Received: signed=None.")
        self.fixed_step = fixed_step
        if absorbed_relu is not None and signed is not False:
            raise ValueError(
                "A point that absorbs a ReLU must be unsigned. "
                f"Received: absorbed_relu={absorbed_relu!r}, signed={signed}."
            )
        self.float_input = float_input
        self.absorbed_relu = absorbed_relu
        self.target = target
        self.plain_op = False  # See `LSQModel.use_plain_op`.
        self.initialising = False  # Set while a first batch flows, also in inference.
        self.first_extremes: tuple[float, float] | None = None  # Of that batch.
        # While a first batch flows in search of the inputs of every call.
        self.first_inputs: list[tf.Tensor] | None = None
        self.passes = False
        # Sees what arrives, before it is quantized; see `range_watch`.
        self.observer: Callable[[QuantizationPoint, tf.Tensor], None] | None = None
        # See `borrowed_sums`.
        self.known_step: tf.Tensor | None = None
        self.sum_outputs = self.sum_inputs = True

    def build(self, input_shape: Any) -> None:
        """Creates the quantizer's variables."""
        if self.fixed_step is None:
            self._step_variables = _untracked(
                self.quantizer.build(input_shape, "activation", self)
            )
        super().build(input_shape)

    @property
    def num_bits(self) -> int:
        """Bits of one integer."""
        return self.quantizer.num_bits

    @property
    def step_variables(self) -> Variables:
        """The quantizer's variables; empty where the step is fixed."""
        return {} if self.fixed_step is not None else self._step_variables.variables

    @property
    def step(self) -> tf.Tensor:
        """The step, unit of the tensor, shape `[]`."""
        if self.fixed_step is not None:
            return tf.constant(self.fixed_step)
        return self.quantizer.step(self.step_variables)

    @property
    def integer_range(self) -> lsq.IntegerRange:
        """The integers in use; as tensors where the first batch decides."""
        return self.quantizer.integer_range(self.step_variables)

    def is_initialised(self) -> bool:
        """Returns whether the step has its first value."""
        return self.fixed_step is not None or is_initialised(self.step_variables)

    def initialise(self, inputs: list[tf.Tensor]) -> None:
        """Sets the first value of the step from the inputs of all calls."""
        values = tf.concat([tf.reshape(one, [-1]) for one in inputs], axis=0)
        if self.initialising:
            self.first_extremes = _extremes(values)
        self.quantizer.initialise(values, self.step_variables)

    def reset(self) -> None:
        """Forgets the step; the next first batch sets it."""
        if self.fixed_step is None:
            self.step_variables["unit"].assign(0.0)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Returns `inputs` on the grid; integers, as of pixels, become float32."""
        if not inputs.dtype.is_floating:
            inputs = tf.cast(inputs, tf.float32)
        if self.fixed_step is not None:
            return lsq.fake_quantize(inputs, self.step, self.integer_range)
        if self.passes:
            if self.first_inputs is not None:
                self.first_inputs.append(inputs)
            return self.quantizer.clipped(inputs)
        if self.observer is not None:
            self.observer(self, inputs)
        if training is None:
            training = keras.backend.learning_phase()
        if self.initialising and not self.is_initialised():
            training, known = True, self.first_extremes
            self.first_extremes = known or _extremes(inputs)
        return self.quantizer(
            inputs,
            training,
            self.step_variables,
            plain_op=self.plain_op,
            step=self.known_step,
            sum_outputs=self.sum_outputs,
            sum_inputs=self.sum_inputs,
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {
            **super().get_config(),
            **self.quantizer.get_config(),
            "fixed_step": self.fixed_step,
            "float_input": self.float_input,
            "absorbed_relu": self.absorbed_relu,
            "target": self.target,
        }


def _extremes(values: tf.Tensor) -> tuple[float, float]:
    """Returns smallest and largest value; NaN if there is one that is not finite."""
    if not tf.reduce_all(tf.math.is_finite(values)):
        return math.nan, math.nan
    return float(tf.reduce_min(values)), float(tf.reduce_max(values))


class _untracked:
    """Holds variables out of sight of Keras' attribute tracking.

    Keras would save and count a variable once for `add_weight` and once more
    for each container it finds in an attribute.
    """

    def __init__(self, variables: Variables) -> None:
        self.variables = variables


@contextlib.contextmanager
def replaced_attributes(
    layer: keras.layers.Layer, attributes: dict[str, Any]
) -> Iterator[None]:
    """Gives `layer` other values of attributes, unseen by Keras' tracking."""
    present = vars(layer)
    original = {name: present[name] for name in attributes}
    present.update(attributes)
    try:
        yield
    finally:
        present.update(original)
