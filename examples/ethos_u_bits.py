"""Compares mixed bits with one width for all layers, in the same flash of an Ethos-U.

Takes a float ResNet-8 for CIFAR-10, which `cifar10_resnet8.py` fine-tunes, and trains
it with LSQ at each uniform width. The compiled bytes of these files are the budgets of
`suggest_bits`, whose bits are trained with the same recipe and seeds:

    python examples/ethos_u_bits.py --float-model cifar10_resnet8/float.keras \
        --data-dir ~/tensorflow_datasets --resnet8 cifar10_resnet8 \
        --output docs/ethos_u_bits.md

Budgets are named by bits of weights / activations: 3/3 or 3/8. Training moves the bytes
that Vela compresses codes to, so the search gets a smaller budget: by how much the
uniform file of that budget grew in training, and by `--reserve`. A trained file that is
still too large is trained again with fewer bits, up to `--attempts` times. Finished
parts are kept in `--models` and not repeated. It needs `pip install tf-lsq[ethos-u]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ethos_u_bits_page as page
import numpy as np
import tf_keras as keras
from cifar10_resnet8 import dataset, train
from datasets import Images, load
from ethos_u import TARGETS

import tf_lsq
import tflite_export
from tflite_export.build import FileSettings, build_file
from tflite_export.freezing import TrainedModel, read_model
from tflite_export.targets import TARGETS as ALL_TARGETS
from tflite_export.targets import compile_with_vela

CALIBRATION = 256


@dataclasses.dataclass(frozen=True)
class Network:
    """Bits to train.

    Attributes:
        name: What its files are called.
        options: Of `quantize_model`.
        rate: Learning rate.
        reestimate: Whether to re-estimate batch norms at the end, as at 2 bits.
    """

    name: str
    options: dict[str, Any]
    rate: float = 0.01
    reestimate: bool = False


class Trainer:
    """Trains, exports and compiles networks; finished parts are kept.

    Args:
        arguments: The command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        images = load("cifar10", arguments.data_dir)
        self.images = images.limited(256, 128) if arguments.smoke else images
        self.model = keras.models.load_model(arguments.float_model, compile=False)

    def student(self, network: Network) -> keras.Model:
        """Returns a network that is not calibrated."""
        return tf_lsq.quantize_model(
            self.model, target=self.arguments.target, **network.options
        )

    def calibrated(self, network: Network) -> int:
        """Returns the compiled bytes before training."""

        def measure() -> dict[str, Any]:
            student = self.student(network)
            x = self.images.x_train[:CALIBRATION].astype(np.float32)
            tf_lsq.calibrate(student, x, num_examples=CALIBRATION)
            tf_lsq.round_biases(student)
            path = self._path(f"{network.name}_calibrated.tflite")
            return {"bytes": compiled_bytes(student, path)}

        return self.kept(f"{network.name}_calibrated", measure)["bytes"]

    def results(
        self, network: Network, seeds: list[int] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the compiled bytes and the accuracy with each seed."""
        seeds = self.arguments.seeds if seeds is None else seeds
        return [self._result(network, seed) for seed in seeds]

    def kept(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns a part from its file, or measures and writes it."""
        path = self._path(f"{name}.json")
        if not path.exists():
            path.write_text(json.dumps(measure(), indent=2))
        found = json.loads(path.read_text())
        print(name, json.dumps(found), flush=True)
        return found

    def float_accuracy(self) -> float:
        """Returns the accuracy of the float network."""
        return self.kept(
            "float", lambda: {"accuracy": accuracy(self.model, self.images)}
        )["accuracy"]

    def _path(self, name: str) -> Path:
        """Returns the path of a finished part."""
        return self.arguments.models / name

    def _result(self, network: Network, seed: int) -> dict[str, Any]:
        """Returns the compiled bytes and the accuracy with one seed."""
        name = f"{network.name}_{seed}"

        def measure() -> dict[str, Any]:
            path = self._path(f"{name}.keras")
            if not path.exists():
                self._train(network, seed, path)
            student = keras.models.load_model(path, compile=False)
            return {
                "bytes": compiled_bytes(student, path.with_suffix(".tflite")),
                "accuracy": accuracy(tflite_export.integer_twin(student), self.images),
            }

        return {**self.kept(name, measure), "seed": seed}

    def _train(self, network: Network, seed: int, path: Path) -> None:
        """Trains a network from the float one."""
        student = self.student(network)
        epochs = self.arguments.epochs
        train(student, self.images, network.rate, epochs, seed, path.stem)
        if network.reestimate:
            tf_lsq.reestimate_batch_norm(student, dataset(self.images, seed))
        student.save(path)


def compiled_bytes(student: keras.Model, path: Path) -> int:
    """Exports a network, and returns the size of the file that Vela compiles."""
    report = tflite_export.export_model(student, path, verbose=False)
    if report.compiled is None:
        raise SystemExit("\n".join(report.compiler))
    return report.compiled.file_bytes


def accuracy(model: keras.Model, images: Images) -> float:
    """Returns the top-1 accuracy on the test images."""
    scores = model.predict(images.x_test.astype(np.float32), batch_size=500, verbose=0)
    return float((scores.argmax(axis=-1) == images.y_test).mean())


def uniform(budget: str) -> Network:
    """Returns the network with the same bits in all layers.

    Args:
        budget: Bits of weights / activations, "3/8".
    """
    weights, activations = map(int, budget.split("/"))
    return Network(
        f"uniform_{weights}_{activations}",
        {"weight_bits": weights, "activation_bits": activations},
        0.001 if weights == activations == 8 else 0.01,
        2 in (weights, activations),
    )


def mixed(found: dict[str, Any], name: str) -> Network:
    """Returns the network with the bits that a search found."""
    overrides = {
        pattern: tuple(bits) if isinstance(bits, list) else bits
        for pattern, bits in found["overrides"].items()
    }
    fewest = min(min(found["weight_bits"]), min(found["activation_bits"]))
    return Network(name, {"overrides": overrides}, reestimate=fewest == 2)


def compare(trainer: Trainer, budget: str, activations: str) -> page.Comparison:
    """Trains a uniform width, and mixed bits within its bytes.

    Args:
        trainer: Trains them.
        budget: Bits of weights / activations of the uniform network.
        activations: "kernel", for the bits of each kernel, or a number.
    """
    network = uniform(budget)
    before, results = trainer.calibrated(network), trainer.results(network)
    limit = min(page.sizes(results))
    given = int(limit * before / max(page.sizes(results)))
    given -= int(limit * trainer.arguments.reserve)
    found, chosen = {}, []
    for attempt in range(trainer.arguments.attempts):
        name = f"mixed_{budget.replace('/', '_')}_{activations}_{attempt}"
        measure = functools.partial(search, trainer, given, activations)
        found = trainer.kept(f"{name}_bits", measure)
        chosen = trainer.results(mixed(found, name))
        excess = max(page.sizes(chosen)) - limit
        if excess <= 0:
            break
        given = found["given"] - excess
    return page.Comparison(budget, activations, limit, before, results, chosen, found)


def search(trainer: Trainer, given: int, activations: str) -> dict[str, Any]:
    """Returns the bits that `suggest_bits` finds."""
    images, arguments = trainer.images, trainer.arguments
    found = tflite_export.suggest_bits(
        trainer.model,
        (images.x_train[:CALIBRATION].astype(np.float32), images.y_train[:CALIBRATION]),
        budget_bytes=given,
        candidates=arguments.candidates,
        activation_bits=None if activations == "kernel" else int(activations),
        target=arguments.target,
        num_examples=CALIBRATION,
        verbose=False,
    )
    return {
        "given": given,
        "calibrated": found.file_bytes,
        "overrides": found.overrides,
        "weight_bits": [layer.weight_bits for layer in found.layers],
        "activation_bits": [layer.activation_bits for layer in found.layers],
        "sensitivity": found.sensitivity,
    }


def compression(folder: Path, models: Path) -> dict[int, dict[str, int]]:
    """Returns bits -> target -> bytes of the networks of `cifar10_resnet8.py`.

    Args:
        folder: Its output.
        models: Keeps the sizes.
    """
    found = {}
    for bits in (8, 4, 3, 2):
        path, part = folder / f"lsq{bits}.keras", models / f"compression_{bits}.json"
        if not path.exists():
            continue
        if not part.exists():
            trained = read_model(keras.models.load_model(path, compile=False))
            part.write_text(json.dumps({name: size(trained, name) for name in TARGETS}))
        found[bits] = json.loads(part.read_text())
    return found


def size(trained: TrainedModel, name: str) -> int:
    """Returns the compiled size of a network that was trained for another target."""
    target = ALL_TARGETS[name]
    trained = dataclasses.replace(
        trained, target=name, dynamic_batch=target.dynamic_batch
    )
    built = build_file(trained, FileSettings(), target)
    compiled = compile_with_vela(built.content, name)
    if compiled is None:
        raise SystemExit("Vela is missing: pip install tf-lsq[ethos-u]")
    return compiled.file_bytes


def main() -> None:
    """Trains what is missing, and prints or writes the page."""
    arguments = _arguments()
    arguments.models.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(arguments)
    # Kernels have no fewer bits than 2, so 2/2 leaves little to mix.
    comparisons = [
        compare(trainer, budget, activations)
        for budget in arguments.budgets
        for activations in arguments.mixed
        if not (activations == "kernel" and budget.endswith(("2/2", "/8")))
    ]
    others = {
        width: trainer.results(uniform(width), arguments.other_seeds)
        for width in arguments.others
    }
    tests = len(trainer.images.x_test)
    text = page.text(arguments, comparisons, others, trainer.float_accuracy(), tests)
    if arguments.resnet8 is not None:
        text += page.compression(compression(arguments.resnet8, arguments.models))
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--float-model", type=Path, required=True, help="a float network to start from")
    add("--data-dir", help="where TensorFlow Datasets keeps its files")
    add("--resnet8", type=Path, help="output of cifar10_resnet8.py")
    add(
        "--models", type=Path, default=Path("ethos_u_bits"), help="keeps finished parts"
    )
    add("--budgets", nargs="+", default=["3/3", "2/2"], help="bits of uniform networks")
    add("--mixed", nargs="+", default=["kernel", "8"], help="bits of activations")
    add("--others", nargs="*", default=["3/8", "2/8"], help="more uniform networks")
    add("--other-seeds", nargs="+", type=int, help="their seeds, unless all")
    add("--candidates", nargs="+", type=int, default=[2, 3, 4, 8])
    add("--target", choices=TARGETS, default=TARGETS[0])
    add("--epochs", type=int, default=3)
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--reserve", type=float, default=0.005, help="share of the budget to keep free")
    add("--attempts", type=int, default=2, help="trainings until the budget is kept")
    add("--smoke", action="store_true", help="use only a few images")
    add("--output", type=Path, help="a Markdown file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
