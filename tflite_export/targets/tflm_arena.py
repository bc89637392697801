"""Measures the memory that TFLite Micro needs for a file, if its wheel is installed."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from .tool import run_tool

PACKAGE = "tflite_micro"
NOT_MEASURED = (
    "The arena was not measured: tflite-micro is not installed. Install it with `pip "
    "install tf-lsq[tflm]`."
)
ALIGNMENT = 16
_LARGEST = 1 << 30
# Runs in a separate process: TFLite Micro prints what does not fit. Each size is tried
# in a fork of it, because some that are too small crash.
_SCRIPT = f"""\
import os
import sys
from pathlib import Path
from tflite_micro.python.tflite_micro.runtime import Interpreter

content = Path(sys.argv[1]).read_bytes()

def fits(size):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        Interpreter.from_bytes(content, arena_size=size).invoke()
    except RuntimeError:
        os._exit(1)
    os._exit(0)

high = 1024
while not fits(high):
    high *= 2
    if high > {_LARGEST}:
        sys.exit(1)
low = high // 2
while high - low > {ALIGNMENT}:
    middle = (low + high) // 2 // {ALIGNMENT} * {ALIGNMENT}
    low, high = (low, middle) if fits(middle) else (middle, high)
print(high)
"""


def measure_arena(content: bytes) -> int | None:
    """Measures the smallest arena with which TFLite Micro loads a file.

    It has the reference kernels, on this machine. Pointers of a microcontroller are
    smaller; kernels of its vendor may need buffers of their own.

    Args:
        content: The bytes of a `.tflite` file.

    Returns:
        Bytes, a multiple of 16; None if `tflite-micro` is not installed.

    Raises:
        RuntimeError: If TFLite Micro does not load the file, or does not finish.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(content)
        arguments = [sys.executable, "-c", _SCRIPT, str(path)]
        return int(run_tool("TFLite Micro", arguments, "load the file").split()[-1])
