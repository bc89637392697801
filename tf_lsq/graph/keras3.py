"""Converts a Keras 3 model to its tf_keras twin, with the same weights.

It reads only the model itself: its graph, the settings of its layers, its weights. So
it works with any Keras 3 backend, and changes nothing in the user's process.
"""

from __future__ import annotations

import inspect
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import import_keras3, is_keras3_model, keras
from .float_layers import HardSigmoid

layers = keras.layers

_HARD_SIGMOID_SLOPE = 1 / 6  # Keras 2's is 0.2.
# Settings without an effect on what a layer computes once it has its weights.
_IGNORED = {
    "build_config",
    "gptq_unquantized_layers",
    "lora_alpha",
    "lora_rank",
    "quantization_config",
    "quantization_mode",
    "renorm_clipping",
    "renorm_momentum",
    "seed",
    "sparse",
    "optional",
    "ragged",
}
# Settings that tf_keras does not have, and that are off unless the user sets them.
_OFF_BY_DEFAULT = {
    "crop_to_aspect_ratio",
    "pad_to_aspect_ratio",
    "renorm",
    "rms_scaling",
    "sliding_window",
    "synchronized",
    "use_gate",
    "zero_output_for_mask",
}
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}


def from_keras3(model: Any) -> keras.Model:
    """Returns the tf_keras twin of a Keras 3 model, with the same weights.

    Args:
        model: A functional or sequential Keras 3 model, or the path of a `.keras`
            file that holds one.

    Returns:
        A float `tf_keras` model, uncompiled. Layer names, regularizers and
        constraints are those of `model`; initializers are not kept.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is subclassed or not built, or has layers or operations
            without a twin; the error names them all.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> type(from_keras3(model)).__module__.split(".")[0]
        'tf_keras'
    """
    if isinstance(model, str | os.PathLike):
        model = import_keras3().saving.load_model(model, compile=False)
    if not is_keras3_model(model):
        raise TypeError(
            "`model` must be a Keras 3 model or the path of a `.keras` file. "
            f"Received: {type(model).__name__}."
        )
    problems = list(_problems(model, ""))
    if problems:
        raise ValueError(
            f"`{model.name}` has no tf_keras twin. Every layer and operation must "
            f"also exist in tf_keras. Received:\n  " + "\n  ".join(problems)
        )
    return _Translator().model(model)


def is_keras3_file(path: Any) -> bool:
    """Returns whether a `.keras` file was written by Keras 3."""
    with zipfile.ZipFile(Path(path)) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    return not str(metadata["keras_version"]).startswith("2.")


def float_model(model: Any) -> keras.Model:
    """Returns the given tf_keras model, or the twin of a Keras 3 model.

    Args:
        model: A model of either Keras, or the path of a `.keras` or `.h5` file.
    """
    if isinstance(model, str | os.PathLike):
        if str(model).endswith(".keras") and is_keras3_file(model):
            return from_keras3(model)
        loaded: Any = keras.models.load_model(model, compile=False)
        return loaded
    return from_keras3(model) if is_keras3_model(model) else model


# --- What can be translated --------------------------------------------------


def _problems(model: Any, path: str) -> Iterator[str]:
    """Yields everything that has no twin, by name."""
    if not hasattr(model, "_nodes_by_depth") and hasattr(model, "_functional"):
        model = model._functional
    if not hasattr(model, "_nodes_by_depth"):
        yield (
            f"`{path}{getattr(model, 'name', '?')}` is subclassed or not built; write "
            "it as `keras.Model(inputs, outputs)` with its input shape given"
        )
        return
    for operation in model.operations:
        name = f"`{path}{operation.name}` ({type(operation).__name__})"
        if _is_model(operation):
            yield from _problems(operation, f"{path}{operation.name}/")
        elif _is_layer(operation):
            problem = _layer_problem(operation)
            if problem:
                yield f"{name}: {problem}"
        elif type(operation).__name__ not in _OPERATIONS:
            yield f"{name}: this operation has no twin in this library"
        elif _changes_aspect_ratio(operation):
            yield f"{name}: tf.image.resize neither crops nor pads"


