"""Converts TFLite's standard metadata between bytes and plain data.

A table is a dict of the fields that it has, an enum the name of its value, and a union
the name of a table with the table. `metadata_schema` has the tables.

References: https://flatbuffers.dev/internals, and metadata_schema.fbs, see there.
"""

# flatbuffers has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import flatbuffers
import numpy as np

from . import metadata_schema as schema
from .checked_bytes import READ_ERRORS, CheckedBytes
from .releases import newest

Tree = dict[str, Any]
_NUMPY = {"int": np.int32, "uint": np.uint32, "float": np.float32}
_BYTES_ALIGNMENT = 16  # `force_align` of the only vector of bytes.
_SHARING = 4  # How often writers may use the same text or table, on average.
_ELEMENT_BYTES = 4  # Numbers, and offsets of texts and tables.
_TABLE_BYTES = 8  # Its offset to the vtable, and one field or the offset to it.
_NEWER = "field "  # Fields that the schema does not have, by their number.


def _slots(table: str) -> dict[str, int]:
    """Returns the first slot of each field; a union takes two."""
    slots: dict[str, int] = {}
    number = 0
    for name, kind in schema.TABLES[table].items():
        slots[name] = number
        number += 2 if kind in schema.UNIONS else 1
    return slots | {"": number}


# --- Writing -----------------------------------------------------------------


def encode(tree: Tree) -> bytes:
    """Returns the bytes of metadata; the same tree gives the same bytes.

    The version of the parser that they need is added.

    Args:
        tree: A "ModelMetadata".

    Raises:
        ValueError: If a table has a field, or a field a value, that the schema does
            not have.
    """
    builder = flatbuffers.Builder(0)
    tree = {**tree, "min_parser_version": parser_version(tree)}
    root = _write_table(builder, schema.ROOT, tree)
    builder.Finish(root, file_identifier=schema.IDENTIFIER)
    return bytes(builder.Output())


def parser_version(tree: Tree) -> str:
    """Returns the oldest version of the schema that has all that metadata use.

    Args:
        tree: A "ModelMetadata".
    """
    used = [
        schema.SINCE.get((kind, name), "")
        for kind, value in walk(schema.ROOT, tree)
        for name in _names_in(kind, value)
    ]
    return newest([schema.OLDEST_PARSER, *used])


