"""`Distiller` of Keras 3."""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from .._compat import import_keras3, keras
from .._compat3 import compiled_loss, compiled_loss_of
from ..training import (
    Distillation,
    as_tf_keras,
    checked_pair,
)
from .model import Keras3Training, LSQModel
from .objects import as_keras3

keras3: Any = import_keras3()


@keras3.saving.register_keras_serializable(package="tf_lsq")
class Distiller(Keras3Training, Distillation, keras3.Model):
    """`tf_lsq.Distiller` for a student of Keras 3.

    Args:
        student: From `quantize_model`.
        teacher: A float model of either Keras.
        temperature: As for `tf_lsq.Distiller`.
        distillation_weight: As for `tf_lsq.Distiller`.
        **kwargs: `name` of `keras.Model`.

    Raises:
        TypeError: If `student` is not a quantized model.
        ValueError: If the models do not fit, see `tf_lsq.Distiller`.
    """

    def __init__(
        self,
        student: LSQModel,
        teacher: Any,
        *,
        temperature: float = 1.0,
        distillation_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        teacher, augmenting = checked_pair(
            student.student, teacher, temperature, distillation_weight
        )
        super().__init__(**kwargs)
        self.autocast = False
        self.dtype_policy = student.dtype_policy
        settings = (temperature, distillation_weight)
        self._set_up(student, teacher, augmenting, None, *settings)
        self._soft_losses: list[Any] = []
        self._hard = keras3.metrics.Mean(name="student_loss")
        self._soft = keras3.metrics.Mean(name="distillation_loss")

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Compiles the distiller like any Keras model.

        Raises:
            ValueError: If there is no loss although labels count, or an output has a
                loss that does not define how to distil it; the error names them all.
        """
        self._check_loss(loss)
        losses = self._distillation_losses(_built_in(loss))
        self._soft_losses = [
            _FunctionLoss(one) if callable(one) and hasattr(one, "__name__") else one
            for one in tf.nest.flatten(as_keras3(losses))
        ]
        weights = self._by_position(loss_weights)
        if isinstance(weights, dict):
            weights = [weights.get(name) for name in self.output_names]
        weights = weights if isinstance(weights, list | tuple) else [weights]
        self._soft_weights = [1.0 if w is None else w for w in weights]
        super().compile(optimizer, loss, loss_weights, *args, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: Any = True,
    ) -> Any:
        """Returns the training loss; see `tf_lsq.Distiller`."""
        soft = self._soft_loss(self._teachers_outputs(x, y_pred), y_pred, sample_weight)
        hard = compiled_loss(self, y, y_pred, sample_weight)
        loss = self.distillation_weight * soft
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        batch = tf.shape(tf.nest.flatten(y_pred)[0])[0]
        if hard is not None:
            self._hard.update_state(hard * replicas, sample_weight=batch)
            loss += (1 - self.distillation_weight) * tf.cast(hard, loss.dtype)
        self._soft.update_state(soft * replicas, sample_weight=batch)
        for regulariser in self.losses:
            loss += tf.cast(regulariser, loss.dtype) / replicas
        return loss

    @property
    def metrics(self) -> list[Any]:
        """Losses and metrics; without a loss for the labels, that is left out."""
        hard = getattr(self, "_hard", None)
        has_loss = compiled_loss_of(self) is not None
        return [m for m in super().metrics if m is not hard or has_loss]

    def _soft_loss(self, teacher: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        """Returns the loss against the teacher's outputs."""
        outputs = [tf.nest.flatten(structure) for structure in (teacher, y_pred)]
        count = len(outputs[0])
        weights = tf.nest.flatten(sample_weight)
        weights = weights if len(weights) == count else weights * count
        factors = self._soft_weights
        factors = factors if len(factors) == count else factors * count
        return tf.add_n(
            [
                factor * loss(target, output, weight)
                for loss, target, output, weight, factor in zip(
                    self._soft_losses, *outputs, weights, factors, strict=True
                )
                if loss is not None
            ]
        )

    @staticmethod
    def _stored(model: keras.Model) -> str:
        """Returns a model in a form that Keras 3 does not read as one of its own."""
        return json.dumps(Distillation._stored(model))

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds both models."""
        config = dict(config)
        student, teacher = (
            keras.saving.deserialize_keras_object(
                json.loads(config.pop(key)), custom_objects
            )
            for key in ("student", "teacher")
        )
        return cls(LSQModel(student), teacher, **config)


def _built_in(loss: Any) -> Any:
    """Returns the losses of tf_keras that equal those of Keras 3.

    Raises:
        ValueError: If a loss is the user's own.
    """
    try:
        return as_tf_keras(loss)
    except ValueError as error:
        raise ValueError(
            "Every output must have a loss that defines how to distil it: a loss of "
            "Keras 3. For others, use `DistillationLoss` in a custom training loop. "
            f"Received: {loss!r}."
        ) from error


class _FunctionLoss(keras3.losses.Loss):
    """The mean of what a function returns."""

    def __init__(self, function: Any) -> None:
        super().__init__(name=function.__name__)
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns one value per example."""
        return self.function(y_true, y_pred)


LSQModel.distiller_class = Distiller