def _is_model(operation: Any) -> bool:
    """Returns whether an operation is a nested model."""
    return isinstance(operation, import_keras3().Model)


def _is_layer(operation: Any) -> bool:
    """Returns whether an operation is a layer."""
    return isinstance(operation, import_keras3().layers.Layer)


def _layer_problem(layer: Any) -> str | None:
    """Returns why a layer has no twin, or None."""
    kind = type(layer).__name__
    twin = getattr(layers, kind, None)
    if kind == "InputLayer":
        return None
    if twin is None or not type(layer).__module__.startswith("keras."):
        return "tf_keras has no such layer"
    if kind in ("Lambda", "TFSMLayer"):
        return "it hides what it computes"
    unknown = [
        f"{name}={value!r}"
        for name, value in _config(layer).items()
        if name not in _accepted(twin)
    ]
    if unknown:
        return f"the tf_keras layer has no setting {', '.join(unknown)}"
    activation = getattr(layer, "activation", None)
    if activation is not None and _activation_key(activation) not in _ACTIVATIONS:
        return f"its activation {_activation_key(activation)!r} has no known twin"
    return None


def _changes_aspect_ratio(operation: Any) -> bool:
    """Returns whether an operation resizes images by cropping or padding them."""
    return any(
        getattr(operation, f"{how}_to_aspect_ratio", False) for how in ("crop", "pad")
    )


def _is_random(layer: Any) -> bool:
    """Returns whether a layer augments images."""
    return type(layer).__name__.startswith("Random")


def _accepted(layer_class: type) -> set[str]:
    """Returns the names of the settings that a layer class accepts."""
    names = {"name", "dtype", "trainable"}
    for cls in layer_class.__mro__:
        if issubclass(cls, layers.Layer):
            names |= set(inspect.signature(cls.__init__).parameters)
    return names


def _config(layer: Any) -> dict[str, Any]:
    """Returns the settings of a Keras 3 layer under their tf_keras names."""
    renamed = _RENAMED.get(type(layer).__name__, {})
    config = {}
    for name, value in layer.get_config().items():
        if name in _IGNORED or name.endswith("_initializer"):
            continue
        if name in _OFF_BY_DEFAULT and not value:
            continue
        if (name, value) == ("data_format", "channels_last") and _is_random(layer):
            continue  # tf_keras' random layers have no other format.
        if isinstance(value, dict) and "class_name" in value:
            if value["class_name"] == "DTypePolicy":
                value = value["config"]["name"]
            else:
                value = {k: value[k] for k in ("class_name", "config")}
        config[renamed.get(name, name)] = value
    return config


# --- Activation functions ----------------------------------------------------


def _activation_key(activation: Any) -> str:
    """Returns the name of a Keras 3 activation function."""
    if _is_layer(activation):
        return type(activation).__name__
    return getattr(activation, "__name__", type(activation).__name__)


def _hard_swish(name: str) -> Callable[[Any], Any]:
    """Returns ``x * hard_sigmoid(x)``."""

    def apply(x: Any) -> Any:
        gate = HardSigmoid(_HARD_SIGMOID_SLOPE, name=f"{name}_hard_sigmoid")(x)
        return layers.Multiply(name=name)([x, gate])

    return apply


# Keras 3's name -> the name of the same function in tf_keras, or a function that
# creates the layer that computes it.
_ACTIVATIONS: dict[str, str | Callable[[str], Callable[[Any], Any]]] = {
    **{
        name: name
        for name in (
            "linear relu softmax sigmoid tanh elu selu gelu softplus softsign "
            "exponential mish"
        ).split()
    },
    "silu": "swish",
    "relu6": lambda name: layers.ReLU(6.0, name=name),
    "leaky_relu": lambda name: layers.LeakyReLU(0.2, name=name),
    "hard_sigmoid": lambda name: HardSigmoid(_HARD_SIGMOID_SLOPE, name=name),
    "hard_silu": _hard_swish,
    "hard_swish": _hard_swish,
}


