"""Measures what the bits of probabilities cost: 8 or 16, by the number of tokens.

    python -m benchmarks.attention
    python -m benchmarks.attention --rounds 100

Attention of 4 heads with 32 channels each, of random tokens. Errors are those of the
weighted values, which the file computes from its own queries, keys and values: the root
of the mean square, in steps of their grid (0.29 if only they were rounded), and the
share of codes that are off. Times are those of the whole file, in milliseconds, with
the smallest and largest of three blocks of rounds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_lsq
from tf_lsq import policy
from tflite_export.build import build_file
from tflite_export.freezing import read_model
from tflite_export.runtimes import start
from tflite_export.verification import probe_codes

from .timing import machine, side_by_side

_TOKENS = (16, 32, 64, 96, 128, 196)
_OFF = 0.5 + 1e-6
_HEADS, _DEPTH, _EXAMPLES = 4, 32, 8


def main() -> None:
    """Prints a row per number of tokens and bits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print("| tokens | bits | rms | off | XNNPACK |\n|--:|--:|--:|--:|--:|")
    for tokens in _TOKENS:
        files = {bits: _file(tokens, bits) for bits in (8, 16)}
        times = side_by_side(
            {str(bits): _runner(content) for bits, (content, _, _) in files.items()},
            rounds,
        )
        for bits, (_, rms, off) in files.items():
            took = times[str(bits)].milliseconds()
            print(f"| {tokens} | {bits} | {rms:.2f} | {off:.0%} | {took} |")


def _file(tokens: int, bits: int) -> tuple[bytes, float, float]:
    """Returns the file of an attention, and its errors: rms in steps, share off."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((tokens, _HEADS * _DEPTH))
    layer = keras.layers.MultiHeadAttention(_HEADS, _DEPTH, name="attention")
    model = keras.Model(inputs, layer(inputs, inputs))
    chosen, policy.MOST_IN_INT8 = policy.MOST_IN_INT8, 0 if bits == 16 else tokens
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    policy.MOST_IN_INT8 = chosen
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (_EXAMPLES, *inputs.shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    built = build_file(read_model(student))
    codes = probe_codes(built.graph, built.frozen, [x])
    nodes = built.frozen.by_name()

    def real(name: str) -> np.ndarray:
        grid = nodes[name].integer_grid
        return (codes[name].astype(np.float64) - grid.zero_point) * grid.scale

    scores, *_ = (n for n in built.frozen.nodes if n.kind == "matmul")
    query, key = map(real, scores.inputs)
    value = real("attention_value_transposed")
    exact = tf.nn.softmax(query @ np.swapaxes(key, -1, -2) / np.sqrt(_DEPTH)) @ value
    weighted = next(n for n in reversed(built.frozen.nodes) if n.kind == "matmul")
    name = next(n.name for n in built.frozen.nodes if n.inputs == [weighted.name])
    found = weighted.name if nodes[name].kind == "transpose" else name
    error = (real(found) - exact.numpy()) / nodes[found].integer_grid.scale
    rms, off = np.sqrt((error**2).mean()), (np.abs(error) > _OFF).mean()
    return built.content, float(rms), float(off)


def _runner(content: bytes) -> Callable[[], None]:
    """Returns what runs a file once, on one thread."""
    interpreter = start(content, "xnnpack", 1)
    interpreter.allocate_tensors()
    return interpreter.invoke


if __name__ == "__main__":
    main()
