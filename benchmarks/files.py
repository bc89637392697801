"""Time of export over depth, and latency of files, beside TFLiteConverter's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

import tf_lsq
import tflite_export

from .contestants import NETWORKS, tfmot_int8
from .timing import side_by_side
from .training_step import clone

BATCH = 8


def export_time(depths: tuple[int, ...], size: int) -> list[dict[str, Any]]:
    """Returns a row per pre-activation ResNet: seconds of export and conversion.

    Args:
        depths: Of the networks.
        size: Height and width of the images.
    """
    rows = []
    for depth in depths:
        keras.backend.clear_session()
        model = tf_lsq.models.preact_resnet(depth, (size, size, 3), classes=10)
        student = tf_lsq.quantize_model(model)
        _calibrate(student)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            tflite_export.export_model(student, Path(folder) / "model.tflite")
            exported = time.perf_counter() - start
        start = time.perf_counter()
        tf.lite.TFLiteConverter.from_keras_model(model).convert()
        converted = time.perf_counter() - start
        rows.append({"depth": depth, "tf_lsq": exported, "float": converted})
    return rows


def latency(repeats: int) -> list[dict[str, Any]]:
    """Returns a row per network and file: bytes, and seconds of one inference.

    One thread, LiteRT with XNNPACK, one image.
    """
    rows = []
    for name, (build, _) in NETWORKS.items():
        keras.backend.clear_session()
        model = build()
        with tempfile.TemporaryDirectory() as folder:
            files = _files(model, Path(folder))
            calls = {kind: _inference(path) for kind, path in files.items()}
            found = side_by_side(calls, repeats, warm_up=20)
            for kind, times in found.items():
                size = files[kind].stat().st_size
                rows.append({"network": name, "file": kind, "bytes": size, **times})
    return rows


def _files(model: keras.Model, folder: Path) -> dict[str, Path]:
    """Returns the files of one network."""
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
    """Gives every step its first value."""
    tf_lsq.calibrate(student, _images(student))


def _inference(path: Path) -> Callable[[], Any]:
    """Returns a function that runs a file once."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    [details] = interpreter.get_input_details()
    values = np.random.default_rng(0).integers(0, 100, details["shape"])
    interpreter.set_tensor(details["index"], values.astype(details["dtype"]))
    return interpreter.invoke
