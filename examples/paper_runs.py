"""Single training runs of `paper_tables.py`: networks, data, one function per kind."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from datasets import Images, training_batches
from progress import ProgressBar

import tf_lsq
import tflite_export
from tf_lsq.training import quantization_points, wrapped_layers

BATCH_SIZE = 128
SCALE = 255  # Networks for Fashion-MNIST take images from 0 to 1.
REESTIMATED_BITS = 2  # Batch norm statistics are re-estimated up to this width.
layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long networks train.

    Attributes:
        float_epochs: Epochs from random weights, at a learning rate of 0.1.
        epochs: Epochs from the float network, also for continuing the float network.
        long_epochs: Epochs of long training runs from the float network.
        short_epochs: Epochs of short fine-tunes.
    """

    float_epochs: int
    epochs: int
    long_epochs: int
    short_epochs: int


def network(input_shape: tuple[int, ...], *, pre_activation: bool = True) -> Any:
    """Returns a small residual network for 28x28 images that ends in logits.

    Args:
        input_shape: Height, width, channels.
        pre_activation: Whether batch norm and ReLU come before convolutions, as in the
            paper's networks, or after them.
    """
    block = _pre_activation_block if pre_activation else _post_activation_block
    inputs = layers.Input(input_shape, name="image")
    x = _conv(inputs, 24, 3, 2)
    if not pre_activation:
        x = _bn_relu(x)
    for filters, strides in ((24, 1), (48, 2), (96, 2)):
        x = block(x, filters, strides)
    if pre_activation:
        x = _bn_relu(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="scores")(x), name="residual")


def _conv(x: Any, filters: int, size: int, strides: int = 1) -> Any:
    """Returns a convolution without bias."""
    return layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)


def _bn_relu(x: Any) -> Any:
    """Returns batch norm and ReLU."""
    return layers.ReLU()(layers.BatchNormalization()(x))


def _pre_activation_block(x: Any, filters: int, strides: int) -> Any:
    """Returns the sum of two convolutions and a shortcut."""
    active = _bn_relu(x)
    shortcut = x if strides == 1 else _conv(active, filters, 1, strides)
    y = _bn_relu(_conv(active, filters, 3, strides))
    return layers.Add()([_conv(y, filters, 3), shortcut])


def _post_activation_block(x: Any, filters: int, strides: int) -> Any:
    """Returns the ReLU of the sum of two convolutions and a shortcut."""
    norm = layers.BatchNormalization
    shortcut = x if strides == 1 else norm()(_conv(x, filters, 1, strides))
    y = _bn_relu(_conv(x, filters, 3, strides))
    return layers.ReLU()(layers.Add()([norm()(_conv(y, filters, 3)), shortcut]))


def batches(images: Images, seed: int, scale: float = SCALE) -> tf.data.Dataset:
    """Returns training batches, flipped and shifted at random by up to 2 pixels."""
    return training_batches(images, seed, batch_size=BATCH_SIZE, pad=2, scale=scale)


def scaled(x: np.ndarray, scale: float) -> np.ndarray:
    """Returns float32 images divided by `scale`."""
    return x.astype(np.float32) / scale


def train(
    model: Any,
    images: Images,
    arguments: dict[str, Any],
    epochs: int,
    seed: int,
    scale: float = SCALE,
) -> None:
    """Trains a model for some epochs with arguments for `compile`."""
    keras.utils.set_random_seed(seed)
    model.compile(**arguments, metrics=["accuracy"])
    bar = ProgressBar(model.name)
    model.fit(batches(images, seed, scale), epochs=epochs, verbose=0, callbacks=[bar])


