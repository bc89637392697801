"""Measures training steps, the first step and memory, with float and TF-MOT."""

from __future__ import annotations

import argparse
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_lsq

from .contestants import CONTESTANTS, NETWORKS, TRANSFORMERS
from .timing import Times, side_by_side

_TFMOT = "TF-MOT 8-bit"
BASES = ("float", _TFMOT)


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measures training steps, one row per network and contestant."""
    rows = []
    for name, (build, batch) in NETWORKS.items():
        measured = _steps(build(), batch, rounds, tuple(CONTESTANTS))
        for contestant, times in measured.items():
            row = {
                "network": name,
                "batch": batch,
                "contestant": contestant,
                "ms": times.milliseconds(),
            }
            for base in BASES:
                for which in ("wall", "cpu"):
                    row[f"to {base}, {which}"] = times.ratio(measured[base], which)
            rows.append(row)
    return rows


def measure_transformers(rounds: int) -> list[dict[str, Any]]:
    """Measures training steps of networks with attention or normalizations.

    There is one row per network and contestant. TF-MOT is tried, and its refusal is
    the row's result.
    """
    rows = []
    for name, (build, batch) in TRANSFORMERS.items():
        model = build()
        refusal = _refusal(model)
        others = [one for one in CONTESTANTS if one != _TFMOT or not refusal]
        measured = _steps(model, batch, rounds, tuple(others))
        for contestant in CONTESTANTS:
            row = {"network": name, "batch": batch, "contestant": contestant}
            if contestant in measured:
                times, base = measured[contestant], measured["float"]
                row["ms"] = times.milliseconds()
                row["to float, wall"] = times.ratio(base)
                row["to float, cpu"] = times.ratio(base, "cpu")
            else:
                row |= {"ms": refusal, "to float, wall": "", "to float, cpu": ""}
            rows.append(row)
    return rows


def _refusal(model: keras.Model) -> str:
    """Returns what TF-MOT says against a network, "" if it takes it."""
    try:
        CONTESTANTS[_TFMOT](clone(model))
    except (RuntimeError, ValueError) as error:
        return f"refused: {' '.join(str(error).split())[:80]}"
    finally:
        keras.backend.clear_session()
    return ""


def measure_growth(rounds: int, batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measures how the time of a training step grows with batch and depth.

    There is one row per batch of ResNet-8, and one per depth of a pre-activation
    ResNet.
    """
    rows = []

    def add(name: str, model: keras.Model, batch: int) -> None:
        measured = _steps(model, batch, rounds, ("float", "tf_lsq"))
        rows.append(
            {
                "network": name,
                "batch": batch,
                "float, ms": measured["float"].milliseconds(),
                "tf_lsq, ms": measured["tf_lsq"].milliseconds(),
                "to float": measured["tf_lsq"].ratio(measured["float"]),
            }
        )

    for batch in batches:
        add("resnet8", NETWORKS["resnet8"][0](), batch)
    for depth in (18, 34, 50, 101):
        model = tf_lsq.models.preact_resnet(depth, (32, 32, 3), classes=10, width=0.25)
        add(f"preact_resnet{depth}, width 16", model, 32)
    return rows


def measure_first_step(rounds: int) -> list[dict[str, Any]]:
    """Measures the time until `fit` has run one step, per network and contestant.

    It includes quantizing a float network, compiling, and `fit` on one batch.
    """
    rows = []
    for name, (build, batch) in NETWORKS.items():
        times = {contestant: Times() for contestant in CONTESTANTS}
        for _ in range(rounds):
            for contestant, quantize in CONTESTANTS.items():
                keras.backend.clear_session()
                gc.collect()
                model = build()
                wall, cpu = time.perf_counter(), time.process_time()
                _fit_one_batch(quantize(model), batch)
                times[contestant].wall.append(time.perf_counter() - wall)
                times[contestant].cpu.append(time.process_time() - cpu)
        for contestant, own_times in times.items():
            rows.append(
                {
                    "network": name,
                    "contestant": contestant,
                    "ms": own_times.milliseconds(),
                    **{f"to {base}": own_times.ratio(times[base]) for base in BASES},
                }
            )
    return rows


def measure_memory(batches: tuple[int, int]) -> list[dict[str, Any]]:
    """Measures peak memory per example of PreAct-ResNet-18, one row per contestant.

    Each is measured in separate processes: the peak of a training step at a large
    batch, minus that at a small one.
    """
    per_example = {}
    for contestant in CONTESTANTS:
        peaks = [_peak("preact_resnet18", contestant, batch) for batch in batches]
        per_example[contestant] = (peaks[1] - peaks[0]) / (batches[1] - batches[0])
    return [
        {
            "contestant": contestant,
            "MiB per example": round(used, 2),
            **{f"to {base}": round(used / per_example[base], 2) for base in BASES},
        }
        for contestant, used in per_example.items()
    ]


def clone(model: keras.Model) -> keras.Model:
    """Returns a copy of a network, including its weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def training_step(model: keras.Model, batch: int) -> Callable[[], Any]:
    """Returns a function that trains `model` for one step, as `fit` does."""
    x, y = _fit_one_batch(model, batch)
    data = tf.data.Dataset.from_tensors((tf.constant(x), tf.constant(y)))
    batches = iter(data.repeat())
    step = model.make_train_function()
    if hasattr(model, "quantized"):
        # Its 31 checks are all in the first 1,000 steps.
        model.quantized.range_watch = None
    return lambda: step(batches)["loss"].numpy()


def _steps(
    model: keras.Model, batch: int, rounds: int, contestants: tuple[str, ...]
) -> dict[str, Times]:
    """Measures a training step of some contestants."""
    steps = {
        contestant: training_step(CONTESTANTS[contestant](clone(model)), batch)
        for contestant in contestants
    }
    times = side_by_side(steps, rounds)
    keras.backend.clear_session()
    return times


def _fit_one_batch(model: keras.Model, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Compiles a model, fits it to a random batch, and returns the batch."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (batch, *model.input_shape[1:])).astype(np.float32)
    y = rng.integers(0, 10, batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), loss)
    model.fit(x, y, batch_size=batch, verbose=0)
    return x, y


def _peak(name: str, contestant: str, batch: int) -> float:
    """Measures the peak memory of a process that trains for three steps, in MiB."""
    command = [sys.executable, "-m", __name__, name, contestant, str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Trains one contestant for three steps and prints the peak memory in MiB."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("batch", type=int)
    args = parser.parse_args()
    model = CONTESTANTS[args.contestant](NETWORKS[args.network][0]())
    step = training_step(model, args.batch)
    for _ in range(3):
        step()
    # `ru_maxrss` would begin at the size of the process that started this one.
    [peak] = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps(int(peak) / 1024))


if __name__ == "__main__":
    main()
