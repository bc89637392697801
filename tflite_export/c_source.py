"""Writes a `.tflite` file as a C array, for firmware without a file system."""

from __future__ import annotations

import re
from pathlib import Path

from .atomic_file import check_writable, write_atomically
from .cpp import KEYWORDS
from .file import from_bytes

SUFFIXES = (".cc", ".cpp")
_PER_LINE = 12
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def write_c_source(
    path: str | Path, source: str | Path, *, name: str = "g_model"
) -> tuple[Path, Path]:
    """Writes a `.tflite` file as a C++ array, and the header that declares it.

    The header declares `name`, aligned to 16 bytes as TFLite Micro requires, and its
    size, `name` followed by `_size`.

    Args:
        path: A `.tflite` file.
        source: The file to write, `.cc` or `.cpp`; the header gets the suffix `.h`.
            Existing files are replaced atomically.
        name: Name of the array.

    Returns:
        The two files.

    Raises:
        ValueError: If `path` is not a readable `.tflite` file, `source` has another
            suffix, or `name` is not an identifier.
        OSError: If a file cannot be read or written.
    """
    source = Path(source)
    header = source.with_suffix(".h")
    if source.suffix not in SUFFIXES:
        raise ValueError(
            f"`source` must end with one of {list(SUFFIXES)}. Received: "
            f"{str(source)!r}."
        )
    if not _IDENTIFIER.fullmatch(name) or name in KEYWORDS:
        raise ValueError(
            "`name` must consist of letters, digits and underscores, not begin with a "
            f"digit, and not be a keyword of C++. Received: {name!r}."
        )
    content = Path(path).read_bytes()
    from_bytes(content)
    check_writable(source)
    check_writable(header)
    write_atomically(header, _header(name).encode())
    write_atomically(source, _source(content, header.name, name).encode())
    return source, header


def _header(name: str) -> str:
    """Returns the declarations."""
    return (
        "#pragma once\n\n"
        f"extern const unsigned char {name}[];\n"
        f"extern const unsigned int {name}_size;\n"
    )


def _source(content: bytes, header: str, name: str) -> str:
    """Returns the definitions."""
    starts = range(0, len(content), _PER_LINE)
    rows = (content[start : start + _PER_LINE] for start in starts)
    lines = [f"    {', '.join(f'0x{byte:02x}' for byte in row)}," for row in rows]
    return "\n".join(
        [
            f'#include "{header}"\n',
            f"alignas(16) const unsigned char {name}[] = {{",
            *lines,
            "};",
            f"const unsigned int {name}_size = {len(content)};\n",
        ]
    )
