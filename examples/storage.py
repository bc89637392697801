"""Size, agreement and exactness of files in every storage, as tables.

A pre-activation network of the paper is exported at 8, 4, 3 and 2 bits for the table
of sizes, which needs no training. A small residual network with pre-activation batch
norms, depthwise layers, poolings and additions is trained on Fashion-MNIST in float,
and from there with LSQ at 8, 4 and 2 bits; 1,000 test images go through files and
twins. With `--resnet8 DIR`, where `cifar10_resnet8.py --output DIR` has kept its
models, these are compared, too:

    python examples/storage.py --data-dir DIR --output docs/storage.md
"""

from __future__ import annotations

import argparse
import collections
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ai_edge_litert
import datasets
import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_lsq
import tflite_export
from tflite_export import verification
from tflite_export.freezing import read_model
from tflite_export.reports import processor

layers = keras.layers
IMAGES = 1000


# What is written; one paragraph a line.
TEXT = """\
# Storage: size, agreement, exactness

Made by `python examples/storage.py --data-dir DIR --epochs {epochs} --train {train}\
{also} --output docs/storage.md` with {versions}.

## Size

Pre-activation ResNet-18 of width 0.5 for 32x32 images, bytes of the file. The first \
and the last layer have 8 bits, and so have batch norms that stand by themselves. \
Ideal: bits x weights / 8, an int32 bias and a float32 scale per channel. LiteRT has \
no INT2 or INT3 convolutions: below 4 bits they are stored in INT4.

| weights | float32 | int8 | packed | ideal | packed / ideal |
|---|---|---|---|---|---|
{sizes}

## Agreement of storages

The residual network of the script, Fashion-MNIST, seed 0; accuracy on {images} test \
images: {accuracies}. ResNet-8 is MLPerf Tiny's, trained on CIFAR-10 by \
`examples/cifar10_resnet8.py`; its models are in RESNET8. Every file gets the same \
{images} images of its data set.

Unequal codes: of all tensors, against int8 storage, with one shared bias grid \
(`bias_grid="packed"`) under TFLite's own kernels. The other columns: each container \
with its own bias grid, against the int8 file under XNNPACK. XNNPACK leaves INT4 \
convolutions to TFLite's own kernels, which round twice; the last column shows what \
these alone change.

| network | storage | unequal codes, shared grid | top-1 agreement | codes that differ \
| top-1 agreement, own kernels only |
|---|---|---|---|---|---|
{storages}

Share of codes in which packed and int8 storage differ, own grids, under XNNPACK; \
differences of earlier tensors add up:

| tensor | {columns} |
|---{rule}|
{tensors}

## The integer twin against LiteRT

The residual network. Codes that the twin computes otherwise, each operator fed with \
the integers of the runtime, {images} images:

| bits | storage | kernels | codes that differ |
|---|---|---|---|
{twins}"""


