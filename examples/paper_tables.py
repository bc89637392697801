"""Reproduces the paper's tables on data that two cores can train on.

    python examples/paper_tables.py --data-dir DIR --output docs/paper_tables

Trains a small residual network on Fashion-MNIST in float, and from there at 8, 4, 3
and 2 bits, with and without distillation, with three seeds; ablations of the recipe at
2 bits; TF-MOT's schemes on the same network with the same budget; plain optimizers.
With `--resnet8 pretrainedResnet.h5` it also trains MLPerf Tiny's ResNet-8 on CIFAR-10.
Every finished training run is a line of `OUTPUT/results.json` and is not repeated;
float networks are kept in `--models` and trained again if they are missing: on the same
machine with the same versions the result is the same, which is checked. Finally, tables
go to `OUTPUT.md` and plots to `OUTPUT/`.

It takes about three hours on two cores; `--only` selects training runs by a regular
expression for their names, `--list` prints the names.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ai_edge_litert
import paper_report
import paper_runs as runs
import tensorflow as tf
import tf_keras as keras
from datasets import Images, load

import tf_lsq
import tflite_export
from tflite_export.reports import processor

BITS = (8, 4, 3, 2)
SEEDS = (0, 1, 2)
BUDGET = runs.Budget(float_epochs=10, epochs=6, long_epochs=18, short_epochs=2)
SMOKE_BUDGET = runs.Budget(float_epochs=1, epochs=1, long_epochs=2, short_epochs=1)
WEIGHT_DECAYS = (1e-4, 0.5e-4, 0.125e-4)  # In addition to the recipe's 0.25e-4.
OPTIMIZERS = ("SGD", "Adam", "AdamW", "recipe, finetune", "recipe, adam")
RATIO_ITERATIONS = 200  # The ratio R is measured at every tenth iteration.
RESNET8_EPOCHS = {8: 3, 4: 3, 3: 6, 2: 6}


def main() -> None:
    """Runs the missing training runs, then writes tables and plots."""
    args = _arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    args.models.mkdir(parents=True, exist_ok=True)
    path = args.output / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    laboratory = Laboratory(args, results)
    plan = laboratory.plan()
    if args.list:
        print("\n".join(plan))
        return
    for name, run in plan.items():
        if name in results or not re.search(args.only, name):
            continue
        keras.backend.clear_session()
        watch = runs.Stopwatch()
        print(f"--- {name}", flush=True)
        results[name] = run()
        results[name] |= {"seconds": watch(), "machine": _machine()}
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(results, indent=1) + "\n")
        unfinished.replace(path)
        print({k: v for k, v in results[name].items() if isinstance(v, float)})
    paper_report.write(results, args.output, laboratory.budget, RATIO_ITERATIONS)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its files")
    parser.add_argument("--resnet8", type=Path, help="pretrainedResnet.h5")
    parser.add_argument("--output", type=Path, default=Path("paper_tables"))
    parser.add_argument("--models", type=Path, default=Path("paper_models"))
    parser.add_argument("--only", default="", help="regular expression of names")
    parser.add_argument("--list", action="store_true", help="print all names")
    parser.add_argument("--smoke", action="store_true", help="use only a few images")
    return parser.parse_args()


def _machine() -> str:
    """Returns the versions and processor of a training run."""
    versions = {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "tf_keras": keras.__version__,
        "ai-edge-litert": ai_edge_litert.__version__,
        "tf_lsq": tf_lsq.__version__,
    }
    return ", ".join(f"{k} {v}" for k, v in versions.items()) + f", {processor()}"


class Laboratory:
    """All training runs by name, and what they share."""

    def __init__(self, args: argparse.Namespace, results: dict[str, Any]) -> None:
        self._args = args
        self._results = results
        self._images: dict[str, Images] = {}
        self.budget = SMOKE_BUDGET if args.smoke else BUDGET

    def plan(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """Returns the training runs in order of execution."""
        plan: dict[str, Callable[[], dict[str, Any]]] = {}
        for seed in SEEDS:
            plan[f"fashion/{seed}/float"] = lambda s=seed: self._float(s)
            plan[f"fashion/{seed}/float, continued"] = lambda s=seed: self._continued(s)
            for bits in BITS:
                name = f"fashion/{seed}/{bits}"
                plan[name] = lambda s=seed, b=bits: self._student(s, b)
                plan[f"{name} distilled"] = lambda s=seed, b=bits: self._distilled(s, b)
            if seed == 0:
                for bits in BITS:
                    plan[f"ratio/{bits}"] = lambda b=bits: self._ratio(b)
                plan |= self._longer()
                plan |= self._comparison()
                plan |= self._optimizers()
                plan |= self._ablations()
                plan |= self._mixed()
                if self._args.resnet8:
                    plan |= self._resnet8()
        return plan

    def _ablations(self) -> dict[str, Any]:
        """Returns the training runs at 2 bits with one change each."""
        plan: dict[str, Any] = {}
        for name, scale in list(runs.GRADIENT_SCALES.items())[1:]:
            plan[f"ablation/g = {name}"] = lambda g=scale: self._rescaled(g)
        for decay in WEIGHT_DECAYS:
            plan[f"ablation/weight decay {decay:g}"] = lambda d=decay: self._student(
                0, 2, weight_decay=d
            )
        plan["ablation/updates of steps not bounded"] = lambda: self._student(
            0, 2, step_clip=None
        )
        plan["ablation/step schedule"] = lambda: self._student(0, 2, schedule="step")
        return plan

    def _longer(self) -> dict[str, Any]:
        """Returns the long training runs at 4, 3 and 2 bits."""
        epochs = self.budget.long_epochs
        plan: dict[str, Any] = {
            "longer/float, continued": lambda: self._continued(0, epochs=epochs)
        }
        for bits in (4, 3, 2):
            plan[f"longer/{bits}"] = lambda b=bits: self._student(0, b, epochs=epochs)
            plan[f"longer/{bits} distilled"] = lambda b=bits: self._distilled(
                0, b, epochs=epochs
            )
        return plan

    def _comparison(self) -> dict[str, Any]:
        """Returns training runs of LSQ and TF-MOT on the post-activation network."""
        plan: dict[str, Any] = {
            "tfmot/float": lambda: self._float(0, pre_activation=False),
            "tfmot/float, continued": lambda: self._continued(0, pre_activation=False),
        }
        for bits in BITS:
            plan[f"tfmot/{bits} TF-MOT"] = lambda b=bits: self._tfmot(b)
            plan[f"tfmot/{bits} LSQ"] = lambda b=bits: self._student(
                0, b, pre_activation=False
            )
            if bits < 8:
                plan[f"tfmot/{bits} LSQ, all layers"] = lambda b=bits: self._student(
                    0, b, pre_activation=False, first_last_bits=b
                )
        return plan

    def _optimizers(self) -> dict[str, Any]:
        """Returns the short fine-tunes with plain optimizers."""
        return {
            f"optimizer/{bits} {name}": lambda b=bits, n=name: self._short(b, n)
            for bits in (4, 2)
            for name in OPTIMIZERS
        }

    def _mixed(self) -> dict[str, Any]:
        """Returns training runs of uniform and suggested bits on the same network."""
        plan: dict[str, Any] = {"mixed/float": self._separable_float}
        for bits in BITS:
            plan[f"mixed/{bits} bits"] = lambda b=bits: self._separable(b, None)
        budgets = {"8 bits": (8,), "4 bits": (4,), "between 4 and 2 bits": (4, 2)}
        for name, widths in budgets.items():
            plan[f"mixed/suggested, bytes of {name}"] = lambda w=widths: (
                self._suggested(w)
            )
        return plan

    def _resnet8(self) -> dict[str, Any]:
        """Returns the training runs of ResNet-8 on CIFAR-10."""
        plan: dict[str, Any] = {"cifar10/float": self._resnet8_float}
        for epochs in sorted(set(RESNET8_EPOCHS.values())):
            plan[f"cifar10/float, {epochs} epochs more"] = lambda e=epochs: (
                self._resnet8_continued(e)
            )
        for bits, epochs in RESNET8_EPOCHS.items():
            plan[f"cifar10/{bits}"] = lambda b=bits, e=epochs: self._resnet8_lsq(b, e)
        return plan

    # --- Fashion-MNIST

    def _fashion(self) -> Images:
        """Returns the images."""
        if "fashion" not in self._images:
            images = load("fashion_mnist", self._args.data_dir)
            self._images["fashion"] = (
                images.limited(256, 128) if self._args.smoke else images
            )
        return self._images["fashion"]

    def _network(
        self,
        file: str,
        name: str,
        trained: Callable[[], keras.Model],
        measured: Callable[[keras.Model], dict[str, Any]],
    ) -> keras.Model:
        """Loads a float network from its file, or trains it if there is none.

        Raises:
            RuntimeError: If it is not the network that was measured before.
        """
        path = self._args.models / file
        if not path.exists():
            model = trained()
            now, before = measured(model), self._results.get(name, {})
            if any(before.get(key, value) != value for key, value in now.items()):
                raise RuntimeError(
                    f"`{name}` must give {before}, as in results.json. Received: "
                    f"{now}, from other versions or another machine. Put the original "
                    f"{file} into --models, or remove its results, and those of "
                    "networks trained from it, from results.json."
                )
            model.save(path)
        return keras.models.load_model(path, compile=False)

    def _float_network(self, seed: int, pre_activation: bool = True) -> keras.Model:
        """Returns the float network of a seed."""
        images, epochs = self._fashion(), self.budget.float_epochs

        def trained() -> keras.Model:
            keras.utils.set_random_seed(seed)
            model = runs.network(
                images.x_train.shape[1:], pre_activation=pre_activation
            )
            steps = runs.num_steps(images, epochs)
            arguments = tf_lsq.recipe(4, steps, learning_rate=0.1, from_logits=True)
            runs.train(model, images, arguments, epochs, seed)
            return model

        kind = "pre" if pre_activation else "post"
        name = f"fashion/{seed}/float" if pre_activation else "tfmot/float"
        return self._network(
            f"fashion_{kind}_{seed}.keras",
            name,
            trained,
            lambda model: runs.measured(model, images),
        )

    def _float(self, seed: int, pre_activation: bool = True) -> dict[str, Any]:
        """Returns the accuracy of the float network."""
        model = self._float_network(seed, pre_activation)
        return runs.measured(model, self._fashion())

    def _continued(
        self, seed: int, *, pre_activation: bool = True, epochs: int | None = None
    ) -> dict[str, Any]:
        """Trains the float network for as long as a student."""
        model, images = self._float_network(seed, pre_activation), self._fashion()
        epochs = epochs or self.budget.epochs
        arguments = tf_lsq.recipe(4, runs.num_steps(images, epochs), from_logits=True)
        runs.train(model, images, arguments, epochs, seed)
        return runs.measured(model, images)

    def _student(
        self,
        seed: int,
        bits: int,
        *,
        pre_activation: bool = True,
        first_last_bits: int = 8,
        epochs: int | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Trains a student with the paper's recipe, except for some changes."""
        model, images = self._float_network(seed, pre_activation), self._fashion()
        student = tf_lsq.quantize_model(
            model,
            weight_bits=bits,
            activation_bits=bits,
            first_last_bits=first_last_bits,
        )
        epochs = epochs or self.budget.epochs
        arguments = tf_lsq.recipe(bits, runs.num_steps(images, epochs), **changes)
        runs.train(student, images, arguments, epochs, seed)
        figures = runs.finished(student, images, bits, seed)
        if seed == 0 and pre_activation:
            figures["steps"] = runs.step_differences(student, images.x_test[:1000])
        return figures

    def _distilled(
        self, seed: int, bits: int, *, epochs: int | None = None
    ) -> dict[str, Any]:
        """Trains a student with its float network as teacher."""
        model, images = self._float_network(seed), self._fashion()
        student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        epochs = epochs or self.budget.epochs
        arguments = tf_lsq.recipe(bits, runs.num_steps(images, epochs))
        distiller = tf_lsq.Distiller(student, model, name=f"distilled_{bits}_bits")
        runs.train(distiller, images, arguments, epochs, seed)
        return runs.finished(student, images, bits, seed)

    def _rescaled(self, scale: Callable[[int, int], float]) -> dict[str, Any]:
        """Trains at 2 bits with another gradient scale; it may diverge."""
        with runs.gradient_scale(scale):
            try:
                return self._student(0, 2)
            except (RuntimeError, tf.errors.InvalidArgumentError) as error:
                return {"failed": str(error)}

    def _tfmot(self, bits: int) -> dict[str, Any]:
        """Trains TF-MOT's network with the same recipe."""
        model, images = self._float_network(0, pre_activation=False), self._fashion()
        student = runs.tfmot_student(model, bits)
        steps = runs.num_steps(images, self.budget.epochs)
        arguments = tf_lsq.recipe(bits, steps, from_logits=True)
        runs.train(student, images, arguments, self.budget.epochs, 0)
        return runs.measured(student, images)

    def _short(self, bits: int, name: str) -> dict[str, Any]:
        """Trains a student for a short time."""
        model, images = self._float_network(0), self._fashion()
        student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        epochs = self.budget.short_epochs
        if name.startswith("recipe, "):
            variant = name.removeprefix("recipe, ")
            arguments = tf_lsq.recipe(
                bits, runs.num_steps(images, epochs), variant=variant
            )
        else:
            rate = 0.01 if name == "SGD" else 0.001
            optimizer = getattr(keras.optimizers, name)(rate)
            arguments = {"optimizer": optimizer, "loss": tf_lsq.CrossEntropy()}
        runs.train(student, images, arguments, epochs, 0)
        return {
            "test": runs.accuracy(student, images.x_test, images.y_test),
            **runs.exported(student, images),
        }

    def _ratio(self, bits: int) -> dict[str, Any]:
        """Measures R during the first iterations of training."""
        model, images = self._float_network(0), self._fashion()
        student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        keras.utils.set_random_seed(0)
        steps = runs.num_steps(images, self.budget.epochs)
        student.compile(**tf_lsq.recipe(bits, steps))
        return runs.update_ratios(student, images, RATIO_ITERATIONS)

    # --- Mixed bits, with the network of storage.py

    def _separable_network(self) -> keras.Model:
        """Returns the float network."""
        import storage

        images, epochs = self._fashion(), self.budget.epochs

        def trained() -> keras.Model:
            keras.utils.set_random_seed(0)
            model = storage.network(images.x_train.shape[1:], 10)
            steps = runs.num_steps(images, epochs)
            arguments = tf_lsq.recipe(4, steps, learning_rate=0.1, from_logits=True)
            runs.train(model, images, arguments, epochs, 0, scale=1)
            return model

        return self._network(
            "separable.keras",
            "mixed/float",
            trained,
            lambda model: runs.measured(model, images, scale=1),
        )

    def _separable_float(self) -> dict[str, Any]:
        """Returns the accuracy of the float network."""
        return runs.measured(self._separable_network(), self._fashion(), scale=1)

    def _separable(self, bits: int, overrides: Any) -> dict[str, Any]:
        """Trains a student with 8-bit activations."""
        images, epochs = self._fashion(), self.budget.epochs
        student = tf_lsq.quantize_model(
            self._separable_network(),
            weight_bits=bits,
            activation_bits=8,
            overrides=overrides,
        )
        arguments = tf_lsq.recipe(bits, runs.num_steps(images, epochs))
        runs.train(student, images, arguments, epochs, 0, scale=1)
        tflite_export.round_biases(student, "packed")
        figures = runs.measured(student, images, scale=1)
        return figures | runs.exported(student, images, scale=1, storage="packed")

    def _suggested(self, widths: tuple[int, ...]) -> dict[str, Any]:
        """Trains with bits suggested for the mean bytes of untrained uniform files."""
        model, images = self._separable_network(), self._fashion()
        sizes = []
        for bits in widths:
            student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=8)
            tf_lsq.calibrate(student, images.x_train[:256].astype("float32"))
            tflite_export.round_biases(student, "packed")
            sizes.append(runs.packed_bytes(student))
        budget = sum(sizes) // len(sizes)
        chosen = tflite_export.suggest_bits(
            model,
            (images.x_train[:1024].astype("float32"), images.y_train[:1024]),
            budget_bytes=budget,
            activation_bits=8,
            num_examples=1024,
        )
        print(chosen)
        figures = self._separable(min(widths), chosen.overrides)
        return {**figures, "budget": budget, "overrides": dict(chosen.overrides)}

    # --- CIFAR-10

    def _cifar10(self) -> Images:
        """Returns the images."""
        if "cifar10" not in self._images:
            images = load("cifar10", self._args.data_dir)
            self._images["cifar10"] = (
                images.limited(256, 128) if self._args.smoke else images
            )
        return self._images["cifar10"]

    def _resnet8_network(self) -> keras.Model:
        """Returns ResNet-8, trained for three epochs on these images."""
        import cifar10_resnet8 as resnet8

        def trained() -> keras.Model:
            model = keras.models.load_model(self._args.resnet8, compile=False)
            resnet8.train(model, self._cifar10(), 0.01, 3, 0, "float")
            return model

        return self._network(
            "resnet8.keras", "cifar10/float", trained, self._resnet8_measured
        )

    def _resnet8_float(self) -> dict[str, Any]:
        """Returns the accuracy of the float network."""
        return self._resnet8_measured(self._resnet8_network())

    def _resnet8_continued(self, epochs: int) -> dict[str, Any]:
        """Trains the float network for as long as a student."""
        import cifar10_resnet8 as resnet8

        model = self._resnet8_network()
        resnet8.train(model, self._cifar10(), 0.01, epochs, 0, "float")
        return {"epochs": epochs, **self._resnet8_measured(model)}

    def _resnet8_lsq(self, bits: int, epochs: int) -> dict[str, Any]:
        """Trains a student, with the network's own regularisers."""
        import cifar10_resnet8 as resnet8

        images = self._cifar10()
        model = self._resnet8_network()
        student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
        rate = 0.001 if bits == 8 else 0.01
        resnet8.train(student, images, rate, epochs, 0, f"ResNet-8, {bits} bits")
        figures: dict[str, Any] = {"epochs": epochs}
        if bits <= runs.REESTIMATED_BITS:
            figures["test, moving averages"] = self._resnet8_measured(student)["test"]
            tf_lsq.reestimate_batch_norm(student, resnet8.dataset(images, 0))
        figures |= self._resnet8_measured(student)
        return {**figures, **runs.exported(student, images, scale=1)}

    def _resnet8_measured(self, model: Any) -> dict[str, Any]:
        """Measures accuracies; this network takes pixels from 0 to 255."""
        return runs.measured(model, self._cifar10(), scale=1)


if __name__ == "__main__":
    main()
