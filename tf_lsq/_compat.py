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
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.engine.compile_utils import LossesContainer
from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda as OpLambda
from tf_keras.src.mixed_precision.autocast_variable import enable_auto_cast_variables
from tf_keras.src.optimizers.legacy.optimizer_v2 import _var_key
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
    "inference_only",
    "infers_shapes_only",
    "inner_optimizer",
    "is_keras3_model",
    "keras",
    "losses_container",
    "model_structure",
    "nodes_of",
    "random_layers",
    "register_for_h5",
    "replaced_call",
    "reset_slots",
    "softmax_input",
    "split_clipping",
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


def softmax_input(probabilities: Any) -> tf.Tensor | None:
    """Returns what a softmax over the last axis was taken of, None if that is lost.

    Keras' activation notes it; in a graph the operator has it. A cast of the
    probabilities, as under mixed precision, is looked through.
    """
    noted = getattr(probabilities, "_keras_logits", None)
    if noted is not None or not tf.is_symbolic_tensor(probabilities):
        return noted
    operator = probabilities.op
    while operator.type in ("Identity", "Cast"):
        operator = operator.inputs[0].op
    return operator.inputs[0] if operator.type == "Softmax" else None


@contextlib.contextmanager
def inference_only(layer: Any) -> Iterator[None]:
    """Has a layer compute as in inference, whatever it is told."""

    def call(inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        return type(layer).call(layer, inputs, training=False, **kwargs)

    with replaced_call(layer, call):
        yield


@contextlib.contextmanager
def replaced_call(layer: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Gives a layer another `call`."""
    vars(layer)["call"] = call
    try:
        yield
    finally:
        del vars(layer)["call"]


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


def inner_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer inside a loss-scale wrapper, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


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
    optimizer = inner_optimizer(optimizer)
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


def split_clipping(
    optimizer: Any,
    is_apart: Callable[[tf.Variable], bool],
    bound: Callable[[Any], tf.Tensor] | None,
) -> None:
    """Has an optimizer clip the gradients of some variables apart from all others.

    Their values are clipped to ``-limit .. limit`` with ``limit = bound(rate)``, where
    the rate is the present learning rate; `clipnorm`, `clipvalue`,
    `global_clipnorm` and the transformers of a legacy optimizer see the others only.
    Keras clips once per variable and update, after replicas have been summed and the
    scale of the loss has been divided out.

    The methods are replaced in the instance, so an optimizer of any class stays of its
    class, and is saved as it was.

    Args:
        optimizer: A `tf_keras` optimizer, possibly a loss-scale wrapper.
        is_apart: Which variables.
        bound: Returns the limit. None: all variables are clipped alike again.
    """
    optimizer = inner_optimizer(optimizer)
    is_legacy = isinstance(optimizer, keras.optimizers.legacy.Optimizer)
    methods = _legacy_clipping if is_legacy else _clipping
    for name, method in methods(is_apart, bound).items():
        if bound is None:
            vars(optimizer).pop(name, None)
        else:
            vars(optimizer)[name] = types.MethodType(method, optimizer)


def _clipping(is_apart: Any, bound: Any) -> dict[str, Callable[..., Any]]:
    """Returns the methods of an optimizer that clip, by name."""

    def apply_gradients(self: Any, grads_and_vars: Any, *args: Any, **kwargs: Any):
        pairs = list(grads_and_vars)
        # Keras' own method is not told whose gradients it clips.
        vars(self)["_clipped"] = [is_apart(v) for g, v in pairs if g is not None]
        return type(self).apply_gradients(self, pairs, *args, **kwargs)

    def clip_gradients(self: Any, grads: Sequence[Any]) -> list[Any]:
        apart = vars(self)["_clipped"]
        others = [g for g, alone in zip(grads, apart, strict=True) if not alone]
        others = iter(type(self)._clip_gradients(self, others) if others else [])
        limit = bound(self.learning_rate)
        return [
            tf.clip_by_value(g, -limit, limit) if alone else next(others)
            for g, alone in zip(grads, apart, strict=True)
        ]

    return {"apply_gradients": apply_gradients, "_clip_gradients": clip_gradients}


def _legacy_clipping(is_apart: Any, bound: Any) -> dict[str, Callable[..., Any]]:
    """Returns the method of a legacy optimizer that clips, by name."""

    def transform_gradients(self: Any, grads_and_vars: Any) -> list[Any]:
        pairs = list(grads_and_vars)
        others = [(g, v) for g, v in pairs if not is_apart(v)]
        if others:
            others = type(self)._transform_gradients(self, others)
        limit = bound(self._decayed_lr(tf.float32))
        apart = [(g, v) for g, v in pairs if is_apart(v)]
        return [*others, *((tf.clip_by_value(g, -limit, limit), v) for g, v in apart)]

    return {"_transform_gradients": transform_gradients}


def reset_slots(optimizer: Any, variables: Sequence[tf.Variable]) -> None:
    """Gives what an optimizer keeps of some variables the values of the beginning.

    Momenta and moments become 0, accumulators their initial value, and a moving average
    the present value of its variable.

    Args:
        optimizer: A `tf_keras` optimizer, possibly a loss-scale wrapper.
        variables: Those it has not seen are left out.
    """
    optimizer = inner_optimizer(optimizer)
    is_legacy = isinstance(optimizer, keras.optimizers.legacy.Optimizer)
    slots_of = _legacy_slots if is_legacy else _slots
    for variable in variables:
        for name, slot in slots_of(optimizer, variable):
            if name == "_model_variables_moving_average":
                slot.assign(variable)
            else:
                slot.assign(tf.fill(slot.shape, _initial_value(optimizer, name, slot)))


def _slots(optimizer: Any, variable: tf.Variable) -> Iterator[tuple[str, Any]]:
    """Yields the slots that an optimizer has for a variable, with their names."""
    places = getattr(optimizer, "_index_dict", {})
    place = places.get(optimizer._var_key(variable))
    if place is None:
        return
    for name, slots in vars(optimizer).items():
        is_slots = isinstance(slots, list) and len(slots) == len(places)
        if is_slots and name != "_variables" and isinstance(slots[place], tf.Variable):
            yield name, slots[place]


def _legacy_slots(optimizer: Any, variable: tf.Variable) -> Iterator[tuple[str, Any]]:
    """Yields the slots that an optimizer of the old kind has for a variable."""
    yield from optimizer._slots.get(_var_key(variable), {}).items()


def _initial_value(optimizer: Any, name: str, slot: tf.Variable) -> tf.Tensor:
    """Returns what a slot starts from: 0, but for the accumulators of some."""
    value = 0.0
    if name.strip("_") in ("accumulator", "accumulators"):
        for attribute in ("initial_accumulator_value", "_initial_accumulator_value"):
            value = getattr(optimizer, attribute, value)
    return tf.cast(value, slot.dtype)
