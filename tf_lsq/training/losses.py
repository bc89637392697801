"""Cross entropy and distillation losses that distinguish logits from probabilities.

A model's graph shows whether it ends in logits or in probabilities. A loss configured
for the wrong kind trains badly without an error, so we infer it from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .._compat import keras, model_structure, softmax_input
from ..graph import Node, analyze

LOGITS, PROBABILITIES, SIGMOID, UNKNOWN = (
    "logits",
    "probabilities",
    "sigmoid",
    "unknown",
)
_KINDS = {
    "softmax": PROBABILITIES,
    "sigmoid": SIGMOID,
    "hard_sigmoid": SIGMOID,
    "foreign": UNKNOWN,
    "table": UNKNOWN,  # Such as 1 / x, with which a softmax is written out.
    "exp": UNKNOWN,
}
_COMBINING = (
    *("add", "subtract", "multiply", "affine"),
    *("concat", "mean", "maximum", "minimum"),
)
# The smallest probability whose logarithm is taken; the gradient, one over it, leaves
# room for factors.
_SMALLEST = 1e-30


# A type checker sees the methods of Keras; at run time the classes below add them.
_Loss: Any = keras.losses.Loss if TYPE_CHECKING else object


class CrossEntropyOfClasses(_Loss):
    """The methods of `CrossEntropy`, for either Keras."""

    def __init__(self, from_logits: bool | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("name", "cross_entropy")
        super().__init__(**kwargs)
        self.from_logits = from_logits

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Returns one value per example.

        Args:
            y_true: Class numbers `[batch, ...]` or `[batch, ..., 1]`, or one-hot
                labels `[batch, ..., classes]`.
            y_pred: `[batch, ..., classes]`.

        Raises:
            ValueError: If it is unknown whether outputs are logits, or the shape of the
                labels does not show what they are.
        """
        if self.from_logits is None:
            raise ValueError(
                "`CrossEntropy` must know whether outputs are logits. Received: "
                "from_logits=None. Pass from_logits=True or from_logits=False: only "
                "`LSQModel` and `Distiller` can infer it."
            )
        logits = y_pred if self.from_logits else softmax_input(y_pred)
        y_pred, y_true = _at_least_float32(y_pred), tf.convert_to_tensor(y_true)
        _check_classes(y_pred)
        function = keras.losses.sparse_categorical_crossentropy
        same_rank = y_true.shape.rank == y_pred.shape.rank
        if same_rank and y_true.shape.rank and y_true.shape[-1] is None:
            raise ValueError(
                "Labels must have a known last axis: 1 for class numbers, "
                f"{y_pred.shape[-1]} for one-hot labels. Received: {y_true.shape}. Set "
                "the shapes in the dataset, for example with `tf.ensure_shape`."
            )
        if same_rank and y_true.shape[-1] == y_pred.shape[-1]:
            function = keras.losses.categorical_crossentropy
        if logits is not None:
            return function(y_true, _at_least_float32(logits), from_logits=True)
        return function(y_true, y_pred)

    def for_output(self, kind: str, name: str) -> CrossEntropyOfClasses:
        """Returns this loss for one output of a model.

        Args:
            kind: One of the kinds that `output_kinds` returns.
            name: Name of the output, for the message.

        Raises:
            ValueError: If the output is neither logits nor probabilities.
        """
        if kind not in (LOGITS, PROBABILITIES):
            raise ValueError(
                "A cross entropy over classes needs outputs that are logits or "
                f"softmax probabilities. Received: the output `{name}`, whose last "
                f"operator is {kind}. Compile with a custom loss for it."
            )
        config = {**self.get_config(), "from_logits": kind == LOGITS}
        return type(self).from_config(config)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {**super().get_config(), "from_logits": self.from_logits}


@keras.utils.register_keras_serializable(package="tf_lsq")
class CrossEntropy(CrossEntropyOfClasses, keras.losses.Loss):
    """Softmax cross entropy for class numbers or one-hot labels.

    Labels with the shape of the outputs count as one-hot (or as probabilities), others
    as class numbers.

    Args:
        from_logits: Whether outputs are logits. None: an `LSQModel` and a `Distiller`
            infer it from their graph when they are compiled.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Example:
        >>> loss = CrossEntropy(from_logits=True)
        >>> round(float(loss([1], [[0.0, 0.0]])), 4)
        0.6931
    """


