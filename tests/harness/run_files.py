"""Runs files under LiteRT or TensorFlow Lite; needs nothing else but NumPy.

python run_files.py FOLDER OUTPUT [EXAMPLES]

Each NAME.tflite is run on the arrays of NAME.npz, with XNNPACK and without. The codes
of its outputs go to OUTPUT/NAME.KERNELS.npz, by the names of the outputs. Where it
cannot be run, OUTPUT/NAME.KERNELS.error has the runtime's message.

That file is there while a file is run, so it also names the file that ends this
process. Start the script again to go on with the next one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
except ModuleNotFoundError:
    try:
        from tflite_runtime.interpreter import Interpreter, OpResolverType
    except ModuleNotFoundError:
        from tensorflow.lite.python.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}
CRASHED = "the process ended"


def run(path, kernels, inputs):
    """Returns the outputs of a file by signature name, one batch at a time."""
    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=RESOLVERS[kernels], num_threads=1
    )
    interpreter.allocate_tensors()  # Older releases start XNNPACK here only.
    runner = interpreter.get_signature_runner()
    size = int(interpreter.get_input_details()[0]["shape"][0])
    return in_batches(lambda batch: runner(**batch), inputs, size)


def in_batches(run_one, inputs, size):
    """Returns the outputs for all inputs, by running a file on a few at a time."""
    rows = []
    for i in range(0, len(next(iter(inputs.values()))), size):
        row = run_one({name: x[i : i + size] for name, x in inputs.items()})
        rows.append({name: np.array(value) for name, value in row.items()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def write_codes(path, kernels, output, examples, run=run):
    """Writes what a file computes, or the message of the runtime that refuses it."""
    result = Path(output, f"{path.stem}.{kernels}.npz")
    error = result.with_suffix(".error")
    if result.exists() or error.exists():
        return
    with np.load(path.with_suffix(".npz")) as data:
        inputs = {name: data[name][:examples] for name in data}
    error.write_text(CRASHED)
    try:
        codes = run(path, kernels, inputs)
    except (RuntimeError, ValueError) as problem:
        error.write_text(str(problem))
        return
    part = result.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **codes)
    part.rename(result)
    error.unlink()


def main(folder, output, examples=None):
    """Runs all files that have no results yet."""
    Path(output).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(folder).glob("*.tflite")):
        for kernels in RESOLVERS:
            count = None if examples is None else int(examples)
            write_codes(path, kernels, output, count)


if __name__ == "__main__":
    main(*sys.argv[1:])
