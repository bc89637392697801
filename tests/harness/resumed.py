"""Trains one small model for four epochs; run by `test_resume`.

Arguments: a folder, and a mode:

- killed: Backs up and saves at the end of every epoch, and kills itself with SIGKILL in
  the middle of the third.
- compared: Trains without interruption, and resumes from what the killed process left,
  once with `BackupAndRestore` and once from the saved model. Writes all states.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import keras

EPOCHS, BATCH_SIZE, EXAMPLES = 4, 16, 64
layers = keras.layers


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    tf.config.experimental.enable_op_determinism()
    backup = keras.callbacks.BackupAndRestore(str(folder / "backup"))
    saved = folder / "saved.keras"
    if how == "killed":
        train(student_of(), [backup, Saving(saved), Killed(epoch=2, batch=1)])
        return
    loaded = keras.models.load_model(saved)
    done = int(loaded.optimizer.iterations) * BATCH_SIZE // EXAMPLES
    found = {
        "whole": train(student_of(), []),
        # The first batch it sees is not training data.
        "restored": train(student_of(), [backup], first_epoch=-1),
        "loaded": train(loaded, [], initial_epoch=done),
    }
    for name, student in found.items():
        np.savez(folder / f"{name}.npz", epochs=student.history.epoch, **state(student))


def student_of():
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    inputs = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(4)(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(1e-2), loss)
    return student


def train(student, callbacks, initial_epoch=0, first_epoch=0):
    """Trains on data whose order depends on the epoch number."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, 6, 6, 3)).astype(np.float32)
    y = rng.integers(0, 4, EXAMPLES)
    epoch = tf.Variable(first_epoch, dtype=tf.int64)

    def shuffled(_):
        seed = tf.stack([tf.constant(1, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(EXAMPLES), seed)
        images = tf.where(epoch < 0, tf.abs(x) / 2, x)
        pair = tf.gather(images, order), tf.gather(y, order)
        return tf.data.Dataset.from_tensor_slices(pair)

    data = tf.data.Dataset.range(1).flat_map(shuffled).batch(BATCH_SIZE)
    # If Keras does not know an epoch's length, it starts a training step that finds
    # no data, and `iterations` counts it.
    data = data.apply(tf.data.experimental.assert_cardinality(EXAMPLES // BATCH_SIZE))
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda number, logs: epoch.assign(number),
        # The weights are random, and a restored network sees a different first batch.
        on_train_begin=lambda logs: setattr(student, "range_watch", None),
    )
    student.fit(
        data,
        epochs=EPOCHS,
        initial_epoch=initial_epoch,
        callbacks=[count, *callbacks],
        verbose=0,
    )
    return student


def state(student):
    """The whole training state, by position; Keras renames that of loaded models."""
    weights = {f"weight {n}": v.numpy() for n, v in enumerate(student.weights)}
    slots = {f"slot {n}": v.numpy() for n, v in enumerate(student.optimizer.variables)}
    return {**weights, **slots, **tf_lsq.steps(student)}


class Saving(keras.callbacks.Callback):
    """Saves the model at the end of every epoch; a kill cannot leave half a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        new = self.path.with_stem("new")
        self.model.save(new)
        new.replace(self.path)


class Killed(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.place, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
