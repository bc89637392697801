"""Time of a training step, and peak memory, beside float and TF-MOT."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from .contestants import CONTESTANTS, NETWORKS
from .timing import ratio, side_by_side


def measure(repeats: int, batch_factor: int = 1) -> list[dict[str, Any]]:
    """Returns a row per network: step times as ratios.

    Args:
        repeats: Steps of each contestant.
        batch_factor: Multiplies the usual batch.
    """
    rows = []
    for name, (build, batch) in NETWORKS.items():
        keras.backend.clear_session()
        model = build()
        steps = {
            contestant: training_step(quantize(clone(model)), batch * batch_factor)
            for contestant, quantize in CONTESTANTS.items()
        }
        found = side_by_side(steps, repeats)
        rows.append({"network": name, "batch": batch * batch_factor, **_ratios(found)})
    return rows


def clone(model: keras.Model) -> keras.Model:
    """Returns a copy of a network, weights included."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def training_step(model: keras.Model, batch: int) -> Callable[[], Any]:
    """Returns a function that trains `model` for one step, as `fit` does."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (batch, *model.input_shape[1:])).astype(np.float32)
    y = rng.integers(0, 10, batch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), loss)
    model.fit(x, y, batch_size=batch, verbose=0)
    data = tf.data.Dataset.from_tensors((tf.constant(x), tf.constant(y)))
    batches = iter(data.repeat())
    step = model.make_train_function()
    return lambda: step(batches)["loss"].numpy()


def _ratios(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Returns what the table shows."""
    row: dict[str, Any] = {"seconds": found}
    for name in found:
        for to in ("float", "TF-MOT 8-bit"):
            for which in ("wall", "cpu"):
                row[f"{name} / {to}, {which}"] = ratio(found, name, to, which)
    return row


def memory(name: str = "preact_resnet18", batches: tuple[int, int] = (8, 512)) -> dict:
    """Returns the peak memory per example of every contestant, MiB.

    Each is measured in processes of its own: the peak of a training step at a large
    batch, less that at a small one.
    """
    found = {}
    for contestant in CONTESTANTS:
        peaks = [_peak(name, contestant, batch) for batch in batches]
        found[contestant] = (peaks[1] - peaks[0]) / (batches[1] - batches[0])
    return found


def _peak(name: str, contestant: str, batch: int) -> float:
    """Returns the peak memory of a process that trains for three steps, MiB."""
    command = [sys.executable, "-m", __name__, name, contestant, str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Trains one contestant for three steps and prints the peak memory, MiB."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("batch", type=int)
    args = parser.parse_args()
    model = CONTESTANTS[args.contestant](NETWORKS[args.network][0]())
    step = training_step(model, args.batch)
    for _ in range(3):
        step()
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
