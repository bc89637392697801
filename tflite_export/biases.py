"""Biases on the grid of a packed file."""

from __future__ import annotations

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.graph import Node
from tf_lsq.training import quantization_points

from .containers import Storage, bias_divisions
from .freeze import check_quantized
from .targets import TARGETS


def round_biases(model: keras.Model, storage: str) -> None:
    """Moves every bias of a quantized model to the nearest one a file can hold.

    `fit` ends with this for int8 storage. Packed kernels whose inputs have 5 bits or
    more (in INT2, more than 2) have a coarser grid of biases: call this between `fit`
    and `export_model(..., storage="packed")`, and `evaluate` in Keras shows what the
    coarser grid costs. Biases on it are exact in the file, and in that of int8 storage.

    Args:
        model: A quantized model, trained or calibrated.
        storage: "int8", "packed" or "auto", as for `export_model`.

    Raises:
        TypeError: If `model` is no tf_keras model.
        ValueError: If it is not quantized, or `storage` is unknown.
    """
    check_quantized(model)
    wanted = Storage(storage)
    target = TARGETS[quantization_points(model)[0].target]

    def divisions(node: Node) -> int:
        return bias_divisions(node, target, wanted)

    tf_lsq.round_biases(model, divisions)
