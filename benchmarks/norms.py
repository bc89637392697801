"""Compares the forms of layer normalization: operators, time, bytes, codes off.

    python -m benchmarks.norms
    python -m benchmarks.norms --rounds 200 --tokens 196

Each file has one normalization, of 8 bits in and out. It runs under LiteRT with
XNNPACK, on one thread. "Off" is the share of output codes that differ from the layer in
float on the file's own input, and the largest difference; "rms" is that of the values
in steps of the output, 0.289 at best.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tf_keras as keras

import tf_lsq
from tf_lsq.norm_forms import NAMES
from tflite_export.build import BuiltFile, build_file
from tflite_export.freezing import read_model
from tflite_export.runtimes import start
from tflite_export.verification import probe_codes

from .timing import machine, side_by_side

_CHANNELS, _EXAMPLES, _WARM_UP = (64, 192, 768), 32, 3
_OUTLIERS, _FACTOR = 3, 30.0
FORMS: dict[str, dict[str, Any]] = {
    **{name: {"norm_form": name} for name in NAMES},
    "float": {"overrides": {"norm": "float"}},
}


@dataclasses.dataclass(frozen=True)
class Error:
    """How far codes are from the layer in float.

    Attributes:
        off: Share of codes that differ.
        largest: Largest difference of codes.
        rms: Root mean square of the difference of values, in steps.
    """

    off: float
    largest: int
    rms: float

    def __str__(self) -> str:
        """Returns the cells of a table."""
        return f"{self.off:.2%}, {self.largest} | {self.rms:.3f}"


def main() -> None:
    """Prints a table for each number of channels."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.norms", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=196)
    args = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for channels in _CHANNELS:
        print(f"\n{args.tokens} tokens of {channels} channels\n")
        _print_table(args.tokens, channels, args.rounds)


def _print_table(tokens: int, channels: int, rounds: int) -> None:
    """Prints a row per form."""
    plain = [examples(tokens, channels, seed, outliers=False) for seed in (0, 1)]
    uneven = [examples(tokens, channels, seed, outliers=True) for seed in (0, 1)]
    files = {name: built(plain[0], **options) for name, options in FORMS.items()}
    others = {name: built(uneven[0], **options) for name, options in FORMS.items()}
    calls = {name: inference(file) for name, file in files.items()}
    times = side_by_side(calls, rounds, _WARM_UP)
    print("| form | operators | bytes | ms | off, max | rms | with outliers | rms |")
    print("|---|---|---|---|---|---|---|---|")
    for name, file in files.items():
        cells = [
            f"{len(file.graph.ops)}",
            f"{len(file.content)}",
            f"{times[name].milliseconds()}",
            f"{error(file, plain[1])}",
            f"{error(others[name], uneven[1])}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def examples(tokens: int, channels: int, seed: int, *, outliers: bool) -> np.ndarray:
    """Returns tokens of different sizes and means, `[examples, tokens, channels]`.

    Args:
        tokens: How many in an example.
        channels: How many numbers in a token.
        seed: Of the random numbers.
        outliers: Whether three channels are 30 times as large as the others.
    """
    rng = np.random.default_rng(seed)
    shape = (_EXAMPLES, tokens, channels)
    sizes = np.exp(0.25 * rng.normal(size=(*shape[:2], 1)))
    x = rng.normal(size=shape) * sizes + 0.5 * rng.normal(size=(*shape[:2], 1))
    if outliers:
        x[..., :_OUTLIERS] *= _FACTOR
    return x.astype(np.float32)


def built(x: np.ndarray, **options: Any) -> BuiltFile:
    """Returns the file of a normalization whose steps are those of some examples."""
    keras.backend.clear_session()
    inputs = keras.Input(x.shape[1:], name="x")
    norm = keras.layers.LayerNormalization(center=False, scale=False, name="norm")
    student = tf_lsq.quantize_model(keras.Model(inputs, norm(inputs)), **options)
    tf_lsq.calibrate(student, x)
    return build_file(read_model(student))


def error(file: BuiltFile, x: np.ndarray) -> Error:
    """Returns how far a file is from the layer in float."""
    codes = probe_codes(file.graph, file.frozen, [x])
    nodes = file.frozen.by_name()
    source, output = (
        nodes[next(iter(ends.values()))]
        for ends in (file.frozen.inputs, file.frozen.outputs)
    )
    grid = source.integer_grid
    values = (codes[source.name].astype(np.float64) - grid.zero_point) * grid.scale
    centered = values - values.mean(-1, keepdims=True)
    variance = np.square(centered).mean(-1, keepdims=True)
    exact = centered / np.sqrt(variance + 1e-3)
    grid, found = output.integer_grid, codes[output.name].astype(np.float64)
    expected = np.clip(np.rint(exact / grid.scale) + grid.zero_point, -128, 127)
    off = np.abs(found - expected)
    inside = np.abs(expected - grid.zero_point) < 127  # Others are clipped.
    distance = (found - grid.zero_point - exact / grid.scale)[inside]
    rms = float(np.sqrt(np.square(distance).mean()))
    return Error(float((off > 0).mean()), int(off.max()), rms)


def inference(file: BuiltFile) -> Any:
    """Returns what runs a file once, on one thread with XNNPACK.

    Args:
        file: The file, with one input.
    """
    interpreter = start(file.content, "xnnpack", 1)
    interpreter.allocate_tensors()
    [source] = interpreter.get_input_details()
    codes = np.random.default_rng(0).integers(-100, 100, source["shape"])
    interpreter.set_tensor(source["index"], codes.astype(source["dtype"]))
    return interpreter.invoke


if __name__ == "__main__":
    main()
