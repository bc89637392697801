"""`LSQWrapper`: a layer whose kernel is quantized.

TF-MOT's own wrapper replaces the kernel variable of the wrapped layer with a
tensor in every call, which breaks saving, loading and `trainable`. `LSQWrapper`
leaves the wrapped layer unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .._compat import keras, value_as_stored
from ..lsq import fast
from .attributes import Untracked, replaced_attributes
from .grouped import own_kernels
from .quantize_configs import QUANTIZED_WEIGHTS, LSQQuantizeConfig
from .quantizers import Variables


@keras.utils.register_keras_serializable(package="tf_lsq")
class LSQWrapper(keras.layers.Wrapper):
    """Quantizes the kernel of the layer it wraps; the bias stays float.

    Args:
        layer: A layer of a class in `quantize_configs.QUANTIZED_WEIGHTS`.
        quantize_config: Bits of the kernel and how its steps are shared.
        **kwargs: Keras' layer arguments. Name, `trainable` and `dtype` are the
            layer's unless given.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        quantize_config: LSQQuantizeConfig,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("trainable", layer.trainable)
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.layer.trainable = kwargs["trainable"]
        self.supports_masking = layer.supports_masking
        self.quantize_config = quantize_config
        self.plain_op = False  # See `LSQModel.use_plain_op`.
        self.lends_to: tuple[tf.Tensor, float] | None = (
            None  # See `loans`: a step, and its gradient scale.
        )
        attribute = quantize_config.weight_attribute(layer)
        if attribute is None:
            raise ValueError(
                "`layer` must have a kernel that can be quantized. "
                f"Received: `{layer.name}` ({type(layer).__name__})."
            )
        self.weight_attribute = attribute

    def build(self, input_shape: Any = None) -> None:
        """Builds the wrapped layer and the variables of its quantizer."""
        super().build(input_shape)
        [(kernel, self.quantizer)] = self.quantize_config.get_weights_and_quantizers(
            self.layer
        )
        self._step_variables = Untracked(
            self.quantizer.build(kernel.shape, self.weight_attribute, self)
        )

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all weights, or those of the layer alone.

        The weights of the float model's layer set the step again, from their kernel.

        Args:
            weights: Arrays in the order of `self.weights`, or of `self.layer.weights`.
        """
        if len(weights) != len(self.layer.weights):
            super().set_weights(weights)
            return
        self.layer.set_weights(weights)
        self.initialise()

    @property
    def bias(self) -> tf.Variable | None:
        """The bias, None without one."""
        return getattr(self.layer, "bias", None)

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
        """Sets the step from the kernel's current values."""
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
        """Returns the trained integers, computed from `quantized_kernel`."""
        return tf.round(self.quantized_kernel() / self.step)

    def call(self, inputs: Any) -> tf.Tensor:
        """Calls the wrapped layer with the quantized kernel in place."""
        kernel = tf.cast(self.quantized_kernel(), self.compute_dtype)
        if self.lends_to is not None:
            step, scale = self.lends_to
            [kernel] = fast.lend_sum([kernel], step, scale)
        attributes = {self.weight_attribute: kernel, **own_kernels(self.layer)}
        with replaced_attributes(self.layer, attributes):
            return self.layer.call(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings, including those of the wrapped layer."""
        config = super().get_config()
        config["quantize_config"] = self.quantize_config.get_config()
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds the wrapper; needs no custom-object scope."""
        config = dict(config)
        inner = config.pop("layer")
        # Keras finds registered classes by this name in both of its formats.
        name = inner.get("registered_name") or inner["class_name"]
        layer = keras.layers.deserialize(
            {**inner, "class_name": name}, custom_objects=custom_objects
        )
        quantize_config = LSQQuantizeConfig(**config.pop("quantize_config"))
        return cls(layer, quantize_config, **config)