def network(shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Returns the residual network that is trained."""
    inputs = layers.Input(shape, name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(x)
    for filters, strides in ((24, 1), (48, 2), (96, 2)):
        pre = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(pre)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(filters, 1, use_bias=False)(y)
        if strides > 1:
            x = layers.MaxPooling2D()(pre)
            extra = layers.AveragePooling2D()(pre)
            x = layers.Concatenate()([x, extra])
        x = layers.Add()([x, y])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes)(x), name="storage")


def train(model: keras.Model, data: Any, rate: float, epochs: int) -> float:
    """Trains with SGD and cosine decay; returns the accuracy on the test images."""
    steps = epochs * -(-len(data.x_train) // 128)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data.x_train, data.y_train, 128, epochs=epochs, verbose=0)
    return model.evaluate(data.x_test, data.y_test, verbose=0)[1]


def size_table(folder: Path) -> list[str]:
    """Returns sizes of the files of one network at every bit width."""
    model = tf_lsq.models.preact_resnet18((32, 32, 3), 10, 0.5)
    x = np.random.default_rng(0).uniform(0, 1, (32, 32, 32, 3)).astype(np.float32)
    floats = len(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    lines = []
    for bits in (8, 4, 3, 2):
        student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        tf_lsq.calibrate(student, x)
        tflite_export.round_biases(student, "packed")
        sizes = {}
        for storage in ("int8", "packed"):
            report = tflite_export.export_model(
                student, folder / "size.tflite", storage=storage
            )
            sizes[storage] = report.file_bytes
        ideal = sum(
            layer.num_codes * layer.num_bits / 8 + layer.num_channels * (4 + 4)
            for layer in report.layers
        )
        lines.append(
            f"| {bits} bits | {floats:,} | {sizes['int8']:,} | {sizes['packed']:,} | "
            f"{ideal:,.0f} | {sizes['packed'] / ideal:.3f} |"
        )
    return lines


def codes_of(student: keras.Model, path: Path, x: np.ndarray, kernels: str) -> Any:
    """Returns (numbers of the file, every tensor as the runtime computes it)."""
    content, name = path.read_bytes(), str(path)
    built = verification.rebuild(content, read_model(student), name)
    verification.verify_content(content, built, name)
    frozen = built.frozen
    return frozen, verification.probe_codes(built.graph, frozen, [x], kernels)


def different(codes: dict[str, np.ndarray], base: dict[str, np.ndarray]) -> Any:
    """Returns, per tensor that both files have, the share of codes that differ."""
    return {
        name: float((codes[name] != base[name]).mean())
        for name in base
        if name in codes
    }


def storage_rows(
    head: str, student: keras.Model, x: np.ndarray, folder: Path
) -> tuple[list[str], dict[str, float]]:
    """Returns how the files of all storages differ, and per tensor by what share."""
    found: dict[tuple[str, str, str], Any] = {}
    for storage in ("int8", "packed", "auto"):
        for grid, kernels in (
            ("packed", "builtin"), ("own", "xnnpack"), ("own", "builtin"),
        ):  # fmt: skip
            path = folder / f"{storage}.tflite"
            tflite_export.export_model(student, path, storage=storage, bias_grid=grid)
            frozen, codes = codes_of(student, path, x, kernels)
            found[storage, grid, kernels] = codes
    [output] = frozen.outputs.values()
    fast = found["int8", "own", "xnnpack"]

    def agreement(codes: dict[str, np.ndarray]) -> str:
        same = codes[output].argmax(-1) == fast[output].argmax(-1)
        return f"{same.mean():.2%}"

    rows, tensors = [], {}
    for storage in ("int8", "packed", "auto"):
        shared = found[storage, "packed", "builtin"]
        base = found["int8", "packed", "builtin"]
        unequal = sum(int((shared[name] != base[name]).sum()) for name in base)
        own = found[storage, "own", "xnnpack"]
        shares = different(own, fast)
        total = sum(share * fast[name].size for name, share in shares.items())
        rows.append(
            f"| {head} | {storage} | {unequal} | {agreement(own)} | "
            f"{total / sum(fast[name].size for name in shares):.3%} | "
            f"{agreement(found[storage, 'own', 'builtin'])} |"
        )
        if storage == "packed":
            tensors = shares
    return rows, tensors


def tensor_rows(shares: dict[str, dict[str, float]]) -> list[str]:
    """Returns a row per tensor: the share of its codes that differ, by column."""
    names = list(dict.fromkeys(name for found in shares.values() for name in found))
    return [
        f"| `{name}` | "
        + " | ".join(
            f"{found[name]:.3%}" if name in found else "" for found in shares.values()
        )
        + " |"
        for name in names
    ]


def twin_rows(student: keras.Model, bits: int, x: np.ndarray, folder: Path) -> Any:
    """Returns how many codes the integer twin computes otherwise, by operator."""
    rows = []
    for storage in ("int8", "packed"):
        path = folder / "twin.tflite"
        tflite_export.export_model(student, path, storage=storage)
        for kernels in ("xnnpack", "builtin"):
            frozen, codes = codes_of(student, path, x, kernels)
            different = verification.twin_differences(frozen, codes, kernels)
            counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
            for node in frozen.nodes:
                if node.name in different:
                    counts[node.kind][0] += different[node.name]
                    counts[node.kind][1] += codes[node.name].size
            cells = ", ".join(f"{kind} {a} of {b}" for kind, (a, b) in counts.items())
            rows.append(f"| {bits} | {storage} | {kernels} | {cells} |")
    return rows


def resnet8_rows(
    models: Path, data_dir: str | None, folder: Path
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Returns the same rows for the models of `cifar10_resnet8.py`."""
    data = datasets.load("cifar10", data_dir).limited(1, IMAGES)
    x = data.x_test.astype(np.float32)
    rows, tensors = [], {}
    for bits in (8, 4, 2):
        student = keras.models.load_model(models / f"lsq{bits}.keras", compile=False)
        head = f"ResNet-8, {bits} bits"
        more, tensors[head] = storage_rows(head, student, x, folder)
        rows += more
    return rows, tensors


def main() -> None:
    """Trains, exports, compares and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its files")
    parser.add_argument("--epochs", type=int, default=3, help="in float, and with LSQ")
    parser.add_argument("--train", type=int, default=60_000, help="training images")
    parser.add_argument("--resnet8", type=Path, help="output of cifar10_resnet8.py")
    parser.add_argument("--output", type=Path, help="a Markdown file")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist", arguments.data_dir)
    data = data.limited(arguments.train, IMAGES)
    x = data.x_test.astype(np.float32)
    model = network(x.shape[1:], 10)
    accuracies = [f"float {train(model, data, 0.1, arguments.epochs):.2%}"]
    storages, tensors, twins = [], {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = size_table(folder)
        for bits in (8, 4, 2):
            student = tf_lsq.quantize_model(
                model, weight_bits=bits, activation_bits=bits
            )
            accuracy = train(student, data, 0.01, arguments.epochs)
            accuracies.append(f"{bits} bits {accuracy:.2%}")
            head = f"residual, {bits} bits"
            rows, tensors[head] = storage_rows(head, student, x, folder)
            storages += rows
            twins += twin_rows(student, bits, x, folder)
        if arguments.resnet8 is not None:
            rows, more = resnet8_rows(arguments.resnet8, arguments.data_dir, folder)
            storages, tensors = storages + rows, tensors | more
    text = _text(arguments, sizes, accuracies, storages, tensors, twins)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


def _text(
    arguments: argparse.Namespace,
    sizes: list[str],
    accuracies: list[str],
    storages: list[str],
    tensors: dict[str, dict[str, float]],
    twins: list[str],
) -> str:
    """Returns the tables with what they were made of."""
    return TEXT.format(
        epochs=arguments.epochs,
        train=arguments.train,
        also=" --resnet8 RESNET8" if arguments.resnet8 else "",
        versions=f"Python {platform.python_version()}, TensorFlow {tf.__version__}, "
        f"tf_keras {keras.__version__}, ai-edge-litert {ai_edge_litert.__version__}, "
        f"{platform.machine()} {processor()}",
        images=f"{IMAGES:,}",
        accuracies=", ".join(accuracies),
        sizes="\n".join(sizes),
        storages="\n".join(storages),
        columns=" | ".join(tensors),
        rule="|---" * len(tensors),
        tensors="\n".join(tensor_rows(tensors)),
        twins="\n".join(twins),
    )


if __name__ == "__main__":
    main()
