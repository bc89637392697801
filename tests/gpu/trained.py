"""Trained networks with strided 1x1 convolutions, on the CPU and on the GPU."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import cases

from tf_lsq._compat import keras
from tflite_export.build import FileSettings, build_file
from tflite_export.freezing import read_model
from tflite_export.runtimes import Runner
from tflite_export.verification.values import file_inputs

FORMS = ("conv", "pick")
_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network and test images.

    Attributes:
        name: Its name, unique.
        student: The quantized model.
        x: Images as the model takes them.
        y: Their class numbers.
    """

    name: str
    student: keras.Model
    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """What the two files of a network compute.

    Attributes:
        name: The network.
        images: How many images were classified.
        cpu: Share that LiteRT's interpreter classifies correctly.
        gpu: Form of strided 1x1 convolutions -> the same for the GPU.
        picked_codes: Output codes of the file with picked pixels that differ from the
            interpreter's.
        codes: How many output codes there are.
    """

    name: str
    images: int
    cpu: float
    gpu: dict[str, float]
    picked_codes: int
    codes: int


def quickstart(folder: Path, images: int) -> Network:
    """Returns the network that `examples/quickstart.py` trains on digits.

    Args:
        folder: For the files that it writes.
        images: How many test images to take, at most.
    """
    student = folder / "quickstart.keras"
    if not student.exists():
        files = ("--student", student, "--output", folder / "quickstart.tflite")
        command = [sys.executable, _EXAMPLES / "quickstart.py", *files]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    x, y = _test_images("digits", None, images)
    model = keras.models.load_model(student, compile=False)
    return Network("quickstart, digits, 4/4 bits", model, x, y)


def resnet8(folder: Path, data_dir: str | None, images: int) -> Iterator[Network]:
    """Yields the networks that `examples/cifar10_resnet8.py` trained.

    Args:
        folder: What it wrote to as its `--output`.
        data_dir: Where TensorFlow Datasets keeps CIFAR-10.
        images: How many test images to take, at most.
    """
    x, y = _test_images("cifar10", data_dir, images)
    for bits in (8, 4, 2):
        model = keras.models.load_model(folder / f"lsq{bits}.keras", compile=False)
        yield Network(f"ResNet-8, CIFAR-10, {bits}/{bits} bits", model, x, y)


def _test_images(
    name: str, data_dir: str | None, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first test images as the examples scale them, and their classes."""
    sys.path.append(str(_EXAMPLES))
    from datasets import load

    loaded = load(name, data_dir)
    scale = loaded.maximum if name == "digits" else 1
    return loaded.x_test[:images].astype(np.float32) / scale, loaded.y_test[:images]


def write_files(network: Network, folder: Path) -> None:
    """Writes the files of a network in int8, and the codes of LiteRT's interpreter.

    Args:
        network: The network.
        folder: Gets NAME_FORM.tflite and what `cases.write_file` writes beside it.
    """
    numbers = read_model(network.student)
    for form in FORMS:
        built = build_file(numbers, FileSettings(strided_1x1=form))
        inputs = file_inputs(built.graph, built.frozen, [network.x])
        found = Runner(built.graph, content=built.content).run(inputs)
        codes = {built.graph.outputs[end]: array for end, array in found.items()}
        described = {end: cases.Described() for end in found}
        stem = folder / _stem(network, form)
        cases.write_file(stem, built.graph, inputs, {"xnnpack": codes}, described)


def compare(network: Network, folder: Path, output: Path) -> Row:
    """Compares what the GPU computed with what the CPU did.

    Args:
        network: The network.
        folder: What `write_files` wrote.
        output: What `run_compiled` wrote.
    """
    found = {
        form: _only_array(output / f"{_stem(network, form)}.gpu.npz") for form in FORMS
    }
    wanted = _only_array(folder / f"{_stem(network, 'pick')}.expected")
    return Row(
        network.name,
        len(network.y),
        _accuracy(wanted, network.y),
        {form: _accuracy(codes, network.y) for form, codes in found.items()},
        int((found["pick"] != wanted).sum()),
        wanted.size,
    )


def _stem(network: Network, form: str) -> str:
    """Returns the name of a file, without a suffix."""
    plain = "".join(c if c.isalnum() else "_" for c in network.name)
    return f"{plain}_{form}"


def _only_array(path: Path) -> np.ndarray:
    """Returns the only array of a file."""
    with np.load(path) as file:
        [name] = file.files
        return file[name]


def _accuracy(codes: np.ndarray, classes: np.ndarray) -> float:
    """Returns the share of rows whose largest code is that of their class."""
    return float((codes.argmax(-1) == classes).mean())
