"""The paper's training on ImageNet (Esser et al., ICLR 2020, arXiv 1902.08153).

Trains a network in float, if no trained one is given, then from there with LSQ at
each bit width, exports every result and verifies it on validation images. It needs
`imagenet2012` prepared by TensorFlow Datasets in `--data-dir`. On one GPU, or on all
that a machine has (`--strategy auto`, the default, looks):

    python examples/imagenet.py --data-dir ~/tensorflow_datasets --output resnet18
    python examples/imagenet.py ... --distill --precision mixed_bfloat16

On several workers, start it on each with TF_CONFIG set, as
`tf.distribute.MultiWorkerMirroredStrategy` says, and with an `--output` that all of
them share; the first one exports:

    TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]},
                "task": {"type": "worker", "index": 0}}' python examples/imagenet.py ...

A killed training goes on with its first unfinished epoch when it is started again
with the same arguments; with `--deterministic`, and a network without dropout, bit by
bit as if it had not been killed. What is finished is kept in `--output`, with a `.csv`
file per training and the learned steps for TensorBoard, and is not repeated.

The settings are the paper's: batches of 256, SGD with momentum 0.9, cosine decay from
0.01 over 90 epochs (8 bits: 0.001 over 1), weight decay by bit width; random 224x224
crops, mirrored half of the time, of images whose shorter side is 256. The float
network starts at a learning rate of 0.1. All of that belongs to the batch size.

ResNet-18's top-1 accuracy IN THE PAPER, not measured with this script:

    bits            float   2      3      4      8
    LSQ             70.5    67.6   70.2   71.1   71.1
    distilled               67.9   70.6   71.2
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras as keras
from imagenet_data import ImageNet
from progress import ProgressBar

import tf_lsq
import tflite_export

NETWORKS = (
    *(f"preact_resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "vgg16_bn",
    "squeezenext23_2x",
)
# Of ImageNet's pixels: red, green and blue, 0 to 255.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
FLOAT_RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all trainings share.

    Attributes:
        args: The command line.
        images: The data set.
        strategy: How the work is distributed.
        context: Which worker this is.
    """

    args: argparse.Namespace
    images: ImageNet
    strategy: tf.distribute.Strategy
    context: tf.distribute.InputContext

    @property
    def chief(self) -> bool:
        """Whether this worker writes the results."""
        return self.context.input_pipeline_id == 0


def main() -> None:
    """Runs what is missing and prints the table."""
    args = _arguments()
    setting = _setting(args)
    rows = {"float32": _float_row(setting)}
    for bits in args.bits:
        rows[f"LSQ {bits}/{bits}"] = _lsq_row(setting, bits)
    if setting.chief:
        _print_table(rows)
    _wait_for_all(setting.strategy)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-dir", default=None, help="where TensorFlow Datasets keeps its files")
    add("--dataset", default="imagenet2012")
    add("--output", type=Path, default=Path("imagenet"))
    add("--network", choices=NETWORKS, default="preact_resnet18")
    add("--width", type=float, default=1.0, help="factor on the number of channels")
    add("--float-model", type=Path, help="trained, takes pixels from 0 to 255")
    add("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    add("--distill", action="store_true", help="the float network is the teacher")
    add("--reestimated-bits", type=int, nargs="*", default=[])
    add("--float-epochs", type=int, default=90)
    add("--epochs", type=int, default=90, help="with LSQ; 1 at 8 bits")
    add("--batch-size", type=int, default=256, help="of all workers together")
    add("--image-size", type=int, default=224)
    add("--buffer", type=int, default=16384, help="examples shuffled at a time")
    add("--verified", type=int, default=1000, help="images the files are run on")
    add("--strategy", choices=STRATEGIES, default="auto")
    add("--precision", default="float32", help="float32, mixed_bfloat16, mixed_float16")
    add("--deterministic", action="store_true", help="slower")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def _setting(args: argparse.Namespace) -> Setting:
    """Returns what all trainings share; strategies have to be made first."""
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
    """Returns the strategy for the workers and GPUs there are."""
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
    """Returns how many workers there are, and which one this is."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return tf.distribute.InputContext()
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    tasks = [(job, n) for job in sorted(jobs) for n in range(len(jobs[job]))]
    index = tasks.index((resolver.task_type, resolver.task_id))
    return tf.distribute.InputContext(len(tasks), index)


def _wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it."""
    ones = strategy.run(tf.function(lambda: tf.constant(1.0)))
    strategy.reduce("SUM", ones, axis=None)


# --- Training -------------------------------------------------------------------


def _network(setting: Setting) -> keras.Model:
    """Returns a network without trained weights that takes pixels from 0 to 255."""
    args = setting.args
    shape = (args.image_size, args.image_size, 3)
    inputs = keras.Input(shape, name="image")
    x = keras.layers.Normalization(
        mean=MEAN, variance=[d**2 for d in DEVIATION], dtype="float32", name="pixels"
    )(inputs)
    build = getattr(tf_lsq.models, args.network)
    x = build(shape, setting.images.classes, args.width)(x)
    # The loss of 16-bit logits would be computed in 16 bits.
    x = keras.layers.Activation("linear", dtype="float32", name="scores")(x)
    return keras.Model(inputs, x, name=args.network)


def _float_model(setting: Setting) -> keras.Model:
    """Returns the trained float network."""
    given = setting.args.float_model
    if given is not None:
        return keras.models.load_model(given, compile=False)
    model = _network(setting)
    model.load_weights(setting.args.output / "float.keras")
    return model


def _train_float(setting: Setting) -> None:
    """Trains the float network, unless there is one."""
    args = setting.args
    if args.float_model is None and not (args.output / "float.keras").exists():
        with setting.strategy.scope():
            model = _network(setting)
        options = {"learning_rate": FLOAT_RATE, "from_logits": True}
        _fit(setting, model, 8, args.float_epochs, "float", **options)
        _save(setting, model, "float")


def _train_lsq(setting: Setting, bits: int, name: str) -> None:
    """Trains the network with LSQ from the float network, unless it is trained."""
    args = setting.args
    if (args.output / f"{name}.keras").exists():
        return
    with setting.strategy.scope():
        teacher = _float_model(setting)
        student = tf_lsq.quantize_model(teacher, weight_bits=bits, activation_bits=bits)
        model = tf_lsq.Distiller(student, teacher) if args.distill else student
    _fit(setting, model, bits, 1 if bits == 8 else args.epochs, name)
    _save(setting, student, name)


def _fit(
    setting: Setting, model: Any, bits: int, epochs: int, name: str, **options: Any
) -> None:
    """Trains with the paper's recipe, from the last finished epoch on."""
    with setting.strategy.scope():
        arguments = tf_lsq.recipe(bits, epochs * setting.images.steps, **options)
        model.compile(**arguments, metrics=_metrics())
    # Keras adds up what workers log, though each has the figures of all.
    model.distribute_reduction_method = "first"
    epoch = tf.Variable(0, dtype=tf.int64)
    path = setting.args.output / name
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda n, _: epoch.assign(n)),
        # It is deleted when the model is saved.
        keras.callbacks.BackupAndRestore(
            _backup(setting, name), delete_checkpoint=False
        ),
    ]
    if setting.chief:
        callbacks += [
            ProgressBar(name),
            keras.callbacks.CSVLogger(f"{path}.csv", append=True),
        ]
        if name != "float":
            callbacks.append(tf_lsq.Diagnostics(f"{path}-steps"))
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
    """Saves a model under its name when it is complete.

    Every worker has to save, because the statistics of batch norms are read from all.
    """
    path = setting.args.output / f"{name}.keras"
    own = path.with_stem(f"{name}-{setting.context.input_pipeline_id}")
    model.save(own)
    if setting.chief:
        own.replace(path)
        shutil.rmtree(_backup(setting, name))
    else:
        own.unlink()
    _wait_for_all(setting.strategy)


