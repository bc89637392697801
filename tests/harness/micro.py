"""Runs files under TFLite Micro, one example at a time."""

from __future__ import annotations

import numpy as np
from tflite_micro.python.tflite_micro.runtime import Interpreter

from tflite_export.file import to_bytes

_ARENA = 64 * 2**20


def load(content):
    """An interpreter for a file; RuntimeError if TFLite Micro refuses it."""
    return Interpreter.from_bytes(content, arena_size=_ARENA)


def run(graph, inputs):
    """Outputs by signature name, for inputs by signature name."""
    interpreter = load(to_bytes(graph))
    count = len(next(iter(inputs.values())))
    rows = {name: [] for name in graph.outputs}
    for example in range(count):
        for number, name in enumerate(graph.inputs):
            interpreter.set_input(inputs[name][example : example + 1], number)
        interpreter.invoke()
        for number, name in enumerate(graph.outputs):
            rows[name].append(np.array(interpreter.get_output(number)))
    return {name: np.concatenate(arrays) for name, arrays in rows.items()}
