"""MLPerf Tiny's ResNet-8 on CIFAR-10 at 8, 4, 3 and 2 bits.

Fine-tunes the pretrained network in float, then from there with LSQ at each bit width,
exports every result and verifies it on all test images. The table compares them with
TFLiteConverter's post-training int8 file of the same float network.

    python examples/cifar10_resnet8.py --float-model pretrainedResnet.h5 \
        --data-dir ~/tensorflow_datasets --output results

Finished parts are kept in `--output` and not repeated. The settings are the paper's
(SGD with momentum 0.9, cosine decay from 0.01, 0.001 at 8 bits, first and last layer 8
bits) for a few epochs; the kernels keep the network's own L2 regularisers. At
`--reestimated-bits` (2 by default) batch norm statistics are re-estimated at the end,
on 100 training batches; the table also shows the accuracy before that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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


def main() -> None:
    """Runs the missing parts and prints the table."""
    args = _arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    images = load("cifar10", args.data_dir)
    if args.smoke:
        images = images.limited(256, 128)
    rows: dict[str, Any] = {}
    model = _float_model(args, images)
    accuracy = _accuracy(model, images)
    size = _converted(model, images, args.output / "float32.tflite", quantize=False)
    rows["float32"] = {"keras": accuracy, "bytes": size}
    rows["post-training int8"] = _post_training(model, images, args.output)
    for bits in args.bits:
        rows[f"LSQ {bits}/{bits}"] = _lsq(model, images, bits, args)
    settings = {k: str(v) for k, v in vars(args).items() if k not in ("output",)}
    versions = {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tf_keras": keras.__version__,
        "ai_edge_litert": ai_edge_litert.__version__,
        "machine": platform.machine(),
    }
    document = {"settings": settings, "versions": versions, "rows": rows}
    (args.output / "results.json").write_text(json.dumps(document, indent=2))
    _print_table(rows, versions)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--float-model", type=Path, required=True)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--output", type=Path, default=Path("cifar10_resnet8"))
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--reestimated-bits", type=int, nargs="*", default=[2])
    parser.add_argument("--float-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--step-init", choices=["mse", "lsq", "max"], default="mse")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="use only a few images")
    return parser.parse_args()


def dataset(images: Images, seed: int) -> tf.data.Dataset:
    """Returns shuffled training batches with flips and crops."""
    data = training_batches(images, seed, batch_size=BATCH_SIZE, pad=4)
    return data.map(lambda x, y: (x, tf.one_hot(y, 10)))


def train(
    model: keras.Model, images: Images, rate: float, epochs: int, seed: int, name: str
) -> None:
    """Trains with the paper's optimizer."""
    keras.utils.set_random_seed(seed)
    data = dataset(images, seed)
    steps = epochs * int(data.cardinality())
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    model.fit(data, epochs=epochs, verbose=0, callbacks=[ProgressBar(name)])


def _float_model(args: argparse.Namespace, images: Images) -> keras.Model:
    """Returns the fine-tuned float network."""
    path = args.output / "float.keras"
    if not path.exists():
        model = keras.models.load_model(args.float_model, compile=False)
        train(model, images, 0.01, args.float_epochs, args.seed, "float")
        model.save(path)
    return keras.models.load_model(path, compile=False)


def _lsq(
    model: keras.Model, images: Images, bits: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Trains and exports at one bit width, and returns its row."""
    result = args.output / f"lsq{bits}.json"
    if result.exists():
        return json.loads(result.read_text())
    trained = args.output / f"lsq{bits}.keras"
    if not trained.exists():
        student = tf_lsq.quantize_model(
            model, weight_bits=bits, activation_bits=bits, step_init=args.step_init
        )
        rate = 0.001 if bits == 8 else 0.01
        train(student, images, rate, args.epochs, args.seed, f"LSQ {bits} bits")
        student.save(trained)
    student = keras.models.load_model(trained, compile=False)
    row = {}
    if bits in args.reestimated_bits:
        row["keras_before"] = _accuracy(student, images)
        tf_lsq.reestimate_batch_norm(student, dataset(images, args.seed))
    path = args.output / f"lsq{bits}.tflite"
    report = tflite_export.export_model(student, path)
    data = (images.x_test.astype(np.float32), images.y_test)
    verified = tflite_export.verify_tflite(path, student, data)
    print(verified)
    row |= {
        "keras": verified.keras_accuracy,
        "tflite": verified.tflite_accuracy,
        "agreement": verified.top1_agreement,
        "off_by_one": verified.off_by_one,
        "bytes": report.file_bytes,
        "points": [[p.name, p.off_by_one / p.num_codes] for p in verified.points],
    }
    result.write_text(json.dumps(row))
    return row


def _accuracy(model: keras.Model, images: Images) -> float:
    """Returns the top-1 accuracy on the test images."""
    scores = model.predict(images.x_test.astype(np.float32), batch_size=500, verbose=0)
    return float((scores.argmax(axis=-1) == images.y_test).mean())


def _converted(model: Any, images: Images, path: Path, *, quantize: bool) -> int:
    """Writes TFLiteConverter's file of the float network, and returns its size."""
    if not path.exists():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            chosen = images.x_train[:500].astype(np.float32)
            converter.representative_dataset = lambda: ([x[None]] for x in chosen)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())
    return path.stat().st_size


def _post_training(model: Any, images: Images, output: Path) -> dict[str, Any]:
    """Returns the row of TFLiteConverter's post-training int8 file."""
    from ai_edge_litert.interpreter import Interpreter

    path = output / "post_training_int8.tflite"
    size = _converted(model, images, path, quantize=True)
    runner = Interpreter(str(path)).get_signature_runner()
    [name] = runner.get_input_details()
    correct = 0
    for start in range(0, len(images.x_test), 100):
        x = images.x_test[start : start + 100].astype(np.float32)
        [scores] = runner(**{name: x}).values()
        correct += int((scores.argmax(-1) == images.y_test[start : start + 100]).sum())
    return {"tflite": correct / len(images.x_test), "bytes": size}


def _print_table(rows: dict[str, Any], versions: dict[str, str]) -> None:
    """Prints the results in Markdown."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    print(
        "| network | Keras, moving averages | Keras | TFLite | top-1 agreement | "
        "codes off by one | bytes |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        keys = ("keras_before", "keras", "tflite", "agreement", "off_by_one")
        shown = [percent(row.get(key)) for key in keys]
        print(f"| {name} | {' | '.join(shown)} | {row['bytes']:,} |")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
