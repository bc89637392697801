"""A tf_keras model seen as a Keras 3 model: same graph, same names, same storage.

Every layer of the tf_keras model is seen through a Keras 3 layer of the same name. Its
variables hold their values in the very variables of the tf_keras layer, so whatever
either Keras trains, loads or freezes, the other one sees.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import tensorflow as tf

from .._compat import deep_recursion, import_keras3, keras, model_structure, nodes_of
from .._compat3 import share_storage, take_any_arguments
from ..graph import ForeignCall, tensors_of

keras3: Any = import_keras3()


class _SharedConstraint(keras3.constraints.Constraint):
    """A constraint of tf_keras."""

    def __init__(self, constraint: Any) -> None:
        self._constraint = constraint

    def __call__(self, w: Any) -> Any:
        return self._constraint(tf.convert_to_tensor(w))


class SharedVariable(keras3.Variable):
    """A Keras 3 variable on the storage of a variable of tf_keras.

    Args:
        variable: The variable of tf_keras, whose name and constraint it has.
        trainable: Whether it is trained.
    """

    def __init__(self, variable: tf.Variable, *, trainable: bool) -> None:
        self._shared = variable
        path = variable.name.partition(":")[0]
        super().__init__(
            tf.zeros,
            shape=tuple(variable.shape),
            dtype=variable.dtype.name,
            trainable=trainable,
            autocast=False,
            name=path.rpartition("/")[2],
        )
        share_storage(self, variable, path)
        if variable.constraint is not None:
            self.constraint = _SharedConstraint(variable.constraint)

    def _initialize(self, value: Any) -> None:
        """Takes the storage instead of a new one."""
        self._value = self._shared


class LayerView(keras3.layers.Layer):
    """A tf_keras layer as a Keras 3 layer.

    Attributes that a Keras 3 layer does not have are those of the tf_keras layer.

    Attributes:
        tf_keras_layer: The layer.

    Args:
        layer: A built tf_keras layer.
        variables: Its variables and those of other layers, by id; what is missing is
            added.
    """

    tf_keras_layer: Any

    def __init__(self, layer: Any, variables: dict[int, SharedVariable]) -> None:
        # Not that of the batch norm, in `BatchNormalizationView`.
        keras3.layers.Layer.__init__(
            self, name=layer.name, dtype="float32", autocast=False
        )
        object.__setattr__(self, "tf_keras_layer", layer)
        object.__setattr__(self, "_known_outputs", None)
        take_any_arguments(self)
        # Layers inside it may be frozen.
        trained = {id(variable) for variable in layer.trainable_weights}
        for variable in layer.weights:
            if id(variable) not in variables:
                trains = id(variable) in trained if layer.trainable else None
                trains = variable.trainable if trains is None else trains
                shared = SharedVariable(variable, trainable=trains)
                variables[id(variable)] = shared
        self.shared_variables = [variables[id(v)] for v in layer.weights]
        self.built = True
        if not layer.trainable:
            self.trainable = False

    def mirrored(self, tensors: list[Any], structure: ForeignCall, outputs: Any) -> Any:
        """Repeats a call of the tf_keras layer.

        Args:
            tensors: Keras 3 tensors, the inputs.
            structure: How the tf_keras layer takes them.
            outputs: What tf_keras got, whose shapes are known.
        """
        object.__setattr__(self, "_known_outputs", outputs)
        try:
            return self(tensors, structure=structure)
        finally:
            object.__setattr__(self, "_known_outputs", None)

    def call(
        self, inputs: Any, structure: ForeignCall | None = None, training: Any = None
    ) -> Any:
        """Calls the tf_keras layer.

        Args:
            inputs: What it takes; with `structure`, a list of tensors.
            structure: How it takes these tensors.
            training: Whether it is called in training, None: not.
        """
        if structure is None:
            structure = ForeignCall((inputs,), {})
        outputs = structure.outputs(self.tf_keras_layer, inputs, training)
        return outputs if len(outputs) > 1 else outputs[0]

    def compute_output_spec(
        self, inputs: Any, structure: ForeignCall | None = None, training: Any = None
    ) -> Any:
        """Returns the shapes and types of the outputs."""
        if self._known_outputs is None:
            return super().compute_output_spec(inputs, structure, training=training)
        specs = [
            keras3.KerasTensor(tuple(tensor.shape), tensor.dtype.name)
            for tensor in self._known_outputs
        ]
        return specs if len(specs) > 1 else specs[0]

    def get_config(self) -> dict[str, Any]:
        """Refuses to be copied alone.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"`{self.name}` is a layer of a quantized model, and cannot be copied by "
            "itself. Copy the whole model: `type(student).from_config(student."
            "get_config())`, then `set_weights`."
        )

    @property
    def trainable(self) -> bool:
        """Whether the variables are trained; that of the tf_keras layer."""
        return keras3.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras3.layers.Layer.trainable.fset(self, value)
        self.tf_keras_layer.trainable = bool(value)

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the tf_keras layer."""
        if name.startswith("_") or "tf_keras_layer" not in vars(self):
            raise AttributeError(name)
        return getattr(self.tf_keras_layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute, of the tf_keras layer if only that has it."""
        inner = vars(self).get("tf_keras_layer")
        own = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if inner is not None and not own and hasattr(inner, name):
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)


