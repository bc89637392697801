"""Sets the first values of the activation steps before training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .._compat import keras, reset_slots
from ..data import as_pair, check_num_examples, first_batch
from .first_batch import FirstValues, initialise_steps, warn_of_zeros
from .learned_steps import quantization_points, trained_model, trained_variables
from .model import LSQModel
from .narrow_ranges import warn_of_narrow_ranges
from .pixel_ranges import warn_of_pixels


def calibrate(model: keras.Model, data: Any, *, num_examples: int = 256) -> None:
    """Sets the activation steps of a model from data, without training.

    Training does this automatically with its first batch. Call it to inspect a
    quantized model before training, to export without training, or before a custom
    training loop under `tf.distribute`.

    It sets all steps again, including trained ones, and resets what the optimizer of
    `model` keeps for them (momenta, averages). Batch norms use their moving averages,
    as in inference. Under `tf.distribute.MultiWorkerMirroredStrategy` every worker
    must call it; all get the first worker's steps.

    It warns about points that receive only zeros, and about tensors that use few codes
    of a grid that they share with larger ones: boxes in pixels and scores in one
    tensor, for example; and about inputs that are pixels, if their values are hardly
    what bytes encode.

    Args:
        model: A quantized model.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`.
        num_examples: How many of the first examples are used.

    Raises:
        ValueError: If `model` has no quantization points, or `num_examples` is
            less than 1.
    """
    found = set_first_values(model, data, num_examples)
    warn_of_zeros(found.empty)
    warn_of_narrow_ranges(found.narrow)
    warn_of_pixels(found.pixels)


def set_first_values(
    model: keras.Model, data: Any, num_examples: int = 256
) -> FirstValues:
    """Does what `calibrate` does, and returns what it would warn about."""
    optimizer = getattr(model, "optimizer", None)
    model = trained_model(model)
    points = quantization_points(model)
    if not points:
        raise ValueError(
            f"`model` must be quantized. Received: `{model.name}`, which has no "
            "quantization points. Call `tf_lsq.quantize_model` first."
        )
    check_num_examples(num_examples)
    data = as_pair(data, len(model.inputs))
    x = first_batch(data, model.input_names, num_examples)
    kept = [(v, tf.identity(v)) for p in points for v in p.step_variables.values()]
    try:
        for point in points:
            point.reset()
        found = initialise_steps(model, x, training=False)
    except (ValueError, RuntimeError, tf.errors.OpError):
        for variable, value in kept:
            variable.assign(value)
        raise
    if isinstance(model, LSQModel):
        model.watch_ranges(x, found.empty)
    for one in tf.nest.flatten(optimizer or []):
        reset_slots(one, trained_variables(points))
    return found
