"""Runs the tools of targets: compilers and interpreters outside this process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

TIMEOUT = 600  # Seconds; most networks take less than one, large ones take minutes.
_LINES = 40  # The end of a long log says what went wrong.


def run_tool(name: str, arguments: Sequence[str], task: str = "accept the file") -> str:
    """Runs a tool.

    Args:
        name: What errors call it.
        arguments: Its command and arguments.
        task: What it is expected to do, as an infinitive.

    Returns:
        What it prints to standard output.

    Raises:
        RuntimeError: If it fails or does not finish.
    """
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"{name} must finish within {TIMEOUT} seconds. Received: a timeout. Try a "
            "smaller model."
        ) from error
    if done.returncode:
        raise RuntimeError(
            f"{name} must {task}. Received exit code {done.returncode}:\n"
            f"{last_lines(done.stdout + done.stderr)}"
        )
    return done.stdout


def last_lines(log: str) -> str:
    """Returns the end of a log."""
    return "\n".join(log.strip().splitlines()[-_LINES:])
