"""Compares the classifications of a file with those of the Keras model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tf_lsq._compat import keras
from tf_lsq.data import batches, inputs_as_list, num_batches

from ..build import BuiltFile
from ..freezing import FrozenModel, Grid
from ..reports import OutputReport
from ..runtimes import CompiledRunner, Runner, Runtime, runner_on, this_machine
from ..twin import TwinRunner
from .values import file_codes, file_inputs, on_grid, twin_inputs

BATCH_SIZE = 64
_UNTRACED = 2  # Batches that Keras computes without a trace.
_Twin = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class EndToEnd(NamedTuple):
    """The outputs of a file compared with those of the Keras model, by name.

    Attributes:
        measured: What the file computes on this machine's CPU, or on an accelerator.
        predicted: What its twin computes for the target's runtime; empty if it is not
            known how that rounds.
        device: Name of the accelerator's device; "" for the CPU.
    """

    measured: dict[str, OutputReport]
    predicted: dict[str, OutputReport]
    device: str


def compare_end_to_end(
    built: BuiltFile,
    int8: FrozenModel,
    model: keras.Model,
    data: Any,
    runtime: Runtime | None,
    *,
    accelerator: str = "cpu",
    verbose: bool,
) -> EndToEnd:
    """Runs file, model and integer twins on all of `data` and compares their outputs.

    Args:
        built: The file.
        int8: The numbers of the model's file with int8 storage.
        model: The trained model.
        data: As for `verify_tflite`.
        runtime: The target's runtime; None: nothing is predicted.
        accelerator: What runs the file, one of `runtimes.ACCELERATORS`.
        verbose: Whether to show progress.
    """
    with runner_on(accelerator, built.graph, content=built.content) as runner:
        return _compared(runner, built, int8, model, data, runtime, verbose=verbose)


def _compared(
    runner: Runner | CompiledRunner,
    built: BuiltFile,
    int8: FrozenModel,
    model: keras.Model,
    data: Any,
    runtime: Runtime | None,
    *,
    verbose: bool,
) -> EndToEnd:
    """Compares the outputs of a runner; the other arguments are the same."""
    frozen, graph, nodes = built.frozen, built.graph, built.frozen.by_name()
    build = functools.cache(_twin_of)
    twin = build(frozen, this_machine())
    predictors = []
    if runtime is not None:
        predictors = [build(frozen, runtime), build(int8, runtime)]
    total = num_batches(data, BATCH_SIZE)
    # A trace takes as long as a few batches.
    traced = total is None or total > _UNTRACED
    found = EndToEnd({}, {}, runner.device)
    for x, y in tqdm(
        batches(data, BATCH_SIZE), "Verifying", total, disable=not verbose, leave=False
    ):
        arrays = inputs_as_list(x, model.input_names)
        results = runner.run(file_inputs(graph, frozen, arrays))
        wanted_outputs = _keras_outputs(model, x, traced=traced)
        codes = twin_inputs(graph, frozen, arrays)
        computed = {one: one(codes) for one in {twin, *predictors}}
        labels = tf.nest.flatten(y)
        labels = labels if len(labels) == len(results) else [y] * len(results)
        for number, (name, tensor) in enumerate(frozen.outputs.items()):
            wanted, label = wanted_outputs[number], labels[number]
            compare = functools.partial(_compare, nodes[tensor].grid, wanted, label)
            batch = compare(results[name], twin=computed[twin][name])
            _join(found.measured, name, batch)
            if predictors:
                predicted, as_int8 = (computed[one][name] for one in predictors)
                _join(found.predicted, name, compare(predicted, int8=as_int8))
    return found


def _twin_of(frozen: FrozenModel, runtime: Runtime) -> _Twin:
    """Returns what computes the outputs of a file, by name, as a runtime does."""
    runner = TwinRunner(frozen, runtime, frozen.outputs.values())

    def compute(codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = runner.run(codes)
        return {name: found[tensor] for name, tensor in frozen.outputs.items()}

    return compute


def _keras_outputs(model: keras.Model, x: Any, *, traced: bool) -> list[np.ndarray]:
    """Returns what a model computes for a batch."""
    outputs = model.predict_on_batch(x) if traced else model(x, training=False)
    return [np.asarray(output) for output in tf.nest.flatten(outputs)]


def _join(reports: dict[str, OutputReport], name: str, batch: OutputReport) -> None:
    """Adds the report of a batch to that of the batches before it."""
    reports[name] = reports[name].joined(batch) if name in reports else batch


def _compare(
    grid: Grid | None,
    wanted: np.ndarray,
    labels: Any,
    found: np.ndarray,
    *,
    twin: np.ndarray | None = None,
    int8: np.ndarray | None = None,
) -> OutputReport:
    """Compares one batch of one output.

    Args:
        grid: The grid of the output; None: integers without a scale.
        wanted: What Keras computed, `[batch, ..., classes]`.
        labels: Class numbers or one-hot rows; None without labels.
        found: What the file computed.
        twin: The codes that its integer twin computed; None: not compared.
        int8: Those of the twin of the file with int8 storage; None: not compared.
    """
    if grid is None:
        return _compare_integers(wanted, found, twin, int8)
    codes = file_codes(found, grid)
    wanted_codes = on_grid(wanted.astype(np.float64), grid)
    wanted_choices, choices = _choices(wanted), _choices(codes)
    classes = _classes(None if labels is None else np.asarray(labels), len(choices))
    report = OutputReport(
        num_rows=len(choices),
        agreements=_agreements(codes, wanted_choices),
        max_code_difference=int(np.abs(codes - wanted_codes).max()),
        num_codes=codes.size,
    )
    if twin is not None:
        differences = int((codes != twin).sum())
        report = dataclasses.replace(report, twin_differences=differences)
    if int8 is not None:
        agreements = _agreements(codes, _choices(int8))
        report = dataclasses.replace(report, int8_agreements=agreements)
    if classes is None:
        return report
    return dataclasses.replace(
        report,
        labelled=len(classes),
        keras_correct=int((wanted_choices == classes).sum()),
        tflite_correct=int((choices == classes).sum()),
    )


def _choices(output: np.ndarray) -> np.ndarray:
    """Returns the class with the largest value in each row."""
    return output.argmax(axis=-1).reshape(-1)


def _agreements(codes: np.ndarray, choices: np.ndarray) -> int:
    """Counts the rows in which a chosen class has the largest code.

    The file's grid can make two classes equal; so a choice agrees if it is among the
    largest.
    """
    rows = codes.reshape(len(choices), -1)
    chosen = rows[np.arange(len(choices)), choices]
    return int((chosen == rows.max(axis=-1)).sum())


def _compare_integers(
    wanted: np.ndarray,
    found: np.ndarray,
    twin: np.ndarray | None,
    int8: np.ndarray | None,
) -> OutputReport:
    """Compares one batch of an output of integers without a scale, such as class ids.

    Args:
        wanted: What Keras computed.
        found: What the file computed.
        twin: What its integer twin computed; None: not compared.
        int8: What the file of int8 storage computed; None: not compared.
    """
    difference = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
    return OutputReport(
        num_rows=found.size,
        agreements=int((difference == 0).sum()),
        max_code_difference=int(difference.max()),
        num_codes=found.size,
        twin_differences=None if twin is None else int((found != twin).sum()),
        int8_agreements=None if int8 is None else int((found == int8).sum()),
    )


def _classes(labels: np.ndarray | None, rows: int) -> np.ndarray | None:
    """Returns class numbers from numbers or one-hot rows, None if neither."""
    if labels is None:
        return None
    if labels.size == rows:
        return labels.reshape(-1).astype(np.int64)
    if labels.ndim >= 2 and labels.size == rows * labels.shape[-1]:
        return labels.argmax(axis=-1).reshape(-1)
    return None
