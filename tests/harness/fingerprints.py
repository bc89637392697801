"""Shows whether a code change affects exported files or training losses.

    PYTHONPATH=tests python -m harness.fingerprints write before.json
    PYTHONPATH=tests python -m harness.fingerprints compare before.json

`write` stores the SHA-256 of many exported files and every loss of three short
training runs; `compare` computes them again and lists what differs. Losses are
reproducible only on the same machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Fixes the order of sums.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import numpy as np
import test_conformance
import tf_keras as keras
from hypothesis import HealthCheck, Phase, given, settings
from tqdm import tqdm

import tf_lsq
import tflite_export
from benchmarks.contestants import resnet8
from harness import random_graphs, tiny
from harness.random_graphs import Recipe

NUM_RANDOM = 20
BITS = (8, 4, 2)
TRAINED = {
    "residual": tiny.residual,
    "pre_activation": tiny.pre_activation,
    "depthwise": test_conformance.CASES["depthwise"][1],
}


def exported(model: keras.Model, x: Any, storage: str, **options: Any) -> str:
    """Returns the hash of the file exported from a float model."""
    student = tf_lsq.quantize_model(model, **options)
    tf_lsq.calibrate(student, x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        tflite_export.export_model(student, path, storage=storage, verbose=False)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def start() -> np.random.Generator:
    """Resets names and random numbers."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return np.random.default_rng(0)


def conformance_files() -> Iterator[tuple[str, str]]:
    """Yields every conformance case at several bits in two storages."""
    for name, (_, build) in test_conformance.CASES.items():
        for bits in BITS:
            for storage in ("int8", "packed"):
                rng = start()
                model = tiny.randomize(build(), rng)
                x = tiny.random_inputs(model, rng)
                options = {"weight_bits": bits, "activation_bits": bits}
                yield f"{name} {bits} {storage}", exported(model, x, storage, **options)


def random_recipes() -> list[Recipe]:
    """Returns random networks."""
    drawn: list[Recipe] = []

    @settings(
        max_examples=NUM_RANDOM,
        phases=(Phase.generate,),
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(recipe=random_graphs.recipes())
    def draw(recipe: Recipe) -> None:
        drawn.append(recipe)

    draw()
    return drawn[:NUM_RANDOM]


def random_files(recipes: list[Recipe]) -> Iterator[tuple[str, str]]:
    """Yields the files of random networks."""
    for number, recipe in enumerate(recipes):
        start()
        rng = np.random.default_rng(recipe.seed)
        x = rng.uniform(-1, 1, (16, *recipe.shape)).astype(np.float32)
        weight_bits, activation_bits, first_last_bits = recipe.bits
        yield (
            f"random {number}",
            exported(
                random_graphs.build(recipe),
                x,
                recipe.storage,
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                first_last_bits=first_last_bits,
                per_channel=recipe.per_channel,
            ),
        )


def resnet_files() -> Iterator[tuple[str, str]]:
    """Yields ResNet-8 at several bits."""
    for bits in BITS:
        rng = start()
        model = tiny.randomize(resnet8(), rng)
        x = rng.uniform(0, 1, (64, 32, 32, 3)).astype(np.float32)
        options = {"weight_bits": bits, "activation_bits": bits}
        yield f"resnet8 {bits}", exported(model, x, "packed", **options)


class Losses(keras.callbacks.Callback):
    """Records the exact loss of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Adds a loss."""
        self.found.append(float(logs["loss"]).hex())


def trainings() -> Iterator[tuple[str, str]]:
    """Yields the exact losses of short training runs."""
    for name, build in TRAINED.items():
        rng = start()
        model = tiny.randomize(build(), rng)
        x = rng.normal(0, 1, (256, *model.input_shape[1:])).astype(np.float32)
        y = rng.normal(0, 1, (256, model.output_shape[-1])).astype(np.float32)
        student = tf_lsq.quantize_model(model)
        student.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
        losses = Losses()
        student.fit(x, y, 32, epochs=3, verbose=0, callbacks=[losses])
        yield f"losses {name}", " ".join(losses.found)


def fingerprints(recipes: list[Recipe]) -> dict[str, str]:
    """Returns all fingerprints by name."""
    sources = (conformance_files(), random_files(recipes), resnet_files(), trainings())
    return dict(item for source in sources for item in tqdm(source))


def main() -> None:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    if args.command == "write":
        recipes = random_recipes()
        plain = [dataclasses.asdict(recipe) for recipe in recipes]
        found = {"recipes": plain, "fingerprints": fingerprints(recipes)}
        args.file.write_text(json.dumps(found, indent=1))
        return
    before = json.loads(args.file.read_text())
    recipes = [Recipe(**_tuples(plain)) for plain in before["recipes"]]
    now = fingerprints(recipes)
    expected = before["fingerprints"]
    names = sorted(expected.keys() | now.keys())
    changed = [name for name in names if expected.get(name) != now.get(name)]
    for name in changed:
        print("changed:", name)
    print(f"{len(names) - len(changed)} of {len(names)} are the same")
    sys.exit(bool(changed))


def _tuples(value: Any) -> Any:
    """Converts JSON lists back to tuples."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
