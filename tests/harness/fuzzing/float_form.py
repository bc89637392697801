"""Does TFLite have a form of a model in float, whatever this library says?"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from .models import outputs_of

# Operators that files from this library do not have: loops, and what keeps a state.
_LEFT_OUT = ("WHILE", "IF", "CALL_ONCE", "VAR_HANDLE", "UNIDIRECTIONAL_")
_TOLERANCE = 1e-3


def has_float_form(model: Any, inputs: list[np.ndarray]) -> bool:
    """Returns whether TFLite's own operators compute a float model, without loops.

    Args:
        model: A model of either Keras.
        inputs: Values for its inputs; the first example is used.
    """
    examples = [x[:1] for x in inputs]
    try:
        interpreter = Interpreter(model_content=_converted(model, examples))
        interpreter.allocate_tensors()
        names = [op["op_name"] for op in interpreter._get_ops_details()]
        found = _run(interpreter, examples)
    except Exception:  # Converters raise whatever they like.
        return False
    if any(name.startswith(_LEFT_OUT) for name in names):
        return False
    expected = outputs_of(model, examples)
    return len(found) == len(expected) and all(map(_close, found, expected))


def _converted(model: Any, examples: list[np.ndarray]) -> bytes:
    """Returns what TFLiteConverter makes of a model with a batch of 1."""

    @tf.function
    def run(*tensors: Any) -> Any:
        return tf.nest.flatten(model(list(tensors) if len(tensors) > 1 else tensors[0]))

    specs = [tf.TensorSpec(x.shape, x.dtype, f"x_{i}") for i, x in enumerate(examples)]
    concrete = run.get_concrete_function(*specs)
    holder = tf.Module()
    holder.run, holder.model = run, model  # With an object, the file names its ends.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    return converter.convert()


def _run(interpreter: Any, examples: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of a file."""
    runner = interpreter.get_signature_runner()
    arrays = {f"x_{i}": x for i, x in enumerate(examples)}
    outputs = runner(**{name: arrays[name] for name in runner.get_input_details()})
    return [outputs[f"output_{i}"] for i in range(len(outputs))]


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Returns whether two outputs are equal up to the rounding of float32."""
    limit = _TOLERANCE * max(float(abs(expected).max(initial=0.0)), 1e-6)
    return found.shape == expected.shape and bool(
        (abs(found - expected) <= limit).all()
    )
