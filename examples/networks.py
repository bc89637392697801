"""Takes common networks from quantization to a verified file, and prints a table.

Every network has random weights: the table shows that it can be quantized, trained,
saved, exported and verified, and how exact the file is. Each row is a network at one
bit width. A second table compares the networks of Keras 3's applications with their
tf_keras twins:

    python examples/networks.py --output docs/networks.md

`--networks` selects some; `--bits` without a number prints only the second table.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ai_edge_litert
import keras as keras3
import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_lsq
import tflite_export
from tf_lsq import lsq
from tf_lsq.layers import QuantizationPoint
from tf_lsq.training import quantization_points, wrapped_layers

BATCH = 8
CLASSES = 10
SQNR_DB = 30.0  # At least, of every layer alone with 8 bits.


@dataclasses.dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        build: Returns the float model for an input shape.
        size: Height and width of the images.
        range: Smallest and largest input value.
        logits: Whether the outputs are logits, not probabilities.
    """

    build: Callable[[tuple[int, int, int]], Any]
    size: int
    range: tuple[float, float] = (-1.0, 1.0)
    logits: bool = False


def _ours(name: str, width: float) -> Network:
    """Returns a network of `tf_lsq.models`."""
    build = getattr(tf_lsq.models, name)
    return Network(lambda shape: build(shape, CLASSES, width), 64, logits=True)


def _application(
    name: str, size: int, pixels: tuple[float, float] = (-1.0, 1.0)
) -> Network:
    """Returns a network of `keras.applications`."""
    build = getattr(keras.applications, name)
    return Network(
        lambda shape: build(input_shape=shape, weights=None, classes=CLASSES),
        size,
        pixels,
    )


PIXELS = (0.0, 255.0)
NETWORKS = {
    "preact_resnet18": _ours("preact_resnet18", 1.0),
    "preact_resnet34": _ours("preact_resnet34", 1.0),
    "preact_resnet50": _ours("preact_resnet50", 1.0),
    "preact_resnet101": _ours("preact_resnet101", 1.0),
    "preact_resnet152": _ours("preact_resnet152", 1.0),
    "vgg16_bn": _ours("vgg16_bn", 0.5),
    "squeezenext23_2x": _ours("squeezenext23_2x", 1.0),
    "MobileNet": _application("MobileNet", 96),
    "MobileNetV2": _application("MobileNetV2", 96),
    "MobileNetV3Small": _application("MobileNetV3Small", 96, PIXELS),
    "MobileNetV3Large": _application("MobileNetV3Large", 96, PIXELS),
    "EfficientNetB0": _application("EfficientNetB0", 96, PIXELS),
    "ResNet50": _application("ResNet50", 64),
    "ResNet50V2": _application("ResNet50V2", 64),
    "ResNet152V2": _application("ResNet152V2", 64),
    "DenseNet121": _application("DenseNet121", 64),
    "InceptionV3": _application("InceptionV3", 96),
    "Xception": _application("Xception", 96),
    "VGG16": _application("VGG16", 48),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """The results of one network at one bit width.

    Attributes:
        name: Name of the network.
        bits: Bits of weights and activations.
        num_layers: Keras layers of the float model.
        num_weights: Weight codes in the file, all equal to the trained codes.
        seconds: Time of `quantize_model`.
        off_by_one: Share of activation codes that differ by one.
        worst: Quantization point with the largest such share.
        worst_share: That share.
        num_bytes: Size of the file.
    """

    name: str
    bits: int
    num_layers: int
    num_weights: int
    seconds: float
    off_by_one: float
    worst: str
    worst_share: float
    num_bytes: int


def check_network(name: str, bits: int, *, size: int | None = None) -> Result:
    """Quantizes, trains, saves, exports and verifies one network.

    Args:
        name: A key of `NETWORKS`.
        bits: Bits of weights and activations.
        size: Height and width of the images; None: those of the table.
    """
    network = NETWORKS[name]
    shape, x, rng = _inputs(network, size)
    model = network.build(shape)
    _randomize(model, x, rng)
    start = time.perf_counter()
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
    seconds = time.perf_counter() - start
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=network.logits)
    tf_lsq.calibrate(student, x)
    if bits == lsq.MAX_NUM_BITS:
        _check_layers(model, student, x)
    _train_a_step(student, loss, x, rng.integers(0, CLASSES, len(x)))
    with tempfile.TemporaryDirectory() as folder:
        _save_and_load(student, x, Path(folder) / "student.keras")
        path = Path(folder) / "model.tflite"
        report = tflite_export.export_model(student, path)
        if report.float_layers:
            raise AssertionError(f"{name}: {report.float_layers} are in float")
        verified = tflite_export.verify_tflite(
            path, student, x, point_examples=BATCH, verbose=False
        )
    worst = max(verified.points, key=lambda point: point.off_by_one / point.num_codes)
    return Result(
        name,
        bits,
        len(model.layers),
        verified.weight_codes,
        seconds,
        verified.off_by_one,
        worst.name,
        worst.off_by_one / worst.num_codes,
        report.file_bytes,
    )


