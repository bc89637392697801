"""Writes int8 files of one convolution that LiteRT's GPU accelerator computes wrongly.

    pip install tensorflow ai-edge-litert
    python gpu_wrong_convolutions.py

Writes a file per convolution by TFLiteConverter alone, runs it by LiteRT's interpreter
and by `CompiledModel` on a GPU, and prints how the outputs differ. Without a GPU of its
own, a machine can use SwiftShader, see the report.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ai_edge_litert
import numpy as np
import tensorflow as tf
from ai_edge_litert.compiled_model import CompiledModel, HardwareAccelerator
from ai_edge_litert.interpreter import Interpreter

_SHAPE = (8, 8, 4)
_LAYERS = tf.keras.layers
CONVOLUTIONS = {
    "1x1": lambda: _LAYERS.Conv2D(4, 1),
    "1x1, stride 2": lambda: _LAYERS.Conv2D(4, 1, strides=2),
    "3x3, stride 2": lambda: _LAYERS.Conv2D(4, 3, strides=2),
    "3x3, 2 groups": lambda: _LAYERS.Conv2D(4, 3, groups=2),
    "depthwise 1x1": lambda: _LAYERS.DepthwiseConv2D(1),
    "depthwise 1x1, multiplier 2": lambda: _LAYERS.DepthwiseConv2D(
        1, depth_multiplier=2
    ),
    "depthwise 3x3, multiplier 2": lambda: _LAYERS.DepthwiseConv2D(
        3, depth_multiplier=2
    ),
}


def main() -> None:
    """Prints a row per convolution and type."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    print(f"ai-edge-litert {ai_edge_litert.__version__}, TensorFlow {tf.__version__}")
    for name, layer in CONVOLUTIONS.items():
        for dtype in ("int8", "float32"):
            plain = "".join(c if c.isalnum() else "_" for c in name)
            path = folder / f"{plain}_{dtype}.tflite"
            path.write_bytes(converted(layer(), dtype))
            print(f"{name}, {dtype}: {compared(path)}")


def converted(layer: tf.keras.layers.Layer, dtype: str) -> bytes:
    """Returns the file of one layer with random weights."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input(_SHAPE, batch_size=1), layer])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if dtype == "int8":
        rng = np.random.default_rng(0)
        images = rng.normal(0, 1, (64, 1, *_SHAPE)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def compared(path: Path) -> str:
    """Compares the outputs of interpreter and GPU for one random image."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    [source] = interpreter.get_input_details()
    [target] = interpreter.get_output_details()
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, source["shape"])
    if source["dtype"] == np.int8:
        image = rng.integers(-128, 128, source["shape"])
    image = image.astype(source["dtype"])
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    wanted = interpreter.get_tensor(target["index"])
    model = CompiledModel.from_file(str(path), HardwareAccelerator.GPU)
    [inputs], [outputs] = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs.write(image)
    model.run_by_index(0, [inputs], [outputs])
    found = outputs.read(wanted.size, wanted.dtype.type).reshape(wanted.shape)
    difference = np.abs(found.astype(np.float64) - wanted)
    allowed = 1 if source["dtype"] == np.int8 else 1e-3
    wrong = int((difference > allowed).sum())
    return f"{wrong} of {wanted.size} outputs wrong, by up to {difference.max():.4g}"


if __name__ == "__main__":
    main()
