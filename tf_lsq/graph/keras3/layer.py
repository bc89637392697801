"""A layer of tf_keras that runs a layer or operation of Keras 3 that has no twin."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ..._compat import import_keras3, in_safe_mode, keras
from .arguments import unpack_arguments


@keras.utils.register_keras_serializable(package="tf_lsq")
class Keras3Layer(keras.layers.Layer):
    """Runs a Keras 3 layer, or an operation of `keras.ops`, inside a tf_keras model.

    It has variables of its own, with the names and first values of those of the
    Keras 3 layer, which never changes. Losses and constraints are those of that layer.
    In training, the layer updates its own non-trainable variables (moving averages,
    seeds); in inference, random numbers are the same in every call.

    Keras 3 must run on TensorFlow.

    Attributes:
        operation: The Keras 3 layer or operation.
        reason: Why it has no twin in tf_keras.

    Args:
        operation: The built Keras 3 layer, or the operation; or its configuration as
            JSON, as in a saved model.
        reason: Why it has no twin in tf_keras, for messages.
        **kwargs: Keras' layer arguments; name and dtype default to those of
            `operation`.

    Raises:
        ValueError: If Keras 3 does not run on TensorFlow, or cannot load `operation`.
    """

    operation: Any

    def __init__(self, operation: Any, reason: str = "", **kwargs: Any) -> None:
        check_backend()
        if isinstance(operation, (str, _NotSaved)):
            operation = _loaded(operation, kwargs.get("name"))
        kwargs.setdefault("name", operation.name)
        kwargs.setdefault("dtype", _policy(operation))
        kwargs.setdefault("trainable", getattr(operation, "trainable", True))
        super().__init__(autocast=False, **kwargs)
        # Not an attribute that Keras sees: it would track the variables.
        object.__setattr__(self, "operation", operation)
        self.reason = reason
        self.supports_masking = True
        # Keras 3 attaches masks to tensors itself, under the same name.
        self._compute_output_and_mask_jointly = True
        reads_mask = bool(getattr(operation, "_call_has_mask_arg", False))
        self._call_spec.expects_mask_arg = reads_mask

    @property
    def keras3_class_name(self) -> str:
        """The class of the Keras 3 layer or operation."""
        return type(self.operation).__name__

    def build(self, input_shape: Any) -> None:
        """Creates the variables."""
        operation = self.operation
        if not getattr(operation, "built", True):
            operation.build(input_shape)
        trained = {id(v) for v in _trained_variables(operation)}
        names = _local_names(operation)
        self._own = [
            self.add_weight(
                name=name,
                shape=variable.shape,
                dtype=variable.dtype,
                initializer=_value_of(variable),
                trainable=id(variable) in trained,
                constraint=variable.constraint,
                experimental_autocast=False,
            )
            for name, variable in zip(names, _variables(operation), strict=True)
        ]
        super().build(input_shape)

    def call(
        self,
        inputs: Any,
        arguments: str | None = None,
        training: Any = None,
        mask: Any = None,
    ) -> Any:
        """Returns the outputs of the Keras 3 layer or operation.

        Args:
            inputs: Its only argument; with `arguments`, the list of all tensors that
                it receives.
            arguments: Its arguments, as `pack_arguments` returns them.
            training: Whether the layer runs in training mode.
            mask: Masks of the inputs, which Keras 3 reads from the inputs.
        """
        return self._run(inputs, arguments, bool(training))

    @tf.autograph.experimental.do_not_convert  # Keras 3 does not expect it.
    def _run(self, inputs: Any, arguments: str | None, training: bool) -> Any:
        """Calls the operation, with this layer's variables in place of its own."""
        args, kwargs = [inputs], {}
        if arguments is not None:
            args, kwargs = unpack_arguments(arguments, tf.nest.flatten(inputs))
        if not _is_layer(self.operation):
            outputs = self.operation(*args, **kwargs)
            return _with_known_shapes(outputs, self.operation, args, kwargs)
        if self.operation._call_has_training_arg:
            kwargs["training"] = training
        state = list(zip(_variables(self.operation), self._own, strict=True))
        with import_keras3().StatelessScope(state, collect_losses=True) as scope:
            outputs = self.operation(*args, **kwargs)
            self.add_loss(self.operation.losses)
            self.operation._clear_losses()
        for variable, own in state if training else ():
            # A frozen layer keeps its averages, but not its seeds.
            if not own.trainable and (self.trainable or not own.dtype.is_floating):
                own.assign(scope.get_current_value(variable))
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the settings, with the configuration of the Keras 3 layer."""
        operation = _saved(self.operation)
        return {**super().get_config(), "operation": operation, "reason": self.reason}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Keras3Layer:
        """Returns the layer of a configuration."""
        return cls(**config)  # Keras would add the whole configuration to an error.


class _Saved(str):
    """The configuration of a Keras 3 layer as JSON, and the layer itself.

    A layer that is copied within the process, not loaded from a file, runs the same
    Keras 3 layer. So a class need not be registered to be copied, and functions keep
    their global names.
    """

    operation: Any

    def __deepcopy__(self, memo: Any) -> _Saved:
        return self


class _NotSaved:
    """A Keras 3 operation without a configuration: it can be copied, but not saved."""

    def __init__(self, operation: Any, cause: Exception) -> None:
        self.operation = operation
        self.cause = cause

    def __deepcopy__(self, memo: Any) -> _NotSaved:
        return self

    def get_config(self) -> dict[str, Any]:
        """Refuses to save the model; Keras calls it.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"`{self.operation.name}` ({type(self.operation).__name__}) must have a "
            "configuration that Keras 3 can save, so that the model can be saved. "
            f"Give the class a `get_config`. Received: {_first_line(self.cause)}"
        ) from self.cause


