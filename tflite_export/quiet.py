"""Filters the lines that TensorFlow and LiteRT print to stderr on every machine.

Their C++ code writes to file descriptor 2, before any log level takes effect. A child
process filters that, so nothing is lost if this one crashes. Python's own `sys.stderr`
bypasses the filter.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys

# Lines that are unrelated to what the user does.
_NOISE = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|I0000 .* cudart_stub\.cc"
    rb"|I0000 .* port\.cc.*oneDNN custom operations are on"
    rb"|INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|E0000 .* cuda_platform\.cc.*UNKNOWN ERROR \(303\)"  # There is no driver.
    rb"|I0000 .* cpu_feature_guard\.cc"
    rb"|To enable the following instructions: "
    rb"|fully_quantize: \d)"  # TFLiteConverter.
)


def silence_libraries() -> None:
    """Drops the lines above from standard error, for the rest of this process.

    Call it before importing TensorFlow. Does nothing where processes cannot fork.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not hasattr(os, "fork"):
        return
    sys.stderr.flush()
    original = os.dup(2)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # It ends with this process.
        os.close(write_end)
        _filter(read_end, original)
        os._exit(0)
    os.close(read_end)
    os.dup2(write_end, 2)
    os.close(write_end)
    sys.stderr = open(original, "w", buffering=1, closefd=False)
    atexit.register(_finish, child)


def _filter(source: int, target: int) -> None:
    """Copies lines that are not noise until the write end is closed."""
    with open(source, "rb") as lines:
        for line in lines:
            if not _NOISE.match(line):
                os.write(target, line)


def _finish(child: int) -> None:
    """Lets the child write the remaining lines, and waits for it to exit.

    C++ prints later only while it is unloaded: LiteRT, what it destroys.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    os.waitpid(child, 0)
