"""Trains small networks with common optimizers, in float and quantized.

    python examples/optimizers.py run --label after
    python examples/optimizers.py report

`run` appends one line per training to `docs/optimizers/results.jsonl` and continues
where it was stopped; `report` writes `docs/optimizers.md`. There are two studies:

- *tuned*: a trained float network, quantized and trained further with one optimizer,
  compared with the float network trained further with the same one;
- *scratch*: random weights, float and quantized; *calibrated* is the same, calibrated
  manually after epochs 1, 2 and 4.

A label names the version of the library used for training: run the script of one
version with the code of another to compare them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from datasets import load
from tqdm import tqdm

import tf_lsq

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, REPORT = DOCS / "optimizers" / "results.jsonl", DOCS / "optimizers.md"
BATCH_SIZE = 32
FLOAT_EPOCHS, EPOCHS, SCRATCH_EPOCHS = 8, 4, 8
TRAINED = 1200
BITS = (8, 4, 2)
SCRATCH_BITS = (8, 4)
RECIPE = "recipe"
CALIBRATED_AFTER = (1, 2, 4)  # Epochs.
FLOAT = "float"  # Label of training runs without quantization.
STUDIES = ("tuned", "scratch", "calibrated")
layers = keras.layers
Row = dict[str, Any]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def warm_up(rate: float, steps: int) -> Any:
    """Returns a learning rate that rises for a tenth of the steps, then falls to 0."""
    rising = steps // 10
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - rising, warmup_target=rate, warmup_steps=rising
    )


OPTIMIZERS: dict[str, Callable[[int], Any]] = {
    "SGD(0.01, 0.9)": lambda steps: keras.optimizers.SGD(0.01, momentum=0.9),
    "SGD(0.1, 0.9), warm-up": lambda steps: keras.optimizers.SGD(
        warm_up(0.1, steps), momentum=0.9
    ),
    "Adam(1e-3)": lambda steps: keras.optimizers.Adam(1e-3),
    "AdamW(1e-3)": lambda steps: keras.optimizers.AdamW(1e-3),
    "RMSprop(1e-3)": lambda steps: keras.optimizers.RMSprop(1e-3),
}
SCRATCH_OPTIMIZERS = ("SGD(0.01, 0.9)", "Adam(1e-3)")


def plain_network() -> keras.Model:
    """Returns a network of two convolutions and two dense layers."""
    inputs = layers.Input((8, 8, 1))
    x = inputs
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(32, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10)(x), name="plain")


def norm_network() -> keras.Model:
    """Returns the same network with batch norms."""
    inputs = layers.Input((8, 8, 1))
    x = inputs
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(32, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10)(x), name="norm")


def depthwise_network() -> keras.Model:
    """Returns a network of depthwise and 1x1 convolutions, batch norms and ReLU6."""

    def norm_relu(x: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))

    inputs = layers.Input((8, 8, 1))
    x = norm_relu(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    for filters, strides in ((32, 2), (32, 1)):
        depthwise = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)
        x = norm_relu(depthwise(x))
        x = norm_relu(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name="depthwise")


NETWORKS = {
    network().name: network
    for network in (plain_network, norm_network, depthwise_network)
}


class Study:
    """Runs the training runs that have no line in the results yet.

    Args:
        label: The version of the library.
        path: The results.
    """

    def __init__(self, label: str, path: Path) -> None:
        self.label, self.path = label, path
        images = load("digits")
        x = np.concatenate([images.x_train, images.x_test]) / images.maximum
        y = np.concatenate([images.y_train, images.y_test])
        order = np.random.default_rng(0).permutation(len(x))
        x, y = x[order].astype(np.float32), y[order]
        self.train, self.test = (x[:TRAINED], y[:TRAINED]), (x[TRAINED:], y[TRAINED:])
        self.done = {_key(row) for row in read(path)}
        self._weights: dict[tuple[str, int], list[np.ndarray]] = {}

    def run(self, seeds: range, studies: tuple[str, ...]) -> None:
        """Runs all training runs of some seeds."""
        rows = [row for seed in seeds for row in self._rows(seed, studies)]
        open_rows = [row for row in rows if _key(row) not in self.done]
        for row in tqdm(open_rows, unit="training"):
            keras.backend.clear_session()
            keras.utils.set_random_seed(row["seed"])
            result = getattr(self, "_" + row["study"])(row)
            row = {**row, **result, "tensorflow": tf.__version__}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _rows(self, seed: int, studies: tuple[str, ...]) -> Iterator[Row]:
        """Yields the training runs of one seed, without results."""
        row = {"label": self.label, "seed": seed}
        for network, study in itertools.product(NETWORKS, studies):
            names, widths = (*OPTIMIZERS, RECIPE), BITS
            if study != "tuned":
                names, widths = SCRATCH_OPTIMIZERS, SCRATCH_BITS
            for optimizer, bits in itertools.product(names, widths):
                one = {"study": study, "network": network, "optimizer": optimizer}
                yield row | one | {"bits": bits}
            for optimizer in names if study != "calibrated" else ():
                one = {"study": study, "network": network, "optimizer": optimizer}
                if optimizer != RECIPE:
                    yield row | one | {"label": FLOAT, "bits": 32}

    def _tuned(self, row: Row) -> Row:
        """Trains a trained float network further."""
        return self._fit(self._trained(row), row, EPOCHS)

    def _scratch(self, row: Row) -> Row:
        """Trains a network from random weights."""
        return self._fit(NETWORKS[row["network"]](), row, SCRATCH_EPOCHS)

    def _calibrated(self, row: Row) -> Row:
        """Trains from random weights, and calibrates manually after some epochs."""
        model = NETWORKS[row["network"]]()
        return self._fit(model, row, SCRATCH_EPOCHS, CALIBRATED_AFTER)

    def _trained(self, row: Row) -> keras.Model:
        """Returns the trained float network of a seed."""
        model = NETWORKS[row["network"]]()
        key = row["network"], row["seed"]
        if key not in self._weights:
            model.compile(keras.optimizers.Adam(2e-3), LOSS)
            model.fit(*self.train, BATCH_SIZE, epochs=FLOAT_EPOCHS, verbose=0)
            self._weights[key] = model.get_weights()
        model.set_weights(self._weights[key])
        return model

    def _fit(
        self, model: keras.Model, row: Row, epochs: int, calibrated_after: Any = ()
    ) -> Row:
        """Quantizes and trains a model, and returns its results."""
        steps = epochs * -(-TRAINED // BATCH_SIZE)
        bits = row["bits"]
        if bits < 32:
            model = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        if row["optimizer"] == RECIPE:
            arguments = tf_lsq.recipe(weight_bits=bits, steps=steps)
        else:
            optimizer = OPTIMIZERS[row["optimizer"]](steps)
            arguments = {"optimizer": optimizer, "loss": LOSS}
        model.compile(**arguments, metrics=["accuracy"])
        keras.utils.set_random_seed(row["seed"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                done = 0
                for end in (*calibrated_after, epochs):
                    if done:
                        tf_lsq.calibrate(model, self.train[0])
                    model.fit(
                        *self.train,
                        BATCH_SIZE,
                        initial_epoch=done,
                        epochs=end,
                        verbose=0,
                    )
                    done = end
                loss, _ = model.evaluate(*self.train, verbose=0)
                _, accuracy = model.evaluate(*self.test, verbose=0)
            except RuntimeError as error:  # A step that is NaN.
                return {"accuracy": 0.1, "loss": None, "error": str(error)[:60]}
        messages = [str(one.message)[:60] for one in caught]
        result = {"accuracy": accuracy, "loss": loss, "warnings": messages}
        return result | (_factors(model) if bits < 32 else {})


def _factors(student: keras.Model) -> Row:
    """Returns the smallest and largest steps as factors of their initial values."""
    factors = {
        layer.name: layer.step_variables["step"].numpy()
        for layer in student.layers
        if "step" in getattr(layer, "step_variables", {})
    }
    low = min(factors, key=lambda name: factors[name].min())
    high = max(factors, key=lambda name: factors[name].max())
    return {
        "smallest": [low, float(factors[low].min())],
        "largest": [high, float(factors[high].max())],
    }


def _key(row: Row) -> tuple[Any, ...]:
    """Returns the key of a training run."""
    names = ("label", "study", "network", "optimizer", "bits", "seed")
    return tuple(row[name] for name in names)


def read(path: Path) -> list[Row]:
    """Reads the lines of a results file; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def report(rows: list[Row]) -> str:
    """Returns the report of all results."""
    versions = sorted({row["tensorflow"] for row in rows})
    tuned = [row for row in rows if row["study"] == "tuned"]
    return HEADER.format(
        tensorflow=", ".join(versions),
        seeds=len({row["seed"] for row in tuned}),
        tuned="\n\n".join(_tuned_table(tuned, network) for network in NETWORKS),
        scratch="\n\n".join(_scratch_table(rows, network) for network in NETWORKS),
    )


