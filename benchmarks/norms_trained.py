"""Trains a network with many normalizations in each of their forms, and exports it.

    python -m benchmarks.norms_trained --data-dir ~/tensorflow_datasets
    python -m benchmarks.norms_trained --data-dir DIR --seeds 3 --epochs 2

An MLP mixer reads the rows of Fashion-MNIST as tokens: nine layer normalizations on one
residual stream. It is trained in float; each student starts from these weights, and
trains with the same batches. Accuracies are those of 10,000 test images: of the
student, and of the file, which the integer twin computes. Times are of one inference
under LiteRT with XNNPACK on one thread.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow_datasets as tfds
import tf_keras as keras

import tf_lsq
import tflite_export
from tf_lsq.norm_forms import NAMES
from tflite_export.build import build_file
from tflite_export.freezing import read_model

from .norms import inference
from .timing import machine, side_by_side

_TOKENS, _WIDTH, _BLOCKS, _CLASSES, _BATCH = 28, 64, 4, 10, 128
_ROUNDS, _WARM_UP = 50, 3
_BITS = ((8, 8), (4, 8), (4, 4))
FORMS: dict[str, dict[str, Any]] = {
    **{name: {"norm_form": name} for name in NAMES},
    "float": {"overrides": {"norm_.*": "float"}},
}


def main() -> None:
    """Prints a row per bits and form."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.norms_trained", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--float-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int, default=None, help="the first so many")
    parser.add_argument("--bits", type=int, default=len(_BITS))
    args = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    train, test = (
        [array[: args.images] for array in _images(split, args.data_dir)]
        for split in ("train", "test")
    )
    print("| bits | form | seed | student | file | operators | bytes | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        model = mixer()
        accuracy = _trained(model, train, test, args.float_epochs, 1e-3)
        print(f"| float | | {seed} | {accuracy:.2%} | | | | |", flush=True)
        for bits in _BITS[: args.bits]:
            _print_rows(model, bits, seed, train, test, args.epochs)


def _images(split: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels of Fashion-MNIST, float32 `[examples, 28, 28]`."""
    images, labels = tfds.as_numpy(
        tfds.load(
            "fashion_mnist",
            split=split,
            data_dir=data_dir,
            download=data_dir is None,
            batch_size=-1,
            as_supervised=True,
        )
    )
    return images[..., 0].astype(np.float32), labels


def _print_rows(
    model: keras.Model, bits: tuple[int, int], seed: int, train: Any, test: Any, n: int
) -> None:
    """Prints a row per form."""
    rows, calls = {}, {}
    for name, options in FORMS.items():
        keras.utils.set_random_seed(seed)
        student = tf_lsq.quantize_model(
            model, weight_bits=bits[0], activation_bits=bits[1], **options
        )
        accuracy = _trained(student, train, test, n, 3e-4)
        file = build_file(read_model(student))
        scores = tflite_export.integer_twin(student).predict(test[0], 500, verbose=0)
        found = float(np.mean(scores.argmax(-1) == test[1]))
        sizes = f"{len(file.graph.ops)} | {len(file.content)}"
        rows[name] = f"{accuracy:.2%} | {found:.2%} | {sizes}"
        calls[name] = inference(file)
    times = side_by_side(calls, _ROUNDS, _WARM_UP)
    for name, row in rows.items():
        label = f"{bits[0]}/{bits[1]} | {name} | {seed}"
        print(f"| {label} | {row} | {times[name].milliseconds()} |", flush=True)


def mixer() -> keras.Model:
    """Returns an MLP mixer of the rows of an image, with logits.

    Reference: Tolstikhin et al., "MLP-Mixer", 2021, https://arxiv.org/abs/2105.01601
    """
    layers = keras.layers
    inputs = layers.Input((_TOKENS, _TOKENS), name="rows")
    x = layers.Dense(_WIDTH, name="embed")(layers.Rescaling(1 / 255)(inputs))
    for number in range(_BLOCKS):
        y = layers.LayerNormalization(name=f"norm_tokens_{number}")(x)
        y = layers.Permute((2, 1))(y)
        y = layers.Dense(_WIDTH, "gelu", name=f"tokens_up_{number}")(y)
        y = layers.Dense(_TOKENS, name=f"tokens_down_{number}")(y)
        x = layers.Add(name=f"sum_tokens_{number}")([x, layers.Permute((2, 1))(y)])
        y = layers.LayerNormalization(name=f"norm_channels_{number}")(x)
        y = layers.Dense(2 * _WIDTH, "gelu", name=f"channels_up_{number}")(y)
        y = layers.Dense(_WIDTH, name=f"channels_down_{number}")(y)
        x = layers.Add(name=f"sum_channels_{number}")([x, y])
    x = layers.LayerNormalization(name="norm_head")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(_CLASSES, name="scores")(x))


def _trained(
    model: keras.Model, train: Any, test: Any, epochs: int, rate: float
) -> float:
    """Trains a model with Adam and a cosine; returns its accuracy."""
    steps = epochs * (len(train[0]) // _BATCH + 1)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(*train, _BATCH, epochs, verbose=0)
    return model.evaluate(*test, 500, verbose=0)[1]


if __name__ == "__main__":
    main()
