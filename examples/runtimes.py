"""Prints tables of how files compute on the runtimes of phones and microcontrollers.

Trains a residual network and MobileNetV2 on Fashion-MNIST and a keyword spotter on
sounds of its own, from float with LSQ at 4 and 2 bits; with `--resnet8 DIR` it also
takes the models of `cifar10_resnet8.py --output DIR`. Every file is compared with the
training graph and with the other storage, by the integer twin of its runtime:

    python examples/runtimes.py --data-dir DIR --output docs/runtimes_accuracy.md

Trained networks and finished rows are kept in `--models` and not repeated.
`--emulate 500` runs the files of ResNet-8 on emulated arm64 cores, which needs the
packages of `make arm`. Those of the keyword spotter run under TFLite Micro.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import runtimes_measures as measures
import runtimes_networks as networks
import runtimes_page

import tflite_export
from tflite_export.build import BuiltFile, FileSettings, build_file
from tflite_export.freezing import Storage, read_model
from tflite_export.runtimes import RUNTIMES
from tflite_export.targets import TARGETS

ARM64, TFLM = RUNTIMES["arm64"], RUNTIMES["tflm"]
# Target and storage of the keyword spotter's files, all run under TFLite Micro.
MICRO_FILES = (("phone", "int8"), ("tflm", "int8"), ("tflm", "packed"))
NETWORKS = ("resnet8", "residual", "mobilenet_v2", "ds_cnn")


def built(trained: networks.Trained, storage: str, target: str = "phone") -> BuiltFile:
    """Builds the file of a network that was trained for phones.

    Args:
        trained: The network.
        storage: How its kernels are stored.
        target: What the file will run on.
    """
    numbers = dataclasses.replace(
        read_model(trained.student),
        target=target,
        dynamic_batch=TARGETS[target].dynamic_batch,
    )
    return build_file(numbers, FileSettings(Storage(storage)))


def phone_rows(trained: networks.Trained, biases: str, images: int) -> Iterator[str]:
    """Yields the rows of a network's files, with biases rounded to a storage's grid."""
    student, x, before = trained.student, trained.x, trained.student.get_weights()
    if biases != "int8":  # So they are after `fit`.
        tflite_export.round_biases(student, biases)
    graph = student.predict(x, batch_size=100, verbose=0)
    int8 = None
    for storage in ("int8", "packed"):
        file = built(trained, storage)
        counts = measures.off_by_one(file, x[:images], ARM64)
        found = measures.outputs(file, student, x, ARM64)
        int8 = found if int8 is None else int8
        cells = (
            trained.name,
            trained.bits,
            biases,
            storage,
            measures.total(counts),
            measures.packed(counts),
            measures.accuracy(graph, trained.y),
            measures.accuracy(found, trained.y),
            measures.agreement(found, graph),
            "" if storage == "int8" else measures.agreement(found, int8),
            len(file.graph.ops),
        )
        yield row(cells)
    student.set_weights(before)


def row(cells: tuple[object, ...]) -> str:
    """Formats a row of a table, and prints it."""
    line = "| " + " | ".join(str(cell) for cell in cells) + " |"
    print(line, flush=True)
    return line


def kept(path: Path, rows: Iterator[str]) -> list[str]:
    """Returns rows from a file if it exists, else measures and writes them.

    Args:
        path: The file, without its suffix.
        rows: Measures, when it is iterated.
    """
    path = path.with_name(f"{path.name}.md")
    if not path.exists():
        path.write_text("\n".join(rows))
    return path.read_text().splitlines()


def emulated_rows(
    all_trained: list[networks.Trained], arguments: argparse.Namespace
) -> Iterator[str]:
    """Yields how the outputs on an emulated core differ from the twin's."""
    x = all_trained[0].x[: arguments.emulate]
    files = {
        f"{trained.bits}_{storage}": built(trained, storage)
        for trained in all_trained
        for storage in ("int8", "packed")
    }
    found = measures.emulated(files, x, arguments.core, arguments.userland)
    for name, file in files.items():
        for kernels, codes in found[name].items():
            expected = measures.output_codes(file, x, ARM64.with_kernels(kernels))
            differ = int((codes != expected).sum())
            yield row((*name.split("_"), kernels, f"{codes.size:,}", differ))


