"""Time of `quantize_model` over depth, beside TF-MOT's on the same networks.

Pre-activation ResNets, ImageNet's size. Every repeat builds a float network anew,
untimed, and hands it to both libraries in turn. TF-MOT refuses these networks (their
batch norms stand by themselves) after most of its work; its time until then is shown.
Its `quantize_apply` with `tf_lsq.LSQQuantizeScheme` is the same quantization as
`tf_lsq.quantize_model`, after two clones of the model by TF-MOT.

    python benchmarks/quantization_time.py
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras as keras

import tf_lsq
from tf_lsq._compat import tfmot

DEPTHS = (18, 34, 50, 101, 152)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    parser.add_argument("--size", type=int, default=224, help="of the images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-tfmot", action="store_true")
    args = parser.parse_args()
    contestants: dict[str, Callable[[Any], Any]] = {"tf_lsq": tf_lsq.quantize_model}
    if not args.without_tfmot:
        contestants["TF-MOT"] = tfmot.quantization.keras.quantize_model
        contestants["TF-MOT with tf_lsq's scheme"] = _through_quantize_apply
    print("| network | layers | seconds | per layer, ms |")
    print("|---|---|---|---|")
    for depth in args.depths:
        _measure(depth, args.size, args.repeats, contestants)
    print(
        f"\nMedian of {args.repeats} (least, most). Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}, tf_keras "
        f"{keras.__version__}, {platform.machine()}, {os.cpu_count()} cores."
    )


def _measure(
    depth: int, size: int, repeats: int, contestants: dict[str, Callable[[Any], Any]]
) -> None:
    """Prints a line per contestant for one depth."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    ends: dict[str, str] = {}
    num_layers = 0
    for _ in range(repeats):
        for name, quantize in contestants.items():
            keras.backend.clear_session()
            model = tf_lsq.models.preact_resnet(depth, (size, size, 3))
            num_layers = len(model.layers)
            gc.collect()
            start = time.perf_counter()
            try:
                quantize(model)
            except (RuntimeError, ValueError) as error:
                ends[name] = f", then {type(error).__name__}"
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(
            f"| preact_resnet{depth}, {name} | {num_layers} | {middle:.1f} "
            f"({min(taken):.1f}, {max(taken):.1f}){ends.get(name, '')} | "
            f"{1000 * middle / num_layers:.1f} |"
        )
        sys.stdout.flush()


def _through_quantize_apply(model: keras.Model) -> keras.Model:
    """Quantizes with this library's scheme in TF-MOT's functions."""
    quantization = tfmot.quantization.keras
    annotated = quantization.quantize_annotate_model(model)
    return quantization.quantize_apply(annotated, tf_lsq.LSQQuantizeScheme())


if __name__ == "__main__":
    main()
