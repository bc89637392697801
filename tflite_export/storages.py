"""The other storages of the same model, beside the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tf_lsq._compat import keras

from . import flatbuffer, metadata
from .containers import Storage
from .export_report import StorageReport
from .freeze import FrozenModel, freeze_model
from .targets import STORAGES
from .tflite_graph import TFLiteGraph
from .verify import probe_codes


def compare_storages(
    model: keras.Model,
    frozen: FrozenModel,
    codes: dict[str, np.ndarray],
    examples: list[np.ndarray],
    to_graph: Callable[[FrozenModel], TFLiteGraph],
) -> list[StorageReport]:
    """Returns what the other storages of a file would have been.

    All run under XNNPACK, as a phone runs them.

    Args:
        model: The trained model.
        frozen: The numbers a file was made of.
        codes: What the runtime computed with it, from `probe_codes`.
        examples: Inputs of the model, one array per input.
        to_graph: Makes the graph of a file with the same kinds of ends.
    """
    compared = {
        node.name
        for node in frozen.nodes
        if node.kind != "input" and node.grid is not None
    }
    output = next(iter(frozen.outputs.values()))
    chosen = codes[output].argmax(axis=-1)
    reports = []
    for name in STORAGES:
        if name == frozen.storage.name:
            continue
        other = freeze_model(model, Storage(name, frozen.storage.bias_grid))
        stored = to_graph(other)
        metadata.add_description(other, stored)
        found = probe_codes(stored, other, examples)
        common = compared & found.keys()  # Some storages widen tensors.
        different = [int((found[tensor] != codes[tensor]).sum()) for tensor in common]
        agreement = (found[output].argmax(axis=-1) == chosen).mean()
        reports.append(
            StorageReport(
                name,
                len(flatbuffer.to_bytes(stored)),
                sum(codes[tensor].size for tensor in common),
                sum(different),
                float(agreement),
            )
        )
    return reports
