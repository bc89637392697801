"""`Distiller`: trains a quantized student on labels and on a teacher's outputs.

The paper's second claim: with its own float network as teacher, temperature 1 and
both losses weighted equally, a 3-bit network reaches full-precision accuracy (Esser et
al., Section 3.7). The method is Hinton et al.'s, https://arxiv.org/abs/1503.02531.
"""

from __future__ import annotations

import collections
import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import (
    added_call,
    keras,
    losses_container,
    model_structure,
    name_outputs,
    nodes_of,
    replaced_call,
)
from ..graph import float_model
from ..layers import LSQWrapper
from .learned_steps import quantization_points, trained_model
from .losses import (
    LOGITS,
    PROBABILITIES,
    CrossEntropy,
    DistillationLoss,
    output_kinds,
    resolve,
)
from .model import LSQModel, StepTraining

# Layers that augment images.
_AUGMENTATIONS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Random")
)
# Losses over classes: an output with one of them is distilled by `DistillationLoss`.
_CLASS_LOSSES = (
    CrossEntropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.KLDivergence,
)
_CLASS_FUNCTIONS = (
    keras.losses.categorical_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.kl_divergence,
)


class Distillation(StepTraining):
    """What the `Distiller` of either Keras does.

    Attributes:
        student: The quantized model.
        temperature: Softens both distributions.
        distillation_weight: Weight of the distillation loss, 0 to 1.
    """

    student: Any
    temperature: float
    distillation_weight: float
    _untracked: Untracked
    _augmenting: list[str]

    def _set_up(
        self,
        student: Any,
        teacher: keras.Model,
        augmenting: list[str],
        total: Any,
        temperature: float,
        distillation_weight: float,
    ) -> None:
        """Sets what both classes hold, once Keras has set up the model.

        Args:
            student: The student, of this model's Keras.
            teacher: From `checked_pair`.
            augmenting: From `checked_pair`.
            total: The metric of the training loss, None if Keras has it.
            temperature: See the class.
            distillation_weight: See the class.
        """
        self.student = student
        self._untracked = Untracked(teacher, total)
        self._augmenting = augmenting
        self.temperature = temperature
        self.distillation_weight = distillation_weight
        self.input_names = list(self.quantized.input_names)
        self.output_names = list(output_kinds(self.quantized))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns both models and the settings."""
        return {
            "name": self.name,
            "student": self._stored(self.quantized),
            "teacher": self._stored(self.teacher),
            "temperature": self.temperature,
            "distillation_weight": self.distillation_weight,
        }

    @staticmethod
    def _stored(model: keras.Model) -> Any:
        """Returns a tf_keras model for the configuration, without its compilation."""
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        return config

    @property
    def quantized(self) -> LSQModel:
        """The student, as a tf_keras model."""
        return trained_model(self.student)

    @property
    def teacher(self) -> keras.Model:
        """The float model; none of its weights are among this model's."""
        return self._untracked.teacher

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Calls the student."""
        is_training = isinstance(training, bool | int) and training
        augmenting = self._augmenting if is_training else []
        with _recorded(self.quantized, augmenting) as augmented:
            outputs = self.student(inputs, training=training)
        # The images belong to these outputs, of this call and this replica.
        tf.nest.flatten(outputs)[0]._augmented = augmented
        return outputs

    def _check_loss(self, loss: Any) -> None:
        """Refuses a training without any loss for the labels."""
        if loss is None and self.distillation_weight < 1:
            raise ValueError(
                "A `loss` for the labels is needed with distillation_weight="
                f"{self.distillation_weight}. Received: loss=None. Pass the student's "
                "loss, or distillation_weight=1 to train on the teacher alone."
            )

    def _teachers_outputs(self, x: Any, y_pred: Any) -> Any:
        """Returns the outputs of the teacher for the images that the student saw."""
        augmented = getattr(tf.nest.flatten(y_pred)[0], "_augmented", {})
        with _replayed(self.teacher, augmented):
            outputs = self.teacher(x, training=False)
        return tf.nest.map_structure(tf.stop_gradient, outputs)

    def _by_position(self, values: Any) -> Any:
        """Returns a dict by output as a list, if outputs are a list."""
        _, structure = model_structure(self.quantized)
        if not isinstance(values, Mapping) or isinstance(structure, Mapping):
            return values
        return [values.get(name) for name in self.output_names]

    def _distillation_losses(self, loss: Any) -> Any:
        """Returns the loss of every output against the teacher's."""
        students, teachers = output_kinds(self.quantized), output_kinds(self.teacher)
        per_output = _per_output(loss, list(students))
        if len(per_output) != len(students):
            raise ValueError(
                f"`loss` must have one loss per output, {list(students)}. "
                f"Received: {len(per_output)}."
            )
        losses, problems = [], []
        for one, (name, kind), teacher_kind in zip(
            per_output,
            students.items(),
            teachers.values(),
            strict=True,
        ):
            try:
                losses.append(self._distillation_loss(one, kind, teacher_kind))
            except ValueError as error:
                problems.append(f"`{name}`: {error}")
        if problems:
            raise ValueError(
                "Every output must have a loss that defines how to distil it: a Keras "
                "loss (or a subclass of one over classes) that accepts the teacher's "
                "output. For other losses, use `DistillationLoss` in a custom training "
                "loop. Received: " + "; ".join(problems)
            )
        _, structure = model_structure(self.quantized)
        return tf.nest.pack_sequence_as(structure, losses)

    def _distillation_loss(self, loss: Any, kind: str, teacher_kind: str) -> Any:
        """Returns the loss of one output against the teacher's."""
        if loss is None:
            return None
        loss = keras.losses.get(loss)
        ends = f"student ends in {kind}, teacher in {teacher_kind}"
        if isinstance(loss, _CLASS_LOSSES) or loss in _CLASS_FUNCTIONS:
            if not {kind, teacher_kind} <= {LOGITS, PROBABILITIES}:
                raise ValueError(f"{ends}, with the loss {_name_of(loss)}")
            return DistillationLoss(
                self.temperature,
                from_logits=kind == LOGITS,
                teacher_from_logits=teacher_kind == LOGITS,
                reduction=getattr(loss, "reduction", "auto"),
            )
        source = type(loss) if isinstance(loss, keras.losses.Loss) else loss
        own = getattr(source, "__module__", None) != keras.losses.Loss.__module__
        if own or kind != teacher_kind or getattr(loss, "from_logits", False):
            raise ValueError(f"{ends}, with the loss {_name_of(loss)}")
        return loss

    def save_own_variables(self, store: Any) -> None:
        """Saves the teacher's weights, which nothing else saves."""
        for number, weight in enumerate(self.teacher.weights):
            store[f"teacher_{number}"] = weight.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads the teacher's weights."""
        for number, weight in enumerate(self.teacher.weights):
            weight.assign(np.asarray(store[f"teacher_{number}"]))


