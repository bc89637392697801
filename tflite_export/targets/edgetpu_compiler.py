"""Runs Coral's `edgetpu_compiler` if it is installed, and reads its log."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from pathlib import Path

from .tool import last_lines, run_tool

COMMAND = "edgetpu_compiler"
ONLY_RULES = (
    f"{COMMAND} is not on PATH: only the documented rules of the Edge TPU were checked."
)
_ROW = re.compile(r"^([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Mapping:
    """Operators of one kind with the same status.

    Attributes:
        code: Operator.
        count: How many of them.
        status: What the compiler reports about them.
    """

    code: str
    count: int
    status: str

    def __str__(self) -> str:
        """Returns one line."""
        return f"edgetpu_compiler: {self.count} {self.code}: {self.status}"


def compile_for_edgetpu(content: bytes) -> list[Mapping] | None:
    """Compiles a file, and returns where the compiler maps its operators.

    Args:
        content: The bytes of a `.tflite` file.

    Returns:
        One entry per operator and status; None if the compiler is not installed.

    Raises:
        RuntimeError: If the compiler refuses the file, or does not finish.
    """
    command = shutil.which(COMMAND)
    if command is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(content)
        arguments = [command, "--show_operations", "--out_dir", folder, str(path)]
        log = run_tool(COMMAND, arguments)
    mappings = [Mapping(code, int(n), text) for code, n, text in _ROW.findall(log)]
    if not mappings:
        raise RuntimeError(
            f"{COMMAND} must say where it maps operators. Received:\n{last_lines(log)}"
        )
    return mappings
