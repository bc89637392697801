"""Runs many files in a process that a file may end."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from . import run_files


def run_past(
    command: list[Any], output: Path, environment: dict[str, str] | None = None
) -> None:
    """Runs a command again until no file ends its process.

    Args:
        command: Runs all files that have no results yet, by `run_files.write_codes`.
        output: Where that writes.
        environment: Environment variables; None: those of this process.

    Raises:
        RuntimeError: If the process ends, and not by running a file.
    """
    while True:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode == 0:
            return
        crashed = [
            path
            for path in output.glob("*.error")
            if path.read_text() == run_files.CRASHED
        ]
        if not crashed:
            raise RuntimeError(
                f"{command[0]} must run LiteRT. Received: exit code {done.returncode}, "
                f"{done.stderr[-2000:]}"
            )
        for path in crashed:
            path.write_text(f"{run_files.CRASHED} with {done.returncode}")
