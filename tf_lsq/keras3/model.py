"""`LSQModel` of Keras 3: trains the student of a Keras 3 model with Keras 3's `fit`."""

from __future__ import annotations

from typing import Any

from .._compat import import_keras3, in_tflite_converter
from ..training import NO_EXPORT, StepTraining
from ..training import LSQModel as TFKerasLSQModel
from .objects import as_keras3, as_keras3_data
from .views import ModelView

keras3: Any = import_keras3()


class Keras3Training(StepTraining):
    """`StepTraining` of Keras 3 models."""

    def in_own_keras(self, value: Any) -> Any:
        """Returns arguments of `compile`, with objects of tf_keras replaced.

        Raises:
            ValueError: If an object has no equal in Keras 3.
        """
        return as_keras3(value)

    def in_own_data(self, x: Any) -> Any:
        """Returns data for `fit`, with a sequence of tf_keras replaced."""
        return as_keras3_data(x)

    def _get_save_spec(self, dynamic_batch: bool = True) -> Any:
        """Refuses `TFLiteConverter`, which asks older versions of Keras 3 in vain."""
        if in_tflite_converter():
            raise ValueError(NO_EXPORT.format(self.quantized.name))
        return super()._get_save_spec(dynamic_batch)

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the model as `.keras`; see `keras.Model.save`.

        Raises:
            ValueError: If `filepath` has another suffix, or a layer has no
                configuration that can be saved.
        """
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                "A quantized Keras 3 model must be saved as `.keras`. Received: "
                f"{str(filepath)!r}. For the file that runs on a phone, call "
                "`tflite_export.export_model`."
            )
        self.get_config()  # Raises an error before anything is written.
        keras3.Model.save(self, filepath, overwrite, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, and builds its optimizer for its state."""
        self.compile(**keras3.saving.deserialize_keras_object(config))
        self._build_optimizer()


@keras3.saving.register_keras_serializable(package="tf_lsq")
class LSQModel(Keras3Training, ModelView):
    """A functional Keras 3 model with learned quantization steps.

    `quantize_model` returns it for a Keras 3 model. It is trained, saved and loaded
    like any Keras 3 model; see `tf_lsq.LSQModel` for what else its `fit` does. It runs
    a tf_keras model, with which it shares all variables.

    Attributes:
        student: The tf_keras model.

    Args:
        student: The tf_keras model.
    """

    _config_key = "student"
    distiller_class: Any = None  # Of Keras 3; its module sets it.

    def __init__(self, student: TFKerasLSQModel) -> None:
        super().__init__(student)

    @property
    def student(self) -> TFKerasLSQModel:
        """The tf_keras model that it runs."""
        return self.tf_keras_layer

    @property
    def quantized(self) -> TFKerasLSQModel:
        """The tf_keras model that it runs."""
        return self.tf_keras_layer

    @property
    def step_clip(self) -> float | None:
        """Bound on the relative gradients of steps; see `tf_lsq.LSQModel`."""
        return self.student.step_clip

    @step_clip.setter
    def step_clip(self, value: float | None) -> None:
        self.student.step_clip = value

    @property
    def rounds_biases(self) -> bool:
        """Whether `fit` ends with `round_biases`; see `tf_lsq.LSQModel`."""
        return self.student.rounds_biases

    @rounds_biases.setter
    def rounds_biases(self, value: bool) -> None:
        self.student.rounds_biases = value

    def use_plain_op(self, plain: bool = True) -> None:
        """Chooses the plain implementation of the LSQ operator.

        See `tf_lsq.LSQModel.use_plain_op`.
        """
        self.student.wants_plain_op = plain
        self._choose_op()

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds the model."""
        if cls._config_key not in config:
            raise ValueError(
                "A student of tf_keras must be loaded by tf_keras: call "
                "`tf_keras.models.load_model`. Received: its file in Keras 3."
            )
        return super().from_config(config, custom_objects)
