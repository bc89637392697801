"""Writes files of a dense layer that LiteRT's GPU accelerator computes wrongly.

    pip install tensorflow ai-edge-litert
    python gpu_flattening_dense.py

Converts Flatten and Dense by TFLiteConverter, and removes the RESHAPE from the file, so
that FULLY_CONNECTED flattens its input itself. Runs both files by LiteRT's interpreter
and by `CompiledModel` on a GPU, and prints how the outputs differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ai_edge_litert
import numpy as np
import tensorflow as tf
from ai_edge_litert.compiled_model import CompiledModel, HardwareAccelerator
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.tools import flatbuffer_utils

_SHAPE = (1, 4, 4, 8)


def main() -> None:
    """Prints a row per file."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    print(f"ai-edge-litert {ai_edge_litert.__version__}, TensorFlow {tf.__version__}")
    content = converted()
    for name, data in {"with": content, "without": without_reshape(content)}.items():
        path = folder / f"dense_{name}_reshape.tflite"
        path.write_bytes(data)
        print(f"{name} RESHAPE: {compared(path)}")


def converted() -> bytes:
    """Returns the float file of Flatten and Dense with random weights."""
    tf.keras.utils.set_random_seed(0)
    layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(5)]
    model = tf.keras.Sequential([tf.keras.Input(_SHAPE[1:], batch_size=1), *layers])
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def without_reshape(content: bytes) -> bytes:
    """Returns the file with FULLY_CONNECTED alone."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    [subgraph] = model.subgraphs
    reshape, dense = subgraph.operators
    dense.inputs[0] = reshape.inputs[0]
    subgraph.operators = [dense]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def compared(path: Path) -> str:
    """Compares the outputs of interpreter and GPU for one random image."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    [source] = interpreter.get_input_details()
    [target] = interpreter.get_output_details()
    image = np.random.default_rng(1).normal(0, 1, _SHAPE).astype(np.float32)
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    wanted = interpreter.get_tensor(target["index"])
    model = CompiledModel.from_file(str(path), HardwareAccelerator.GPU)
    [inputs], [outputs] = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs.write(image)
    model.run_by_index(0, [inputs], [outputs])
    found = outputs.read(wanted.size, np.float32).reshape(wanted.shape)
    difference = np.abs(found - wanted)
    wrong = int((difference > 1e-3).sum())
    return f"{wrong} of {wanted.size} outputs wrong, by up to {difference.max():.4g}"


if __name__ == "__main__":
    main()