def micro_rows(
    trained: networks.Trained, arguments: argparse.Namespace
) -> Iterator[str]:
    """Yields the rows of the files of a network under TFLite Micro."""
    graph = trained.student.predict(trained.x, batch_size=100, verbose=0)
    for name, storage in MICRO_FILES:
        if storage == "packed" and trained.bits == 8:
            continue
        file = built(trained, storage, name)
        counts = measures.off_by_one(file, trained.x[: arguments.images], TFLM)
        found = measures.outputs(file, trained.student, trained.x, TFLM)
        cells = (
            trained.bits,
            name,
            storage,
            measures.total(counts),
            measures.accuracy(graph, trained.y),
            measures.accuracy(found, trained.y),
            measures.agreement(found, graph),
            *micro_run(file, trained.x[: arguments.sounds]),
        )
        yield row(cells)


def micro_run(file: BuiltFile, x: np.ndarray) -> tuple[str, int]:
    """Returns how many codes TFLite Micro computed, and how many the twin does not."""
    codes = measures.on_tflite_micro(file, x)
    expected = measures.output_codes(file, x, TFLM)
    return f"{codes.size:,}", int((codes != expected).sum())


def main() -> None:
    """Trains, exports, compares and writes the tables."""
    arguments = _arguments()
    settings = networks.Settings(
        arguments.models, arguments.data_dir, arguments.epochs, test=arguments.tests
    )
    if arguments.smoke:
        settings = dataclasses.replace(settings, epochs=1, train=256, width=0.125)
    settings.models.mkdir(parents=True, exist_ok=True)
    phones, micro, emulated = [], [], []
    sizes = f"{arguments.images}_{arguments.tests}"
    for name in arguments.networks:
        all_trained = list(_trained(name, arguments, settings))
        for trained in all_trained:
            part = settings.models / f"{name}_{trained.bits}_{sizes}"
            for biases in ("int8", "packed") if trained.bits < 8 else ():
                rows = phone_rows(trained, biases, arguments.images)
                phones += kept(part.with_name(f"{part.name}_{biases}"), rows)
            if name == "ds_cnn":
                part = part.with_name(f"{part.name}_micro")
                micro += kept(part, micro_rows(trained, arguments))
        if name == "resnet8" and all_trained and arguments.emulate:
            part = settings.models / f"emulated_{arguments.emulate}"
            emulated = kept(part, emulated_rows(all_trained, arguments))
    text = runtimes_page.text(arguments, phones, micro, emulated)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data-dir", help="where TensorFlow Datasets keeps its files")
    add("--resnet8", type=Path, help="output of cifar10_resnet8.py")
    add("--models", type=Path, default=Path("runtimes"), help="keeps finished parts")
    add("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    add("--epochs", type=int, default=3, help="epochs in float and with LSQ")
    add("--images", type=int, default=1000, help="examples whose codes are compared")
    add("--tests", type=int, default=10_000, help="examples for accuracies")
    add("--emulate", type=int, default=0, help="images on emulated arm64 cores")
    add("--core", default="cortex-a76", help="what qemu emulates")
    add("--userland", type=Path, default=Path(".arm64"), help="keeps the emulator")
    add("--sounds", type=int, default=500, help="sounds under TFLite Micro")
    add("--smoke", action="store_true", help="use only a few images")
    add("--output", type=Path, help="a Markdown file")
    return parser.parse_args()


def _trained(
    name: str, arguments: argparse.Namespace, settings: networks.Settings
) -> Iterator[networks.Trained]:
    """Yields a network at each number of bits."""
    if name == "ds_cnn":
        yield from networks.keywords(settings, (8, 4, 2))
    elif name == "residual":
        yield from networks.residual(settings)
    elif name == "mobilenet_v2":
        yield from networks.mobilenet_v2(settings)
    elif arguments.resnet8 is not None:
        yield from networks.resnet8(arguments.resnet8, settings)


if __name__ == "__main__":
    main()
