"""Updates steps separately from weights, with any optimizer.

A whole tensor depends on its step. Weight decay would shrink it, the gradients of steps
dominate the norm of all gradients, and a single large one moves a step so far that
training does not recover: in mobile networks the 8-bit step of a small last layer
grows a hundredfold within a few updates of SGD. `prepare_optimizer` prevents all three.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .._compat import (
    exclude_from_weight_decay,
    full_name,
    inner_optimizer,
    keras,
    split_clipping,
)

# Use the bound of the compiled model.
MODELS_CLIP = "model"
DEFAULT_STEP_CLIP = 1.0
# At higher learning rates, the bound lets a step move no further than at this one, the
# paper's: ten times as much is further than training can follow.
_RATE = 0.01
# Steps and offsets; replicas have their own names.
_STEPS = r"_(step|offset)(/replica_\d+)?(:0)?$"
_KERNEL = r"kernel(/replica_\d+)?(:0)?$"
_NO_KERNEL = rf"^(?!.*{_KERNEL})"


def prepare_optimizer(
    optimizer: Any, step_clip: float | str | None = MODELS_CLIP
) -> Any:
    """Makes an optimizer update steps separately from weights, in custom loops.

    `compile` does this to the optimizer of a quantized model.

    - Weight decay excludes steps and offsets.
    - The gradient of a step, relative to the step's first value, is clipped to
      ``-step_clip .. step_clip``, at learning rates above 0.01 to
      ``step_clip * 0.01 / learning_rate``: plain SGD moves a step by at most
      ``step_clip * min(learning_rate, 0.01)`` of its first value per update. Clipping
      happens when gradients are applied: after all sums, also over replicas, are
      complete, and after the loss scale has been divided out.
    - `clipnorm`, `clipvalue` and `global_clipnorm` of the optimizer act on all other
      variables, as if there were no steps.

    The paper needs no bound: its tensors are large, and the gradient scale g makes the
    gradients of their steps small.

    Args:
        optimizer: An optimizer of either Keras, possibly a legacy one or one with a
            loss scale, before its first update.
        step_clip: Largest relative gradient of a step or an offset. None: gradients
            of steps are treated like all others. "model": the bound of the optimizer,
            if it has one (`SGDWithL2`, `recipe`), else 1.

    Returns:
        The same optimizer.

    Raises:
        ValueError: If `step_clip` is not positive, or the optimizer has been built and
            would decay steps.

    Example:
        >>> optimizer = prepare_optimizer(keras.optimizers.SGD(0.01, momentum=0.9))
    """
    step_clip = check_step_clip(step_clip)
    if step_clip == MODELS_CLIP:
        step_clip = chosen_step_clip(optimizer, DEFAULT_STEP_CLIP)
    exclude_from_weight_decay(optimizer, _STEPS)

    if step_clip is None:
        split_clipping(optimizer, is_quantizers, None)
        return optimizer
    largest = float(step_clip) * _RATE

    def bound(rate: Any) -> tf.Tensor:
        return tf.constant(largest) / tf.maximum(tf.cast(rate, tf.float32), _RATE)

    split_clipping(optimizer, is_quantizers, bound)
    return optimizer


def chosen_step_clip(optimizer: Any, default: float | None) -> float | None:
    """Returns the bound that an optimizer has, `default` if it has none."""
    chosen: Any = getattr(inner_optimizer(optimizer), "step_clip", MODELS_CLIP)
    return default if chosen == MODELS_CLIP else chosen


def check_step_clip(step_clip: Any, *, may_be_models: bool = True) -> Any:
    """Returns `step_clip` if it is a bound, None, or "model" where that is allowed.

    Raises:
        ValueError: If it is anything else.
    """
    if step_clip is None or (may_be_models and step_clip == MODELS_CLIP):
        return step_clip
    if isinstance(step_clip, bool | str) or not step_clip > 0:
        raise ValueError(
            "`step_clip` must be a positive number or None. "
            f"Received: step_clip={step_clip!r}."
        )
    return float(step_clip)


# A type checker sees the methods of Keras; at run time the classes below add them.
_SGD: Any = keras.optimizers.SGD if TYPE_CHECKING else object
_AdamW: Any = keras.optimizers.AdamW if TYPE_CHECKING else object


class HasL2(_SGD):
    """The methods of `SGDWithL2`, for either Keras."""

    def __init__(
        self,
        learning_rate: Any = 0.01,
        *,
        l2: float = 0.0,
        step_clip: float | str | None = MODELS_CLIP,
        **kwargs: Any,
    ) -> None:
        if l2 < 0 or kwargs.get("weight_decay"):
            raise ValueError(
                "`l2` must not be negative, and replaces `weight_decay`. "
                f"Received: l2={l2}, weight_decay={kwargs.get('weight_decay')}."
            )
        kwargs.setdefault("name", "SGDWithL2")
        super().__init__(learning_rate, **kwargs)
        self.l2 = l2
        self.step_clip = check_step_clip(step_clip)

    def update_step(self, gradient: Any, variable: Any, *args: Any) -> None:
        """Updates one variable."""
        if self.l2 and is_kernel(variable):
            gradient = tf.convert_to_tensor(gradient)
            gradient += tf.cast(self.l2, gradient.dtype) * tf.convert_to_tensor(
                variable
            )
        super().update_step(gradient, variable, *args)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "l2": self.l2, "step_clip": self.step_clip}


class DecaysKernels(_AdamW):
    """The methods of `AdamWOnKernels`, for either Keras."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        step_clip: float | str | None = MODELS_CLIP,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "AdamWOnKernels")
        super().__init__(learning_rate, **kwargs)
        self.step_clip = check_step_clip(step_clip)
        self.exclude_from_weight_decay(var_names=[_NO_KERNEL])

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "step_clip": self.step_clip}


