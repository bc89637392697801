"""`QuantizationPoint`: quantizes the tensor that flows through it.

There is one wherever the TFLite file has an integer tensor with its own grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .. import lsq
from .._compat import keras
from ..lsq.fast import OwnSums
from .attributes import Untracked
from .quantizers import LSQActivationQuantizer, Variables, is_initialised

# Settings of a point that are those of its quantizer.
SETTINGS = ("num_bits", "signed", "step_init", "max_value", "asymmetric", "min_step")


@keras.utils.register_keras_serializable(package="tf_lsq")
class QuantizationPoint(keras.layers.Layer):
    """Quantizes the tensor that flows through it, in the dtype of that tensor.

    Args:
        quantizer: Bits, sign and first value of the step.
        float_input: Whether the operator before it stays in float, so that the file
            converts here.
        absorbed_relu: Name of the ReLU that this point replaces. An unsigned point acts
            as a ReLU: its smallest integer is 0, and no gradient passes below it.
        target: Name of the target that the model was quantized for.
        symmetric: Whether a reader needs a zero point of 0.
        **kwargs: Keras' layer arguments.

    Attributes:
        plain_op: See `LSQModel.use_plain_op`.
        visitor: Called with the point and its input, before quantization. If it returns
            a value other than None, that is the output. See `first_batch` and
            `range_watch`.
        own_sums: See `loans`.
    """

    fixed_step: float | None = None

    def __init__(
        self,
        quantizer: LSQActivationQuantizer,
        *,
        float_input: bool = False,
        absorbed_relu: str | None = None,
        target: str = "phone",
        symmetric: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        if absorbed_relu is not None and quantizer.signed is not False:
            raise ValueError(
                "A point that absorbs a ReLU must be unsigned. Received: "
                f"absorbed_relu={absorbed_relu!r}, signed={quantizer.signed}."
            )
        self.quantizer = quantizer
        self.float_input = float_input
        self.absorbed_relu = absorbed_relu
        self.target = target
        self.symmetric = symmetric
        self.plain_op = False
        self.visitor: Callable[[QuantizationPoint, tf.Tensor], Any] | None = None
        self.own_sums = OwnSums()

    def build(self, input_shape: Any) -> None:
        """Creates the quantizer's variables."""
        self._step_variables = Untracked(
            self.quantizer.build(input_shape, "activation", self)
        )
        super().build(input_shape)

    @property
    def num_bits(self) -> int:
        """Bits of one integer."""
        return self.quantizer.num_bits

    @property
    def step_variables(self) -> Variables:
        """The quantizer's variables; empty if the step is fixed."""
        return self._step_variables.variables

    @property
    def step(self) -> tf.Tensor:
        """The step, unit of the tensor, shape `[]`."""
        return self.quantizer.step(self.step_variables)

    @property
    def integer_range(self) -> lsq.IntegerRange:
        """The integers in use; as tensors if the first batch decides."""
        return self.quantizer.integer_range(self.step_variables)

    def is_initialised(self) -> bool:
        """Returns whether the step has its first value."""
        return is_initialised(self.step_variables)

    def initialise(self, values: tf.Tensor) -> None:
        """Sets the first value of the step from the values that it must represent."""
        self.quantizer.initialise(values, self.step_variables)

    def reset(self) -> None:
        """Clears the step; the next first batch sets it."""
        self.step_variables["unit"].assign(0.0)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Returns `inputs` on the grid; integers, such as pixels, become float32."""
        if not inputs.dtype.is_floating:
            inputs = tf.cast(inputs, tf.float32)
        if self.visitor is not None:
            output = self.visitor(self, inputs)
            if output is not None:
                return output
        if training is None:
            training = keras.backend.learning_phase()
        return self._quantized(inputs, training)

    def _quantized(self, inputs: tf.Tensor, training: Any) -> tf.Tensor:
        """Returns `inputs` on the grid."""
        return self.quantizer(
            inputs,
            training,
            self.step_variables,
            plain_op=self.plain_op,
            own_sums=self.own_sums,
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {
            **super().get_config(),
            **self.quantizer.get_config(),
            "float_input": self.float_input,
            "absorbed_relu": self.absorbed_relu,
            "target": self.target,
            "symmetric": self.symmetric,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Rebuilds the point; models of version 0.1.0 have one class for all points."""
        config = dict(config)
        chosen = {name: config.pop(name) for name in SETTINGS if name in config}
        fixed_step = config.pop("fixed_step", None)
        quantizer = LSQActivationQuantizer(**chosen)
        if fixed_step is not None:
            return FixedPoint(quantizer, fixed_step=fixed_step, **config)
        return cls(quantizer, **config)


@keras.utils.register_keras_serializable(package="tf_lsq")
class FixedPoint(QuantizationPoint):
    """A point whose grid TFLite prescribes (softmax: 1/256); nothing is learned.

    Args:
        quantizer: Bits and sign.
        fixed_step: The step.
        **kwargs: Arguments of `QuantizationPoint`.
    """

    def __init__(
        self, quantizer: LSQActivationQuantizer, *, fixed_step: float, **kwargs: Any
    ) -> None:
        super().__init__(quantizer, **kwargs)
        if quantizer.signed is None:
            raise ValueError("A `fixed_step` requires `signed`. Received: signed=None.")
        self.fixed_step = self._step = fixed_step

    def build(self, input_shape: Any) -> None:
        """Creates no variables."""
        keras.layers.Layer.build(self, input_shape)

    @property
    def step_variables(self) -> Variables:
        """Empty: nothing is learned."""
        return {}

    @property
    def step(self) -> tf.Tensor:
        """The step, unit of the tensor, shape `[]`."""
        return tf.constant(self._step)

    def is_initialised(self) -> bool:
        """Returns True."""
        return True

    def reset(self) -> None:
        """Does nothing."""

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Returns `inputs` on the grid."""
        if not inputs.dtype.is_floating:
            inputs = tf.cast(inputs, tf.float32)
        if self.visitor is not None:
            self.visitor(self, inputs)
        return lsq.fake_quantize(inputs, self.step, self.integer_range)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "fixed_step": self.fixed_step}
