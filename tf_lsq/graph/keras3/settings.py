"""Settings of Keras 3 layers under the names and values of tf_keras."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..._compat import CustomScaleLayer, LayerScale, import_keras3, keras
from ..norm_layers import RMSNormalization
from ..tabulated import is_registered
from .recorder import NoTwin

layers = keras.layers

# Settings without an effect on what a layer computes once it has its weights.
_IGNORED = {"build_config", "seed"}
# Layers that tf_keras has under the same name, and that do something else there, or
# whose configuration does not say what they compute.
_NO_TWIN = {"Lambda", "Layer", "TFSMLayer", "Wrapper"}
# Layers that are not in `tf_keras.layers`.
_OWN = {
    "CustomScaleLayer": CustomScaleLayer,
    "LayerScale": LayerScale,
    "RMSNormalization": RMSNormalization,
}
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
# Layers that hold layers: setting -> attribute, of the layer in both Keras.
_PARTS = {
    "Bidirectional": {"layer": "forward_layer", "backward_layer": "backward_layer"},
    "RNN": {"cell": "cell"},
    "SpectralNormalization": {"layer": "layer"},
    "StackedRNNCells": {"cells": "cells"},
    "TimeDistributed": {"layer": "layer"},
}
# The same function in both Keras, or in this library: name in Keras 3 -> in tf_keras.
_ACTIVATIONS: dict[str, Any] = {
    **{
        name: name
        for name in (
            "linear relu relu6 leaky_relu softmax log_softmax sigmoid tanh elu selu "
            "gelu softplus softsign exponential mish"
        ).split()
    },
    "silu": "swish",
}
# tf_keras does not find its own class when it loads a model.
keras.utils.get_custom_objects()["SpectralNormalization"] = layers.SpectralNormalization


@keras.utils.register_keras_serializable(package="tf_lsq")
def hard_sigmoid(x: Any) -> Any:
    """Returns Keras 3's ``relu6(x + 3) / 6``; Keras 2's has another slope."""
    return tf.nn.relu6(x + 3.0) / 6.0


@keras.utils.register_keras_serializable(package="tf_lsq")
def hard_silu(x: Any) -> Any:
    """Returns ``x * relu6(x + 3) / 6``."""
    return x * hard_sigmoid(x)


_INNER_ACTIVATIONS = {"hard_sigmoid": hard_sigmoid, "hard_silu": hard_silu}


def twin_class(layer: Any) -> type:
    """Returns the tf_keras class of a Keras 3 layer.

    Raises:
        NoTwin: If there is none.
    """
    name = type(layer).__name__
    own = type(layer).__module__.startswith("keras.")
    twin = _OWN.get(name, getattr(layers, name, None))
    if not own or name in _NO_TWIN or twin is None:
        raise NoTwin("tf_keras has no such layer")
    return twin


def make_layer(
    layer: Any, translate: Callable[[Any], Any], **changes: Any
) -> keras.layers.Layer:
    """Returns the tf_keras twin of a layer, without its weights.

    Args:
        layer: A layer of Keras 3.
        translate: Returns the twin of a layer inside it.
        **changes: Settings of the twin that differ.

    Raises:
        NoTwin: If there is none.
    """
    kind = twin_class(layer)
    settings = _settings(layer, kind, translate, changes)
    try:
        return kind(**settings)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise NoTwin(f"tf_keras refuses its settings: {error}") from error


def activation_twin(activation: Any) -> Any:
    """Returns what tf_keras calls an activation function of Keras 3, None if nothing.

    Args:
        activation: A function, or a layer used as one.
    """
    find = import_keras3().activations.get
    for name, twin in _ACTIVATIONS.items():
        if activation is find(name):
            return twin
    return activation if is_registered(activation) else None


def symbolic_activation(activation: Any) -> Any:
    """Returns an activation function as one that takes Keras tensors.

    Those of Keras 3 do not, but `keras.ops` has them under the same names.
    """
    keras3 = import_keras3()
    name = getattr(activation, "__name__", "")
    if activation is getattr(keras3.activations, name, None):
        return getattr(keras3.ops, name, activation)
    return activation


def set_weights(twin: Any, layer: Any) -> None:
    """Copies the weights of a layer; both Keras create them in the same order.

    Raises:
        NoTwin: If the shapes differ.
    """
    parts = _PARTS.get(type(layer).__name__)
    if isinstance(twin, layers.Normalization):
        return  # Its statistics are settings.
    if parts is None:
        _copy(layer.weights, twin.weights)
    else:
        _copy(
            layer._trainable_variables + layer._non_trainable_variables,
            twin._trainable_weights + twin._non_trainable_weights,
        )
        for attribute in parts.values():
            for part, twin_part in _pairs(layer, twin, attribute):
                if not isinstance(twin_part, keras.Model):  # It has its weights.
                    set_weights(twin_part, part)


def _pairs(layer: Any, twin: Any, attribute: str) -> list[tuple[Any, Any]]:
    """Returns the layers inside two twins."""
    one, other = getattr(layer, attribute), getattr(twin, attribute)
    if isinstance(one, list | tuple):
        return list(zip(one, other, strict=True))
    return [(one, other)]


def _copy(sources: Any, targets: Any) -> None:
    """Copies the values of variables."""
    shapes = [tuple(variable.shape) for variable in sources]
    expected = [tuple(variable.shape) for variable in targets]
    if shapes != expected:
        raise NoTwin(f"its weights have the shapes {shapes}, in tf_keras {expected}")
    for source, target in zip(sources, targets, strict=True):
        target.assign(np.asarray(source))


def _settings(
    layer: Any, kind: type, translate: Callable[[Any], Any], changes: dict[str, Any]
) -> dict[str, Any]:
    """Returns the settings of a layer under their tf_keras names."""
    renamed = _RENAMED.get(type(layer).__name__, {})
    parts = _PARTS.get(type(layer).__name__, {})
    accepted, unknown = _accepted(kind), []
    settings = dict(changes)
    for name, value in {**_config(layer), **_statistics(layer)}.items():
        if name in _IGNORED | set(changes) or name.endswith("_initializer"):
            continue
        new = renamed.get(name, name)
        if name.endswith("activation") and value is not None:
            settings[name] = _inner_activation(layer, name)
        elif name in parts:
            settings[name] = _translated(getattr(layer, parts[name]), translate)
        elif new in accepted:
            settings[new] = _plain(value)
        elif not _is_default(layer, name, value):
            unknown.append(f"{name}={value!r}")
    if unknown:
        raise NoTwin(f"the tf_keras layer has no setting {', '.join(unknown)}")
    return settings


def _config(layer: Any) -> dict[str, Any]:
    """Returns the settings of a layer, as Keras 3 names them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A lambda is not stored here.
        return dict(layer.get_config())