@keras.utils.register_keras_serializable(package="tf_lsq")
class SGDWithL2(HasL2, keras.optimizers.SGD):
    """SGD with weight decay as an L2 term of the gradient.

    This is what papers before 2019 and PyTorch's SGD call weight decay: the term
    ``l2 * kernel`` is added to the gradient and goes through the momentum, as if the
    loss included ``l2 / 2 * sum(kernel^2)``. Keras' `weight_decay` is decoupled from
    momentum, thus ten times weaker at momentum 0.9, and also shrinks biases and batch
    norms. Here only kernels decay.

    Keras' `clipnorm`, `clipvalue` and `global_clipnorm` clip the gradient of the loss
    before the term is added.

    Args:
        learning_rate: A number or a schedule.
        l2: The factor of the term.
        step_clip: Bound on the gradients of steps. `prepare_optimizer` applies it, and
            so does `compile` of a quantized model, which adopts it. None: no bound.
            "model": the model keeps its own.
        **kwargs: Arguments of `keras.optimizers.SGD`.

    Raises:
        ValueError: If `l2` is negative, `step_clip` is not positive, or `weight_decay`
            is given as well.
    """


@keras.utils.register_keras_serializable(package="tf_lsq")
class AdamWOnKernels(DecaysKernels, keras.optimizers.AdamW):
    """AdamW that decays only kernels, even after a model was saved and loaded.

    Keras does not save the exclusions of its `exclude_from_weight_decay` with a model.

    Args:
        learning_rate: A number or a schedule.
        step_clip: See `SGDWithL2`.
        **kwargs: Arguments of `keras.optimizers.AdamW`.

    Raises:
        ValueError: If `step_clip` is not positive.
    """


def is_kernel(variable: Any) -> bool:
    """Returns whether a variable is the kernel of a layer, by its name."""
    return re.search(_KERNEL, full_name(variable)) is not None


def is_quantizers(variable: Any) -> bool:
    """Returns whether a variable is a step or an offset, by its name."""
    return re.search(_STEPS, full_name(variable)) is not None
