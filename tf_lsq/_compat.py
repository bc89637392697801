"""The one place that picks Keras and touches private parts of TF-MOT and Keras.

TF-MOT works with Keras 2 only, so this library does too: `keras` here is
`tf_keras`. Every other module imports `keras` and `tfmot` from here.

TF-MOT sets TF_USE_LEGACY_KERAS=1 when it is imported, which would turn the user's
`tf.keras` into Keras 2 behind their back. So `tf.keras` is resolved before that, by
the setting the user has chosen, and the environment is put back afterwards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine.compile_utils import LossesContainer
from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda as OpLambda
from tf_keras.src.mixed_precision.autocast_variable import enable_auto_cast_variables
from tf_keras.src.saving.serialization_lib import SafeModeScope as SafeMode

_LEGACY = "TF_USE_LEGACY_KERAS"


@contextlib.contextmanager
def _keras_choice_kept() -> Iterator[None]:
    """Fixes what `tf.keras` is, and puts the environment back."""
    chosen = os.environ.get(_LEGACY)
    getattr(tf.keras, "layers", None)  # Its first attribute decides, once for all.
    try:
        yield
    finally:
        os.environ.pop(_LEGACY, None)
        if chosen is not None:
            os.environ[_LEGACY] = chosen


with _keras_choice_kept():
    import tensorflow_model_optimization as tfmot

__all__ = [
    "OpLambda",
    "SafeMode",
    "SlicingOpLambda",
    "exclude_from_weight_decay",
    "import_keras3",
    "infers_shapes_only",
    "is_keras3_model",
    "keras",
    "losses_container",
    "model_structure",
    "nodes_of",
    "random_layers",
    "register_for_h5",
    "steps_per_execution",
    "tfmot",
    "value_as_stored",
]


def import_keras3() -> Any:
    """Returns the module of Keras 3; it is imported when it is first needed."""
    import keras as keras3

    return keras3


def is_keras3_model(model: Any) -> bool:
    """Returns whether an object is a model of Keras 3, without importing it."""
    return any(
        cls.__module__.startswith("keras.") and cls.__name__ == "Model"
        for cls in type(model).__mro__
    )


def model_structure(model: keras.Model) -> tuple[Any, Any]:
    """Returns the nested structures in which a model takes inputs, gives outputs.

    `model.output` flattens a dict of outputs.
    """
    return model._nested_inputs, model._nested_outputs


def nodes_of(model: keras.Model) -> list[Any]:
    """Returns the calls of layers that a functional model is made of, in order."""
    by_depth = model._nodes_by_depth
    return [
        node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]
    ]


def random_layers(model: keras.Model) -> list[Any]:
    """Returns the layers of a model that draw random numbers in training."""
    kind = keras.__internal__.layers.BaseRandomLayer
    return [layer for layer in model.layers if isinstance(layer, kind)]


def steps_per_execution(model: keras.Model) -> int | None:
    """Returns how many batches a call of the training function takes.

    None: Keras tunes the number while it trains.
    """
    if model.autotune_steps_per_execution:
        return None
    return int(keras.backend.get_value(model._steps_per_execution))


def infers_shapes_only() -> bool:
    """Returns whether Keras calls a layer only to learn its output's shape.

    While a functional model is put together, Keras runs each layer in a graph
    that is thrown away; nothing that costs time or has effects belongs there.
    """
    if tf.executing_eagerly():
        return False
    return tf.compat.v1.get_default_graph().name.endswith("_scratch_graph")


def losses_container(
    losses: Any, loss_weights: Any, names: list[str], *, total: str
) -> Any:
    """Returns what `compile` makes of losses: called with y_true, y_pred, weights.

    It handles several outputs, sample weights, masks and distribution, and has the
    metrics of the losses.

    Args:
        losses: A loss, or a structure of them.
        loss_weights: Weights of the outputs, or None.
        names: Of the outputs, in the names of their metrics.
        total: Name of the metric of the sum.
    """
    return LossesContainer(
        losses, loss_weights, names, total_loss_mean=keras.metrics.Mean(name=total)
    )


def value_as_stored(variable: tf.Variable) -> tf.Tensor:
    """Returns the value of a variable in the variable's own dtype.

    Under a mixed-precision policy a layer sees 16-bit copies of its variables.
    """
    with enable_auto_cast_variables(None):
        return tf.convert_to_tensor(variable)


def register_for_h5(cls: type) -> type:
    """Registers a model class under the bare name that `.h5` files hold.

    Keras writes the package-qualified name of layers, but of the model itself
    only `__name__`.
    """
    keras.utils.get_custom_objects()[cls.__name__] = cls
    return cls


def exclude_from_weight_decay(optimizer: Any, pattern: str) -> None:
    """Adds a name pattern to the variables that `optimizer` does not decay.

    Keras' own `exclude_from_weight_decay` replaces what was excluded before;
    this keeps the user's exclusions. An optimizer that already has slots is
    left alone if it knows the pattern, because it was prepared before.

    Args:
        optimizer: A `tf_keras` optimizer, possibly a loss-scale wrapper.
        pattern: Regular expression, searched in the variables' names.

    Raises:
        ValueError: If the optimizer was built before without the exclusion
            and would decay the variables.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(optimizer, "weight_decay", None):
        return
    names = list(getattr(optimizer, "_exclude_from_weight_decay_names", None) or [])
    if pattern in names:
        return
    if getattr(optimizer, "_built", False):
        raise ValueError(
            "The optimizer must be compiled into the model before it is built, "
            "so that its weight decay can leave out the learned steps. Received "
            f"a built {type(optimizer).__name__} with "
            f"weight_decay={optimizer.weight_decay}. Create a new optimizer."
        )
    chosen = getattr(optimizer, "_exclude_from_weight_decay", None)
    optimizer.exclude_from_weight_decay(var_names=[*names, pattern])
    if chosen:
        optimizer._exclude_from_weight_decay = chosen
