"""Files that are attached to a `.tflite` file: a ZIP archive after the flatbuffer.

TFLite's standard metadata attach label files in this way. Runtimes read the flatbuffer
and ignore what follows it; ZIP archives are read from their end. Readers on phones map
the files, so they are stored without compression. Compressed ones, which some tools
attach, can be read here, and are stored when a file is written again.

Reference: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

_END = b"PK\5\6"
_END_BYTES = 22  # The record without its comment; the last two are its length.
_MAX_COMMENT_BYTES = 0xFFFF
_ENCRYPTED = 1  # Bit of the flags.
_MOST_BYTES = 2**26  # Of all files; compressed ones may be larger than the archive.
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # No time of ZIP is earlier; the same in all files.
_UNIX, _MODE = 3, 0o644 << 16


def join(flatbuffer: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns a flatbuffer with attached files; the same input gives the same bytes.

    Args:
        flatbuffer: The bytes of a `.tflite` file without attached files.
        files: Name -> content; none: nothing is attached.
    """
    if not files:
        return flatbuffer
    content = io.BytesIO(flatbuffer)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        for name, file in files.items():
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.create_system, info.external_attr = _UNIX, _MODE
            archive.writestr(info, file)
    return content.getvalue()


def split(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Returns the flatbuffer of a `.tflite` file, and the files attached to it.

    Args:
        content: All bytes of the file.

    Returns:
        The flatbuffer, and name -> content; empty if nothing is attached.

    Raises:
        ValueError: If the attached files are damaged, encrypted, compressed by another
            method than "deflate" or to more than 64 MiB, or two have the same name.
    """
    flatbuffer, files, _ = _read(content)
    return flatbuffer, files


def compressed(content: bytes) -> list[str]:
    """Returns the names of attached files that are compressed; phones refuse them.

    Args:
        content: All bytes of the file.

    Raises:
        ValueError: As for `split`.
    """
    _, _, entries = _read(content)
    return [entry.filename for entry in entries if _is_compressed(entry)]


def _read(content: bytes) -> tuple[bytes, dict[str, bytes], list[zipfile.ZipInfo]]:
    """Returns the flatbuffer, the attached files, and what the archive says of them."""
    if not _ends_with_archive(content):
        return content, {}, []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check(entries, len(content))
            starts = [entry.header_offset for entry in entries]
            start = min([*starts, archive.start_dir])
            files = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise _error(f"{type(error).__name__}: {error}") from error
    except (ValueError, struct.error, EOFError, OverflowError, zlib.error) as error:
        raise _error(f"{type(error).__name__}: {error}") from error
    return content[:start], files, entries


def _is_compressed(entry: zipfile.ZipInfo) -> bool:
    """Returns whether a file does not lie in the archive as it is."""
    return entry.compress_type != zipfile.ZIP_STORED


def _check(entries: list[zipfile.ZipInfo], num_bytes: int) -> None:
    """Raises an error unless all files can be read, and are of a plausible size."""
    names = [entry.filename for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    unknown = [
        entry.filename
        for entry in entries
        if entry.compress_type not in known or entry.flag_bits & _ENCRYPTED
    ]
    if twice:
        raise ValueError(f"it has more than one file with the names {twice}")
    if unknown:
        raise ValueError(f"{unknown} are encrypted, or compressed by other methods")
    stored = [entry for entry in entries if not _is_compressed(entry)]
    if sum(entry.file_size for entry in stored) > num_bytes:
        raise ValueError("its files are larger than the archive")
    if sum(entry.file_size for entry in entries) > max(num_bytes, _MOST_BYTES):
        raise ValueError("its files are larger than 64 MiB")


def _ends_with_archive(content: bytes) -> bool:
    """Returns whether bytes end with the last record of a ZIP archive."""
    first = max(0, len(content) - _END_BYTES - _MAX_COMMENT_BYTES)
    start = content.rfind(_END, first)
    if start < 0 or start + _END_BYTES > len(content):
        return False
    [comment_bytes] = struct.unpack_from("<H", content, start + _END_BYTES - 2)
    return start + _END_BYTES + comment_bytes == len(content)


def _error(cause: str) -> ValueError:
    """Returns the error for an archive that cannot be read."""
    return ValueError(
        "The files attached to this .tflite file must be a readable ZIP archive. "
        f"Received: {cause}. Check the download, or store the files in the archive "
        "without compression, as by `zip -0`."
    )
