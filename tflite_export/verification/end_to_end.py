"""Compares the classifications of a file with those of the Keras model."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tf_lsq._compat import keras
from tf_lsq.data import batches, inputs_as_list, num_batches

from ..build import BuiltFile
from ..file import from_bytes
from ..freezing import Grid
from ..reports import OutputReport
from ..runtimes import Runner, this_machine
from ..twin import build_twin
from .values import file_codes, file_inputs, on_grid

BATCH_SIZE = 64


def compare_end_to_end(
    content: bytes, built: BuiltFile, model: keras.Model, data: Any, *, verbose: bool
) -> dict[str, OutputReport]:
    """Runs file, model and integer twin on all of `data` and compares their outputs.

    Args:
        content: The bytes of the file.
        built: What it was built from.
        model: The trained model.
        data: As for `verify_tflite`.
        verbose: Whether to show progress.

    Returns:
        Name of the output -> result of the comparison.
    """
    frozen = built.frozen
    graph, twin, nodes = (
        from_bytes(content),
        build_twin(frozen, model, this_machine()),
        frozen.by_name(),
    )
    runner = Runner(graph, content=content)
    total = num_batches(data, BATCH_SIZE)
    reports: dict[str, OutputReport] = collections.defaultdict(OutputReport)
    for x, y in tqdm(
        batches(data, BATCH_SIZE), "Verifying", total, disable=not verbose, leave=False
    ):
        arrays = inputs_as_list(x, model.input_names)
        results = runner.run(file_inputs(graph, frozen, arrays))
        outputs = tf.nest.flatten(model.predict_on_batch(x))
        twins = tf.nest.flatten(twin.predict_on_batch(x))
        labels = tf.nest.flatten(y)
        labels = labels if len(labels) == len(outputs) else [y] * len(outputs)
        for (name, tensor), keras_output, twin_output, label in zip(
            frozen.outputs.items(), outputs, twins, labels, strict=True
        ):
            grid = nodes[tensor].grid
            label = None if label is None else np.asarray(label)
            if grid is None:
                batch = _compare_integers(results[name], keras_output, twin_output)
            else:
                batch = _compare_batch(
                    grid, results[name], keras_output, twin_output, label
                )
            reports[name] = reports[name].joined(batch)
    return dict(reports)


def _compare_batch(
    grid: Grid,
    file_output: np.ndarray,
    keras_output: np.ndarray,
    twin_output: np.ndarray,
    labels: np.ndarray | None,
) -> OutputReport:
    """Compares one batch of one output.

    Args:
        grid: The grid of the output.
        file_output: What the file computed, `[batch, ..., classes]`.
        keras_output: What Keras computed.
        twin_output: What the integer twin computed.
        labels: Class numbers or one-hot rows; None without labels.
    """
    codes = file_codes(file_output, grid)
    wanted_codes = on_grid(keras_output.astype(np.float64), grid)
    twin_codes = on_grid(twin_output.astype(np.float64), grid)
    choices = codes.argmax(axis=-1).reshape(-1)
    wanted = keras_output.argmax(axis=-1).reshape(-1)
    # The file's grid can make two classes equal; they agree if the Keras model's
    # choice is among the largest.
    rows = codes.reshape(len(choices), -1)
    chosen = rows[np.arange(len(choices)), wanted]
    classes = _classes(labels, len(choices))
    labelled = classes is not None
    return OutputReport(
        num_rows=len(choices),
        agreements=int((chosen == rows.max(axis=-1)).sum()),
        max_code_difference=int(np.abs(codes - wanted_codes).max()),
        num_codes=codes.size,
        twin_differences=int((codes != twin_codes).sum()),
        labelled=len(classes) if labelled else 0,
        keras_correct=int((wanted == classes).sum()) if labelled else 0,
        tflite_correct=int((choices == classes).sum()) if labelled else 0,
    )


def _compare_integers(
    file_output: np.ndarray, keras_output: np.ndarray, twin_output: np.ndarray
) -> OutputReport:
    """Compares one batch of an output of integers without a scale, such as class ids.

    Args:
        file_output: What the file computed.
        keras_output: What Keras computed.
        twin_output: What the integer twin computed.
    """
    found, wanted = (a.astype(np.int64) for a in (file_output, keras_output))
    return OutputReport(
        num_rows=found.size,
        agreements=int((found == wanted).sum()),
        max_code_difference=int(np.abs(found - wanted).max()),
        num_codes=found.size,
        twin_differences=int((found != twin_output).sum()),
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
