"""Measures what convolutions with groups cost in each form, and in training.

    python -m benchmarks.grouped
    python -m benchmarks.grouped --rounds 100

The forms are those of `tflite_export.freezing.GROUPED`: "conv", one CONV_2D, in INT4 as
well, which no export for phones writes; and "split", a SPLIT, one CONV_2D per group (in
INT4 a FULLY_CONNECTED where the kernel is 1x1), and a CONCATENATION. In int8, both
compute the same codes under XNNPACK, which is checked. The last two columns are the
time of a training step with 16 images: of the float layer, which Keras compiles with
XLA, and of the quantized one. All times are in milliseconds, with the smallest and
largest of three blocks of rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_lsq
from tflite_export.build import FileSettings, build_file
from tflite_export.freezing import (
    GROUPED,
    Storage,
    TrainedModel,
    containers,
    read_model,
)
from tflite_export.runtimes import KERNELS, start
from tflite_export.targets import TARGETS

from .timing import Times, machine, side_by_side

_IMAGES, _SIZE, _CHANNELS = 16, 28, 64
_WARM_UP = 5
_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Shape:
    """A convolution of 64 channels to 64.

    Attributes:
        kernel: Height and width of its kernel.
        groups: Its groups.
        bits: Bits of its kernel and input.
        storage: How its codes are stored.
    """

    kernel: int
    groups: int
    bits: int
    storage: str

    def __str__(self) -> str:
        """Returns a few words."""
        container = "int8" if self.storage == "int8" else f"INT{self.bits}"
        return f"{self.kernel}x{self.kernel} | {container} | {self.groups}"


SHAPES = [
    Shape(kernel, groups, bits, storage)
    for kernel in (3, 1)
    for bits, storage in ((8, "int8"), (4, "packed"))
    for groups in (2, 4, 16)
]


def main() -> None:
    """Prints a row per shape."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grouped", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    # Packs kernels whose operators take more bytes than that saves.
    vars(containers)["BYTES_OF_GROUP"] = 0
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(
        "| kernel | container | groups | "
        + " | ".join(f"{form}, {kernels}" for kernels in KERNELS for form in GROUPED)
        + " | step, float | step, quantized |\n|---|---|---|---|---|---|---|---|---|"
    )
    for shape in SHAPES:
        keras.backend.clear_session()
        print(f"| {shape} | {' | '.join(_cells(shape, args.rounds))} |", flush=True)


def _cells(shape: Shape, rounds: int) -> list[str]:
    """Returns the milliseconds of a shape: of files, then of training."""
    model = _model(shape)
    student = tf_lsq.quantize_model(
        model,
        weight_bits=shape.bits,
        activation_bits=shape.bits,
        first_last_bits=shape.bits,
    )
    images = np.random.default_rng(0).normal(0, 1, (_IMAGES, *model.input_shape[1:]))
    images = images.astype(np.float32)
    tf_lsq.calibrate(student, images)
    tf_lsq.round_biases(student)
    times = _inference(read_model(student), shape, rounds)
    steps = side_by_side(
        {"float": _step(model, images), "own": _step(student, images)}, _STEPS, 1
    )
    return [str(one.milliseconds()) for one in (*times.values(), *steps.values())]


def _model(shape: Shape) -> keras.Model:
    """Returns a network of one convolution."""
    inputs = keras.Input((_SIZE, _SIZE, _CHANNELS))
    conv = keras.layers.Conv2D(
        _CHANNELS, shape.kernel, padding="same", groups=shape.groups, activation="relu"
    )
    return keras.Model(inputs, conv(inputs))


def _inference(
    numbers: TrainedModel, shape: Shape, rounds: int
) -> Mapping[tuple[str, str], Times]:
    """Returns the times of one inference on one thread, by form and kernels.

    Raises:
        RuntimeError: If the forms compute other codes under XNNPACK.
    """
    runs: dict[Any, Callable[[], None]] = {}
    outputs = []
    for kernels in KERNELS:
        for form in GROUPED:
            run = _Run(_content(numbers, shape, form), kernels)
            run()
            runs[form, kernels] = run
            if kernels == "xnnpack":
                outputs.append(run.output())
    if shape.storage == "int8" and not np.array_equal(*outputs):
        raise RuntimeError("Both forms must compute the same codes.")
    return side_by_side(runs, rounds, _WARM_UP)


def _content(numbers: TrainedModel, shape: Shape, form: str) -> bytes:
    """Returns a file; with "conv", packed kernels are in one operator as well."""
    target = TARGETS[numbers.target]
    if form == "conv":
        target = dataclasses.replace(target, split_groups=())
    with mock.patch.dict(TARGETS, {numbers.target: target}):
        settings = FileSettings(Storage(shape.storage), grouped=form)
        return build_file(numbers, settings).content


def _step(model: keras.Model, images: np.ndarray) -> Callable[[], None]:
    """Returns a training step: forward and backward."""

    @tf.function
    def step(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    return lambda: step(tf.constant(images))[0].numpy()


class _Run:
    """One inference of a file on a random image."""

    def __init__(self, content: bytes, kernels: str) -> None:
        self._interpreter: Any = start(content, kernels, num_threads=1)
        self._interpreter.allocate_tensors()
        [source] = self._interpreter.get_input_details()
        [self._target] = self._interpreter.get_output_details()
        image = np.random.default_rng(0).integers(-8, 8, source["shape"])
        self._interpreter.set_tensor(source["index"], image.astype(np.int8))

    def __call__(self) -> None:
        """Runs the file."""
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        """Returns the output of the last run."""
        return self._interpreter.get_tensor(self._target["index"])


if __name__ == "__main__":
    main()
