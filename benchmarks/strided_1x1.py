"""Measures what strided 1x1 convolutions cost in each form, under XNNPACK.

    python -m benchmarks.strided_1x1
    python -m benchmarks.strided_1x1 --rounds 100

The forms are those of `tflite_export.operators.STRIDED_1X1`, and two other ways to pick
pixels. All compute the same codes, which is checked.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tf_keras as keras

import tf_lsq
from tflite_export.build import FileSettings, build_file
from tflite_export.file import TFLiteGraph, TFLiteOp, TFLiteTensor, to_bytes
from tflite_export.freezing import read_model
from tflite_export.operators import PICKED
from tflite_export.runtimes import start

from .contestants import resnet8
from .timing import Times, machine, side_by_side

_IMAGES = 4
_WARM_UP = 20
NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "resnet8, 32x32": resnet8,
    "preact_resnet18, width 16, 32x32": lambda: _preact_resnet18(32),
    "preact_resnet18, width 16, 224x224": lambda: _preact_resnet18(224),
    "ResNet50, 224x224": lambda: keras.applications.ResNet50(
        weights=None, input_shape=(224, 224, 3), classes=10
    ),
}


def main() -> None:
    """Prints a row per network and form."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.strided_1x1", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=300)
    args = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print("| network | strided 1x1 | form | ms | to conv |\n|---|---|---|---|---|")
    for name, build in NETWORKS.items():
        keras.backend.clear_session()
        graphs, count = _graphs(build())
        times = _measured(graphs, args.rounds)
        for form, one in times.items():
            ratio = one.ratio(times["conv"])
            print(f"| {name} | {count} | {form} | {one.milliseconds()} | {ratio} |")


def _preact_resnet18(size: int) -> keras.Model:
    """Returns the pre-activation ResNet-18 with 16 initial channels."""
    shape = (size, size, 3)
    return tf_lsq.models.preact_resnet18(shape, classes=10, width=0.25)


def _graphs(model: keras.Model) -> tuple[dict[str, TFLiteGraph], int]:
    """Returns the graph of each form, and how many convolutions differ."""
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    shape = (_IMAGES, *model.input_shape[1:])
    images = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    tf_lsq.calibrate(student, images)
    numbers = read_model(student)
    conv, pick = (
        build_file(numbers, FileSettings(strided_1x1=form)).graph
        for form in ("conv", "pick")
    )
    count = sum(op.outputs[0].endswith(PICKED) for op in pick.ops)
    return {
        "conv": conv,
        "pick (MAX_POOL_2D)": pick,
        "AVERAGE_POOL_2D": _replaced(pick, _average_pool),
        "STRIDED_SLICE": _replaced(pick, _strided_slice),
    }, count


Replacement = Callable[[TFLiteOp, TFLiteGraph], TFLiteOp]


def _replaced(graph: TFLiteGraph, replace: Replacement) -> TFLiteGraph:
    """Returns a graph whose picks are other operators."""
    changed = dataclasses.replace(graph, tensors=dict(graph.tensors))
    changed.ops = [
        replace(op, changed) if op.outputs[0].endswith(PICKED) else op
        for op in graph.ops
    ]
    return changed


def _average_pool(op: TFLiteOp, graph: TFLiteGraph) -> TFLiteOp:
    """Returns a pick by means of single pixels."""
    return dataclasses.replace(op, code="AVERAGE_POOL_2D")


def _strided_slice(op: TFLiteOp, graph: TFLiteGraph) -> TFLiteOp:
    """Returns a pick by a slice; adds its constants."""
    [source], [output] = op.inputs, op.outputs
    height, width = op.options["stride_h"], op.options["stride_w"]
    values = {
        "begin": (0, 0, 0, 0),
        "end": graph.tensors[source].shape,
        "strides": (1, height, width, 1),
    }
    for part, numbers in values.items():
        name, data = f"{output}/{part}", np.array(numbers, np.int32)
        graph.tensors[name] = TFLiteTensor(name, data.shape, "int32", data=data)
    every = 0b1001  # All of the batch, and all channels.
    masks = {"begin_mask": every, "end_mask": every, "ellipsis_mask": 0}
    masks |= {"new_axis_mask": 0, "shrink_axis_mask": 0}
    inputs = [source, *(f"{output}/{part}" for part in values)]
    return TFLiteOp("STRIDED_SLICE", inputs, [output], masks)


def _measured(graphs: dict[str, TFLiteGraph], rounds: int) -> dict[str, Times]:
    """Returns the times of one inference on one thread.

    Raises:
        RuntimeError: If a form computes other codes.
    """
    runs = {form: _Run(graph) for form, graph in graphs.items()}
    for form, run in runs.items():
        run()
        if not np.array_equal(run.output(), runs["conv"].output()):
            raise RuntimeError(f"{form!r} must compute the codes of 'conv'.")
    return side_by_side(runs, rounds, _WARM_UP)


class _Run:
    """One inference of a file on a random image."""

    def __init__(self, graph: TFLiteGraph) -> None:
        self._interpreter: Any = start(to_bytes(graph), "xnnpack", num_threads=1)
        self._interpreter.allocate_tensors()
        [source] = self._interpreter.get_input_details()
        [self._target] = self._interpreter.get_output_details()
        image = np.random.default_rng(0).integers(-128, 128, source["shape"])
        self._interpreter.set_tensor(source["index"], image.astype(np.int8))

    def __call__(self) -> None:
        """Runs the file."""
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        """Returns the output of the last run."""
        return self._interpreter.get_tensor(self._target["index"])


if __name__ == "__main__":
    main()
