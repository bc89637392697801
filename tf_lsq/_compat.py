"""The one place that picks Keras and touches private parts of TF-MOT and Keras.

TF-MOT works with Keras 2 only, so this library does too: `keras` here is
`tf_keras`. Every other module imports `keras` and `tfmot` from here.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

__all__ = [
    "exclude_from_weight_decay",
    "infers_shapes_only",
    "keras",
    "model_structure",
    "register_for_h5",
    "tfmot",
]


def model_structure(model: keras.Model) -> tuple[Any, Any]:
    """Returns the nested structures in which a model takes inputs, gives outputs.

    `model.output` flattens a dict of outputs.
    """
    return model._nested_inputs, model._nested_outputs


def infers_shapes_only() -> bool:
    """Returns whether Keras calls a layer only to learn its output's shape.

    While a functional model is put together, Keras runs each layer in a graph
    that is thrown away; nothing that costs time or has effects belongs there.
    """
    if tf.executing_eagerly():
        return False
    return tf.compat.v1.get_default_graph().name.endswith("_scratch_graph")


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
