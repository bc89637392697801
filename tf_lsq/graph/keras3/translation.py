"""Builds the tf_keras twin of a functional Keras 3 model, call by call."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..._compat import (
    deep_recursion,
    import_keras3,
    is_keras3_model,
    keras,
    name_outputs,
    rename_layer,
)
from ..expansions import expand_layer
from ..tabulated import is_registered
from .graph import (
    Call,
    CallTwin,
    ModelTwin,
    functional,
    nodes_of_keras3,
    placeholder,
    reason_of,
)
from .recorder import NoTwin
from .settings import activation_twin, make_layer, symbolic_activation
from .twins import (
    Names,
    activation_layer,
    function_twin,
    keras3_twin,
    layer_twin,
    model_twin,
    operation_twin,
    view_twin,
)

# What a layer of tf_keras may raise for a call that it does not support.
_REFUSALS = (AttributeError, NotImplementedError, TypeError, ValueError)


class Translator:
    """Builds a twin model by calling the twins of layers and operations."""

    def __init__(self) -> None:
        self._twins: dict[int, CallTwin] = {}
        self._variables: dict[int, Any] = {}
        self._kept: list[Any] = []  # So that their ids stay unique.
        self._problems: list[str] = []

    def model(self, model: Any, name: str, path: str = "") -> ModelTwin:
        """Returns the twin of a functional model.

        Args:
            model: The Keras 3 model.
            name: Name of the twin.
            path: Names of the models around its layers, "" for the outermost.

        Raises:
            ValueError: If something cannot be translated, by name.
        """
        original = functional(model)
        names = Names(operation.name for operation in original.operations)
        tensors: dict[int, Any] = {}
        steps = []
        for node in nodes_of_keras3(original):
            if node.is_input:
                outputs = [self._input(node.operation, path)]
            else:
                twin, outputs = self._step(node, tensors, names, path)
                steps.append((node, twin))
            for old, new in zip(node.output_tensors, outputs, strict=True):
                tensors[id(old)] = new
        if not path:
            self._check(model)
        inputs, outputs = (
            tf.nest.map_structure(lambda tensor: tensors[id(tensor)], structure)
            for structure in (original._inputs_struct, original._outputs_struct)
        )
        with deep_recursion():
            twin_model = keras.Model(inputs, outputs, name=name)
        name_outputs(twin_model, original.output_names)
        return ModelTwin(original, twin_model, steps, tensors, self._constant)

    def _input(self, operation: Any, path: str) -> Any:
        """Returns the input of a twin."""
        if getattr(operation, "sparse", False) or getattr(operation, "ragged", False):
            problem = "an input must be a dense tensor, received a sparse or ragged one"
            self._problems.append(f"`{path}{operation.name}`: {problem}")
        return keras.Input(
            batch_shape=operation.batch_shape,
            dtype=operation.dtype,
            name=operation.name,
        )

    def _check(self, model: Any) -> None:
        """Refuses a model if something in it cannot be translated."""
        if self._problems:
            raise ValueError(
                f"`{model.name}` has no tf_keras twin. Received:\n  "
                + "\n  ".join(self._problems)
            )

    def _step(
        self, node: Any, tensors: dict[int, Any], names: Names, path: str
    ) -> tuple[CallTwin, list[Any]]:
        """Calls the twin of one operation; returns the twin and its outputs."""
        args, kwargs = tf.nest.map_structure(
            lambda value: tensors.get(id(value), self._constant(value)),
            (list(node.arguments.args), dict(node.arguments.kwargs)),
        )
        operation = node.operation
        try:
            if id(operation) in self._twins:
                twin = self._twins[id(operation)]
                outputs = twin.call(*args, **kwargs)
            else:
                twin, outputs = self._first_call(node, args, kwargs, names, path)
                self._twins[id(operation)] = twin
                self._kept.append(operation)
        except NoTwin as reason:
            named = f"`{path}{operation.name}` ({type(operation).__name__})"
            self._problems.append(f"{named}: {reason}")
            twin = placeholder(node)
            outputs = twin.call(*args, **kwargs)
        return twin, tf.nest.flatten(outputs)

    def _first_call(
        self, node: Any, args: Any, kwargs: Any, names: Names, path: str
    ) -> tuple[CallTwin, Any]:
        """Creates the twin of an operation and calls it.

        Raises:
            NoTwin: If there is none.
        """
        try:
            twin = self._make(node, names, path)
            try:
                return twin, twin.call(*args, **kwargs)
            except _REFUSALS as error:
                raise NoTwin(f"tf_keras refuses it: {reason_of(error)}") from error
        except NoTwin as error:
            reason = str(error)
        for value in tf.nest.flatten((args, kwargs)):
            if isinstance(value, tf.Variable):
                raise NoTwin(
                    f"{reason}, and it would turn the trainable variable "
                    f"{value.name!r} into a constant; use the variable in a custom "
                    "layer that owns it"
                )
        twin = CallTwin(keras3_twin(node.operation, reason), runs_keras3=True)
        try:
            return twin, twin.call(*args, **kwargs)
        except Exception as error:  # The operation may be the user's.
            raise NoTwin(
                f"{reason}, and Keras 3 cannot run it: {reason_of(error)}"
            ) from error

    def _make(self, node: Any, names: Names, path: str) -> CallTwin:
        """Creates the twin of an operation.

        Raises:
            NoTwin: If there is none.
        """
        operation, inner = node.operation, f"{path}{node.operation.name}/"
        behind = getattr(operation, "tf_keras_layer", None)
        if behind is not None:  # A layer of a student, or a whole one.
            return CallTwin(view_twin(behind))
        if not isinstance(operation, import_keras3().layers.Layer):
            return CallTwin(operation_twin(operation, node.output_tensors, names))
        nested = self._nested(operation, inner)
        if nested is not None:
            is_model = is_keras3_model(operation)
            return CallTwin(model_twin(nested.model), nested if is_model else None)
        if type(operation).__name__ == "Lambda":
            return self._lambda(operation, node, names, inner)
        return self._layer(operation, node, names, inner)

    def _nested(self, layer: Any, path: str) -> ModelTwin | None:
        """Returns the twin of the model that a layer is, or that it decomposes into.

        Raises:
            NoTwin: If the layer is a subclassed model.
        """
        model = expand_layer(layer)
        if model is None and not is_keras3_model(layer):
            return None
        model = layer if model is None else model
        if isinstance(model, keras.Model):
            rename_layer(model, layer.name)
            return ModelTwin(layer, model, [], {}, self._constant)
        if functional(model) is None:
            raise NoTwin("a subclassed model has no graph to read")
        twin = self.model(model, layer.name, path)
        twin.model.trainable = layer.trainable
        return twin

    def _lambda(self, layer: Any, node: Any, names: Names, path: str) -> CallTwin:
        """Returns the twin of a `Lambda`.

        Raises:
            NoTwin: If its function cannot be read.
        """
        if is_registered(layer.function) and not layer.arguments:
            return CallTwin(keras.layers.Lambda(layer.function, name=layer.name))
        arguments = list(node.arguments.args)
        structure, others = arguments[0], arguments[1:]
        tensors = tf.nest.flatten(structure)
        special = layer._fn_expects_training_arg or layer._fn_expects_mask_arg
        if others or special or layer.mask or len(tensors) != len(node.input_tensors):
            raise NoTwin("its function takes more than tensors")

        def function(*xs: Any) -> Any:
            inputs = tf.nest.pack_sequence_as(structure, xs)
            return layer.function(inputs, **layer.arguments)

        read = self._function(function, layer.name, tensors, names, path)
        return CallTwin(lambda inputs, **_: read(*tf.nest.flatten(inputs)))

    def _layer(self, layer: Any, node: Any, names: Names, path: str) -> CallTwin:
        """Returns the twin of a layer, and of an activation function after it.

        Raises:
            NoTwin: If there is none.
        """

        def translate(part: Any) -> Any:
            nested = self._nested(part, f"{path}{part.name}/")
            return make_layer(part, translate) if nested is None else nested.model

        def activate(function: Any, tensor: Any) -> Call:
            name = names.unique(f"{layer.name}_activation")
            try:
                symbolic = symbolic_activation(function)
                return self._function(symbolic, name, [tensor], names, path)
            except NoTwin as reason:
                return keras3_twin(activation_layer(function, name), str(reason))

        masks = [getattr(x, "_keras_mask", None) for x in node.input_tensors]
        if type(layer).__name__ == "MultiHeadAttention" and any(
            mask is not None for mask in masks
        ):
            raise NoTwin("tf_keras computes something else where its query is masked")
        if type(layer).__name__ == "Activation" and not activation_twin(
            layer.activation
        ):
            function = symbolic_activation(layer.activation)
            tensors = node.input_tensors
            read = self._function(function, layer.name, tensors, names, path)
            return CallTwin(lambda inputs, **_: read(inputs))
        return CallTwin(layer_twin(layer, translate, activate))

    def _function(
        self, function: Call, name: str, tensors: list[Any], names: Names, path: str
    ) -> Call:
        """Returns the twin of a Python function; it takes the tensors one by one.

        Raises:
            NoTwin: If the function cannot be read.
        """

        def translate(model: Any) -> Call:
            nodes = [node for node in nodes_of_keras3(model) if not node.is_input]
            outputs = [id(tensor) for tensor in model.outputs]
            if len(nodes) != 1 or outputs != [id(t) for t in nodes[0].output_tensors]:
                twin = self.model(model, name, path).model
                return lambda *xs: twin(xs[0] if len(xs) == 1 else list(xs))
            [node] = nodes
            if not isinstance(node.operation, import_keras3().layers.Layer):
                node.operation.name = name
            ids = [id(tensor) for tensor in model.inputs]

            def call(*xs: Any) -> Any:
                values = dict(zip(ids, xs, strict=True))
                _, outputs = self._step(node, values, names, path)
                return outputs if len(outputs) > 1 else outputs[0]

            return call

        return function_twin(function, name, tensors, translate)

    def _constant(self, value: Any) -> Any:
        """Returns a constant argument; a variable that trains becomes a variable."""
        keras3 = import_keras3()
        if isinstance(value, keras3.Variable) and value.trainable:
            if id(value) not in self._variables:
                copy = tf.Variable(tf.constant(np.asarray(value)), name=value.name)
                self._variables[id(value)] = copy
                self._kept.append(value)
            return self._variables[id(value)]
        if isinstance(value, keras3.Variable) or keras3.ops.is_tensor(value):
            return value if isinstance(value, keras3.KerasTensor) else np.asarray(value)
        return value