def check_twin(name: str, *, size: int | None = None) -> dict[str, float]:
    """Measures the difference between Keras 3's network and its tf_keras twin.

    Args:
        name: A key of `NETWORKS` that Keras 3's applications also have.
        size: Height and width of the images; None: those of the table.

    Returns:
        Data type of both networks -> largest difference. That in float64 must be at
        most 1e-5, and shows whether the twin is the same network; float32 adds the
        rounding of kernels that differ between the two versions of Keras.
    """
    differences = {dtype: _twin_difference(name, size, dtype) for dtype in _TWIN_DTYPES}
    if differences["float64"] > 1e-5:
        raise AssertionError(f"{name}: the twin's outputs differ by {differences}")
    return differences


_TWIN_DTYPES = ("float32", "float64")


def _twin_difference(name: str, size: int | None, dtype: str) -> float:
    """Measures the largest difference of a twin's outputs in one data type."""
    shape, x, rng = _inputs(NETWORKS[name], size)
    x = x.astype(dtype)
    build = getattr(keras3.applications, name)
    usual = keras3.config.dtype_policy()
    keras3.config.set_dtype_policy(dtype)
    try:
        original = build(input_shape=shape, weights=None, classes=CLASSES)
    finally:
        keras3.config.set_dtype_policy(usual)
    _randomize(original, x, rng)
    expected = np.asarray(original(x, training=False))
    outputs = np.asarray(tf_lsq.from_keras3(original)(x, training=False))
    if not expected.dtype == outputs.dtype == np.dtype(dtype):
        raise AssertionError(
            f"{name}: {expected.dtype} and {outputs.dtype}, not {dtype}"
        )
    return float(np.abs(outputs - expected).max())


def _inputs(
    network: Network, size: int | None
) -> tuple[tuple[int, int, int], np.ndarray, np.random.Generator]:
    """Sets the seeds, and returns the shape of an image, images, and the generator."""
    size = network.size if size is None else size
    shape = (size, size, 3)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.uniform(*network.range, (2 * BATCH, *shape)).astype(np.float32)
    return shape, x, rng


