"""The only module that chooses a Keras and uses private APIs of TF-MOT and Keras.

TF-MOT works only with Keras 2, and so does this library: `keras` here is
`tf_keras`. Every other module imports `keras` and `tfmot` from here.

Importing TF-MOT sets TF_USE_LEGACY_KERAS=1, which would silently switch the user's
`tf.keras` to Keras 2. So that is resolved first, and the environment restored after it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.applications import convnext, inception_resnet_v2
from tf_keras.src.engine import base_layer
from tf_keras.src.engine.compile_utils import LossesContainer
from tf_keras.src.layers.core import tf_op_layer
from tf_keras.src.mixed_precision.autocast_variable import enable_auto_cast_variables
from tf_keras.src.optimizers.legacy.optimizer_v2 import _var_key
from tf_keras.src.saving import serialization_lib

from . import _compat3

OpLambda: Any = tf_op_layer.TFOpLambda
SlicingOpLambda: Any = tf_op_layer.SlicingOpLambda
LayerScale: Any = convnext.LayerScale
CustomScaleLayer: Any = inception_resnet_v2.CustomScaleLayer
SafeMode: Any = serialization_lib.SafeModeScope
_LEGACY = "TF_USE_LEGACY_KERAS"
# Frames that Python allows while Keras connects a network; a layer takes one or two.
_DEEP = 20_000
# A type checker sees the methods of Keras; Keras adds them.
_Network: Any = keras.Model if TYPE_CHECKING else object


@contextlib.contextmanager
def _keras_choice_kept() -> Iterator[None]:
    """Resolves `tf.keras`, and restores the environment on exit."""
    chosen = os.environ.get(_LEGACY)
    getattr(tf.keras, "layers", None)  # The first access resolves it for good.
    try:
        yield
    finally:
        os.environ.pop(_LEGACY, None)
        if chosen is not None:
            os.environ[_LEGACY] = chosen


with _keras_choice_kept():
    import tensorflow_model_optimization as tfmot

__all__ = [
    "CustomScaleLayer",
    "DeepNetwork",
    "LayerScale",
    "OpLambda",
    "SafeMode",
    "SlicingOpLambda",
    "added_call",
    "added_callables",
    "calls_for_terms",
    "deep_recursion",
    "exclude_from_weight_decay",
    "full_name",
    "import_keras3",
    "in_safe_mode",
    "in_tflite_converter",
    "inference_only",
    "infers_shapes_only",
    "inner_optimizer",
    "is_keras3_layer_class",
    "is_keras3_model",
    "is_keras3_object",
    "keras",
    "keras3_runs_on_tensorflow",
    "losses_container",
    "model_structure",
    "name_outputs",
    "nodes_of",
    "random_layers",
    "register_for_h5",
    "rename_layer",
    "replaced_call",
    "reset_slots",
    "softmax_input",
    "split_clipping",
    "steps_per_execution",
    "tfmot",
    "value_as_stored",
]


def import_keras3() -> Any:
    """Returns the Keras 3 module, which is imported on first use."""
    import keras as keras3

    return keras3


def keras3_runs_on_tensorflow() -> bool:
    """Returns whether there is a Keras 3, with the backend TensorFlow."""
    try:
        return import_keras3().backend.backend() == "tensorflow"
    except ImportError:
        return False


def in_tflite_converter() -> bool:
    """Returns whether TensorFlow's TFLite converter traces a Keras model.

    It would drop what it does not know, and hides the errors of every other method.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "tensorflow.lite.python.lite":
            return True
        frame = frame.f_back
    return False


def in_safe_mode() -> bool:
    """Returns whether a model is being loaded that must not run code of its file."""
    return bool(serialization_lib.in_safe_mode())


def is_keras3_model(model: Any) -> bool:
    """Returns whether an object is a Keras 3 model, without importing Keras 3."""
    return _descends_from_keras3(type(model), "Model")


def is_keras3_object(value: Any) -> bool:
    """Returns whether an object's class is one of Keras 3, or derived from one."""
    return any(base.__module__.startswith("keras.") for base in type(value).__mro__)


def full_name(variable: Any) -> str:
    """Returns the name of a variable of either Keras, with its layer's."""
    return getattr(variable, "path", variable.name)


def is_keras3_layer_class(cls: Any) -> bool:
    """Returns whether an object is a layer class of Keras 3, without importing it."""
    return isinstance(cls, type) and _descends_from_keras3(cls, "Layer")


def _descends_from_keras3(cls: type, name: str) -> bool:
    """Returns whether a class is one of Keras 3, by name, or a subclass of it."""
    return any(
        base.__module__.startswith("keras.") and base.__name__ == name
        for base in cls.__mro__
    )