# --- Operations that are not layers ------------------------------------------


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the twin of an operation that takes all its arguments in the call."""
    return lambda operation, *args: function(*args)


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the twin of a reduction."""
    return lambda operation, x, *_: function(
        x, axis=operation.axis, keepdims=operation.keepdims
    )


def _through(make: Callable[[str], Callable[[Any], Any]]) -> Callable[..., Any]:
    """Returns the twin of an activation function."""
    return lambda operation, x, *_: make(operation.name)(x)


def _reshape(operation: Any, x: Any, *_: Any) -> Any:
    """Reshape; Keras 3 counts the batch axis."""
    return tf.reshape(x, [-1 if s is None else s for s in operation.newshape])


def _transpose(operation: Any, x: Any, *_: Any) -> Any:
    """Transposition."""
    return tf.transpose(x, operation.axes)


def _pad(operation: Any, x: Any, constant_values: Any = None) -> Any:
    """Constant padding."""
    pairs = np.asarray(operation.pad_width)
    pairs = np.broadcast_to(pairs, (len(x.shape), 2)).tolist()
    return tf.pad(x, pairs, operation.mode, constant_values or 0)


def _clip(operation: Any, x: Any, *_: Any) -> Any:
    """Limits."""
    return tf.clip_by_value(x, operation.x_min, operation.x_max)


def _resize(operation: Any, x: Any) -> Any:
    """Resizing of images."""
    return tf.image.resize(
        x,
        operation.size,
        method=operation.interpolation,
        antialias=operation.antialias,
    )


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": _plain(lambda x, y: x + y),
    "Subtract": _plain(lambda x, y: x - y),
    "Multiply": _plain(lambda x, y: x * y),
    "TrueDivide": _plain(lambda x, y: x / y),
    "Divide": _plain(lambda x, y: x / y),
    "Negative": _plain(lambda x: -x),
    "Maximum": _plain(tf.maximum),
    "Minimum": _plain(tf.minimum),
    "Clip": _clip,
    "Mean": _reduce(tf.reduce_mean),
    "Max": _reduce(tf.reduce_max),
    "Concatenate": lambda operation, xs: tf.concat(xs, operation.axis),
    "Reshape": _reshape,
    "Resize": _resize,
    "Transpose": _transpose,
    "Squeeze": lambda operation, x: tf.squeeze(x, operation.axis),
    "ExpandDims": lambda operation, x: tf.expand_dims(x, operation.axis),
    "Pad": _pad,
    "GetItem": _plain(lambda x, key: x[key]),
    "Split": lambda operation, x: tf.split(
        x, operation.indices_or_sections, operation.axis
    ),
    "Relu": _plain(tf.nn.relu),
    "Relu6": _plain(tf.nn.relu6),
    "Sigmoid": _plain(tf.nn.sigmoid),
    "Tanh": _plain(tf.nn.tanh),
    "Silu": _plain(tf.nn.silu),
    "Softmax": lambda operation, x: tf.nn.softmax(x, operation.axis),
    "LeakyRelu": lambda operation, x: tf.nn.leaky_relu(x, operation.negative_slope),
    "HardSigmoid": _through(lambda name: HardSigmoid(_HARD_SIGMOID_SLOPE, name=name)),
    "HardSilu": _through(_hard_swish),
    "Identity": _plain(tf.identity),
}


# --- Translating -------------------------------------------------------------


