"""Trains one small model under a strategy; run by `test_training_distribution`.

Arguments: "one", "mirrored" or "worker" (which reads TF_CONFIG), or several of them
joined by "+"; then the `.json` file for the results.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import keras

BATCH_SIZE, EXAMPLES = 16, 64
DEVICES = ("CPU:0", "CPU:1")
layers = keras.layers


def main() -> None:
    kinds, path = sys.argv[1].split("+"), Path(sys.argv[2])
    found = {}
    if "mirrored" in kinds:
        [cpu] = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration() for _ in DEVICES]
        tf.config.set_logical_device_configuration(cpu, devices)
    if "one" in kinds:
        strategy = tf.distribute.get_strategy()
        found["one"] = trained(strategy, arrays())
        found["one, shuffled"] = [trained(strategy, shuffled(seed)) for seed in (0, 1)]
        found["one, loop"] = loop(strategy)
        found["one, distilled"] = distilled(strategy)
        found["one, bounded"] = bounded(strategy)
        found["one, followed"] = followed(strategy)
    if "mirrored" in kinds:
        strategy = tf.distribute.MirroredStrategy(DEVICES)
        found["mirrored"] = trained(strategy, arrays())
        found["mirrored, loop"] = loop(strategy)
        found["mirrored, distilled"] = distilled(strategy)
        found["mirrored, bounded"] = bounded(strategy)
        found["mirrored, followed"] = followed(strategy)
        found["decayed"] = decayed(strategy)
        found["errors"] = errors(strategy)
    if "worker" in kinds:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        found["worker"] = trained(strategy, arrays())
        # A different order for every worker.
        number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        found["worker, shuffled"] = trained(strategy, shuffled(number))
    path.write_text(json.dumps(found))


def arrays():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (EXAMPLES, 6, 6, 3)).astype(np.float32)
    # The second replica's part of each global batch has larger values.
    x[np.arange(EXAMPLES) % BATCH_SIZE >= BATCH_SIZE // 2] *= 3
    return x, rng.integers(0, 4, EXAMPLES)


def shuffled(seed):
    data = tf.data.Dataset.from_tensor_slices(arrays())
    return data.shuffle(EXAMPLES, seed=seed).batch(BATCH_SIZE)


def student_of(strategy):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = layers.Input((6, 6, 3), name="image")
        x = layers.Conv2D(8, 3, use_bias=False)(inputs)
        x = layers.ReLU()(layers.BatchNormalization(synchronized=True)(x))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
        student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(4)(x)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # Adam would amplify rounding errors of small gradients.
        student.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return student


def trained(strategy, data):
    """Losses of the first training steps, and learned steps before and after."""
    student = student_of(strategy)
    # Keras adds up the workers' logs, but each has the loss of the whole batch.
    student.distribute_reduction_method = "first"
    losses, first = [], {}
    callback = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: (
            unwatched(student),
            first.update(numbers(student)),
        ),
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]),
    )
    diagnostics = tf_lsq.Diagnostics(frequency=1)
    options = {"verbose": 0, "callbacks": [callback, diagnostics]}
    if isinstance(data, tuple):
        student.fit(*data, batch_size=BATCH_SIZE, shuffle=False, **options)
    else:
        student.fit(data, **options)
    weights = [float(value) for w in student.get_weights() for value in w.flat]
    last = numbers(student)
    return {
        "losses": losses,
        "first": first,
        "last": last,
        "weights": weights,
        "records": diagnostics.history["batch"],
    }


def unwatched(student):
    """Turns the range watch off, as with several workers; rounding may affect it."""
    student.range_watch = None


def followed(strategy):
    """Steps before and after following ranges that a larger kernel has outgrown."""
    student = student_of(strategy)
    tf_lsq.calibrate(student, arrays()[0])
    before = numbers(student)
    kernel = student.get_layer(student.layers[2].name).kernel
    kernel.assign(5 * kernel)
    with strategy.scope():  # As in `fit`.
        student.follow_ranges()
    return [before, numbers(student)]


def distilled(strategy):
    """Logs and learned steps with a teacher and the paper's recipe."""
    student = student_of(strategy)
    with strategy.scope():
        layer = layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(2))
        teacher = keras.Sequential([layers.Flatten(input_shape=(6, 6, 3)), layer])
        distiller = tf_lsq.Distiller(student, teacher, temperature=2.0)
        # A decay strong enough to be noticed if it were missing on one replica.
        arguments = tf_lsq.recipe(4, 8, weight_decay=0.5)
        distiller.compile(**arguments, metrics=["accuracy"])
    callback = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: unwatched(student)
    )
    options = {"batch_size": BATCH_SIZE, "shuffle": False, "verbose": 0}
    options["callbacks"] = [callback]
    logs = distiller.fit(*arrays(), epochs=2, **options).history
    return {"logs": logs, "last": numbers(student)}


def bounded(strategy):
    """Relative movement of steps, for gradients below and above their bound."""
    student = student_of(strategy)
    with strategy.scope():
        student.compile(
            keras.optimizers.SGD(1e-2),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            loss_weights=30.0,
        )
    tf_lsq.calibrate(student, arrays()[0])
    student.range_watch = None
    x, y = (array[:BATCH_SIZE] for array in arrays())
    student.fit(x, y, batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    variables = [v for v in student.trainable_variables if "_step" in v.name]
    return [float(v.numpy()) - 1.0 for v in variables]


def decayed(strategy):
    """Names of the variables of each replica that AdamW of the recipe decays."""
    student = student_of(strategy)
    with strategy.scope():
        student.compile(**tf_lsq.recipe(4, 8, variant="adam"))
    optimizer = student.optimizer
    optimizer.build(student.trainable_variables)
    each = [v for one in student.trainable_variables for v in one.values]
    return [v.name for v in each if optimizer._use_weight_decay(v)]


def numbers(student):
    return {name: step.tolist() for name, step in tf_lsq.steps(student).items()}


def train_without_fit(student, strategy):
    """Returns the losses of a training loop."""

    def step_of_replica(x, y):
        with tf.GradientTape() as tape:
            scores = student(x, training=True)
            each = keras.losses.sparse_categorical_crossentropy(y, scores, True)
            loss = tf.nn.compute_average_loss(each, global_batch_size=BATCH_SIZE)
        variables = student.trainable_variables
        gradients = tape.gradient(loss, variables)
        student.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    @tf.function
    def step(x, y):
        return strategy.reduce("SUM", strategy.run(step_of_replica, (x, y)), axis=None)

    return [float(step(x, y)) for x, y in distributed(strategy)]


def distributed(strategy):
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH_SIZE)
    return strategy.experimental_distribute_dataset(data)


def loop(strategy):
    """Losses and learned steps of training without `fit`."""
    student = student_of(strategy)
    tf_lsq.calibrate(student, arrays()[0])
    first = numbers(student)
    losses = train_without_fit(student, strategy)
    return {"losses": losses, "first": first, "last": numbers(student)}


def errors(strategy):
    """Error messages if activation steps cannot be initialised."""
    found = []
    student = student_of(strategy)
    for call in (
        lambda: train_without_fit(student, strategy),
        lambda: student.fit(distributed(strategy), verbose=0),
    ):
        try:
            call()
        except RuntimeError as error:
            found.append(str(error))
    return found


if __name__ == "__main__":
    main()