def _randomize(model: Any, x: np.ndarray, rng: np.random.Generator) -> None:
    """Sets batch norms to values that training could have produced."""
    norms = [la for la in model.layers if type(la).__name__ == "BatchNormalization"]
    for norm in norms:
        size = norm.moving_mean.shape
        norm.beta.assign(rng.normal(0, 0.1, size))
        if norm.scale:
            sign = rng.choice([-1.0, 1.0, 1.0, 1.0], size)
            norm.gamma.assign(sign * rng.uniform(0.5, 1.5, size))
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # One batch sets the statistics.
    model(x, training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def _trained_steps(student: Any) -> dict[str, np.ndarray]:
    """Returns the variables of learned steps."""
    layers = (*wrapped_layers(student), *quantization_points(student))
    return {
        layer.name: layer.step_variables["step"].numpy()
        for layer in layers
        if "step" in layer.step_variables
    }


def _check_layers(model: Any, student: Any, x: np.ndarray) -> None:
    """Checks that each layer alone is the float layer on a grid of 8 bits.

    The outputs of these networks say little: with random weights, one percent of noise
    at the input changes those of MobileNet by up to half of their range.
    """
    compared = tf_lsq.compare(model, student, x, batch_size=BATCH)
    poor = [layer for layer in compared.layers if layer.own_sqnr_db < SQNR_DB]
    if poor:
        raise AssertionError(f"{student.name}: below {SQNR_DB} dB: {poor}")


def _train_a_step(student: Any, loss: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Trains for one step; checks that gradients are finite and learned steps move."""
    optimizer = keras.optimizers.Adam(1e-4)
    student.compile(optimizer, loss)
    before = _trained_steps(student)
    with tf.GradientTape() as tape:
        value = loss(y[:BATCH], student(x[:BATCH], training=True))
    variables = student.trainable_variables
    gradients = tape.gradient(value, variables)
    bad = [
        variable.name
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is None or not np.isfinite(gradient).all()
    ]
    if bad:
        raise AssertionError(f"{student.name}: no finite gradient for {bad}")
    untrained = student.get_weights()
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    after = _trained_steps(student)
    stuck = [name for name, step in before.items() if (step == after[name]).all()]
    if stuck:
        trained = student.get_weights()
        student.set_weights(untrained)
        by_variable = {v.ref(): g for v, g in zip(variables, gradients, strict=True)}
        stuck = [
            name
            for name in stuck
            if not _has_no_error(student, name, x[:BATCH])
            and not _would_pass_its_limit(student.get_layer(name), by_variable)
        ]
        student.set_weights(trained)
    if stuck:
        raise AssertionError(f"{student.name}: these steps did not move: {stuck}")
    tf_lsq.round_biases(student)


def _has_no_error(student: Any, name: str, x: np.ndarray) -> bool:
    """Returns whether all values that a point quantizes are already on its grid.

    Pooling over one position gives such values. The gradient of the step is then 0,
    and only rounding errors can move it.
    """
    point = student.get_layer(name)
    if not isinstance(point, QuantizationPoint):
        return False
    arriving = keras.Model(student.inputs, point.input)(x, training=True)
    error = arriving - point.step * tf.round(arriving / point.step)
    in_range = arriving <= point.step * (float(point.integer_range.q_max) + 0.5)
    return bool(tf.reduce_all(in_range & (abs(error) < 1e-4 * point.step)))


def _would_pass_its_limit(layer: Any, gradients: dict[Any, Any]) -> bool:
    """Returns whether a step is at the limit of a ReLU6 and would grow."""
    variable = layer.step_variables["step"]
    limit = getattr(variable.constraint, "max_step", np.inf)
    return layer.step >= limit * (1 - 1e-6) and gradients[variable.ref()] < 0


def _save_and_load(student: Any, x: np.ndarray, path: Path) -> None:
    """Checks that a saved model gives the same outputs when it is loaded."""
    student.save(path)
    loaded = keras.models.load_model(path, compile=False)
    if not np.array_equal(loaded(x[:2]), student(x[:2])):
        raise AssertionError(f"{student.name}: the outputs of the loaded model differ")


HEADER = """# Networks

Each network of `tf_lsq.models` (`vgg16_bn` at half its width) and `keras.applications`
with random weights, {classes} classes and small images: quantized with
`tf_lsq.quantize_model`, calibrated, trained for one training step in which every
gradient was finite and every learned step moved, saved and loaded, exported and
verified. No file has a float tensor between its input and output, every weight code is
the trained one, and no activation code is off by more than one. Generated by

    python examples/networks.py --output docs/networks.md

with {versions}.

`quantize_model` was timed once, with other load on the machine; `python -m benchmarks`
measures it. The last columns are shares of codes that are off by one: of all
codes, and of the tensor with the largest share. Two operators cause the large shares.
TFLite's average pooling rounds ties away from zero, whereas Keras and this library
round them to even: one in four 2x2 means of integers is a tie. A hard sigmoid is
linear, so all values of one input code fall on the same side of a near tie.

"""

TWINS = """
## Keras 3

Outputs of `tf_lsq.from_keras3(model)` compared with those of the network of Keras 3's
applications: the largest difference on random images, in float32, whose kernels round
differently in the two versions of Keras, and in float64.

| network | float32 | float64 |
|---|---|---|
"""


def row(found: Result) -> str:
    """Formats a line of the table."""
    return (
        f"| {found.name} | {found.bits}/{found.bits} | {found.num_layers} | "
        f"{found.num_weights:,} | {found.seconds:.1f} | {found.num_bytes:,} | "
        f"{100 * found.off_by_one:.4f} % | `{found.worst}` "
        f"{100 * found.worst_share:.2f} % |"
    )


TABLE = """\
| network | bits | layers | weight codes, all equal | `quantize_model`, s | \
file bytes | off by one, all | off by one, worst tensor |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Checks the networks and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 4])
    parser.add_argument(
        "--size", type=int, default=None, help="height and width of the images"
    )
    parser.add_argument("--output", type=Path, default=None)
    args = parser.parse_args()
    rows = []
    for name, bits in itertools.product(args.networks, args.bits):
        rows.append(row(check_network(name, bits, size=args.size)))
        print(rows[-1], flush=True)
        keras.backend.clear_session()
    twins = []
    for name in args.networks:
        if hasattr(keras3.applications, name):
            differences = check_twin(name, size=args.size)
            numbers = " | ".join(f"{differences[dtype]:.1e}" for dtype in _TWIN_DTYPES)
            twins.append(f"| {name} | {numbers} |")
            print(twins[-1], flush=True)
    if args.output is not None:
        header = HEADER.format(classes=CLASSES, versions=versions())
        text = header + TABLE + "\n".join(rows) + "\n" + TWINS + "\n".join(twins)
        args.output.write_text(text + "\n")


def versions() -> str:
    """Returns the versions that the networks were checked with."""
    return (
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, tf_keras "
        f"{keras.__version__}, Keras {keras3.__version__}, ai-edge-litert "
        f"{ai_edge_litert.__version__}, {platform.machine()}"
    )


if __name__ == "__main__":
    main()
