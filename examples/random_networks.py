"""Networks with random weights: their weights, their images, and what failed.

`survey_check.py` and `networks_check.py` share it.
"""

from __future__ import annotations

import collections
import platform
import re
import traceback
from pathlib import Path
from typing import Any

import ai_edge_litert
import keras as keras3
import numpy as np
import tensorflow as tf
import tf_keras as keras

OURS = ("/tf_lsq/", "/tflite_export/")
Row = dict[str, Any]


def versions() -> str:
    """Returns the versions that a network was checked with."""
    return (
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, tf_keras "
        f"{keras.__version__}, Keras {keras3.__version__}, ai-edge-litert "
        f"{ai_edge_litert.__version__}, {platform.machine()}"
    )


def images(
    rng: np.random.Generator,
    count: int,
    shape: tuple[int, ...],
    values: tuple[float, float],
) -> np.ndarray:
    """Returns random squares with noise.

    Deep layers average noise alone away, and their batch norms would amplify the rest.

    Args:
        rng: Draws them.
        count: How many.
        shape: Height, width, and perhaps channels, of one.
        values: The smallest and the largest value.

    Returns:
        float32 `[count, *shape]`.
    """
    height, width = shape[:2]
    squares = rng.uniform(size=(count, 4, 4, *shape[2:]))
    squares = squares.repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)
    noise = rng.uniform(size=(count, *shape))
    low, high = values
    drawn = 0.75 * squares[:, :height, :width] + 0.25 * noise
    return (low + (high - low) * drawn).astype(np.float32)


def all_layers(model: Any) -> list[Any]:
    """Returns the layers of a model, those of nested models and layers included."""
    return list(model._flatten_layers(include_self=False))


def keras_of(model: Any) -> str:
    """Names the Keras of a model."""
    return "Keras 3" if isinstance(model, keras3.Model) else "tf_keras"


def kernel_weights(model: Any) -> int:
    """Returns the number of weights of all kernels of a float model."""
    return sum(
        int(np.prod(variable.shape))
        for variable in model.trainable_variables
        if len(variable.shape) > 1
    )


def randomize(model: Any, x: list[np.ndarray], rng: np.random.Generator) -> None:
    """Sets what starts as a constant to values that training could have produced.

    Gammas and scales of 0 or 1e-6 would switch off what comes before them.

    Args:
        model: A model of either Keras, changed in place.
        x: A batch for each input, which sets the statistics of batch norms.
        rng: Draws the values.
    """
    for variable in model.trainable_variables:
        value = np.asarray(variable)
        if value.ndim and value.size > 1 and (value == value.flat[0]).all():
            new = rng.normal(0.0, 0.1, value.shape)
            if not re.search("beta|bias", getattr(variable, "path", variable.name)):
                sign = rng.choice([-1.0, 1.0, 1.0, 1.0], value.shape)
                new = sign * rng.uniform(0.5, 1.5, value.shape)
            variable.assign(new.astype(value.dtype))
    norms = [
        la for la in all_layers(model) if type(la).__name__ == "BatchNormalization"
    ]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # One batch sets the statistics.
    model(x if len(x) > 1 else x[0], training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def reasons(message: str) -> dict[str, int]:
    """Returns the classes of layers that an error names, and how often each.

    Example:
        >>> reasons("`a` (LayerNormalization): no form")
        {'LayerNormalization': 1}
    """
    named = re.findall(r"^\s*`[^`]+` \(([\w. ]+)\)", message, re.MULTILINE)
    return dict(collections.Counter(named).most_common())


def failure(error: Exception, row: Row) -> Row:
    """Describes an error: whose it is, and what it says.

    Args:
        error: The error.
        row: What is known about the network; its outcome is "failed" as soon as its
            model is built, and `helpless` says that a printed remedy did not help.

    Returns:
        The outcome, which is "refused" for an error that this library raised itself,
        and the error's class, message, place and the classes of layers it names.
    """
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    ours = any(part in last.filename for part in OURS)
    outcome = row["outcome"]
    if outcome == "failed" and ours and isinstance(error, ValueError | TypeError):
        outcome = "failed" if row.get("helpless") else "refused"
    ours_last = [one for one in frames if any(part in one.filename for part in OURS)]
    where = (ours_last or frames)[-1]
    return {
        "outcome": outcome,
        "error": type(error).__name__,
        "message": str(error)[:4000],
        "where": f"{Path(where.filename).name}:{where.lineno} {where.name}",
        "reasons": row.get("reasons", {}),
    }
