"""Runs files under LiteRT; needs nothing but NumPy and LiteRT.

python run_files.py FOLDER OUTPUT [EXAMPLES]

Each NAME.tflite is run on the arrays of NAME.npz, with XNNPACK and without. The codes
of its outputs go to OUTPUT/NAME.npz as "KERNELS/OUTPUT".
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


def run(path, kernels, inputs):
    """Returns the outputs of a file by signature name, one example at a time."""
    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=RESOLVERS[kernels], num_threads=1
    )
    runner = interpreter.get_signature_runner()
    count = len(next(iter(inputs.values())))
    rows = []
    for i in range(count):
        row = runner(**{name: x[i : i + 1] for name, x in inputs.items()})
        rows.append({name: np.array(value) for name, value in row.items()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def main(folder, output, examples=None):
    """Runs all files that have no results yet."""
    Path(output).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(folder).glob("*.tflite")):
        result = Path(output, f"{path.stem}.npz")
        if result.exists():
            continue
        count = None if examples is None else int(examples)
        with np.load(path.with_suffix(".npz")) as data:
            inputs = {name: data[name][:count] for name in data}
        found = {}
        for kernels in RESOLVERS:
            for name, codes in run(path, kernels, inputs).items():
                found[f"{kernels}/{name}"] = codes
        part = result.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **found)
        part.rename(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
