"""Measures what 16-bit points of a residual network cost on this machine.

    python -m benchmarks.int16
    python -m benchmarks.int16 --rounds 100

Files run under LiteRT with XNNPACK, which has no kernels for int16, on one thread.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tf_keras as keras

import tf_lsq
from tflite_export.build import build_file
from tflite_export.freezing import read_model
from tflite_export.runtimes import start

from .timing import Times, machine, side_by_side

_SHAPE, _BLOCKS = (28, 28, 64), 4
_IMAGES, _WARM_UP = 8, 3
OVERRIDES: dict[str, dict[str, Any]] = {
    "8 bits": {},
    "16-bit sums": {"sum_.*": 16},
    "16-bit sums and inputs of convolutions": {"sum_.*": 16, "conv_.*": (8, 16)},
}


def main() -> None:
    """Prints a row per choice of bits."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int16", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    calls = {name: _inference(chosen) for name, chosen in OVERRIDES.items()}
    times: dict[str, Times] = side_by_side(calls, args.rounds, _WARM_UP)
    print("| points | ms | to 8 bits |\n|---|---|---|")
    for name, one in times.items():
        print(f"| {name} | {one.milliseconds()} | {one.ratio(times['8 bits'])} |")


def residual_network() -> keras.Model:
    """Returns residual blocks of two 3x3 convolutions on one stream."""
    layers = keras.layers
    inputs = layers.Input(_SHAPE)
    x = layers.Conv2D(_SHAPE[-1], 3, padding="same", name="stem")(inputs)
    for number in range(_BLOCKS):
        y = x
        for part, activation in (("a", "relu"), ("b", None)):
            name = f"conv_{number}_{part}"
            convolution = layers.Conv2D(
                _SHAPE[-1], 3, padding="same", activation=activation, name=name
            )
            y = convolution(y)
        x = layers.Add(name=f"sum_{number}")([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="scores")(x))


def _inference(overrides: dict[str, Any]) -> Any:
    """Returns what runs the file of the network once."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    student = tf_lsq.quantize_model(
        residual_network(),
        weight_bits=8,
        activation_bits=8,
        overrides=overrides or None,
    )
    images = np.random.default_rng(0).normal(size=(_IMAGES, *_SHAPE))
    tf_lsq.calibrate(student, images.astype(np.float32))
    interpreter = start(build_file(read_model(student)).content, "xnnpack", 1)
    interpreter.allocate_tensors()
    [source] = interpreter.get_input_details()
    codes = np.zeros(source["shape"], source["dtype"])
    interpreter.set_tensor(source["index"], codes)
    return interpreter.invoke


if __name__ == "__main__":
    main()
