"""Trains a keyword transformer with every form of its normalizations and attention.

    python examples/transformers.py --data-dir DIR --networks kwt1 --rows
    python -m benchmarks.forms_trained transformers/kwt1_float32_0.keras --data-dir DIR

All students start from the float network of `examples/transformers.py`, which reads the
rows of Fashion-MNIST as tokens, and train with the same batches. Each file runs all
test images, and is compared with its student on the first 1,000. Finished rows are
appended to `--results` and not repeated; `--markdown` writes the page of all of them,
for which the files are timed side by side: those in `--files`, or others with the same
operators.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow_datasets as tfds
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

import tf_lsq
import tflite_export
from tf_lsq import policy

from .timing import machine, side_by_side

_BATCH, _RATE, _ROUNDS, _WARM_UP = 128, 5e-4, 600, 40
_COPIES = 20  # Interpreters of every file.
_COMPARED = 1000  # Test images.
_RESULTS = Path("docs/forms/results.jsonl")
BITS = ("8/8", "4/8", "4/4")
_ISLANDS = "float islands"
FORMS: dict[str, dict[str, Any]] = {
    "integers": {},
    "16-bit normalizations": {"norm_form": "int16"},
    "16-bit probabilities": {},
    _ISLANDS: {"overrides": {".*_attention|.*norm.*": "float"}},
}
# Bits of probabilities do not depend on the number of tokens here.
_MOST_IN_INT8 = {"16-bit probabilities": 0}
TARGETS = ("phone", "edgetpu", "tflm", "ethos-u55-128", "ethos-u85-256")


def main() -> None:
    """Trains the missing rows and prints the tables."""
    args = _arguments()
    args.files.mkdir(parents=True, exist_ok=True)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    train, test = (_images(split, args.data_dir) for split in ("train", "test"))
    for bits in args.bits:
        for form in FORMS:
            if not _found(args, bits, form):
                row = _row(bits, form, train, test, args)
                with args.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    text = _page(train[0][:_BATCH], args)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)


def _arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forms_trained", description=__doc__.splitlines()[0]
    )
    parser.add_argument("float", type=Path, help="the float network")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--files", type=Path, default=Path("forms"))
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--bits", nargs="*", choices=BITS, default=[*BITS])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _images(split: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of Fashion-MNIST, `[examples, 28, 28]`, 0 to 1, and labels."""
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
    return images[..., 0].astype(np.float32) / 255, labels


# --- Rows ------------------------------------------------------------------------