def model_structure(model: keras.Model) -> tuple[Any, Any]:
    """Returns the nested structures of a model's inputs and outputs.

    `model.output` flattens a dict of outputs.
    """
    return model._nested_inputs, model._nested_outputs


def name_outputs(model: keras.Model, names: Sequence[str]) -> None:
    """Sets the names of a model's outputs, by which losses and targets are given.

    Keras takes those of the layers that compute them. A name that repeats gets a
    number, as in tf_keras: Keras 3 repeats that of a layer that is called several
    times.
    """
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        candidates = itertools.chain([name], numbered)
        unique.append(next(one for one in candidates if one not in unique))
    vars(model)["output_names"] = unique


def nodes_of(model: keras.Model) -> list[Any]:
    """Returns the layer calls of a functional model, in order."""
    by_depth = model._nodes_by_depth
    return [
        node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]
    ]


def added_call(layer: Any) -> tuple[str, dict[str, Any]] | None:
    """Returns the call that adds what a layer adds to a model's losses and metrics.

    Keras keeps a call of `model.add_loss` or `add_metric` on a tensor as a layer beside
    the graph of the outputs.

    Returns:
        The name of the method and its arguments without the tensor; None for other
        layers.
    """
    if isinstance(layer, base_layer.AddLoss):
        return "add_loss", {}
    if isinstance(layer, base_layer.AddMetric):
        return (
            "add_metric",
            {"name": layer.metric_name, "aggregation": layer.aggregation},
        )
    return None


def calls_for_terms(model: keras.Model) -> set[int]:
    """Returns the layer calls that no output of a model depends on, by id."""
    nodes = nodes_of(model)
    makers = {id(t): n for n in nodes for t in tf.nest.flatten(n.outputs)}
    needed: set[int] = set()
    tensors = list(model.outputs)
    while tensors:
        node = makers.get(id(tensors.pop()))
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            tensors += node.keras_inputs
    return {id(node) for node in nodes} - needed


def added_callables(model: keras.Model) -> list[str]:
    """Returns the layers that `add_loss` was given functions for, once per function.

    Regularizers of weights do not count.
    """
    names = []
    for layer in model._flatten_layers():
        for tagged in layer._callable_losses:
            [function] = tagged.args
            inner = getattr(function, "func", function)
            if "_handle_weight_regularization" not in getattr(
                inner, "__qualname__", ""
            ):
                names.append(layer.name)
    return names


def random_layers(model: keras.Model) -> list[Any]:
    """Returns the layers of a model that draw random numbers in training."""
    kind = keras.__internal__.layers.BaseRandomLayer
    return [layer for layer in model.layers if isinstance(layer, kind)]


def softmax_input(probabilities: Any) -> tf.Tensor | None:
    """Returns the input of the softmax over the last axis, None if it is lost.

    Keras' activation records it; in a graph the operator has it. A cast of the
    probabilities, as under mixed precision, is skipped.
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
    """Runs a layer in inference mode, whatever `training` it receives."""

    def call(inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        return type(layer).call(layer, inputs, training=False, **kwargs)

    with replaced_call(layer, call):
        yield


@contextlib.contextmanager
def replaced_call(layer: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Temporarily replaces the `call` of a layer."""
    vars(layer)["call"] = call
    try:
        yield
    finally:
        del vars(layer)["call"]


def steps_per_execution(model: keras.Model) -> int | None:
    """Returns how many batches one call of the training function runs.

    None: Keras tunes the number during training.
    """
    if is_keras3_model(model):
        return int(model.steps_per_execution)
    if model.autotune_steps_per_execution:
        return None
    return int(keras.backend.get_value(model._steps_per_execution))


@contextlib.contextmanager
def deep_recursion() -> Iterator[None]:
    """Lets Keras connect networks of thousands of layers.

    It calls itself for every layer on the way from the outputs to the inputs, and a
    quantized network has a point after nearly every layer.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEP))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class DeepNetwork(_Network):
    """Adds to a class of models that they may have thousands of layers."""

    def _init_graph_network(self, inputs: Any, outputs: Any) -> None:
        with deep_recursion():
            super()._init_graph_network(inputs, outputs)


def infers_shapes_only() -> bool:
    """Returns whether Keras calls a layer only to learn its output's shape.

    While a functional model is built, Keras runs each layer in a graph that it
    discards; nothing slow or with side effects belongs there.
    """
    if tf.executing_eagerly():
        return False
    return tf.compat.v1.get_default_graph().name.endswith("_scratch_graph")


def losses_container(
    losses: Any, loss_weights: Any, names: list[str], *, total: str
) -> Any:
    """Returns the callable that `compile` builds from losses.

    It takes y_true, y_pred and weights, handles several outputs, sample weights,
    masks and distribution, and has the metrics of the losses.

    Args:
        losses: A loss, or a structure of them.
        loss_weights: Weights of the outputs, or None.
        names: Names of the outputs, used in the names of their metrics.
        total: Name of the metric for the sum.
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

    Keras writes the package-qualified names of layers, but only the `__name__`
    of the model itself.
    """
    keras.utils.get_custom_objects()[cls.__name__] = cls
    return cls


def rename_layer(layer: Any, name: str) -> None:
    """Changes the name of a layer that is not yet part of the user's model."""
    layer._name = name


