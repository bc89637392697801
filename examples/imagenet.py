"""Runs the paper's training on ImageNet (Esser et al., ICLR 2020, arXiv 1902.08153).

Trains a network in float, if no trained one is given, then from there with LSQ at each
bit width, exports every result and verifies it on validation images. It needs
`imagenet2012` prepared by TensorFlow Datasets in `--data-dir`. On one GPU, or on all
GPUs of a machine (`--strategy auto`, the default, detects them):

    python examples/imagenet.py --data-dir ~/tensorflow_datasets --output resnet18
    python examples/imagenet.py ... --distill --precision mixed_bfloat16

On several workers, start it on each with TF_CONFIG set, as described for
`tf.distribute.MultiWorkerMirroredStrategy`, and with an `--output` that all of them
share; the first one exports:

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' python examples/imagenet.py ...

A killed training continues with its first unfinished epoch when it is started again
with the same arguments; with `--deterministic`, and a network without dropout, the
result is bit for bit as if it had not been killed. Finished parts are kept in
`--output`, with a `.csv` file per training and the learned steps for TensorBoard, and
are not repeated.

The settings are the paper's: batches of 256, SGD with momentum 0.9, cosine decay from
0.01 over 90 epochs (8 bits: 0.001 over 1), weight decay by bit width; random 224x224
crops, mirrored half of the time, of images whose shorter side is 256. The float
network starts at a learning rate of 0.1. All these settings are for this batch size.

Top-1 accuracy of ResNet-18 IN THE PAPER, not measured with this script:

    bits            float   2      3      4      8
    LSQ             70.5    67.6   70.2   71.1   71.1
    distilled               67.9   70.6   71.2
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from imagenet_training import (
    NETWORKS,
    STRATEGIES,
    Setting,
    float_model,
    setting_of,
    train_float,
    train_lsq,
    wait_for_all,
)

import tf_lsq
import tflite_export

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def main() -> None:
    """Runs the missing parts and prints the table."""
    args = _arguments()
    setting = setting_of(args)
    rows = {"float32": _float_row(setting)}
    for bits in args.bits:
        rows[f"LSQ {bits}/{bits}"] = _lsq_row(setting, bits)
    if setting.chief:
        _print_table(rows)
    wait_for_all(setting.strategy)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-dir", default=None, help="where TensorFlow Datasets keeps its files")
    add("--dataset", default="imagenet2012")
    add("--output", type=Path, default=Path("imagenet"))
    add("--network", choices=NETWORKS, default="preact_resnet18")
    add("--width", type=float, default=1.0, help="factor for the number of channels")
    add("--float-model", type=Path, help="trained model for pixels from 0 to 255")
    add("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    add("--distill", action="store_true", help="use the float network as teacher")
    add("--reestimated-bits", type=int, nargs="*", default=[])
    add("--float-epochs", type=int, default=90)
    add("--epochs", type=int, default=90, help="epochs with LSQ; 1 at 8 bits")
    add("--batch-size", type=int, default=256, help="total for all workers")
    add("--image-size", type=int, default=224)
    add("--buffer", type=int, default=16384, help="size of the shuffle buffer")
    add("--verified", type=int, default=1000, help="images for verification; -1: all")
    add("--strategy", choices=STRATEGIES, default="auto")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--deterministic", action="store_true", help="reproducible, but slower")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def _float_row(setting: Setting) -> dict[str, Any]:
    """Trains the float network, and returns its accuracy."""
    train_float(setting)
    if not setting.chief:
        return {}
    data = setting.images.validation()
    return _once(setting, "float", lambda: accuracy(float_model(setting), data))


def _lsq_row(setting: Setting, bits: int) -> dict[str, Any]:
    """Trains and exports the network at one bit width, and returns its row.

    After training, the first worker does everything alone, with a copy of the model
    outside any strategy.
    """
    name = f"lsq{bits}-distilled" if setting.args.distill else f"lsq{bits}"
    train_lsq(setting, bits, name)
    if not setting.chief:
        return {}
    return _once(setting, name, lambda: _exported(setting, bits, name))


def _once(setting: Setting, name: str, found: Callable[[], Any]) -> dict[str, Any]:
    """Returns a result, which is kept in a file."""
    path = setting.args.output / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(found(), indent=2))
    return json.loads(path.read_text())


def accuracy(model: keras.Model, data: tf.data.Dataset) -> dict[str, float]:
    """Returns the top-1 and top-5 accuracy.

    Quantized scores are often equal. In this case only the first class counts, as in
    the file, whereas Keras' own top-5 accuracy counts all of them.

    Args:
        model: A classifier.
        data: Batches of images and class numbers.
    """
    hits = []
    for x, y in data:
        first = tf.math.top_k(model.predict_on_batch(x), 5).indices.numpy()
        hits.append(first == y.numpy()[:, np.newaxis])
    correct = np.concatenate(hits)
    return {"top1": correct[:, 0].mean(), "top5": correct.any(axis=-1).mean()}


def _exported(setting: Setting, bits: int, name: str) -> dict[str, Any]:
    """Exports a trained network and verifies the file."""
    args, images = setting.args, setting.images
    student = keras.models.load_model(args.output / f"{name}.keras", compile=False)
    row: dict[str, Any] = {}
    if bits in args.reestimated_bits:
        row["before"] = accuracy(student, images.validation())["top1"]
        epoch = tf.Variable(0, dtype=tf.int64)
        data = images.training(epoch, tf.distribute.InputContext())
        tf_lsq.reestimate_batch_norm(student, data)
        student.save(args.output / f"{name}-reestimated.keras")
    row |= accuracy(student, images.validation())
    path = args.output / f"{name}.tflite"
    report = tflite_export.export_model(student, path)
    data = images.validation(batch_size=64, count=args.verified)
    verified = tflite_export.verify_tflite(path, student, data)
    print(report, verified, sep="\n")
    return {
        **row,
        "verified": verified.num_examples,
        "keras": verified.keras_accuracy,
        "tflite": verified.tflite_accuracy,
        "agreement": verified.top1_agreement,
        "off_by_one": verified.off_by_one,
        "bytes": report.file_bytes,
    }


def _print_table(rows: dict[str, Any]) -> None:
    """Prints the results in Markdown; the last columns are for the verified images."""
    columns = {
        "before": "top-1, moving averages",
        "top1": "top-1",
        "top5": "top-5",
        "keras": "top-1, verified",
        "tflite": "top-1, TFLite",
        "agreement": "top-1 agreement",
        "off_by_one": "codes off by one",
    }
    print(f"| network | {' | '.join(columns.values())} | bytes |")
    print("|---" * (len(columns) + 2) + "|")
    for name, row in rows.items():
        shown = [f"{100 * row[key]:.2f}" if key in row else "" for key in columns]
        size = f"{row['bytes']:,}" if "bytes" in row else ""
        print(f"| {' | '.join([name, *shown, size])} |")


if __name__ == "__main__":
    main()