def _statistics(layer: Any) -> dict[str, Any]:
    """Returns the statistics of a normalization, which in Keras 3 may be weights."""
    if type(layer).__name__ != "Normalization" or getattr(layer, "mean", None) is None:
        return {}
    mean, variance = (np.asarray(value) for value in (layer.mean, layer.variance))
    return {"mean": mean.tolist(), "variance": variance.tolist()}


def _translated(part: Any, translate: Callable[[Any], Any]) -> Any:
    """Returns the twins of the layers in a setting."""
    if isinstance(part, list | tuple):
        return [_translated(one, translate) for one in part]
    try:
        return translate(part)
    except NoTwin as reason:
        name = f"`{part.name}` ({type(part).__name__})"
        raise NoTwin(f"{name} inside it has no twin: {reason}") from reason


def _accepted(kind: type) -> set[str]:
    """Returns the names of the settings that a tf_keras class accepts."""
    names = {"name", "dtype", "trainable", "activity_regularizer"}
    for cls in kind.__mro__:
        if issubclass(cls, layers.Layer):
            names |= set(inspect.signature(cls.__init__).parameters)
    if issubclass(kind, layers.RNN):
        names.add("zero_output_for_mask")  # Not in the signature.
    return names


def _is_default(layer: Any, name: str, value: Any) -> bool:
    """Returns whether a setting has the value that Keras 3 gives it by itself."""
    if name == "data_format":
        return value == "channels_last"  # The signature has None.
    for cls in type(layer).__mro__:
        parameters = inspect.signature(cls.__init__).parameters
        if name in parameters:
            default = parameters[name].default
            return value is default or bool(np.all(value == default))
    return value is None or value is False


def _plain(value: Any) -> Any:
    """Returns a value as tf_keras stores it."""
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    if value["class_name"].endswith("DTypePolicy"):
        if "mode" in value["config"]:
            raise NoTwin(f"Keras 3 has quantized it to {value['config']['mode']}")
        return value["config"]["name"]
    return {key: value[key] for key in ("class_name", "config")}


def _inner_activation(layer: Any, name: str) -> Any:
    """Returns the twin of an activation function that a layer calls itself.

    Raises:
        NoTwin: If there is none.
    """
    function = getattr(layer, name)
    twin = activation_twin(function)
    if twin is not None:
        return twin
    find = import_keras3().activations.get
    for known, inner in _INNER_ACTIVATIONS.items():
        if function is find(known):
            return inner
    called = getattr(function, "__name__", type(function).__name__)
    raise NoTwin(f"its {name} {called!r} has no twin")
