"""Training for `imagenet.py`: devices and workers, networks, the paper's recipe."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras as keras
from imagenet_data import ImageNet
from progress import ProgressBar

import tf_lsq

NETWORKS = (
    *(f"preact_resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "vgg16_bn",
    "squeezenext23_2x",
)
# Statistics of ImageNet's pixels: red, green and blue, 0 to 255.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
FLOAT_RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Setting:
    """The settings that all trainings share.

    Attributes:
        args: The command line.
        images: The data set.
        strategy: How the work is distributed.
        context: The number of workers, and the index of this one.
    """

    args: argparse.Namespace
    images: ImageNet
    strategy: tf.distribute.Strategy
    context: tf.distribute.InputContext

    @property
    def chief(self) -> bool:
        """Whether this worker writes the results."""
        return self.context.input_pipeline_id == 0


def setting_of(args: argparse.Namespace) -> Setting:
    """Returns the shared settings; the strategy must be created first."""
    strategy = STRATEGIES[args.strategy]()
    if args.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(args.seed)
    keras.mixed_precision.set_global_policy(args.precision)
    builder = tfds.builder(args.dataset, data_dir=args.data_dir)
    sizes = (args.image_size, args.batch_size, args.buffer)
    args.output.mkdir(parents=True, exist_ok=True)
    images = ImageNet(builder, *sizes, args.seed)
    return Setting(args, images, strategy, _context(strategy))


def _chosen_strategy() -> tf.distribute.Strategy:
    """Returns the strategy for the available workers and GPUs."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


STRATEGIES = {
    "auto": _chosen_strategy,
    "one": tf.distribute.get_strategy,
    "mirrored": tf.distribute.MirroredStrategy,
    "workers": tf.distribute.MultiWorkerMirroredStrategy,
}


def _context(strategy: tf.distribute.Strategy) -> tf.distribute.InputContext:
    """Returns the number of workers, and the index of this one."""
    resolver, jobs = strategy.cluster_resolver, {}
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        jobs = resolver.cluster_spec().as_dict()
    if not jobs:
        return tf.distribute.InputContext()
    tasks = [(job, n) for job in sorted(jobs) for n in range(len(jobs[job]))]
    index = tasks.index((resolver.task_type, resolver.task_id))
    return tf.distribute.InputContext(len(tasks), index)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker has called it."""
    ones = strategy.run(tf.function(lambda: tf.constant(1.0)))
    strategy.reduce("SUM", ones, axis=None)


def _network(setting: Setting) -> keras.Model:
    """Returns an untrained network that takes pixels from 0 to 255."""
    args = setting.args
    shape = (args.image_size, args.image_size, 3)
    inputs = keras.Input(shape, name="image")
    x = keras.layers.Normalization(
        mean=MEAN, variance=[d**2 for d in DEVIATION], dtype="float32", name="pixels"
    )(inputs)
    build = getattr(tf_lsq.models, args.network)
    x = build(shape, setting.images.classes, args.width)(x)
    # With 16-bit logits, the loss would also be computed in 16 bits.
    x = keras.layers.Activation("linear", dtype="float32", name="scores")(x)
    return keras.Model(inputs, x, name=args.network)


def float_model(setting: Setting) -> keras.Model:
    """Returns the trained float network."""
    given = setting.args.float_model
    if given is not None:
        return keras.models.load_model(given, compile=False)
    model = _network(setting)
    model.load_weights(setting.args.output / "float.keras")
    return model


def train_float(setting: Setting) -> None:
    """Trains the float network, unless there is a trained one."""
    args = setting.args
    if args.float_model is None and not (args.output / "float.keras").exists():
        with setting.strategy.scope():
            model = _network(setting)
        options = {"learning_rate": FLOAT_RATE, "from_logits": True}
        _fit(setting, model, 8, args.float_epochs, "float", **options)
        _save(setting, model, "float")


def train_lsq(setting: Setting, bits: int, name: str) -> None:
    """Trains the network with LSQ from the float network, unless already trained."""
    args = setting.args
    if (args.output / f"{name}.keras").exists():
        return
    with setting.strategy.scope():
        teacher = float_model(setting)
        student = tf_lsq.quantize_model(teacher, weight_bits=bits, activation_bits=bits)
        model = tf_lsq.Distiller(student, teacher) if args.distill else student
    _fit(setting, model, bits, 1 if bits == 8 else args.epochs, name)
    _save(setting, student, name)


def _fit(
    setting: Setting, model: Any, bits: int, epochs: int, name: str, **options: Any
) -> None:
    """Trains with the paper's recipe, continuing after the last finished epoch."""
    with setting.strategy.scope():
        arguments = tf_lsq.recipe(bits, epochs * setting.images.steps, **options)
        top5 = keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")
        model.compile(**arguments, metrics=["accuracy", top5])
    # By default Keras sums what workers log, although each logs the global figures.
    model.distribute_reduction_method = "first"
    epoch = tf.Variable(0, dtype=tf.int64)
    path = setting.args.output / name
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda n, _: epoch.assign(n)),
        # The backup is deleted when the model is saved.
        keras.callbacks.BackupAndRestore(
            _backup(setting, name), delete_checkpoint=False
        ),
    ]
    if setting.chief:
        log = keras.callbacks.CSVLogger(f"{path}.csv", append=True)
        callbacks += [ProgressBar(name), log]
    if name != "float":  # On all workers: it reads variables that they must sum.
        callbacks.append(tf_lsq.Diagnostics(f"{path}-steps" if setting.chief else None))
    model.fit(
        setting.images.training(epoch, setting.context),
        validation_data=setting.images.validation(),
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
    )


def _backup(setting: Setting, name: str) -> str:
    """Returns the folder with the state of an unfinished training."""
    return str(setting.args.output / f"{name}-backup")


def _save(setting: Setting, model: keras.Model, name: str) -> None:
    """Saves a complete model under its name.

    Every worker must save, because saving reads the batch norm statistics of all.
    """
    path = setting.args.output / f"{name}.keras"
    own = path.with_stem(f"{name}-{setting.context.input_pipeline_id}")
    model.save(own)
    if setting.chief:
        own.replace(path)
        shutil.rmtree(_backup(setting, name))
    else:
        own.unlink()
    wait_for_all(setting.strategy)
