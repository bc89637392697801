"""A keyword transformer and a MobileViT on Fashion-MNIST at 8/8, 4/8 and 4/4 bits.

The transformer reads each image as a sequence of 28 rows, the MobileViT at half its
width as an image. Each is trained in float, then from there with LSQ at each setting,
exported, and verified on all test images.

    python examples/transformers.py --data-dir ~/tensorflow_datasets

Interrupted trainings go on at their last epoch. Finished rows are appended to
`--results` and not repeated; `--markdown` writes the page of all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ai_edge_litert
import numpy as np
import tensorflow as tf
import tf_keras as keras
from datasets import Images, load, training_batches
from progress import ProgressBar

import tf_lsq
import tflite_export

BATCH_SIZE = 128
FLOAT_RATE, RATE = 0.001, 0.0005  # Of the float network, and of students.
FLOAT = "float32"
# Bits of weights and activations.
BITS = {"8/8": (8, 8), "4/8": (4, 8), "4/4": (4, 4)}
RESULTS = Path(__file__).resolve().parents[1] / "docs/transformers/results.jsonl"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and what it sees of an image.

    Attributes:
        build: Returns the float network.
        prepare: Converts images, `[batch, 28, 28, 1]` from 0 to 1, for it.
    """

    build: Callable[[], keras.Model]
    prepare: Callable[[Any], Any]


NETWORKS = {
    "kwt1": Network(
        lambda: tf_lsq.models.kwt1((28, 28), 10, blocks=6),
        lambda x: tf.squeeze(x, -1),
    ),
    "mobilevit_xxs": Network(
        lambda: tf_lsq.models.mobilevit_xxs((32, 32, 1), 10, width=0.5),
        lambda x: tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]]),
    ),
}


def main() -> None:
    """Runs the missing rows and prints the table."""
    args = _arguments()
    args.models.mkdir(parents=True, exist_ok=True)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    images = load("fashion_mnist", args.data_dir)
    train, test = (256, 128) if args.smoke else (args.images, len(images.x_test))
    images = images.limited(train, test)
    for name in args.networks:
        for row in (FLOAT, *args.rows):
            if not _found(args, name, row):
                result = _run(name, row, images, args)
                with args.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    text = _page(_rows(args.results))
    print(text)
    if args.markdown:
        args.markdown.write_text(text)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--models", type=Path, default=Path("transformers"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS])
    parser.add_argument("--rows", nargs="*", default=[*BITS])
    parser.add_argument("--float-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=60_000, help="to train with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="use only a few images")
    return parser.parse_args()


# --- Training --------------------------------------------------------------------


