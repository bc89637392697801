"""Bytes from files that may be damaged, and the errors that reading them raises."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import struct
from typing import Any

READ_ERRORS = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    MemoryError,
    OverflowError,
)


class CheckedBytes(bytearray):
    """Bytes whose slices are never silently truncated."""

    def __getitem__(self, key: Any) -> Any:
        """Returns bytes; a slice past the end is an error, as an index is."""
        if isinstance(key, slice) and (key.stop or 0) > len(self):
            raise IndexError(f"{key.stop} is past the end, {len(self)}")
        return super().__getitem__(key)