def _metrics() -> list[Any]:
    """Returns top-1 and top-5 accuracy."""
    kind = keras.metrics.SparseTopKCategoricalAccuracy
    return [kind(k, name=f"top{k}") for k in (1, 5)]


# --- Results --------------------------------------------------------------------


def _float_row(setting: Setting) -> dict[str, Any]:
    """Returns the accuracy of the float network."""
    _train_float(setting)
    if not setting.chief:
        return {}
    return _once(setting, "float", lambda: _accuracy(setting, _float_model(setting)))


def _lsq_row(setting: Setting, bits: int) -> dict[str, Any]:
    """Returns what became of the network at one bit width.

    The first worker does all that comes after training by itself, with a copy of the
    model that knows of no strategy.
    """
    name = f"lsq{bits}-distilled" if setting.args.distill else f"lsq{bits}"
    _train_lsq(setting, bits, name)
    if not setting.chief:
        return {}
    return _once(setting, name, lambda: _exported(setting, bits, name))


def _once(setting: Setting, name: str, found: Callable[[], Any]) -> dict[str, Any]:
    """Returns a result that is kept in a file."""
    path = setting.args.output / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(found(), indent=2))
    return json.loads(path.read_text())


def _accuracy(setting: Setting, model: keras.Model) -> dict[str, float]:
    """Returns accuracies on all validation images."""
    model.compile(metrics=_metrics())
    found = model.evaluate(setting.images.validation(), verbose=0, return_dict=True)
    return {"top1": found["top1"], "top5": found["top5"]}


def _exported(setting: Setting, bits: int, name: str) -> dict[str, Any]:
    """Exports a trained network and verifies the file."""
    args = setting.args
    student = keras.models.load_model(args.output / f"{name}.keras", compile=False)
    row: dict[str, Any] = {}
    if bits in args.reestimated_bits:
        row["before"] = _accuracy(setting, student)["top1"]
        epoch = tf.Variable(0, dtype=tf.int64)
        data = setting.images.training(epoch, tf.distribute.InputContext())
        tf_lsq.reestimate_batch_norm(student, data)
        student.save(args.output / f"{name}-reestimated.keras")
    row |= _accuracy(setting, student)
    path = args.output / f"{name}.tflite"
    report = tflite_export.export_model(student, path)
    data = setting.images.validation(1).unbatch().take(args.verified).batch(64)
    found = tflite_export.verify_tflite(path, student, data)
    print(report, found, sep="\n")
    return {
        **row,
        "verified": found.num_examples,
        "keras": found.keras_accuracy,
        "tflite": found.tflite_accuracy,
        "agreement": found.top1_agreement,
        "off_by_one": found.off_by_one,
        "bytes": report.file_bytes,
    }


def _print_table(rows: dict[str, Any]) -> None:
    """Prints the results in Markdown; the last columns are of the verified images."""
    columns = {
        "before": "top-1, moving averages",
        "top1": "top-1",
        "top5": "top-5",
        "keras": "top-1, verified",
        "tflite": "top-1, TFLite",
        "agreement": "top-1 agreement",
        "off_by_one": "codes off by one",
    }
    print(f"| network | {' | '.join(columns.values())} | bytes |")
    print("|---" * (len(columns) + 2) + "|")
    for name, row in rows.items():
        shown = [f"{100 * row[key]:.2f}" if key in row else "" for key in columns]
        size = f"{row['bytes']:,}" if "bytes" in row else ""
        print(f"| {' | '.join([name, *shown, size])} |")


if __name__ == "__main__":
    main()
