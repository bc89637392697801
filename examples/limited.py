"""Runs a script in its own process, with limits of CPU time and memory."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def run(script: Path, *arguments: str, seconds: int, gigabytes: float) -> Row:
    """Runs a script that writes one row of results.

    Args:
        script: The script.
        *arguments: Its arguments, to which that of the JSON file to write is added.
        seconds: CPU time after which the process is stopped.
        gigabytes: Memory that the process may allocate.

    Returns:
        The row that the script wrote. If it passed a limit or crashed, how it ended:
        the outcome "failed", the error, and where it was.
    """

    def limit() -> None:
        size = int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        command = [sys.executable, str(script), *arguments, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        if path.exists():
            return json.loads(path.read_text())
    return _crash(done)


def _crash(done: subprocess.CompletedProcess[str]) -> Row:
    """Describes the end of a process that wrote no row."""
    stopped = done.returncode == -signal.SIGXCPU
    error = "passed the limit of time" if stopped else f"exit code {done.returncode}"
    frame = re.search(
        r'File ".*/((?:tf_lsq|tflite_export)/[^"]+)", line (\d+) in (\S+)', done.stderr
    )
    return {
        "outcome": "failed",
        "stage": "",
        "reasons": {},
        "error": error,
        "message": error,
        "stderr": done.stderr[-4000:].strip(),
        "where": f"{frame[1]}:{frame[2]} {frame[3]}" if frame else "unknown",
    }