def num_steps(images: Images, epochs: int) -> int:
    """Returns the number of optimizer steps in some epochs."""
    return epochs * (len(images.x_train) // BATCH_SIZE)


def accuracy(model: Any, x: np.ndarray, y: np.ndarray, scale: float = SCALE) -> float:
    """Returns the top-1 accuracy."""
    scores = model.predict(scaled(x, scale), batch_size=500, verbose=0)
    return float((scores.argmax(axis=-1) == y).mean())


def tflite_accuracy(path: Path, x: np.ndarray, y: np.ndarray, scale: float) -> float:
    """Returns the top-1 accuracy of a file under LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    [name] = runner.get_input_details()
    correct = 0
    for start in range(0, len(x), 100):
        chosen = slice(start, start + 100)
        [scores] = runner(**{name: scaled(x[chosen], scale)}).values()
        correct += int((scores.argmax(-1) == y[chosen]).sum())
    return correct / len(x)


def measured(model: Any, images: Images, scale: float = SCALE) -> dict[str, Any]:
    """Returns accuracies on training images, without augmentation, and test images."""
    return {
        "train": accuracy(model, images.x_train, images.y_train, scale),
        "test": accuracy(model, images.x_test, images.y_test, scale),
    }


def exported(
    student: tf_lsq.LSQModel,
    images: Images,
    scale: float = SCALE,
    storage: str = "int8",
) -> dict[str, Any]:
    """Exports a student, and returns the size and accuracy of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        report = tflite_export.export_model(
            student,
            path,
            storage=storage,
            input_type="float32",
            output_type="float32",
            verbose=False,
        )
        accuracy_in_file = tflite_accuracy(path, images.x_test, images.y_test, scale)
    return {"tflite": accuracy_in_file, "bytes": report.file_bytes}


def packed_bytes(student: tf_lsq.LSQModel) -> int:
    """Returns the size of the packed file of a student."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        report = tflite_export.export_model(
            student, path, storage="packed", verbose=False
        )
    return report.file_bytes


def finished(
    student: tf_lsq.LSQModel, images: Images, bits: int, seed: int
) -> dict[str, Any]:
    """Measures and exports a trained student, and returns its figures."""
    figures: dict[str, Any] = {}
    if bits <= REESTIMATED_BITS:
        figures["test, moving averages"] = accuracy(
            student, images.x_test, images.y_test
        )
        tf_lsq.reestimate_batch_norm(student, batches(images, seed))
    return {**figures, **measured(student, images), **exported(student, images)}


@contextlib.contextmanager
def gradient_scale(scale: Callable[[int, int], float]) -> Iterator[None]:
    """Replaces the gradient scale g of the paper, for ablations."""
    original = tf_lsq.lsq.step_gradient_scale
    tf_lsq.lsq.step_gradient_scale = scale
    try:
        yield
    finally:
        tf_lsq.lsq.step_gradient_scale = original


# Name -> g as a function of the number of values that share the step, and of Q_P.
GRADIENT_SCALES: dict[str, Callable[[int, int], float]] = {
    "1 / sqrt(N Q_P)": lambda n, q: 1 / math.sqrt(n * q),
    "1 / sqrt(N)": lambda n, q: 1 / math.sqrt(n),
    "1": lambda n, q: 1.0,
    "10 / sqrt(N Q_P)": lambda n, q: 10 / math.sqrt(n * q),
    "1 / (10 sqrt(N Q_P))": lambda n, q: 0.1 / math.sqrt(n * q),
}


def tfmot_student(model: Any, bits: int) -> Any:
    """Quantizes the network with TF-MOT: its 8-bit default scheme, or n bits."""
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.quantization.keras.experimental.default_n_bit import (  # noqa: E501
        default_n_bit_quantize_scheme as n_bit,
    )

    quantization = tfmot.quantization.keras
    if bits == 8:
        return quantization.quantize_model(model)
    scheme = n_bit.DefaultNBitQuantizeScheme(
        num_bits_weight=bits, num_bits_activation=bits
    )
    with quantization.quantize_scope():
        annotated = quantization.quantize_annotate_model(model)
        return quantization.quantize_apply(annotated, scheme)


def step_differences(student: tf_lsq.LSQModel, x: np.ndarray) -> dict[str, Any]:
    """Returns learned steps and the steps of least squared error.

    Args:
        student: A trained student.
        x: Images for the activations.

    Returns:
        "weights" and "activations" -> layer name -> (learned, least squares).
    """
    steps: dict[str, Any] = {"weights": {}, "activations": {}}
    for layer in wrapped_layers(student):
        best = tf_lsq.lsq.initial_step(
            layer.kernel, layer.quantizer.integer_range(layer.step_variables)
        )
        steps["weights"][layer.name] = (float(layer.step), float(best))
    points = quantization_points(student)
    inside = keras.Model(student.inputs, [point.input for point in points])
    for point, values in zip(points, inside(scaled(x, SCALE)), strict=True):
        best = tf_lsq.lsq.initial_step(values, point.integer_range)
        steps["activations"][point.name] = (float(point.step), float(best))
    return steps


def update_ratios(
    student: tf_lsq.LSQModel, images: Images, iterations: int
) -> dict[str, Any]:
    """Measures the ratio R of every layer at every tenth iteration of training.

    Args:
        student: A compiled student.
        images: What it trains on.
        iterations: How many batches it trains on.

    Returns:
        "weights" and "activations" -> layer name -> "ratio" and "unscaled_ratio".
    """
    x, y = next(iter(batches(images, 1)))
    callback = tf_lsq.Diagnostics(data=(x, y), batch_size=BATCH_SIZE, frequency=10)
    student.fit(
        batches(images, 0).repeat().take(iterations), verbose=0, callbacks=[callback]
    )
    ratios: dict[str, Any] = {"weights": {}, "activations": {}}
    kernels = {layer.name for layer in wrapped_layers(student)}
    for name in callback.history["ratio"]:
        kind = "weights" if name in kernels else "activations"
        ratios[kind][name] = {
            key: callback.history[key][name] for key in ("ratio", "unscaled_ratio")
        }
    return ratios


class Stopwatch:
    """Measures the seconds since its creation."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        """Returns the seconds."""
        return round(time.perf_counter() - self._start, 1)
