"""Runs files in a consumer; needs nothing else but NumPy and the consumer.

python run_consumer.py CONSUMER OUTPUT FILE...

NAME.tflite is run by "mediapipe" or "tflite_support" on images/*.png next to it, by
"interpreter" or "compiled_model" on the arrays of NAME.npz. OUTPUT/NAME.npz is what it
answers: by the number of an output its scores, in the order of the classes, and as
"labels" their names; or by output what it computes. Where a file cannot be run, it has
the consumer's message as "error".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def mediapipe(path):
    """Returns what MediaPipe Tasks' ImageClassifier answers."""
    from mediapipe import Image
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions

    options = ImageClassifierOptions(BaseOptions(model_asset_path=str(path)))
    with ImageClassifier.create_from_options(options) as classifier:
        return _answers(
            classifier.classify(Image.create_from_file(str(image)))
            for image in _images(path)
        )


def tflite_support(path):
    """Returns what the TFLite Task Library's ImageClassifier answers."""
    from tflite_support.task.vision import ImageClassifier, TensorImage

    classifier = ImageClassifier.create_from_file(str(path))
    return _answers(
        classifier.classify(TensorImage.create_from_file(str(image)))
        for image in _images(path)
    )


def _images(path):
    """Returns the paths of the images."""
    return sorted((path.parent / "images").glob("*.png"))


def _answers(results):
    """Returns scores and labels in the order of the classes, by output."""
    scores, labels = {}, {}
    for result in results:
        for number, head in enumerate(result.classifications):
            ordered = sorted(head.categories, key=lambda category: category.index)
            scores.setdefault(str(number), []).append([c.score for c in ordered])
            labels[str(number)] = [c.category_name for c in ordered]
    found = {number: np.array(rows, np.float32) for number, rows in scores.items()}
    return found | {"labels": np.array(json.dumps(labels))}


def interpreter(path):
    """Returns what TensorFlow Lite's or LiteRT's Interpreter computes."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from harness import run_files

    with np.load(path.with_suffix(".npz")) as file:
        return run_files.run(path, "xnnpack", dict(file))


def compiled_model(path):
    """Returns what LiteRT's CompiledModel computes on the CPU."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator

    with np.load(path.with_suffix(".npz")) as file:
        inputs = dict(file)
    model = CompiledModel.from_file(str(path), HardwareAccelerator.CPU)
    [(key, ends)] = model.get_signature_list().items()
    details = model.get_output_tensor_details(key)
    sources = {n: model.create_input_buffer_by_name(key, n) for n in ends["inputs"]}
    buffers = {n: model.create_output_buffer_by_name(key, n) for n in ends["outputs"]}
    rows = []
    batch = model.get_input_tensor_details(key)[ends["inputs"][0]]["shape"][0]
    for start in range(0, len(inputs[ends["inputs"][0]]), batch):
        for name, buffer in sources.items():
            buffer.write(inputs[name][start : start + batch])
        model.run_by_name(key, sources, buffers)
        rows.append({n: _read(buffers[n], details[n]) for n in buffers})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _read(buffer, details):
    """Returns an output."""
    count = int(np.prod(details["shape"]))
    return buffer.read(count, np.dtype(details["dtype"])).reshape(details["shape"])


CONSUMERS = {
    "mediapipe": mediapipe,
    "tflite_support": tflite_support,
    "interpreter": interpreter,
    "compiled_model": compiled_model,
}


def main(consumer, output, *paths):
    """Runs files."""
    for path in map(Path, paths):
        try:
            found = CONSUMERS[consumer](path)
        except Exception as error:  # Each consumer has errors of its own.
            found = {"error": np.array(f"{type(error).__name__}: {error}")}
        with Path(output, f"{path.stem}.npz").open("wb") as file:
            np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
