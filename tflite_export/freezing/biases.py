"""Determines how finely a file of each storage divides the grid of its biases."""

from __future__ import annotations

from tf_lsq._compat import keras

from ..targets import TARGETS
from .containers import Storage, bias_divisions
from .reader import read_model
from .trained import QuantizedKernel


def divisions_of_biases(model: keras.Model, storage: str) -> dict[str, int]:
    """Returns how finely each bias divides the product of input step and kernel step.

    Args:
        model: A quantized model, trained or calibrated.
        storage: "int8", "packed" or "auto".

    Returns:
        Name of the operator in the training graph -> divisor.

    Raises:
        TypeError: If `model` is not a tf_keras model.
        ValueError: If it is not quantized, or `storage` is unknown.
        RuntimeError: If it was never trained or calibrated.
    """
    wanted, trained = Storage(storage), read_model(model)
    target = TARGETS[trained.target]
    return {
        node.name: bias_divisions(node, target, wanted)
        for node in trained.nodes
        if node.matmul and isinstance(node.kernel, QuantizedKernel)
    }
