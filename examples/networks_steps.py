"""One training step, in which every gradient is finite and every learned step moves."""

from __future__ import annotations

from typing import Any

import keras as keras3
import numpy as np
import tensorflow as tf
import tf_keras as keras

from tf_lsq.layers import QuantizationPoint
from tf_lsq.training import quantization_points, wrapped_layers

RATE = 1e-4


def train_a_step(student: Any, x: np.ndarray, y: np.ndarray, *, logits: bool) -> None:
    """Trains a student for one step of Adam.

    Args:
        student: A calibrated student of either Keras, changed in place.
        x: Its inputs.
        y: The classes, `[batch]`.
        logits: Whether the student's outputs are logits.

    Raises:
        AssertionError: If a variable has no finite gradient, or a step did not move
            though it could: a step cannot if its point rounds nothing, or if it would
            grow and is at the limit of a ReLU6.
    """
    owner = keras3 if isinstance(student, keras3.Model) else keras
    loss = owner.losses.SparseCategoricalCrossentropy(from_logits=logits)
    student.compile(owner.optimizers.Adam(RATE), loss)
    inner, untrained = student.quantized, student.get_weights()
    with tf.GradientTape() as tape:
        value = loss(y, student(x, training=True))
    variables = inner.trainable_variables
    gradients = tape.gradient(value, variables)
    bad = [
        variable.name
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is None or not np.isfinite(gradient).all()
    ]
    if bad:
        raise AssertionError(f"No finite gradient for {bad}.")
    before = _learned_steps(inner)
    pairs = zip(gradients, student.trainable_variables, strict=True)
    student.optimizer.apply_gradients(pairs)
    after = _learned_steps(inner)
    stuck = [name for name, step in before.items() if (step == after[name]).all()]
    if stuck:
        by_variable = {v.ref(): g for v, g in zip(variables, gradients, strict=True)}
        trained = student.get_weights()
        student.set_weights(untrained)
        stuck = [name for name in stuck if _could_move(inner, name, x, by_variable)]
        student.set_weights(trained)
    if stuck:
        raise AssertionError(f"These steps did not move: {stuck}.")


def _learned_steps(student: Any) -> dict[str, np.ndarray]:
    """Returns the variables of learned steps."""
    layers = (*wrapped_layers(student), *quantization_points(student))
    return {
        layer.name: layer.step_variables["step"].numpy()
        for layer in layers
        if "step" in layer.step_variables
    }


def _could_move(
    student: Any, name: str, x: np.ndarray, gradients: dict[Any, Any]
) -> bool:
    """Returns whether a step had a reason to move, and was free to."""
    layer = student.get_layer(name)
    return not _has_no_error(student, layer, x) and not _is_at_limit(layer, gradients)


def _has_no_error(student: Any, point: Any, x: np.ndarray) -> bool:
    """Returns whether all values that a point quantizes are already on its grid.

    Pooling over one position gives such values. The gradient of the step is then 0,
    and only rounding errors can move it.
    """
    if not isinstance(point, QuantizationPoint):
        return False
    arriving = keras.Model(student.inputs, point.input)(x, training=True)
    error = arriving - point.step * tf.round(arriving / point.step)
    in_range = arriving <= point.step * (float(point.integer_range.q_max) + 0.5)
    return bool(tf.reduce_all(in_range & (abs(error) < 1e-4 * point.step)))


def _is_at_limit(layer: Any, gradients: dict[Any, Any]) -> bool:
    """Returns whether a step is at the limit of a ReLU6 and would grow."""
    variable = layer.step_variables["step"]
    limit = getattr(variable.constraint, "max_step", np.inf)
    return layer.step >= limit * (1 - 1e-6) and gradients[variable.ref()] < 0
