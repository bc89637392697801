"""Takes one network of `networks_list.py` from its float model to a verified file.

`networks.py` runs this script in its own process for every network and width:

    python examples/networks_check.py kwt1 8/8 row.json
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import resource
import signal
import tempfile
import time
import unittest.mock
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras as keras3
import numpy as np
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from networks_list import CLASSES, NETWORKS, Bits, Network, bits_name
from networks_steps import train_a_step
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

import tf_lsq
import tflite_export

EXAMPLES = 8
MAX_TWIN_DIFFERENCE = 1e-5  # Of a Keras 3 model and its copy, both in float64.


def check(name: str, bits: Bits, *, size: int | None = None) -> Row:
    """Takes one network through all stages.

    Args:
        name: A key of `NETWORKS`.
        bits: Bits of weights and activations.
        size: Height and width of the images; None: those of the list.

    Returns:
        What is known about it, as plain data; "outcome" is one of:

        - "passed": a verified file without a float tensor;
        - "refused": an error of this library, which names what it refuses;
        - "failed": any other error.
    """
    network = NETWORKS[name]
    row: Row = {"network": name, "bits": bits_name(bits), "package": network.package}
    row |= {"trained": network.trained, "outcome": "failed", "stage": "build"}
    row |= {"versions": versions()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _through_all_stages(_resized(network, size), bits, row)
        row["outcome"] = "passed"
    except Exception as error:  # Every error is a result.
        row |= {"reasons": reasons(str(error))}
        row |= failure(error, row)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return row | {"peak_bytes": peak, "seconds": round(time.process_time(), 1)}


def _resized(network: Network, size: int | None) -> Network:
    """Returns a network for images of another size."""
    if size is None:
        return network
    return dataclasses.replace(network, shape=(size, size, *network.shape[2:]))


def _through_all_stages(network: Network, bits: Bits, row: Row) -> None:
    """Quantizes, trains, saves, exports and verifies a network; fills its row."""
    model, x = _float_model(network)
    row |= {"keras": keras_of(model), "layers": len(all_layers(model))}
    row |= {"shape": list(network.shape), "kernel_weights": kernel_weights(model)}
    row["stage"] = "quantize"
    start = time.perf_counter()
    student = tf_lsq.quantize_model(model, weight_bits=bits[0], activation_bits=bits[1])
    row["quantize_seconds"] = round(time.perf_counter() - start, 1)
    row["stage"] = "calibrate"
    tf_lsq.calibrate(student, x)
    if network.trained and bits == (8, 8):
        _compare(network, model, student, x, row)
    with tempfile.TemporaryDirectory() as folder:
        if network.trained:
            _train(network, student, x, Path(folder) / "student.keras", row)
        tf_lsq.round_biases(student)
        _export(student, x, Path(folder) / "model.tflite", row)


def _float_model(network: Network) -> tuple[Any, np.ndarray]:
    """Returns a network with random weights, and its images."""
    keras.utils.set_random_seed(0)
    keras3.utils.set_random_seed(0)
    model = network.build(network.shape)
    rng = np.random.default_rng(0)
    x = images(rng, EXAMPLES, network.shape, network.range)
    randomize(model, [x], rng)
    return model, x


def _compare(
    network: Network, model: Any, student: Any, x: np.ndarray, row: Row
) -> None:
    """Compares each layer of a student, and a copy from Keras 3, with the model."""
    row["stage"] = "compare"
    worst = tf_lsq.compare(model, student, x, batch_size=EXAMPLES).worst(1)[0]
    row |= {"worst_layer": worst.name, "worst_layer_db": worst.own_sqnr_db}
    if keras_of(model) == "Keras 3":
        row["stage"] = "copy from Keras 3"
        row["copy_difference"] = copy_difference(network)


def _train(network: Network, student: Any, x: np.ndarray, path: Path, row: Row) -> None:
    """Trains a student for one step, saves it and loads it."""
    row["stage"] = "train"
    classes = np.arange(len(x)) % CLASSES
    train_a_step(student, x, classes, logits=network.logits)
    row["stage"] = "save and load"
    student.save(path)
    owner = keras3 if keras_of(student) == "Keras 3" else keras
    with _archives_in_memory():
        loaded = owner.models.load_model(path, compile=False)
    if not np.array_equal(loaded(x, training=False), student(x, training=False)):
        raise AssertionError("The outputs of the loaded model differ.")


@contextlib.contextmanager
def _archives_in_memory() -> Iterator[None]:
    """Reads the members of zip archives as a whole.

    tf_keras seeks in an open member, which Python reads again from its beginning at
    every step back: minutes for networks of hundreds of layers.
    """
    opened = zipfile.ZipFile.open

    def in_memory(archive: zipfile.ZipFile, *args: Any, **kwargs: Any) -> io.BytesIO:
        with opened(archive, *args, **kwargs) as member:
            return io.BytesIO(member.read())

    with unittest.mock.patch.object(zipfile.ZipFile, "open", in_memory):
        yield


def copy_difference(network: Network) -> float:
    """Measures the difference between a network of Keras 3 and its tf_keras copy.

    Both compute in float64, so that kernels that differ between the two versions of
    Keras round alike; the copy is that which `quantize_model` reads.

    Args:
        network: One of Keras 3.

    Returns:
        The largest difference of an output, at most `MAX_TWIN_DIFFERENCE`.

    Raises:
        AssertionError: If it is larger.
    """
    usual = keras3.config.dtype_policy()
    keras3.config.set_dtype_policy("float64")
    try:
        original, x = _float_model(network)
    finally:
        keras3.config.set_dtype_policy(usual)
    x = x.astype(np.float64)
    expected = np.asarray(original(x, training=False))
    found = np.asarray(tf_lsq.from_keras3(original)(x, training=False))
    if not expected.dtype == found.dtype == np.float64:
        raise AssertionError(f"{expected.dtype} and {found.dtype}, not float64")
    difference = float(np.abs(found - expected).max())
    if difference > MAX_TWIN_DIFFERENCE:
        raise AssertionError(f"The outputs of the copy differ by {difference}.")
    return difference


def _export(student: Any, x: np.ndarray, path: Path, row: Row) -> None:
    """Exports and verifies a student; fills the row."""
    row["stage"] = "export"
    report = tflite_export.export_model(student, path, verbose=False)
    row |= {"file_bytes": report.file_bytes, "float_layers": report.float_layers}
    row |= {"operators": sum(report.operators.values())}
    row |= {"int16_operators": sum(report.int16_operators.values())}
    row["float_tensors"] = float_tensors(path)
    row["stage"] = "verify"
    found = tflite_export.verify_tflite(
        path, student, x, point_examples=EXAMPLES, verbose=False
    )
    row |= {"weight_codes": found.weight_codes, "equal_codes": found.equal_codes}
    row |= {"twin_differences": found.twin_differences}
    row |= {"off_by_one": found.off_by_one}
    worst = max(found.points, key=lambda point: point.off_by_one / point.num_codes)
    row |= {"worst": worst.name, "worst_kind": worst.kind}
    row["worst_share"] = worst.off_by_one / worst.num_codes
    check_file(row)


def float_tensors(path: Path) -> int:
    """Counts the float tensors of a file that are neither inputs nor outputs.

    Args:
        path: A `.tflite` file, which LiteRT reads.
    """
    interpreter = Interpreter(str(path))
    ends = interpreter.get_input_details() + interpreter.get_output_details()
    known = {end["index"] for end in ends}
    return sum(
        np.issubdtype(tensor["dtype"], np.floating)
        for tensor in interpreter.get_tensor_details()
        if tensor["index"] not in known
    )


def check_file(row: Row) -> None:
    """Checks that a file is all integers, and those that were trained.

    Raises:
        AssertionError: If it is not.
    """
    wrong = [
        f"{row[name]} {name}"
        for name in ("float_layers", "float_tensors", "twin_differences")
        if row[name]
    ]
    if row["equal_codes"] != row["weight_codes"]:
        wrong.append(f"{row['weight_codes'] - row['equal_codes']} other weight codes")
    if wrong:
        raise AssertionError(f"The file has {', '.join(wrong)}.")


def main() -> None:
    """Checks one network, and writes its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("bits", help="of weights and activations, such as 4/8")
    parser.add_argument("row", type=Path, help="the JSON file to write")
    args = parser.parse_args()
    # A process that passes its limit of CPU time prints where it was.
    faulthandler.register(signal.SIGXCPU, chain=True)
    weight_bits, activation_bits = map(int, args.bits.split("/"))
    row = check(args.network, (weight_bits, activation_bits))
    args.row.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
