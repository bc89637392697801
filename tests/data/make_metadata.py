"""Writes metadata.bin from metadata.json with MediaPipe's own code, and checks ours.

It needs an environment with mediapipe (1.2.3 was used); `ours` is what
`tflite_export.file.metadata_format.encode` makes of metadata.json:

    python tests/data/make_metadata.py [ours]
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import flatbuffers

try:
    from mediapipe.tasks.metadata import metadata_schema_py_generated as generated
except ImportError:  # Only in an environment of its own.
    generated = None

DATA = Path(__file__).parent
SCHEMA = DATA.parents[1] / "tflite_export/file/metadata_schema.py"


def load_schema():
    """The types of the fields; their places are those of the generated code."""
    spec = importlib.util.spec_from_file_location("schema", SCHEMA)
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return schema


schema = load_schema()


def camel(name):
    return re.sub(r"_(.)", lambda match: match[1].upper(), name)


def value_of(kind, value):
    if kind.startswith("["):
        return [value_of(kind[1:-1], one) for one in value]
    if kind in schema.ENUMS:
        return getattr(getattr(generated, kind), value)
    if kind not in schema.TABLES:
        return value
    written = getattr(generated, f"{kind}T")()
    for name, inner in value.items():
        field = schema.TABLES[kind][name]
        if field in schema.UNIONS:
            number = getattr(getattr(generated, field), inner[0])
            setattr(written, f"{camel(name)}Type", number)
            field, inner = inner
        setattr(written, camel(name), value_of(field, inner))
    return written


def plain(value):
    """An object tree of the generated code as plain data."""
    if hasattr(value, "__dict__"):
        return type(value).__name__, {k: plain(v) for k, v in vars(value).items()}
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(one) for one in value] if isinstance(value, list) else value


def main():
    tree = json.loads((DATA / "metadata.json").read_text())
    builder = flatbuffers.Builder(0)
    root = value_of(schema.ROOT, tree).Pack(builder)
    builder.Finish(root, file_identifier=b"M001")
    (DATA / "metadata.bin").write_bytes(builder.Output())
    for path in sys.argv[1:]:
        read = generated.ModelMetadataT.InitFromPackedBuf
        found = plain(read(bytearray(Path(path).read_bytes()), 0))
        wanted = plain(read(bytearray(builder.Output()), 0))
        print("equal" if found == wanted else f"{found}\n{wanted}")


if __name__ == "__main__":
    main()
