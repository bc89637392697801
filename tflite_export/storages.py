"""Compares the chosen storage of a model with the alternatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .build import BuiltFile, FileSettings
from .freezing import Storage
from .reports import StorageReport
from .targets import STORAGES, TARGETS, option_problems
from .twin import target_runtime, twin_codes
from .verification import input_codes


def compare_storages(
    build: Callable[[FileSettings], BuiltFile],
    built: BuiltFile,
    examples: list[np.ndarray],
) -> list[StorageReport]:
    """Compares the file with the files of the other storages that its target takes.

    All of them run on the target's runtime, as the integer twin predicts it.

    Args:
        build: Returns the model's file for other settings.
        built: The file.
        examples: Inputs of the model, one array per input.
    """
    frozen, settings = built.frozen, built.settings
    runtime = target_runtime(frozen.target)
    inputs = input_codes(frozen, examples)
    codes = twin_codes(frozen, inputs, runtime)
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
        others = twin_codes(other.frozen, inputs, runtime)
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
