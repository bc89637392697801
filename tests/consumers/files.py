"""Writes the files of the classifiers, their inputs, and what LiteRT answers here."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from harness import run_files
from PIL import Image

from tflite_export.file import TFLiteGraph, to_bytes
from tflite_export.runtimes.litert import Runner

from .cases import SPECS, graph_of
from .classifiers import SIZE, Spec

IMAGES = 4


def write_files(folder: Path) -> None:
    """Writes NAME.tflite, NAME.npz, NAME.expected and images/*.png.

    Args:
        folder: An empty folder.
    """
    images = np.random.default_rng(1).integers(
        0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8
    )
    write_images(folder, images)
    for name, spec in SPECS.items():
        graph = graph_of(name)
        (folder / f"{name}.tflite").write_bytes(to_bytes(graph))
        inputs = _inputs(graph, spec, images)
        np.savez(folder / f"{name}.npz", **inputs)
        with contextlib.suppress(ValueError):  # LiteRT refuses one.
            write_expected(folder / f"{name}.expected", graph, inputs)


def write_images(folder: Path, images: np.ndarray) -> None:
    """Writes images as PNG files.

    Args:
        folder: Gets images/*.png.
        images: Bytes, `[images, height, width, 3]`.
    """
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"images/{number:03}.png")


def write_expected(
    path: Path, graph: TFLiteGraph, inputs: dict[str, np.ndarray]
) -> None:
    """Writes what LiteRT on this machine computes.

    Args:
        path: The file.
        graph: The graph.
        inputs: By name, for several times the graph's own batch size.
    """
    size = graph.tensors[next(iter(graph.inputs.values()))].shape[0]
    outputs = run_files.in_batches(Runner(graph).run_one, inputs, size)
    with path.open("wb") as file:
        np.savez(file, **outputs)


def _inputs(
    graph: TFLiteGraph, spec: Spec, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns inputs as an app makes them that knows how the model was trained."""
    mean, std = spec.trained
    shaped = (
        images
        if spec.shape[3:] == (3,)
        else np.resize(images, (IMAGES, *spec.shape[1:]))
    )
    values = (shaped - np.float64(mean)) / std
    inputs = {}
    for name, tensor_name in graph.inputs.items():
        tensor = graph.tensors[tensor_name]
        dtype, grid = tensor.dtype, tensor.quantization
        if dtype == spec.number:
            inputs[name] = np.zeros(IMAGES, dtype)
        elif grid is None:
            inputs[name] = values.astype(dtype)
        else:
            limits = np.iinfo(dtype)
            codes = np.rint(values / grid.scale[0]) + grid.zero_point
            inputs[name] = codes.clip(limits.min, limits.max).astype(dtype)
    return inputs