def _run(
    name: str, row: str, images: Images, args: argparse.Namespace
) -> dict[str, Any]:
    """Trains and measures a network at one setting, and returns its row."""
    start = time.perf_counter()
    if row == FLOAT:
        model = _trained(NETWORKS[name].build(), name, row, images, args, FLOAT_RATE)
        measured = {"keras": _accuracy(model, *_test(name, images))}
    else:
        weight_bits, activation_bits = BITS[row]
        student = tf_lsq.quantize_model(
            keras.models.load_model(_path(args, name, FLOAT), compile=False),
            weight_bits=weight_bits,
            activation_bits=activation_bits,
        )
        student = _trained(student, name, row, images, args, RATE)
        measured = _exported(student, _path(args, name, row), *_test(name, images))
    return {
        "network": name,
        "row": row,
        "seed": args.seed,
        "images": len(images.x_train),
        "epochs": args.float_epochs if row == FLOAT else args.epochs,
        **measured,
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "versions": {
            "tensorflow": tf.__version__,
            "ai-edge-litert": ai_edge_litert.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


def _path(args: argparse.Namespace, name: str, row: str) -> Path:
    """Returns where a trained network is kept."""
    return args.models / f"{name}_{row.replace('/', '_')}_{args.seed}.keras"


def _trained(
    model: keras.Model,
    name: str,
    row: str,
    images: Images,
    args: argparse.Namespace,
    rate: float,
) -> keras.Model:
    """Trains a network by Adam, with a warm-up and a cosine decay, and keeps it."""
    path = _path(args, name, row)
    if path.exists():
        return keras.models.load_model(path, compile=False)
    epochs = args.float_epochs if row == FLOAT else args.epochs
    prepare = NETWORKS[name].prepare
    data = training_batches(images, args.seed, batch_size=BATCH_SIZE, pad=2, scale=255)
    data = data.map(lambda x, y: (prepare(x), y))
    steps = epochs * int(data.cardinality())
    keras.utils.set_random_seed(args.seed)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=rate, warmup_steps=max(1, steps // 20)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    callbacks = [
        ProgressBar(f"{name} {row}"),
        keras.callbacks.BackupAndRestore(path.with_suffix(".backup")),
    ]
    model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)
    model.save(path)
    return model


def _test(name: str, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test images as a network takes them, and their classes."""
    x = images.x_test.astype(np.float32) / 255
    return NETWORKS[name].prepare(x).numpy(), images.y_test


def _accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the top-1 accuracy."""
    scores = model.predict(x, batch_size=500, verbose=0)
    return float((scores.argmax(axis=-1) == y).mean())


def _exported(
    student: keras.Model, path: Path, x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """Exports and verifies a student, and returns what was measured."""
    file = path.with_suffix(".tflite")
    report = tflite_export.export_model(student, file, verbose=False)
    packed = tflite_export.export_model(
        student, path.with_suffix(".packed.tflite"), storage="packed", verbose=False
    )
    verified = tflite_export.verify_tflite(file, student, (x, y), verbose=False)
    return {
        "keras": verified.keras_accuracy,
        "tflite": verified.tflite_accuracy,
        "agreement": verified.top1_agreement,
        "off_by_one": verified.off_by_one,
        "operators": sum(report.operators.values()),
        "float_layers": report.float_layers,
        "bytes": report.file_bytes,
        "packed_bytes": packed.file_bytes,
    }


# --- Results ---------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, Any]]:
    """Returns the finished rows."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _found(args: argparse.Namespace, name: str, row: str) -> bool:
    """Returns whether a row is finished."""
    wanted = {"network": name, "row": row, "seed": args.seed}
    return any(wanted.items() <= one.items() for one in _rows(args.results))


def _page(rows: list[dict[str, Any]]) -> str:
    """Returns the results in Markdown."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    lines = [
        "# Transformers on Fashion-MNIST",
        "",
        "Made by `examples/transformers.py`. `kwt1`: KWT-1 with 6 blocks, which reads "
        "the 28 rows of an image; `mobilevit_xxs`: MobileViT-XXS at half its width, "
        "for images padded to 32x32. Students start from the float network. All train "
        f"with Adam, batches of {BATCH_SIZE}, a warm-up and a cosine decay from "
        f"{FLOAT_RATE} (float) or {RATE}, one seed, with the first images of the "
        "training set. Accuracies are those of 10,000 test images, in percent. "
        '"off by one": share of all codes of the file that are next to the model\'s.',
        "",
        "| network | bits | images | epochs | Keras | TFLite | top-1 agreement | "
        "off by one | operators | bytes | packed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shown = [percent(row.get(key)) for key in ("keras", "tflite", "agreement")]
        off = row.get("off_by_one")
        shown.append("" if off is None else f"{off:.4%}")
        sizes = [
            f"{row[key]:,}" if key in row else ""
            for key in ("operators", "bytes", "packed_bytes")
        ]
        images = f"{row['images']:,}"
        cells = [row["network"], row["row"], images, row["epochs"], *shown, *sizes]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    versions = rows[-1]["versions"] if rows else {}
    about = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, "", about]) + "\n"


if __name__ == "__main__":
    main()
