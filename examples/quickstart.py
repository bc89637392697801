"""Trains a small network, quantizes it with LSQ, exports and verifies it.

    python examples/quickstart.py
    python examples/quickstart.py --dataset fashion_mnist --data-dir DIR
    python examples/quickstart.py --target tflm

The default data, scikit-learn's handwritten digits, needs no download. For TFLite Micro
(`--target tflm`) it also writes the file as a C++ array.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from tflite_export.quiet import silence_libraries

silence_libraries()  # Before TensorFlow is imported.

import numpy as np
import tensorflow as tf
import tf_keras as keras
from datasets import NAMES, Images, load
from progress import ProgressBar
from rich.console import Console
from rich.table import Table

import tf_lsq
import tflite_export
from tflite_export.targets import TARGETS

BATCH_SIZE = 64
# Data set -> channels of the three stages, epochs in float, epochs with LSQ.
SETTINGS = {
    "digits": ((16, 32, 64), 30, 30),
    "fashion_mnist": ((16, 32, 64), 3, 2),
    "cifar10": ((16, 32, 64), 10, 5),
}


def main() -> None:
    """Runs everything and prints one table."""
    args = _arguments()
    keras.utils.set_random_seed(args.seed)
    images = load(args.dataset, args.data_dir)
    if args.smoke:
        images = images.limited(128, 64)
    channels, float_epochs, epochs = SETTINGS[args.dataset]
    start = time.perf_counter()

    model = residual_network(images.x_train.shape[1:], channels)
    _train(model, images, 0.1, args.float_epochs or float_epochs, "Training in float")

    student = tf_lsq.quantize_model(
        model,
        weight_bits=args.weight_bits,
        activation_bits=args.activation_bits,
        target=args.target,
    )
    _train(student, images, 0.01, args.epochs or epochs, "Training with LSQ  ")

    if args.student is not None:
        student.save(args.student)
    report = tflite_export.export_model(student, args.output)
    if args.target == "tflm":
        tflite_export.write_c_source(args.output, args.output.with_suffix(".cc"))
    test = (_scaled(images.x_test, images.maximum), images.y_test)
    verified = tflite_export.verify_tflite(
        args.output, student, test, verbose=sys.stderr.isatty()
    )
    seconds = time.perf_counter() - start
    _print_table(args, model, images, report, verified, seconds)
    if args.target != "phone":
        print(report)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=NAMES, default="digits")
    parser.add_argument(
        "--data-dir", help="where TensorFlow Datasets keeps its files; no download"
    )
    parser.add_argument("--target", choices=TARGETS, default="phone")
    parser.add_argument("--weight-bits", type=int, default=4)
    parser.add_argument("--activation-bits", type=int, default=4)
    parser.add_argument("--float-epochs", type=int, help="default: by data set")
    parser.add_argument("--epochs", type=int, help="LSQ epochs; default: by data set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("quickstart.tflite"))
    parser.add_argument("--student", type=Path, help="also save the student here")
    parser.add_argument("--smoke", action="store_true", help="use only a few images")
    return parser.parse_args()


def residual_network(
    input_shape: tuple[int, ...], channels: tuple[int, ...]
) -> keras.Model:
    """Returns a small post-activation residual network with batch norm.

    Args:
        input_shape: Height, width, channels.
        channels: Channels of each stage; each stage after the first halves height and
            width.
    """
    layers = keras.layers

    def conv(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input(input_shape, name="image")
    x = layers.ReLU()(conv(inputs, channels[0], 3))
    for stage, filters in enumerate(channels):
        strides = 1 if stage == 0 else 2
        shortcut = x if stage == 0 else conv(x, filters, 1, strides)
        x = layers.ReLU()(conv(x, filters, 3, strides))
        x = layers.ReLU()(layers.Add()([conv(x, filters, 3), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(10, activation="softmax", name="digit")(x)
    return keras.Model(inputs, outputs, name="quickstart")


def _scaled(images: np.ndarray, maximum: int) -> np.ndarray:
    """Returns float32 images from 0 to 1."""
    return images.astype(np.float32) / maximum


def _train(
    model: keras.Model, images: Images, rate: float, epochs: int, name: str
) -> None:
    """Trains with SGD, momentum 0.9 and cosine decay."""
    x = _scaled(images.x_train, images.maximum)
    steps = epochs * -(-len(x) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        x,
        images.y_train,
        BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[ProgressBar(name)],
    )


def _converter_bytes(model: keras.Model, images: Images, *, int8: bool) -> int:
    """Returns the size of TFLiteConverter's file of the float network."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        chosen = _scaled(images.x_train[:100], images.maximum)
        converter.representative_dataset = lambda: ([image[None]] for image in chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They are about the converter's own defaults.
        return len(converter.convert())


def _print_table(
    args: argparse.Namespace,
    model: keras.Model,
    images: Images,
    report: tflite_export.ExportReport,
    found: tflite_export.VerificationReport,
    seconds: float,
) -> None:
    """Prints accuracies, sizes and differences."""
    x_test = _scaled(images.x_test, images.maximum)
    scores = model.predict(x_test, verbose=0)
    accuracy = (scores.argmax(-1) == images.y_test).mean()
    console = Console()
    with console.status("Converting the float network for comparison"):
        float_bytes = _converter_bytes(model, images, int8=False)
        int8_bytes = _converter_bytes(model, images, int8=True)
    bits = f"{args.weight_bits}-bit weights, {args.activation_bits}-bit activations"
    table = Table(title=f"{args.dataset}: {bits}", show_header=False)
    table.add_row("accuracy, float", f"{accuracy:.2%}")
    table.add_row("accuracy, LSQ in Keras", f"{found.keras_accuracy:.2%}")
    table.add_row(
        f"accuracy, TFLite on {found.runtime}", f"{found.tflite_accuracy:.2%}"
    )
    if found.prediction is not None:
        predicted = f"{found.prediction.tflite_accuracy:.2%}"
        table.add_row(f"accuracy, predicted for {found.prediction.runtime}", predicted)
    table.add_section()
    table.add_row("file, float32", f"{float_bytes:,} bytes")
    table.add_row("file, post-training int8", f"{int8_bytes:,} bytes")
    table.add_row(f"file, this ({report.path})", f"{report.file_bytes:,} bytes")
    table.add_section()
    differ = round((1 - found.top1_agreement) * found.num_examples)
    table.add_row(
        "Keras and TFLite differ on", f"{differ} of {found.num_examples} images"
    )
    table.add_row(
        "weight codes equal", f"{found.equal_codes:,} of {found.weight_codes:,}"
    )
    table.add_row("activation codes off by one", f"{found.off_by_one:.3%}")
    table.add_section()
    table.add_row("time", f"{seconds:.0f} s")
    console.print(table)


if __name__ == "__main__":
    main()
