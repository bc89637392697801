"""The other storages of the same model, beside the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tf_lsq._compat import keras

from . import flatbuffer, metadata
from .export_report import StorageReport
from .freeze import FrozenModel, freeze_model
from .targets import STORAGES
from .tflite_graph import TFLiteGraph
from .verify import probe_codes
from .weights import Storage


def compare_storages(
    model: keras.Model,
    graph: TFLiteGraph,
    frozen: FrozenModel,
    examples: list[np.ndarray],
    to_graph: Callable[[FrozenModel], TFLiteGraph],
) -> list[StorageReport]:
    """Returns what the other storages of a file would have been.

    All run under XNNPACK, as a phone runs them.

    Args:
        model: The trained model.
        graph: The file's graph.
        frozen: The numbers it was made of.
        examples: Inputs of the model, one array per input.
        to_graph: Makes the graph of a file with the same kinds of ends.
    """
    codes = probe_codes(graph, frozen, examples)
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
        common = codes.keys() & found.keys()  # Some storages widen tensors.
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