class BatchNormalizationView(LayerView, keras3.layers.BatchNormalization):
    """A batch norm, for loops that freeze these layers by their class."""

    def __init__(self, layer: Any, variables: dict[int, SharedVariable]) -> None:
        LayerView.__init__(self, layer, variables)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


@keras3.saving.register_keras_serializable(package="tf_lsq")
class ModelView(keras3.Model):
    """A functional tf_keras model as a functional Keras 3 model.

    Attributes:
        tf_keras_layer: The tf_keras model.

    Args:
        model: The tf_keras model.
    """

    tf_keras_layer: Any
    _config_key = "tf_keras_model"

    def __init__(self, model: keras.Model) -> None:
        inputs, outputs = _mirrored(model)
        with deep_recursion():
            super().__init__(inputs=inputs, outputs=outputs, name=model.name)
        object.__setattr__(self, "tf_keras_layer", model)
        self.output_names = list(model.output_names)
        self.autocast = False
        self.dtype_policy = _policy_of(model)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Calls the tf_keras model; see `keras.Model.call`."""
        return self.tf_keras_layer(inputs, training=bool(training))

    def _get_own_losses(self) -> list[Any]:
        """Returns the losses of the tf_keras layers; models around it ask for them."""
        return [*super()._get_own_losses(), *self.tf_keras_layer.losses]

    def get_config(self) -> dict[str, Any]:
        """Returns the tf_keras model as JSON."""
        config = keras.saving.serialize_keras_object(self.tf_keras_layer)
        return {self._config_key: json.dumps(config)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds the model."""
        with deep_recursion():
            model = keras.saving.deserialize_keras_object(
                json.loads(config[cls._config_key]), custom_objects
            )
        return cls(model)


def _mirrored(model: keras.Model) -> tuple[Any, Any]:
    """Returns the inputs and outputs of the same graph in Keras 3."""
    variables: dict[int, SharedVariable] = {}
    views: dict[int, LayerView] = {}
    tensors: dict[int, Any] = {}
    for node in nodes_of(model):
        layer = node.layer
        outputs = tensors_of(node.outputs)
        if isinstance(layer, keras.layers.InputLayer):
            mirrored = _input(layer.name, outputs[0])
        else:
            if id(layer) not in views:
                views[id(layer)] = _view_class(type(layer))(layer, variables)
            read = [tensors[id(tensor)] for tensor in node.keras_inputs]
            structure = ForeignCall.of(node)
            mirrored = views[id(layer)].mirrored(read, structure, outputs)
        for old, new in zip(outputs, tf.nest.flatten(mirrored), strict=True):
            tensors[id(old)] = new
    return tuple(
        tf.nest.map_structure(lambda tensor: tensors[id(tensor)], structure)
        for structure in model_structure(model)
    )


@functools.cache
def _view_class(layer_class: type) -> Any:
    """Returns the class of a layer's view, which `summary` shows as the layer's."""
    is_norm = issubclass(layer_class, keras.layers.BatchNormalization)
    base = BatchNormalizationView if is_norm else LayerView
    return type(layer_class.__name__, (base,), {"__module__": __name__})


def _input(name: str, tensor: Any) -> Any:
    """Returns the Keras 3 form of an input."""
    shape, dtype = tuple(tensor.shape), tensor.dtype.name
    return keras3.Input(batch_shape=shape, dtype=dtype, name=name)


def _policy_of(model: keras.Model) -> str:
    """Returns the policy that most of a model computes in: mixed, if any layer is."""
    policies = {layer.dtype_policy.name for layer in model.layers}
    mixed = sorted(name for name in policies if name.startswith("mixed"))
    return mixed[0] if mixed else "float32"