@keras.utils.register_keras_serializable(package="tf_lsq")
class Distiller(Distillation, keras.Model):
    """A model of the student's Keras that trains it on labels and a teacher's outputs.

    The loss is ``(1 - w) * compiled loss + w * distillation loss + regularisers``
    with ``w = distillation_weight``. An output that is trained with a cross entropy
    over classes is distilled with `DistillationLoss`; an output with another Keras loss
    is distilled with that loss, with the teacher's output in place of the label. Custom
    losses are refused unless they subclass a loss over classes. Without any loss, all
    outputs count as classes. `loss_weights` and sample weights act on both losses.

    Logs hold `loss`, `student_loss` (the compiled one, without
    regularisers), `distillation_loss`, and the metrics. `predict` returns the student's
    outputs. `save` saves both models; TensorFlow's checkpoints, `student.save` and
    `tflite_export.export_model(student, ...)` do not include the teacher.

    The teacher runs in inference mode and is not trained; its layers' `trainable` flags
    stay unchanged. It sees the same images as the student: if augmentation (`Random...`
    layers) is part of both models, the teacher's layers return the outputs of the
    student's layers of the same name.

    Args:
        student: From `quantize_model`.
        teacher: A float model with the same inputs and outputs, of `tf_keras` or
            Keras 3, usually the one that was quantized.
        temperature: Softens both distributions; the paper's is 1.
        distillation_weight: 0 to 1; the paper's is 0.5. With 1 and no `loss` in
            `compile`, no labels are needed.
        **kwargs: `name` of `keras.Model`.

    Raises:
        TypeError: If `student` is not a quantized model.
        ValueError: If a number is out of range, the inputs or outputs of student and
            teacher differ in number, order or shape, or the student has augmentation
            layers that the teacher lacks.

    Example:
        >>> import tf_keras as keras
        >>> import tf_lsq
        >>> teacher = keras.Sequential([keras.layers.Dense(3, input_shape=(4,))])
        >>> distiller = Distiller(tf_lsq.quantize_model(teacher), teacher)
        >>> distiller.compile(**tf_lsq.recipe(weight_bits=4, steps=100))
    """

    def __new__(cls, student: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns a Keras 3 model for a Keras 3 student."""
        other = getattr(student, "distiller_class", cls)
        if other is not cls and cls is Distiller:
            return other(student, *args, **kwargs)
        return super().__new__(cls, student, *args, **kwargs)

    def __init__(
        self,
        student: Any,
        teacher: Any,
        *,
        temperature: float = 1.0,
        distillation_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        teacher, augmenting = checked_pair(
            student, teacher, temperature, distillation_weight
        )
        # The student casts inputs itself, where its layers need it.
        super().__init__(autocast=False, **kwargs)
        total = keras.metrics.Mean(name="loss")
        settings = (temperature, distillation_weight)
        self._set_up(student, teacher, augmenting, total, *settings)
        self._distillation: Any = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        **kwargs: Any,
    ) -> None:
        """Compiles the distiller like any Keras model.

        Raises:
            ValueError: If there is no loss although labels count, or an output has a
                loss that does not define how to distil it; the error names them all.
        """
        self._check_loss(loss)
        loss = resolve(self.in_own_keras(loss), self.student)
        distillation = self._distillation_losses(loss)
        super().compile(optimizer, loss, metrics, loss_weights, **kwargs)
        names = self.output_names
        loss_weights = self._by_position(loss_weights)
        with self.distribute_strategy.scope():
            self.compiled_loss = losses_container(
                loss, loss_weights, names, total="student_loss"
            )
            self._distillation = losses_container(
                distillation,
                loss_weights,
                [f"{name}_distillation" for name in names],
                total="distillation_loss",
            )

    @property
    def metrics(self) -> list[Any]:
        """Losses and metrics, in the order of the logs."""
        soft = self._distillation.metrics if self._distillation else []
        return [self._untracked.total, *super().metrics, *soft]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
    ) -> tf.Tensor:
        """Returns the training loss; see the class docstring."""
        teacher = self._teachers_outputs(x, y_pred)
        soft = self._distillation(teacher, y_pred, self._by_position(sample_weight))
        hard = self.compiled_loss(y, y_pred, sample_weight)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        loss = self.distillation_weight * soft
        if hard is not None:
            loss += (1 - self.distillation_weight) * tf.cast(hard, loss.dtype)
        for regulariser in self.losses:
            loss += tf.cast(regulariser, loss.dtype) / replicas
        batch = tf.shape(tf.nest.flatten(y_pred)[0])[0]
        self._untracked.total.update_state(loss * replicas, sample_weight=batch)
        return loss

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds both models."""
        config = dict(config)
        student, teacher = (
            keras.saving.deserialize_keras_object(config.pop(key), custom_objects)
            for key in ("student", "teacher")
        )
        return cls(student, teacher, **config)


def _augmentations(student: keras.Model) -> list[str]:
    """Returns the names of the augmentation layers before all kernels."""
    after_kernels: set[int] = set()
    names = []
    for node in nodes_of(student):
        if isinstance(node.layer, LSQWrapper) or any(
            id(tensor) in after_kernels for tensor in node.keras_inputs
        ):
            after_kernels.update(id(t) for t in tf.nest.flatten(node.outputs))
        elif isinstance(node.layer, _AUGMENTATIONS):
            names.append(node.layer.name)
    return list(dict.fromkeys(names))


def _check_same_augmentation(names: list[str], teacher: keras.Model) -> None:
    """Refuses a teacher that would not see the same images as the student."""
    present = {layer.name for layer in _augmentation_layers(teacher)}
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(
            "`teacher` must see the same images as `student`. Received: a student "
            f"with the augmentation layers {names} and a teacher without {missing}. "
            "Augment the data instead (`dataset.map`), or use the float network with "
            "these layers as the teacher."
        )


def _augmentation_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the augmentation layers of a model and of the models inside it."""
    for layer in model.submodules:
        if isinstance(layer, _AUGMENTATIONS):
            yield layer


@contextlib.contextmanager
def _recorded(
    model: keras.Model, names: list[str]
) -> Iterator[dict[str, list[tf.Tensor]]]:
    """Records the outputs of the layers with these names, call by call."""
    recorded: dict[str, list[tf.Tensor]] = collections.defaultdict(list)
    if names and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "A `Distiller` can show both networks the same augmented images only on "
            f"one device. Received: the augmentation layers {names} under "
            f"{type(tf.distribute.get_strategy()).__name__}. Augment the data instead "
            "(`dataset.map`)."
        )

    def recording(layer: keras.layers.Layer) -> Any:
        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = type(layer).call(layer, inputs, *args, **kwargs)
            recorded[layer.name].append(outputs)
            return outputs

        return call

    with contextlib.ExitStack() as stack:
        for name in names:
            layer = model.get_layer(name)
            stack.enter_context(replaced_call(layer, recording(layer)))
        yield recorded


@contextlib.contextmanager
def _replayed(
    model: keras.Model, recorded: Mapping[str, list[tf.Tensor]]
) -> Iterator[None]:
    """Makes augmentation layers return what those of the same name have returned."""

    def replaying(outputs: list[tf.Tensor]) -> Any:
        remaining = iter(outputs)
        return lambda inputs, *args, **kwargs: next(remaining)

    with contextlib.ExitStack() as stack:
        for layer in _augmentation_layers(model):
            if layer.name in recorded:
                call = replaying(recorded[layer.name])
                stack.enter_context(replaced_call(layer, call))
        yield


class Untracked:
    """Holds what Keras would otherwise count among the model's own weights."""

    def __init__(self, teacher: keras.Model, total: Any) -> None:
        self.teacher = teacher
        self.total = total


def checked_pair(
    student: Any, teacher: Any, temperature: float, weight: float
) -> tuple[keras.Model, list[str]]:
    """Returns the teacher of a student, and the layers that augment images in both.

    Args:
        student: The quantized model, of tf_keras.
        teacher: The float model, of either Keras.
        temperature: Of the distillation.
        weight: Of the distillation.

    Raises:
        TypeError: If either is no such model.
        ValueError: If a number is out of range, or the models do not fit.
    """
    _check_arguments(student, temperature, weight)
    teacher = _without_terms(float_model(teacher))
    _check_same_outputs(student, teacher)
    augmenting = _augmentations(student)
    _check_same_augmentation(augmenting, teacher)
    return teacher, augmenting


def _without_terms(teacher: Any) -> Any:
    """Returns a teacher without its added losses and metrics, which would be unused."""
    is_graph = getattr(teacher, "_is_graph_network", False)
    if not is_graph or not any(added_call(layer) for layer in teacher.layers):
        return teacher
    plain = keras.Model(*model_structure(teacher), name=teacher.name)
    name_outputs(plain, teacher.output_names)
    return plain


def _check_arguments(student: Any, temperature: Any, weight: Any) -> None:
    """Refuses arguments that cannot be used for distillation."""
    if not isinstance(student, LSQModel) or not quantization_points(student):
        raise TypeError(
            "`student` must be a quantized model from `tf_lsq.quantize_model`. "
            f"Received: {type(student).__name__}."
        )
    if not temperature > 0 or not 0 <= weight <= 1:
        raise ValueError(
            "`temperature` must be positive and `distillation_weight` from 0 to 1. "
            f"Received: temperature={temperature}, distillation_weight={weight}."
        )


def _check_same_outputs(student: keras.Model, teacher: Any) -> None:
    """Refuses a teacher whose outputs are not comparable with the student's."""
    if not isinstance(teacher, keras.Model) or not hasattr(teacher, "output_shape"):
        raise TypeError(
            "`teacher` must be a functional or sequential Keras model. "
            f"Received: {type(teacher).__name__}."
        )
    names = [list(model.input_names) for model in (student, teacher)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        raise ValueError(
            f"`teacher` must have the inputs of `student`, {names[0]}, in this order. "
            f"Received: {names[1]}."
        )
    ends = [_float_names(model) for model in (student, teacher)]
    if ends[0] != ends[1] and sorted(ends[0]) == sorted(ends[1]):
        raise ValueError(
            f"`teacher` must have the outputs of `student`, {ends[0]}, in this order. "
            f"Received: {ends[1]}."
        )
    pairs = [model_structure(model)[1] for model in (student, teacher)]
    shapes = [
        tf.nest.map_structure(lambda t: tuple(t.shape), structure)
        for structure in pairs
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`teacher` must have the outputs of `student`. Received: outputs of shape "
            f"{shapes[1]}, but those of the student are {shapes[0]}."
        )


def _float_names(model: keras.Model) -> list[str]:
    """Returns the names of the outputs in the float network."""
    return [re.sub("^quant(ize)?_", "", name) for name in model.output_names]


def _per_output(loss: Any, names: list[str]) -> list[Any]:
    """Returns the loss of every output; without any loss, all are over classes."""
    if isinstance(loss, Mapping):
        return [loss.get(name) for name in names]
    if isinstance(loss, list | tuple):
        return list(loss)
    return [CrossEntropy() if loss is None else loss] * len(names)


def _name_of(loss: Any) -> str:
    """Returns the name of a loss's class or function."""
    return getattr(loss, "__name__", type(loss).__name__)