def _tuned_table(rows: list[Row], network: str) -> str:
    """Returns the accuracies of float, before, after and the recipe, by optimizer."""
    rows = [row for row in rows if row["network"] == network]
    head = ["optimizer", "float"]
    head += [f"{bits}/{bits} {label}" for bits in BITS for label in ("before", "after")]
    lines = [f"**{network}**", "", _line(head), _line(["---"] * len(head))]
    for optimizer in (*OPTIMIZERS, RECIPE):
        cells = [optimizer, _accuracy(rows, FLOAT, optimizer, 32)]
        for bits in BITS:
            for label in ("before", "after"):
                cells.append(_accuracy(rows, label, optimizer, bits))
        lines.append(_line(cells))
    return "\n".join(lines)


def _accuracy(rows: list[Row], label: str, optimizer: str, bits: int) -> str:
    """Returns mean and lowest accuracy, and how many runs moved a step too far."""
    chosen = [
        row
        for row in rows
        if (row["label"], row["optimizer"], row["bits"]) == (label, optimizer, bits)
    ]
    if not chosen:
        return ""
    values = [100 * row["accuracy"] for row in chosen]
    far = sum(is_far(row) for row in chosen)
    text = f"{np.mean(values):.1f} ({min(values):.1f})"
    return f"{text}, {far} of {len(chosen)}" if far else text