def check_backend() -> None:
    """Refuses a Keras 3 that runs on something other than TensorFlow.

    Raises:
        ValueError: If its backend is another one.
    """
    backend = import_keras3().config.backend()
    if backend != "tensorflow":
        raise ValueError(
            "Layers and operations of Keras 3 without a tf_keras twin need Keras 3 on "
            f"TensorFlow. Received: the backend {backend!r}. Set KERAS_BACKEND="
            "tensorflow before Keras 3 is imported, and load the model there."
        )


def _saved(operation: Any) -> _Saved | _NotSaved:
    """Returns the configuration of a Keras 3 layer or operation."""
    with warnings.catch_warnings():
        # Loading repeats that a lambda needs `safe_mode=False`.
        warnings.simplefilter("ignore")
        try:
            config = import_keras3().saving.serialize_keras_object(operation)
            saved = _Saved(json.dumps(config))
        except (TypeError, ValueError, NotImplementedError) as error:
            return _NotSaved(operation, error)
    saved.operation = operation
    return saved


def _loaded(config: str | _NotSaved, layer_name: str | None) -> Any:
    """Returns the Keras 3 layer or operation of a configuration."""
    if isinstance(config, (_Saved, _NotSaved)):
        return config.operation
    settings = json.loads(config)
    try:
        return import_keras3().saving.deserialize_keras_object(
            settings, safe_mode=in_safe_mode()
        )
    except (TypeError, ValueError, NameError) as error:
        raise ValueError(
            f"Keras 3 cannot load `{layer_name}` ({settings['class_name']}). "
            f"{_loading_remedy(settings)}. Received: {_first_line(error)}"
        ) from error


def _loading_remedy(settings: Mapping[str, Any]) -> str:
    """Returns how a model with a layer of Keras 3 can be loaded."""
    kind, name = settings["class_name"], settings["registered_name"]
    if kind == "Lambda":
        return "A Lambda needs `safe_mode=False`"
    return (
        "Import the module that registers its class, or load the model within "
        f"`keras.saving.custom_object_scope({{{name!r}: {kind}}})` of Keras 3"
    )


def _first_line(error: Exception) -> str:
    """Returns the cause in an error's message, without the dump of a configuration."""
    cause = str(error).rpartition("Exception encountered: ")[2]
    return cause.partition(". Make sure")[0].strip().partition("\n")[0]


def _policy(operation: Any) -> str:
    """Returns the name of the dtype policy in tf_keras."""
    policy = getattr(getattr(operation, "dtype_policy", None), "name", "float32")
    known = policy.startswith("mixed_") or "_" not in policy
    return policy if known else operation.compute_dtype


def _with_known_shapes(outputs: Any, operation: Any, args: Any, kwargs: Any) -> Any:
    """Gives tensors of unknown shape the one that Keras 3 infers."""
    tensors = tf.nest.flatten(outputs)
    if not all(tensor.shape[1:].is_fully_defined() for tensor in tensors):
        given = tf.nest.map_structure(_symbolic, (args, kwargs))
        specs = operation.compute_output_spec(*given[0], **given[1])
        for tensor, spec in zip(tensors, tf.nest.flatten(specs), strict=True):
            tensor.set_shape(spec.shape)
    return outputs


def _symbolic(value: Any) -> Any:
    """Returns a tensor as Keras 3 describes it, and anything else as it is."""
    if not tf.is_tensor(value):
        return value
    return import_keras3().KerasTensor(tuple(value.shape), value.dtype.name)


def _is_layer(operation: Any) -> bool:
    """Returns whether an operation is a layer."""
    return isinstance(operation, import_keras3().layers.Layer)


def _variables(operation: Any) -> list[Any]:
    """Returns all variables of a Keras 3 layer; an operation has none."""
    return list(getattr(operation, "variables", ()))


def _trained_variables(operation: Any) -> list[Any]:
    """Returns the variables that train unless the layer is frozen."""
    if not _is_layer(operation):
        return []
    return [
        variable
        for layer in operation._flatten_layers()
        for variable in layer._trainable_variables
        if variable.trainable or not operation.trainable
    ]


def _local_names(operation: Any) -> list[str]:
    """Returns a name for every variable, unique and without the layer's own name."""
    names: list[str] = []
    for variable in _variables(operation):
        path = str(variable.path)
        _, _, inner = path.rpartition(f"{operation.name}/")
        name = inner or path
        names.append(f"{name}_{len(names)}" if name in names else name)
    return names


def _value_of(variable: Any) -> Any:
    """Returns an initializer with the value of a Keras 3 variable."""

    def value(shape: Any, dtype: Any = None, **_: Any) -> Any:
        return tf.constant(np.asarray(variable), dtype, shape)

    return value
