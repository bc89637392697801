"""Trains one small model under a strategy; run by `test_distribution`.

Arguments: "one", "mirrored" or "worker" (which reads TF_CONFIG), several of them
joined by "+", and the `.json` file for what was found.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

BATCH_SIZE = 16
DEVICES = ("CPU:0", "CPU:1")


def main() -> None:
    kinds, path = sys.argv[1].split("+"), Path(sys.argv[2])
    [cpu] = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration() for _ in DEVICES]
    if "mirrored" in kinds:
        tf.config.set_logical_device_configuration(cpu, devices)
    strategies = {
        "one": tf.distribute.get_strategy,
        "mirrored": lambda: tf.distribute.MirroredStrategy(DEVICES),
        "worker": tf.distribute.MultiWorkerMirroredStrategy,
    }
    found = {}
    for kind in kinds:
        strategy = strategies[kind]()
        found[kind] = {"fit": trained(strategy, arrays())}
        if kind != "mirrored":
            # Each worker has an order of its own.
            task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
            for seed in [task["index"]] if task else range(2):
                name = "shuffled" if task else f"shuffled {seed}"
                found[kind][name] = trained(strategy, shuffled(seed))
        else:
            found[kind]["loop"] = loop(strategy)
    path.write_text(json.dumps(found))


def arrays():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (64, 6, 6, 3)).astype(np.float32)
    # The second half of a global batch, which another replica gets, is larger.
    x *= np.where(np.arange(64) % BATCH_SIZE < BATCH_SIZE // 2, 1, 3)[:, None, None, None]
    return x.astype(np.float32), rng.integers(0, 4, 64)


def shuffled(seed):
    data = tf.data.Dataset.from_tensor_slices(arrays())
    return data.shuffle(64, seed=seed).batch(BATCH_SIZE)


def student_of(strategy, **options):
    import tf_lsq
    from tf_lsq._compat import keras

    layers = keras.layers
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = layers.Input((6, 6, 3), name="image")
        x = layers.Conv2D(8, 3, use_bias=False)(inputs)
        x = layers.ReLU()(layers.BatchNormalization(synchronized=True)(x))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
        model = keras.Model(inputs, layers.Dense(4)(x))
        student = tf_lsq.quantize_model(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        student.compile(keras.optimizers.Adam(1e-2), loss)
    return student


def trained(strategy, data):
    """Losses of the first training steps, learned steps before and after."""
    from tf_lsq._compat import keras

    student = student_of(strategy)
    # Otherwise Keras logs the sum over workers, of losses that are the same already.
    student.distribute_reduction_method = "first"
    losses, first = [], {}
    callback = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: first.update(numbers(student)),
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]),
    )
    callback._supports_tf_logs = False
    options = {"verbose": 0, "callbacks": [callback], "shuffle": False}
    if isinstance(data, tuple):
        student.fit(*data, batch_size=BATCH_SIZE, **options)
    else:
        student.fit(data, **options)
    weights = [float(value) for w in student.get_weights() for value in w.flat]
    return {
        "losses": losses,
        "first": first,
        "last": numbers(student),
        "weights": weights,
    }


def numbers(student):
    import tf_lsq

    return {name: step.tolist() for name, step in tf_lsq.steps(student).items()}


def loop(strategy):
    """A training loop without `fit`: the error without steps, then losses."""
    import tf_lsq
    from tf_lsq._compat import keras

    student = student_of(strategy)
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH_SIZE)

    def step_of_replica(x, y):
        with tf.GradientTape() as tape:
            scores = student(x, training=True)
            each = keras.losses.sparse_categorical_crossentropy(y, scores, True)
            loss = tf.nn.compute_average_loss(each, global_batch_size=BATCH_SIZE)
        variables = student.trainable_variables
        gradients = tape.gradient(loss, variables)
        student.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def train():
        @tf.function
        def step(x, y):
            losses = strategy.run(step_of_replica, (x, y))
            return strategy.reduce("SUM", losses, axis=None)

        batches = strategy.experimental_distribute_dataset(data)
        return [float(step(x, y)) for x, y in batches]

    try:
        train()
    except RuntimeError as error:
        message = str(error)
    else:
        message = ""
    tf_lsq.calibrate(student, arrays()[0])
    return {"error": message, "losses": train(), "last": numbers(student)}


if __name__ == "__main__":
    main()