class DistillationOfClasses(_Loss):
    """The methods of `DistillationLoss`, for either Keras."""

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        from_logits: bool = True,
        teacher_from_logits: bool | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "distillation")
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(
                f"`temperature` must be positive. Received: temperature={temperature}."
            )
        self.temperature = temperature
        self.from_logits = from_logits
        if teacher_from_logits is None:
            teacher_from_logits = from_logits
        self.teacher_from_logits = teacher_from_logits

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Returns one value per example.

        Args:
            y_true: The teacher's outputs, `[batch, ..., classes]`.
            y_pred: The student's, same shape.
        """
        teacher = self._log_probabilities(y_true, self.teacher_from_logits)
        student = self._log_probabilities(y_pred, self.from_logits)
        terms = tf.exp(teacher) * (teacher - student)
        return self.temperature**2 * tf.reduce_sum(terms, axis=-1)

    def _log_probabilities(self, outputs: Any, from_logits: bool) -> tf.Tensor:
        """Returns the logarithms of softened probabilities, at least float32."""
        logits = outputs if from_logits else softmax_input(outputs)
        if logits is None:
            logits = tf.math.log(tf.maximum(_at_least_float32(outputs), _SMALLEST))
        logits = _at_least_float32(logits)
        _check_classes(logits)
        return tf.nn.log_softmax(logits / self.temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the settings."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "from_logits": self.from_logits,
            "teacher_from_logits": self.teacher_from_logits,
        }


@keras.utils.register_keras_serializable(package="tf_lsq")
class DistillationLoss(DistillationOfClasses, keras.losses.Loss):
    """Distance of a student's distribution over classes from a teacher's.

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``: the factor keeps the
    size of gradients the same at any temperature T. Its gradient is that of the
    cross entropy against the teacher's probabilities.

    Probabilities that come from a softmax are replaced by its input, if the graph
    still has it. Otherwise their logarithm is taken, down to 1e-30: a student that is
    certain but wrong still gets a gradient.

    Args:
        temperature: T, positive; the paper's is 1.
        from_logits: Whether the student's outputs are logits, not probabilities.
        teacher_from_logits: The same for the teacher's; None: as for the student's.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Raises:
        ValueError: If `temperature` is not positive.

    Example:
        >>> loss = DistillationLoss(temperature=2.0)
        >>> float(loss([[1.0, 3.0]], [[0.0, 2.0]]))  # (teacher, student)
        0.0

    References:
        Hinton et al., "Distilling the Knowledge in a Neural Network",
        https://arxiv.org/abs/1503.02531, Section 2; Esser et al., Section 3.7.
    """


def _at_least_float32(outputs: Any) -> tf.Tensor:
    """Returns outputs as a tensor; 16-bit ones are too imprecise for a loss."""
    outputs = tf.convert_to_tensor(outputs)
    return tf.cast(outputs, tf.float32) if outputs.dtype.size < 4 else outputs


def _check_classes(outputs: tf.Tensor) -> None:
    """Refuses outputs of one class, whose softmax is constant."""
    if outputs.shape.rank and outputs.shape[-1] == 1:
        raise ValueError(
            "A loss over classes needs outputs of at least two classes. Received: "
            f"shape {tuple(outputs.shape)}. Use `keras.losses.BinaryCrossentropy` for "
            "one class, 'mse' for a number."
        )


def output_kinds(model: keras.Model) -> dict[str, str]:
    """Returns what every output of a model holds, inferred from its graph.

    Args:
        model: A functional or sequential model, float or quantized.

    Returns:
        Name of the output (its key, if the model returns a dict) -> "logits" (or any
        other linear output), "probabilities" (after a softmax), "sigmoid" or "unknown"
        (after a layer that this library does not know); in the model's order.

    Raises:
        ValueError: If the model has no Keras graph.
    """
    _, structure = model_structure(model)
    names = sorted(structure) if isinstance(structure, dict) else model.output_names
    outputs = analyze(model).outputs
    return {name: _kind(node) for name, node in zip(names, outputs, strict=True)}


def _kind(node: Node) -> str:
    """Returns what the output of an operator holds."""
    # Means of distributions over positions are distributions.
    while (node.properties.keeps_codes or node.properties.keeps_grid) and node.inputs:
        node = node.inputs[0]
    if node.kind in _COMBINING and any(
        _kind(one) in (PROBABILITIES, UNKNOWN) for one in node.inputs
    ):
        return UNKNOWN  # For example, a mean of probabilities.
    return _KINDS.get(node.kind, LOGITS)


def resolve(loss: Any, model: keras.Model) -> Any:
    """Returns a `loss` for `compile` in which every `CrossEntropy` knows its outputs.

    Args:
        loss: A loss, or a list or dict of them, as `compile` takes it.
        model: The model with these outputs.

    Raises:
        ValueError: If an output is neither logits nor probabilities.
    """
    if not any(_is_open(one) for one in tf.nest.flatten(loss)):
        return loss
    kinds = output_kinds(model)
    _, structure = model_structure(model)
    if _is_open(loss):
        losses = [loss.for_output(kind, name) for name, kind in kinds.items()]
        return tf.nest.pack_sequence_as(structure, losses)
    _check_names(loss, list(kinds))
    if isinstance(loss, Mapping):
        return {
            name: one.for_output(kinds[name], name) if _is_open(one) else one
            for name, one in loss.items()
        }
    return [
        one.for_output(kind, name) if _is_open(one) else one
        for one, (name, kind) in zip(loss, kinds.items(), strict=True)
    ]


def _check_names(loss: Any, names: list[str]) -> None:
    """Refuses losses for outputs that a model does not have."""
    if isinstance(loss, Mapping):
        unknown = sorted(set(loss) - set(names))
        if unknown:
            raise ValueError(
                f"`loss` must have the names of outputs, {names}. Received: {unknown}."
            )
    elif len(loss) != len(names):
        raise ValueError(
            f"`loss` must have one loss per output, {names}. Received: {len(loss)}."
        )


def _is_open(loss: Any) -> bool:
    """Returns whether a loss is a `CrossEntropy` that must still infer its outputs."""
    return isinstance(loss, CrossEntropyOfClasses) and loss.from_logits is None
