"""Measures two design decisions of tf_lsq on handwritten digits.

    python examples/ablations.py

1. Plain Adam: a step trained as a factor of its initial value, as here, compared with
   a step that is itself the variable.
2. Initial values of the steps: the paper's, the largest value, least squared error.

The network is that of the quickstart. Accuracies are means over seeds on the held-out
half of the digits.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from datasets import Images, load
from quickstart import BATCH_SIZE, residual_network
from tqdm import tqdm

import tf_lsq

LSQModel = tf_lsq.LSQModel


def main() -> None:
    """Runs both measurements and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--float-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    images = load("digits")
    optimizers: dict[tuple[str, int], list[float]] = {}
    first: dict[tuple[str, int], list[float]] = {}
    trained: dict[tuple[str, int], list[float]] = {}
    floats = []
    bar = tqdm(total=args.seeds * (1 + 9 + 9), unit="training")
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        model = residual_network((8, 8, 1), (16, 32, 64))
        floats.append(_fit(model, images, _sgd(images, 0.1, args.float_epochs), args))
        bar.update()
        for bits in (4, 3, 2):
            for name in ("SGD", "Adam", "Adam, bare steps"):
                student = _student(model, images, bits, "mse")
                optimizer = keras.optimizers.Adam(1e-3)
                if name == "SGD":
                    optimizer = _sgd(images, 0.01, args.epochs)
                if "bare" in name:
                    _make_steps_bare(student)
                accuracy = _fit(student, images, optimizer, args)
                optimizers.setdefault((name, bits), []).append(accuracy)
                bar.update()
        for bits, rate in ((8, 0.001), (4, 0.01), (2, 0.01)):
            for init in ("lsq", "max", "mse"):
                student = _student(model, images, bits, init)
                first.setdefault((init, bits), []).append(_accuracy(student, images))
                optimizer = _sgd(images, rate, args.epochs)
                accuracy = _fit(student, images, optimizer, args)
                trained.setdefault((init, bits), []).append(accuracy)
                bar.update()
    bar.close()
    print(f"float: {100 * np.mean(floats):.2f}; {args.seeds} seeds, {args}")
    _print("optimizer", optimizers)
    _print("initial value, before training", first)
    _print("initial value, after training", trained)
    print(f"tensorflow {tf.__version__}, tf_lsq {tf_lsq.__version__}")


def _sgd(images: Images, rate: float, epochs: int) -> keras.optimizers.Optimizer:
    """Returns the paper's optimizer."""
    steps = epochs * -(-len(images.x_train) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.SGD(schedule, momentum=0.9)


def _student(
    model: keras.Model, images: Images, bits: int, step_init: str
) -> tf_lsq.LSQModel:
    """Returns a calibrated student with the same bits in every layer."""
    student = tf_lsq.quantize_model(
        model,
        weight_bits=bits,
        activation_bits=bits,
        first_last_bits=8,
        step_init=step_init,
    )
    tf_lsq.calibrate(student, images.x_train / images.maximum)
    return student


def _make_steps_bare(student: tf_lsq.LSQModel) -> None:
    """Makes each step itself the variable: factor = step, unit = 1."""
    variables = {variable.name: variable for variable in student.weights}
    for name, unit in variables.items():
        if name.endswith("_step_unit:0"):
            step = variables[name.replace("_step_unit:0", "_step:0")]
            step.assign(step * unit)
            unit.assign(tf.ones_like(unit))


def _fit(
    model: keras.Model,
    images: Images,
    optimizer: keras.optimizers.Optimizer,
    args: argparse.Namespace,
) -> float:
    """Trains a model and returns its accuracy."""
    model.compile(optimizer, "sparse_categorical_crossentropy")
    epochs = args.epochs if isinstance(model, LSQModel) else args.float_epochs
    x = images.x_train / images.maximum
    model.fit(x, images.y_train, BATCH_SIZE, epochs=epochs, verbose=0)
    return _accuracy(model, images)


def _accuracy(model: keras.Model, images: Images) -> float:
    """Returns the top-1 accuracy on the held-out half."""
    scores = model.predict(images.x_test / images.maximum, verbose=0)
    return float((scores.argmax(axis=-1) == images.y_test).mean())


def _print(title: str, found: dict[tuple[str, int], list[float]]) -> None:
    """Prints one table in Markdown."""
    widths = sorted({bits for _, bits in found}, reverse=True)
    print(f"\n| {title} | {' | '.join(f'{bits}/{bits}' for bits in widths)} |")
    print("|---" * (len(widths) + 1) + "|")
    for name in dict.fromkeys(name for name, _ in found):
        cells = [f"{100 * np.mean(found[name, bits]):.2f}" for bits in widths]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
