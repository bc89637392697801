"""Takes one network of `survey_networks.py` from its float model to a verified file.

`network_survey.py` runs this script in its own process for every network:

    python examples/survey_check.py LCNet050 row.json
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import faulthandler
import json
import os
import re
import signal
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # keras-cv-attention-models needs it.

import keras as keras3
import numpy as np
import tensorflow as tf
import tf_keras as keras
from random_networks import (
    Row,
    all_layers,
    failure,
    images,
    keras_of,
    kernel_weights,
    randomize,
    reasons,
    versions,
)
from survey_networks import NETWORKS, Network

import tf_lsq
import tflite_export
from tf_lsq.layers import QuantizationPoint

EXAMPLES = 8
MAX_ROUNDS = 8  # How often printed remedies are followed.


def check(name: str) -> Row:
    """Takes one network through all stages.

    Args:
        name: A key of `NETWORKS`.

    Returns:
        What is known about it, as plain data; "outcome" is one of:

        - "exported": a verified file, nothing in float;
        - "remedied": a verified file, after following the printed remedies;
        - "refused": an error of this library that prints no remedy;
        - "failed": any other error, or a remedy that does not help;
        - "not built": the package could not build the network.
    """
    network = NETWORKS[name]
    row: Row = {"network": name, "family": network.family, "package": network.package}
    row |= {"outcome": "not built", "stage": "build", "versions": versions()}
    try:
        model, x = _float_model(network)
        layers = all_layers(model)
        row |= {"keras": keras_of(model), "layers": len(layers)}
        row["kernel_weights"] = kernel_weights(model)
        row |= {"inputs": [list(tensor.shape[1:]) for tensor in model.inputs]}
        row["outcome"] = "failed"
        _through_all_stages(model, x, row)
        row["outcome"] = "remedied" if row["overrides"] else "exported"
    except Exception as error:  # Every error is a result of the survey.
        row |= failure(error, row)
    return row | {"seconds": time.process_time()}


def _float_model(network: Network) -> tuple[Any, list[np.ndarray]]:
    """Returns a network with random weights, and a batch for each of its inputs."""
    keras.utils.set_random_seed(0)
    keras3.utils.set_random_seed(0)
    model = network.build()
    rng = np.random.default_rng(0)
    x = [
        images(rng, EXAMPLES, tensor.shape[1:], network.range)
        for tensor in model.inputs
    ]
    randomize(model, x, rng)
    return model, x


def _through_all_stages(model: Any, x: list[np.ndarray], row: Row) -> None:
    """Quantizes, calibrates, exports and verifies a model; fills its row."""
    data = x if len(x) > 1 else x[0]
    expected = _outputs(model, data)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.tflite"
        student = _student(model, data, expected, path, row)
        row["stage"] = "compare"
        row["difference"] = _difference(expected, _outputs(student, data))
        row["stage"] = "verify"
        found = tflite_export.verify_tflite(
            path, student, data, point_examples=EXAMPLES, verbose=False
        )
    row |= {"weight_codes": found.weight_codes, "equal_codes": found.equal_codes}
    worst = max(found.points, key=lambda p: p.off_by_one / p.num_codes, default=None)
    if worst is not None:
        row |= {"worst": worst.name, "worst_kind": worst.kind}
        row["worst_share"] = worst.off_by_one / worst.num_codes


def _student(
    model: Any, data: Any, expected: list[np.ndarray], path: Path, row: Row
) -> Any:
    """Returns the exported student; follows the remedies that errors print."""
    overrides: dict[str, Any] = {}
    row |= {"overrides": 0, "rounds": 0}
    while True:
        try:
            row["stage"] = "quantize"
            student = tf_lsq.quantize_model(
                model, weight_bits=8, activation_bits=8, overrides=overrides or None
            )
            row["stage"] = "calibrate"
            tf_lsq.calibrate(student, data)
            row["unrounded"] = _difference(expected, _unrounded_outputs(student, data))
            tf_lsq.round_biases(student)
            row["stage"] = "export"
            report = tflite_export.export_model(student, path, verbose=False)
            break
        except Exception as error:
            printed = printed_overrides(str(error))
            row.setdefault("reasons", reasons(str(error)))
            if not printed.keys() - overrides.keys() or row["rounds"] == MAX_ROUNDS:
                row["helpless"] = bool(printed)
                raise
            overrides |= printed
            row["overrides"], row["rounds"] = len(overrides), row["rounds"] + 1
    row["file_bytes"] = report.file_bytes
    row["float_layers"] = len(set(report.float_layers))
    row["operators"] = sum(report.operators.values())
    return student


def printed_overrides(message: str) -> dict[str, Any]:
    """Returns the `overrides` that the remedies of an error message ask for."""
    found: dict[str, Any] = {}
    for match in re.finditer(r"overrides=(\{[^{}]*\})", message):
        try:
            found |= ast.literal_eval(match[1])
        except (SyntaxError, ValueError):
            continue
    return found


def _outputs(model: Any, data: Any) -> list[np.ndarray]:
    """Returns the outputs of a model in inference."""
    found = model(data, training=False)
    return [np.asarray(tensor, np.float64) for tensor in tf.nest.flatten(found)]


def _unrounded_outputs(student: Any, data: Any) -> list[np.ndarray]:
    """Returns what a student computes without rounding: the float model's outputs."""

    def passed(point: Any, inputs: Any, training: Any = None) -> Any:
        if point.absorbed_relu is None:
            return tf.cast(inputs, tf.float32)
        return tf.clip_by_value(inputs, 0.0, point.quantizer.max_value or np.inf)

    with contextlib.ExitStack() as patches:
        for point in (QuantizationPoint, *QuantizationPoint.__subclasses__()):
            patches.enter_context(mock.patch.object(point, "call", passed))
        kernel = mock.patch.object(
            tf_lsq.LSQWeightQuantizer, "__call__", lambda self, inputs, *_, **__: inputs
        )
        patches.enter_context(kernel)
        return _outputs(student, data)


def _difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Returns the largest difference of any output, in percent of its range."""
    return max(
        100 * float(np.abs(a - b).max() / max(np.ptp(a), 1e-12))
        for a, b in zip(expected, found, strict=True)
    )


def main() -> None:
    """Checks one network, and writes its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("row", type=Path, help="the JSON file to write")
    args = parser.parse_args()
    # A process that passes its limit of CPU time prints where it was.
    faulthandler.register(signal.SIGXCPU, chain=True)
    args.row.write_text(json.dumps(check(args.network)))


if __name__ == "__main__":
    main()