def inner_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer inside a loss-scale wrapper, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def exclude_from_weight_decay(optimizer: Any, pattern: str) -> None:
    """Adds a name pattern to the variables that `optimizer` does not decay.

    Keras' own `exclude_from_weight_decay` replaces what was excluded before;
    this keeps the user's exclusions. An optimizer that already has slots is
    left unchanged if it knows the pattern, because it was prepared before.

    Args:
        optimizer: A `tf_keras` optimizer, possibly a loss-scale wrapper.
        pattern: Regular expression, searched in the variables' names.

    Raises:
        ValueError: If the optimizer was built before without the exclusion
            and would decay the variables.
    """
    optimizer = inner_optimizer(optimizer)
    if is_keras3_object(optimizer):
        _compat3.exclude_from_weight_decay(
            optimizer, lambda v: re.search(pattern, full_name(v)) is not None
        )
        return
    if not getattr(optimizer, "weight_decay", None):
        return
    names = list(getattr(optimizer, "_exclude_from_weight_decay_names", None) or [])
    if pattern in names:
        return
    if getattr(optimizer, "_built", False):
        raise ValueError(
            "The optimizer must be passed to `compile` before it is built, "
            "so that its weight decay can exclude the learned steps. Received "
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
    """Makes an optimizer clip the gradients of some variables separately.

    Their values are clipped to ``-limit .. limit`` with ``limit = bound(rate)``, where
    the rate is the current learning rate; `clipnorm`, `clipvalue`, `global_clipnorm`
    and the transformers of a legacy optimizer act only on the other variables. Keras
    clips once per variable and update, after it has summed over replicas and divided
    out the loss scale.

    The methods are replaced on the instance, so an optimizer of any class keeps its
    class, and is saved unchanged.

    Args:
        optimizer: A `tf_keras` optimizer, possibly a loss-scale wrapper.
        is_apart: Whether a variable is clipped separately.
        bound: Returns the limit. None: all variables are clipped in the same way again.
    """
    optimizer = inner_optimizer(optimizer)
    if is_keras3_object(optimizer):
        _compat3.split_clipping(optimizer, is_apart, bound)
        return
    methods = _legacy_clipping if _is_legacy(optimizer) else _clipping
    for name, method in methods(is_apart, bound).items():
        if bound is None:
            vars(optimizer).pop(name, None)
        else:
            vars(optimizer)[name] = types.MethodType(method, optimizer)


def _clipping(is_apart: Any, bound: Any) -> dict[str, Callable[..., Any]]:
    """Returns the clipping methods of an optimizer, by name."""

    def apply_gradients(self: Any, grads_and_vars: Any, *args: Any, **kwargs: Any):
        pairs = list(grads_and_vars)
        # Keras' own method does not know whose gradients it clips.
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
    """Returns the clipping method of a legacy optimizer, by name."""

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
    """Resets an optimizer's slots for some variables.

    Momenta and moments become 0, accumulators get their initial value, and a moving
    average gets the current value of its variable.

    Args:
        optimizer: A `tf_keras` optimizer, possibly a loss-scale wrapper.
        variables: Variables that the optimizer has not seen are skipped.
    """
    optimizer = inner_optimizer(optimizer)
    slots_of = _legacy_slots if _is_legacy(optimizer) else _slots
    if is_keras3_object(optimizer):
        slots_of = _compat3.slots_of
    for variable in variables:
        for name, slot in slots_of(optimizer, variable):
            if name == "_model_variables_moving_average":
                slot.assign(variable)
            else:
                slot.assign(tf.fill(slot.shape, _initial_value(optimizer, name, slot)))


def _is_legacy(optimizer: Any) -> bool:
    """Returns whether an optimizer of tf_keras is one of before version 2.11."""
    return isinstance(optimizer, keras.optimizers.legacy.Optimizer)


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
    """Yields the slots that a legacy optimizer has for a variable."""
    yield from optimizer._slots.get(_var_key(variable), {}).items()


def _initial_value(optimizer: Any, name: str, slot: tf.Variable) -> tf.Tensor:
    """Returns a slot's initial value: 0, except for some optimizers' accumulators."""
    value = 0.0
    if name.strip("_") in ("accumulator", "accumulators"):
        for attribute in ("initial_accumulator_value", "_initial_accumulator_value"):
            value = getattr(optimizer, attribute, value)
    return tf.cast(value, slot.dtype)
