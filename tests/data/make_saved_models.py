"""Makes the models and files that later versions must go on to read.

    python tests/data/make_saved_models.py

They were made once, by version 0.1.0, before steps were bounded by the model. Make
others beside them where a new version writes something new; leave these as they are.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tf_keras as keras

import tf_lsq
import tflite_export

FOLDER = Path(__file__).parent
layers = keras.layers


def residual() -> keras.Model:
    """Returns a small residual network with batch norms that ends in probabilities."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = start = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(6, 1)(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([start, x]))
    scores = layers.Dense(4, activation="softmax", name="scores")(x)
    return keras.Model(inputs, scores, name="residual")


def mixed() -> keras.Model:
    """Returns a network with PReLU, swish and a concatenation that ends in logits."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, strides=2)(inputs)
    x = layers.PReLU("uniform", shared_axes=[1, 2])(x)
    y = layers.Conv2D(4, 1, activation="swish")(x)
    x = layers.Flatten()(layers.Concatenate()([x, y]))
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(4, name="scores")(x), name="mixed")


def data() -> tuple[np.ndarray, np.ndarray]:
    """Returns images and classes."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (64, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 4, 64)


def main() -> None:
    """Trains, saves and exports both."""
    x, y = data()
    outputs = {}
    for make, suffix, storage, options in (
        (residual, ".keras", "packed", {"weight_bits": 4, "activation_bits": 4}),
        (
            mixed,
            ".h5",
            "int8",
            {
                "weight_bits": 2,
                "activation_bits": 3,
                "per_channel": True,
                "asymmetric_activations": True,
            },
        ),
    ):
        keras.utils.set_random_seed(0)
        model = make()
        student = tf_lsq.quantize_model(model, **options)
        student.compile(**tf_lsq.recipe(weight_bits=4, steps=8), metrics=["accuracy"])
        student.fit(x, y, batch_size=16, epochs=2, verbose=0)
        student.save(FOLDER / f"{model.name}{suffix}")
        path = FOLDER / f"{model.name}.tflite"
        tflite_export.export_model(student, path, storage=storage)
        outputs[model.name] = student.predict(x, verbose=0)
    np.savez_compressed(FOLDER / "outputs.npz", **outputs)


if __name__ == "__main__":
    main()
