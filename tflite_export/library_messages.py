"""Collects what libraries print to file descriptor 2, where no log level applies."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator

_STANDARD_ERROR = 2


@contextlib.contextmanager
def collected_messages() -> Generator[list[str], None, None]:
    """Collects the lines that are printed to file descriptor 2, instead of printing.

    Yields:
        A list that holds the lines once the context has ended.
    """
    lines: list[str] = []
    sys.stderr.flush()
    original = os.dup(_STANDARD_ERROR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STANDARD_ERROR)
        try:
            yield lines
        finally:
            os.dup2(original, _STANDARD_ERROR)
            os.close(original)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
