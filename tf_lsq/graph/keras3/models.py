"""The door for Keras 3 models: their tf_keras twins, with the same weights.

A twin is read from the model itself: its graph, the settings of its layers, its
weights. So this works with any Keras 3 backend, and changes nothing in the user's
process.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py

from ..._compat import import_keras3, is_keras3_model, keras
from .comparison import check_twin
from .graph import functional
from .translation import Translator


def from_keras3(model: Any, *, example: Any = None) -> keras.Model:
    """Returns the tf_keras twin of a Keras 3 model, with the same weights.

    The twin is compared with `model`, layer by layer, on a small batch of random
    numbers. A layer or operation that tf_keras does not have is run by Keras 3 inside
    the twin; it can be left in float.

    Args:
        model: A functional or sequential Keras 3 model, or the path of a `.keras` or
            `.h5` file that holds one. Of a Keras 3 student, the tf_keras model that it
            runs is returned.
        example: A batch of inputs for the comparison, in the structure of the model's
            inputs. None: random numbers.

    Returns:
        A float `tf_keras` model, uncompiled. Names of layers, operations and outputs,
        regularizers and constraints are those of `model`; initializers are not kept.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is subclassed or not built, cannot be loaded, or computes
            something else than its twin; the error names the first layer that does.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> type(from_keras3(model)).__module__.split(".")[0]
        'tf_keras'
    """
    if isinstance(model, str | os.PathLike):
        model = load_keras3(model)
    behind = tf_keras_model(model)
    if behind is not model:
        return behind
    if not is_keras3_model(model):
        raise TypeError(
            "`model` must be a Keras 3 model or the path of a `.keras` or `.h5` file. "
            f"Received: {type(model).__name__}."
        )
    if functional(model) is None:
        raise ValueError(
            f"`{model.name}` must be a functional or built sequential model. Received: "
            f"{type(model).__name__}, which is subclassed or not built; write it as "
            "`keras.Model(inputs, outputs)` with its input shape given."
        )
    twin = Translator().model(model, model.name)
    check_twin(twin, example)
    return twin.model


def tf_keras_model(model: Any) -> Any:
    """Returns the tf_keras model behind a student of Keras 3.

    Args:
        model: A student of Keras 3, or a Keras 3 model that was cut out of one, extends
            one, or has one as a layer; anything else is returned unchanged.
    """
    behind = getattr(model, "tf_keras_layer", None)
    if behind is not None:
        return behind
    if not is_keras3_model(model) or functional(model) is None:
        return model
    views = [hasattr(la, "tf_keras_layer") for la in functional(model).operations]
    return Translator().model(model, model.name).model if any(views) else model


def is_keras3_file(path: Any) -> bool:
    """Returns whether a `.keras` or `.h5` file was written by Keras 3.

    Args:
        path: An existing file.
    """
    path = Path(path)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
    else:
        with h5py.File(path) as file:
            version = file.attrs.get("keras_version", "2.")
    version = version.decode() if isinstance(version, bytes) else str(version)
    return not version.startswith("2.")


def load_keras3(path: Any, *, safe_mode: bool = True) -> Any:
    """Returns the Keras 3 model in a file, uncompiled.

    Args:
        path: A `.keras` or `.h5` file that Keras 3 wrote.
        safe_mode: Whether to refuse Python code in the file.

    Raises:
        ValueError: If Keras 3 cannot load it.
    """
    load = import_keras3().saving.load_model
    try:
        return load(path, compile=False, safe_mode=safe_mode)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"Keras 3 cannot load {str(path)!r}. Load it with `keras.saving.load_model`"
            ", which may need `custom_objects` or `safe_mode=False`, and pass the "
            f"model. Received: {type(error).__name__}: {line}"
        ) from error


def float_model(model: Any) -> keras.Model:
    """Returns the given tf_keras model, or the twin of a Keras 3 model.

    Args:
        model: A model of either Keras, or the path of a `.keras` or `.h5` file.
    """
    if isinstance(model, str | os.PathLike):
        is_file = Path(model).suffix in (".keras", ".h5") and Path(model).is_file()
        if is_file and is_keras3_file(model):
            return from_keras3(model)
        loaded: Any = keras.models.load_model(model, compile=False)
        return loaded
    model = tf_keras_model(model)
    return from_keras3(model) if is_keras3_model(model) else model
