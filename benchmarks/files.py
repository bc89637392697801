"""Measures export time over depth and file latency, and TFLiteConverter's for both."""

from __future__ import annotations

import collections
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import tf_lsq
import tflite_export

from .contestants import NETWORKS, tfmot_int8
from .timing import Times, side_by_side
from .training_step import clone

BATCH = 8
# Operators that only change the encoding of a tensor; a mixed-width network needs them.
REQUANTIZING = ("QUANTIZE", "DEQUANTIZE", "MUL")


def measure_export(
    depths: tuple[int, ...], size: int, rounds: int
) -> list[dict[str, Any]]:
    """Measures export and conversion times, one row per pre-activation ResNet.

    `export_model` includes the comparison of the file with the model; the float file is
    only converted.

    Args:
        depths: Depths of the networks.
        size: Height and width of the images.
        rounds: How often to convert each network.
    """
    rows = []
    for depth in depths:
        keras.backend.clear_session()
        model = tf_lsq.models.preact_resnet(depth, (size, size, 3), classes=10)
        student = tf_lsq.quantize_model(model)
        _calibrate(student)
        exported, converted = Times(), Times()
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                tflite_export.export_model(student, Path(folder) / "model.tflite")
                exported.wall.append(time.perf_counter() - start)
            start = time.perf_counter()
            tf.lite.TFLiteConverter.from_keras_model(model).convert()
            converted.wall.append(time.perf_counter() - start)
        rows.append(
            {
                "network": f"preact_resnet{depth}",
                "layers": len(model.layers),
                "export, ms": exported.milliseconds(),
                "float conversion, ms": converted.milliseconds(),
                "ratio": exported.ratio(converted),
            }
        )
    return rows


def measure_latency(rounds: int) -> list[dict[str, Any]]:
    """Measures bytes, operators and latency, one row per network and file.

    It uses one thread, LiteRT with XNNPACK, and one image.
    """
    rows = []
    for name, (build, _) in NETWORKS.items():
        keras.backend.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            files = _files(build(), Path(folder))
            calls = {kind: _inference(path) for kind, path in files.items()}
            measured = side_by_side(calls, rounds, warm_up=20)
            for kind, times in measured.items():
                rows.append(
                    {
                        "network": name,
                        "file": kind,
                        "bytes": files[kind].stat().st_size,
                        **_contents(files[kind]),
                        "ms": times.milliseconds(),
                        "to float32": times.ratio(measured["float32"]),
                        "to TF-MOT int8": times.ratio(measured["TF-MOT int8"]),
                    }
                )
    return rows


def _contents(path: Path) -> dict[str, Any]:
    """Counts the operators and float tensors of a file."""
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    codes = collections.Counter(
        operator["op_name"] for operator in interpreter._get_ops_details()
    )
    floats = [
        tensor
        for tensor in interpreter.get_tensor_details()
        if tensor["dtype"] == np.float32
    ]
    return {
        "operators": codes.total(),
        "QUANTIZE / DEQUANTIZE / MUL": " / ".join(str(codes[x]) for x in REQUANTIZING),
        "float tensors": len(floats),
    }


def _files(model: keras.Model, folder: Path) -> dict[str, Path]:
    """Writes the files of one network, and returns their paths."""
    files = {
        "float32": tf.lite.TFLiteConverter.from_keras_model(model).convert(),
        "TF-MOT int8": _tfmot_file(tfmot_int8(clone(model))),
    }
    paths = {}
    for number, (kind, content) in enumerate(files.items()):
        paths[kind] = folder / f"{number}.tflite"
        paths[kind].write_bytes(content)
    for bits in (8, 4):
        student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        _calibrate(student)
        paths[f"tf_lsq {bits}/{bits}"] = folder / f"lsq{bits}.tflite"
        tflite_export.export_model(student, paths[f"tf_lsq {bits}/{bits}"])
    return paths


def _tfmot_file(model: keras.Model) -> bytes:
    """Returns TFLiteConverter's int8 file of a network quantized by TF-MOT."""
    model(_images(model), training=True)  # Sets its ranges.
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _images(model: keras.Model) -> np.ndarray:
    """Returns a batch of random images."""
    shape = (BATCH, *model.input_shape[1:])
    return np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)


def _calibrate(student: keras.Model) -> None:
    """Initializes every step."""
    tf_lsq.calibrate(student, _images(student))


def _inference(path: Path) -> Callable[[], Any]:
    """Returns a function that runs a file once."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    [details] = interpreter.get_input_details()
    values = np.random.default_rng(0).integers(0, 100, details["shape"])
    interpreter.set_tensor(details["index"], values.astype(details["dtype"]))
    return interpreter.invoke