class _Translator:
    """Builds a twin model by calling the twins of layers and operations."""

    def __init__(self) -> None:
        self._twins: dict[int, Any] = {}

    def model(self, model: Any) -> keras.Model:
        """Returns the twin of one model."""
        name = model.name
        model = getattr(model, "_functional", model)
        tensors: dict[int, Any] = {}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                self._call(node, tensors)
        inputs, outputs = (
            _structured(structure, tensors)
            for structure in (model._inputs_struct, model._outputs_struct)
        )
        return keras.Model(inputs, outputs, name=name)

    def _call(self, node: Any, tensors: dict[int, Any]) -> None:
        """Calls the twin of one operation."""
        operation = node.operation
        if type(operation).__name__ == "InputLayer":
            outputs = keras.Input(
                batch_shape=operation.batch_shape,
                dtype=operation.dtype,
                name=operation.name,
            )
        else:
            args, kwargs = tf.nest.map_structure(
                lambda value: tensors.get(id(value), value),
                (list(node.arguments.args), dict(node.arguments.kwargs)),
            )
            outputs = self._twin(operation)(*args, **kwargs)
        flat = tf.nest.flatten(outputs)
        for old, new in zip(node.output_tensors, flat, strict=True):
            tensors[id(old)] = new

    def _twin(self, operation: Any) -> Callable[..., Any]:
        """Returns the tf_keras twin of an operation, created once per operation."""
        if id(operation) not in self._twins:
            self._twins[id(operation)] = self._make(operation)
        return self._twins[id(operation)]

    def _make(self, operation: Any) -> Callable[..., Any]:
        """Creates the twin of one operation."""
        if _is_model(operation):
            inner = self.model(operation)
            inner.trainable = operation.trainable
            return lambda x, **kwargs: inner(x, **_inference_mode(kwargs))
        if not _is_layer(operation):
            function = _OPERATIONS[type(operation).__name__]
            return lambda *args, **kwargs: function(operation, *args, **kwargs)
        return _layer_twin(operation)


def _layer_twin(layer: Any) -> Callable[..., Any]:
    """Returns the twin of a layer; its first call sets its weights."""
    config = _config(layer)
    activation = getattr(layer, "activation", None)
    split: Callable[[Any], Any] | None = None
    if activation is not None:
        replacement = _ACTIVATIONS[_activation_key(activation)]
        if callable(replacement):
            split = replacement(layer.name)
            if type(layer).__name__ == "Activation":
                return lambda x, **_: split(x)
            config.update(activation="linear", name=f"{layer.name}_linear")
        else:
            config["activation"] = replacement
    twin_class = getattr(layers, type(layer).__name__)
    if twin_class is layers.MultiHeadAttention:
        twin = twin_class(**config)  # Its `from_config` also needs shapes.
    else:
        twin = twin_class.from_config(config)

    def call(*args: Any, **kwargs: Any) -> Any:
        first = not twin.built
        output = twin(*args, **_inference_mode(kwargs))
        if first and layer.weights:
            _set_weights(twin, layer)
        return output if split is None else split(output)

    return call


def _inference_mode(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns ``training=False`` if a layer was called with it, else nothing.

    Keras 3 records ``training=True`` as the default of its random layers, although
    `fit` and `predict` decide.
    """
    return {"training": False} if kwargs.get("training") is False else {}


def _set_weights(twin: Any, layer: Any) -> None:
    """Copies the weights of a layer; both Keras create them in the same order.

    Raises:
        ValueError: If the shapes differ, which means that the twin is wrong.
    """
    values = [np.asarray(variable) for variable in layer.weights]
    if [value.shape for value in values] != [tuple(v.shape) for v in twin.weights]:
        raise ValueError(
            f"`{layer.name}` ({type(layer).__name__}) must have weights of the shapes "
            f"{[tuple(v.shape) for v in twin.weights]}. "
            f"Received: {[value.shape for value in values]}."
        )
    twin.set_weights(values)
    if hasattr(twin, "finalize_state"):
        twin.finalize_state()


def _structured(like: Any, tensors: dict[int, Any]) -> Any:
    """Returns the twins of tensors in the structure of `like`."""
    return tf.nest.map_structure(lambda tensor: tensors[id(tensor)], like)