def walk(kind: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields a value of metadata and all values in it, with their types.

    Args:
        kind: Its type in the schema; "": a field that the schema does not have.
        value: The value.
    """
    yield kind, value
    if kind.startswith("["):
        for element in value:
            yield from walk(kind[1:-1], element)
    elif kind in schema.UNIONS:
        yield from walk(*value)
    elif kind in schema.TABLES:
        for name, inner in value.items():
            yield from walk(schema.TABLES[kind].get(name, ""), inner)


def _names_in(kind: str, value: Any) -> Iterable[str]:
    """Returns the fields of a table, or the name in an enum or union."""
    if kind in schema.TABLES:
        return value
    if kind in schema.UNIONS:
        return [value[0]]
    return [value] if kind in schema.ENUMS else []


def _write_table(builder: Any, table: str, tree: Tree) -> int:
    """Writes a table and returns its offset."""
    fields = schema.TABLES[table]
    unknown = sorted(tree.keys() - fields.keys())
    if unknown:
        raise ValueError(
            f"Fields of {table} must be among {list(fields)}. Received: {unknown}. "
            "Metadata with newer fields cannot be changed without losing them."
        )
    tree = {name: tree[name] for name in fields if name in tree}
    written = {
        name: _write(builder, fields[name], value)
        for name, value in tree.items()
        if fields[name] not in schema.SCALARS and fields[name] not in schema.ENUMS
    }
    slots = _slots(table)
    builder.StartObject(slots[""])
    for name, value in tree.items():
        kind, slot = fields[name], slots[name]
        if kind == "float":
            builder.PrependFloat32Slot(slot, value, 0.0)
        elif kind in schema.SCALARS:
            prepend = builder.PrependInt32Slot
            (prepend if kind == "int" else builder.PrependUint32Slot)(slot, value, 0)
        elif kind in schema.ENUMS:
            builder.PrependInt8Slot(slot, _number(kind, value), 0)
        elif kind in schema.UNIONS:
            builder.PrependUint8Slot(slot, _number(kind, value[0]) + 1, 0)
            builder.PrependUOffsetTRelativeSlot(slot + 1, written[name], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, written[name], 0)
    return builder.EndObject()


def _write(builder: Any, kind: str, value: Any) -> int:
    """Writes text, a vector, a union's table or a table; returns its offset."""
    if kind == "string":
        return builder.CreateString(value)
    if kind in schema.UNIONS:
        return _write_table(builder, value[0], value[1])
    if kind in schema.TABLES:
        return _write_table(builder, kind, value)
    element = kind[1:-1]
    if element == "ubyte":
        builder.Prep(_BYTES_ALIGNMENT, len(value))
        return builder.CreateByteVector(value)
    if element in _NUMPY:
        return builder.CreateNumpyVector(np.array(value, _NUMPY[element]))
    offsets = [_write(builder, element, one) for one in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _number(kind: str, name: str) -> int:
    """Returns the place of a name among the values of an enum or union."""
    names = (schema.ENUMS | schema.UNIONS)[kind]
    if name not in names:
        raise ValueError(
            f"Values of {kind} must be among {list(names)}. Received: {name!r}."
        )
    return names.index(name)


# --- Reading -----------------------------------------------------------------


def decode(content: bytes) -> Tree:
    """Reads metadata from bytes of any tool.

    Args:
        content: The bytes.

    Returns:
        A "ModelMetadata". Fields that the schema does not have, from a newer one, are
        named by their number, without a value.

    Raises:
        ValueError: If the bytes are no readable metadata.
    """
    try:
        if content[4:8] != schema.IDENTIFIER:
            raise ValueError(f"the identifier is {content[4:8]!r}")
        return _Reader(content).root()
    except READ_ERRORS as error:
        raise ValueError(
            "The standard metadata of the file must be readable, with the identifier "
            f"{schema.IDENTIFIER!r}. Received {len(content)} bytes: "
            f"{type(error).__name__}: {error}. Check the download, or write the "
            "metadata again."
        ) from error


class _Reader:
    """Reads the tables of one flatbuffer, up to a limit.

    Without it, small files whose vectors share elements would take forever.
    """

    def __init__(self, content: bytes) -> None:
        self._content = CheckedBytes(content)
        self._left = _SHARING * len(content)

    def root(self) -> Tree:
        """Returns the root table."""
        return self._table(schema.ROOT, self._at(0))

    def _take(self, size: int) -> None:
        """Counts the bytes of what was read."""
        self._left -= size
        if self._left < 0:
            raise ValueError(f"it has more than {_SHARING} times its bytes")

    def _text(self, first: int, size: int) -> bytes:
        """Returns bytes."""
        self._take(size)
        return bytes(self._content[first : first + size])

    def _unpack(self, form: str, position: int) -> Any:
        """Returns a number at a position."""
        if position < 0:
            raise IndexError(f"{position} is before the start")
        return struct.unpack_from(form, self._content, position)[0]

    def _at(self, position: int) -> int:
        """Returns where the offset at a position points to."""
        return position + self._unpack("<I", position)

    def _table(self, table: str, position: int) -> Tree:
        """Returns a table."""
        self._take(_TABLE_BYTES)
        layout = position - self._unpack("<i", position)
        slots = _slots(table)
        num_slots = (self._unpack("<H", layout) - 4) // 2
        places = [self._unpack("<H", layout + 4 + 2 * i) for i in range(num_slots)]
        tree: Tree = {}
        for name, kind in schema.TABLES[table].items():
            slot = slots[name]
            ends = [position + place if place else 0 for place in places[slot:][:2]]
            if kind in schema.UNIONS:
                if len(ends) == 2 and all(ends):
                    tree[name] = self._union(kind, *ends)
            elif ends and ends[0]:
                tree[name] = self._value(kind, ends[0])
        newer = range(slots[""], num_slots)
        return tree | {f"{_NEWER}{i}": None for i in newer if places[i]}

    def _union(self, kind: str, type_at: int, at: int) -> tuple[str, Tree]:
        """Returns the table of a union with its name."""
        number = self._unpack("<B", type_at) - 1
        name = _named(kind, number)
        return name, self._table(name, self._at(at))

    def _value(self, kind: str, at: int) -> Any:
        """Returns the value of a field."""
        if kind in schema.SCALARS:
            return self._unpack(schema.SCALARS[kind], at)
        if kind in schema.ENUMS:
            return _named(kind, self._unpack("<b", at))
        start = self._at(at)
        if kind in schema.TABLES:
            return self._table(kind, start)
        size, first = self._unpack("<I", start), start + 4
        if kind == "string":
            return self._text(first, size).decode()
        element = kind[1:-1]
        if element == "ubyte":
            return self._text(first, size)
        places = range(first, first + _ELEMENT_BYTES * size, _ELEMENT_BYTES)
        self._take(_ELEMENT_BYTES * size)
        return [self._value(element, place) for place in places]


def _named(kind: str, number: int) -> str:
    """Returns the name of an enum's or union's value."""
    names = (schema.ENUMS | schema.UNIONS)[kind]
    if not 0 <= number < len(names):
        raise ValueError(f"{kind} has the unknown value {number}")
    return names[number]