def is_far(row: Row) -> bool:
    """Returns whether a step left the range from 1/10 to 10 times its initial value."""
    if "error" in row:
        return True
    return "largest" in row and (row["smallest"][1] < 0.1 or row["largest"][1] > 10)


def _scratch_table(rows: list[Row], network: str) -> str:
    """Returns the training losses from random weights."""
    head = ["optimizer", "float"]
    for bits in SCRATCH_BITS:
        head += [f"{bits}/{bits} {n}" for n in ("before", "by hand", "after")]
    lines = [f"**{network}**", "", _line(head), _line(["---"] * len(head))]
    for optimizer in SCRATCH_OPTIMIZERS:
        cells = [optimizer, _loss(rows, FLOAT, "scratch", network, optimizer, 32)]
        for bits in SCRATCH_BITS:
            for label, study in (
                ("before", "scratch"),
                ("before", "calibrated"),
                ("after", "scratch"),
            ):
                cells.append(_loss(rows, label, study, network, optimizer, bits))
        lines.append(_line(cells))
    return "\n".join(lines)


def _loss(rows: list[Row], *key: Any) -> str:
    """Returns the mean and largest loss."""
    names = ("label", "study", "network", "optimizer", "bits")
    losses = [row["loss"] for row in rows if tuple(row[n] for n in names) == key]
    if not losses:
        return ""
    return f"{np.mean(losses):.3f} ({max(losses):.3f})"


def _line(cells: list[str]) -> str:
    """Formats a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


HEADER = """# Optimizers

Small networks on scikit-learn's 8x8 digits (1,200 for training), generated by
`examples/optimizers.py` with TensorFlow {tensorflow}. *before* is version 0.1.0 without
bounds of step gradients and with ranges that only the optimizer moves; *after* has
both. Every line of `docs/optimizers/results.jsonl` is one training run.

## From a trained float network

Float networks are trained for 8 epochs with Adam(2e-3), then for 4 more epochs with
each optimizer: in float, and quantized, from the same weights. The tables show test
accuracy in percent, the mean of up to {seeds} seeds with the lowest in brackets, then
in how many runs a step left the range from 1/10 to 10 times its initial value. The row
*recipe* is `tf_lsq.recipe`. With a constant rate of SGD, accuracy varies by several
points from epoch to epoch, in float as well; the lowest number of such a cell is one
bad last epoch.

{tuned}

## From random weights

8 epochs; final loss on the training images, the mean of the seeds with the highest in
brackets. *by hand* is version 0.1.0 with `tf_lsq.calibrate` after epochs 1, 2 and 4.

{scratch}
"""


def main() -> None:
    """Runs the studies, or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--label", default="after")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.command == "run":
        study = Study(args.label, args.results)
        study.run(range(*args.seeds), tuple(args.studies))
    else:
        REPORT.write_text(report(read(args.results)))


if __name__ == "__main__":
    main()