def _row(
    bits: str, form: str, train: Any, test: Any, args: argparse.Namespace
) -> dict[str, Any]:
    """Trains and exports a student, and returns what was measured."""
    student = _student(bits, form, args)
    steps = args.epochs * -(-len(train[0]) // _BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    student.fit(*train, _BATCH, args.epochs, verbose=2)
    path = _path(args, bits, form)
    report = tflite_export.export_model(student, path, verbose=False)
    few = tuple(array[:_COMPARED] for array in test)
    found = tflite_export.verify_tflite(path, student, few, verbose=False)
    return {
        "bits": bits,
        "form": form,
        "seed": args.seed,
        "epochs": args.epochs,
        "student": student.evaluate(*test, 500, verbose=0)[1],
        "file": _accuracy(path, *test),
        "off_by_one": found.off_by_one,
        "twin_differences": sum(point.twin_differences for point in found.points),
        "operators": sum(report.operators.values()),
        "float_layers": len(report.float_layers),
        "bytes": report.file_bytes,
    }


def _student(bits: str, form: str, args: argparse.Namespace) -> keras.Model:
    """Returns a student of the float network, not trained."""
    weight_bits, activation_bits = map(int, bits.split("/"))
    keras.utils.set_random_seed(args.seed)
    with _form(form):
        return tf_lsq.quantize_model(
            keras.models.load_model(args.float, compile=False),
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            **FORMS[form],
        )


def _file(bits: str, form: str, images: np.ndarray, args: argparse.Namespace) -> Path:
    """Returns a file with the operators of a row; training does not change these."""
    path = _path(args, bits, form)
    if not path.exists():
        student = _student(bits, form, args)
        tf_lsq.calibrate(student, images)
        tflite_export.export_model(student, path, verbose=False)
    return path


def _accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the top-1 accuracy of a file under LiteRT."""
    runner = Interpreter(str(path)).get_signature_runner()
    [(name, details)] = runner.get_input_details().items()
    scale, zero_point = details["quantization"]
    codes = np.rint(images / np.float32(scale)) + zero_point
    codes = codes.clip(-128, 127).astype(details["dtype"])
    scores = [next(iter(runner(**{name: one[None]}).values())) for one in codes]
    return float((np.concatenate(scores).argmax(-1) == labels).mean())


@contextlib.contextmanager
def _form(form: str) -> Iterator[None]:
    """Applies the bits of probabilities of a form to students that are made in it."""
    most = _MOST_IN_INT8.get(form, policy.MOST_IN_INT8)
    with mock.patch.object(policy, "MOST_IN_INT8", most):
        yield


def _path(args: argparse.Namespace, bits: str, form: str) -> Path:
    """Returns where a file is kept."""
    name = f"{bits} {form} {args.seed}".replace("/", "_").replace(" ", "_")
    return args.files / f"{name}.tflite"


def _rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the finished rows."""
    if not args.results.exists():
        return []
    return [json.loads(line) for line in args.results.read_text().splitlines()]


def _found(args: argparse.Namespace, bits: str, form: str) -> bool:
    """Returns whether a row is finished."""
    wanted = {"bits": bits, "form": form, "seed": args.seed}
    return any(wanted.items() <= row.items() for row in _rows(args))


# --- The page --------------------------------------------------------------------


def _page(images: np.ndarray, args: argparse.Namespace) -> str:
    """Returns the tables in Markdown.

    Args:
        images: What files without a trained student are calibrated with.
        args: The command line.
    """
    rows = _rows(args)
    calls = {
        f"{bits} {form}": _inference(_file(bits, form, images, args))
        for bits in dict.fromkeys(row["bits"] for row in rows)
        for form in FORMS
    }
    times = side_by_side(calls, _ROUNDS, _WARM_UP)
    lines = [
        "# Forms of normalizations and attention after training",
        "",
        "KWT-1 with six blocks reads the 28 rows of images of Fashion-MNIST. "
        "Students of the same bits start from one float network and train with the "
        "same batches; "
        f"epochs: {args.epochs}. Printed by "
        "`python -m benchmarks.forms_trained`; ms: one inference under LiteRT with "
        f"XNNPACK on one thread, {_COPIES} interpreters of each file in turn, with the "
        "smallest and largest of three blocks of "
        f"{_ROUNDS // 3} rounds, all files in turn, where a file is missing another "
        "one with the same operators; to islands: the ratio to float "
        "islands of the same bits; off by one: output codes of the "
        "file that are next to the student's; twin: codes of all tensors that the "
        "integer twin computes differently.",
        "",
        "| bits | form | student | file | off by one | twin | operators | float layers "
        "| bytes | ms | to islands |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        own = times[f"{row['bits']} {row['form']}"]
        cells = [
            f"{row['student']:.2%}",
            f"{row['file']:.2%}",
            f"{row['off_by_one']:.4%}",
            *(f"{row[key]:,}" for key in ("twin_differences", "operators")),
            *(f"{row[key]:,}" for key in ("float_layers", "bytes")),
            str(own.milliseconds()),
            str(own.ratio(times[f"{row['bits']} {_ISLANDS}"])),
        ]
        lines.append(f"| {row['bits']} | {row['form']} | {' | '.join(cells)} |")
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    lines += ["", *_targets(args), "", f"Measured with {about}."]
    return "\n".join(lines) + "\n"


def _targets(args: argparse.Namespace) -> list[str]:
    """Returns the lines of the table of targets."""
    says = "What `tflite_export.check_model` says of it at 8/8 bits:"
    lines = ["## Targets", "", says, ""]
    lines += ["| target | form | operators | verdict |", "|---|---|---|---|"]
    model = keras.models.load_model(args.float, compile=False)
    for target in TARGETS:
        for form in ("integers", _ISLANDS):
            lines.append(_verdict(model, target, form))
    return lines


def _verdict(model: keras.Model, target: str, form: str) -> str:
    """Returns a row: how many operators run where, and what is refused."""
    options = {"weight_bits": 8, "activation_bits": 8, **FORMS[form]}
    report = tflite_export.check_model(model, target=target, **options)
    places = [op.runs_on for op in report.operators]
    counts = ", ".join(f"{places.count(name)} {name}" for name in dict.fromkeys(places))
    said = "runs" if report.ok else f"refused: {_first_words(report.problems)}"
    return f"| {target} | {form} | {counts} | {said} |"


def _first_words(problems: list[str]) -> str:
    """Returns the first problem, in one line, and how many there are."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(problems[0].split())[:300] + more


def _inference(path: Path) -> Callable[[], None]:
    """Returns what runs a file once, on one thread with XNNPACK.

    Several interpreters take turns: where the memory of one lies makes it faster or
    slower than others of the same file, by a fifth.
    """
    interpreters = [Interpreter(str(path), num_threads=1) for _ in range(_COPIES)]
    for interpreter in interpreters:
        interpreter.allocate_tensors()
    turns = itertools.cycle(interpreters)
    return lambda: next(turns).invoke()


if __name__ == "__main__":
    main()
