"""Writes an image classifier with int8 ends, and one with uint8 ends.

    pip install tensorflow
    python int8_ends.py FOLDER

Both come from TFLiteConverter alone, and hold the same integers inside. The report says
which tools refuse the first. With `mediapipe` in place of TensorFlow, in another
environment, it runs the files:

    pip install mediapipe
    python int8_ends.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_SHAPE, _CLASSES = (32, 32, 3), 4
_ENDS = ("int8", "uint8")


def main() -> None:
    """Writes the files, or runs those that are there."""
    folder = Path(sys.argv[1])
    paths = {ends: folder / f"classifier_{ends}.tflite" for ends in _ENDS}
    if not all(path.exists() for path in paths.values()):
        folder.mkdir(exist_ok=True)
        for ends, path in paths.items():
            path.write_bytes(converted(ends))
            print(f"{path}: {path.stat().st_size} bytes")
        return
    for path in paths.values():
        print(f"{path.name}: {classified(path)}")


def converted(ends: str) -> bytes:
    """Returns the file of a small classifier with random weights."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    parts = [
        tf.keras.Input(_SHAPE, batch_size=1),
        layers.Conv2D(4, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(_CLASSES, activation="softmax"),
    ]
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.Sequential(parts))
    images = np.random.default_rng(0).random((64, 1, *_SHAPE), np.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.as_dtype(ends)
    converter.inference_output_type = tf.as_dtype(ends)
    return converter.convert()


def classified(path: Path) -> str:
    """Returns what MediaPipe's ImageClassifier says of a random image."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    image = np.random.default_rng(1).integers(0, 256, _SHAPE).astype(np.uint8)
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(path)))
    try:
        with vision.ImageClassifier.create_from_options(options) as classifier:
            found = classifier.classify(
                mediapipe.Image(mediapipe.ImageFormat.SRGB, image)
            )
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return f"class {found.classifications[0].categories[0].index}"


if __name__ == "__main__":
    main()
