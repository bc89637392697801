"""Compares files that are given bytes with Keras on float images.

python -m app_bytes --data-dir DIR                         # trains what is missing
python -m app_bytes --data-dir DIR --markdown docs/app_bytes.md
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import ai_edge_litert
import keras as keras3
import tensorflow as tf
from tqdm import tqdm

from tf_lsq._compat import keras
from tflite_export.reports import processor

from . import page, trained
from .compare import Comparison, compare
from .models import APP_MODELS, AppModel

_EQUAL = 10  # So many files have the class of Keras for every image.
_LEAST_ACCURACY = 0.5


def main() -> int:
    """Returns 1 if a file computes something else than it should."""
    args = _arguments()
    args.cache.mkdir(exist_ok=True)
    data = {
        channels: [
            trained.photographs(channels, split, args.data_dir)
            for split in (f"train[:{args.train}]", f"test[:{args.images}]")
        ]
        for channels in (1, 3)
    }
    rows = [
        _compared(name, app, data[app.channels], args.cache)
        for name, app in tqdm(APP_MODELS.items(), "comparing", disable=None)
    ]
    about = (
        f"students trained on {args.train:,} images, seed 0, Adam with rates of "
        f"{trained.RATE:g} and {trained.STUDENT_RATE:g}; Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}, tf_keras "
        f"{keras.__version__}, Keras {keras3.__version__}, ai-edge-litert "
        f"{ai_edge_litert.__version__}, {platform.machine()} {processor()}"
    )
    names = {name: data[app.channels][0].name for name, app in APP_MODELS.items()}
    text = page.page(about, trained.BITS, rows, names)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    return int(_report(rows) > 0)


def _arguments() -> argparse.Namespace:
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m app_bytes", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data-dir", required=True, help="where TensorFlow Datasets keeps its files"
    )
    parser.add_argument("--cache", type=Path, default=Path(".bytes"))
    parser.add_argument("--train", type=int, default=25_000, help="training images")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--markdown", type=Path, help="also write the page here")
    return parser.parse_args()


def _compared(
    name: str, app: AppModel, data: list[trained.Photographs], cache: Path
) -> Comparison:
    """Returns what the file of one model computes of the test images."""
    train, test = data
    stem = cache / "".join(c if c.isalnum() else "_" for c in name)
    student = trained.student_of(app, train, stem.with_suffix(".keras"))
    path = stem.with_suffix(".tflite")
    return compare(name, app, student, test.x, test.y, path)


def _report(rows: list[Comparison]) -> int:
    """Returns, and prints, how much is not as it should be."""
    wrong = [f"{row.name} is unlike its twin" for row in rows if row.unlike_twin]
    wrong += [
        f"{row.name}, image {one.image}: its codes do not differ by rounding"
        for row in rows
        for one in row.differences
        if not one.is_rounding
    ]
    wrong += [
        f"{row.name} has learned too little"
        for row in rows
        if row.keras_correct < _LEAST_ACCURACY * row.images
    ]
    equal = sum(not row.differences for row in rows)
    if equal < _EQUAL:
        wrong.append(f"{equal} files have the class of Keras for all images")
    for line in wrong:
        print(f"Unlike before: {line}.")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
