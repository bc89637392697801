"""Compares the chosen storage of a model with the alternatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .build import BuiltFile, FileSettings
from .freezing import Storage
from .reports import StorageReport
from .targets import STORAGES, TARGETS, option_problems
from .verification import probe_codes


def compare_storages(
    build: Callable[[FileSettings], BuiltFile],
    built: BuiltFile,
    codes: dict[str, np.ndarray],
    examples: list[np.ndarray],
) -> list[StorageReport]:
    """Compares the file with the files of the other storages that its target takes.

    All of them run under XNNPACK, as on a phone.

    Args:
        build: Returns the model's file for other settings.
        built: The file.
        codes: What the runtime computed with the file, from `probe_codes`.
        examples: Inputs of the model, one array per input.
    """
    frozen, settings = built.frozen, built.settings
    compared = {
        node.name
        for node in frozen.nodes
        if node.kind != "input" and node.grid is not None
    }
    output = next(iter(frozen.outputs.values()))
    chosen = codes[output].argmax(axis=-1)
    reports, target = [], TARGETS[frozen.target]
    for name in STORAGES:
        if name == settings.storage.name or option_problems(target, storage=name):
            continue
        storage = Storage(name, settings.storage.bias_grid)
        other = build(dataclasses.replace(settings, storage=storage))
        others = probe_codes(other.graph, other.frozen, examples)
        common = compared & others.keys()  # Some storages widen tensors.
        different = [int((others[tensor] != codes[tensor]).sum()) for tensor in common]
        agreement = (others[output].argmax(axis=-1) == chosen).mean()
        reports.append(
            StorageReport(
                name,
                len(other.content),
                sum(codes[tensor].size for tensor in common),
                sum(different),
                float(agreement),
            )
        )
    return reports
