"""Inspects `.tflite` files of any tool, without running anything in them."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, cast

from .consumers import ConsumerReport, facts_of, judge_all, table
from .file import (
    OPERATORS,
    End,
    StandardMetadata,
    TFLiteGraph,
    ends_of,
    from_bytes,
    metadata,
    runtime_of,
    standard_metadata,
)


@dataclasses.dataclass
class FileReport:
    """The contents of a file.

    Attributes:
        path: The file.
        file_bytes: Its size.
        sha256: SHA-256 of the whole file.
        description: The description that its writer stored in it.
        min_runtime: The runtimes that compute it right; "" if unknown.
        inputs: Its inputs.
        outputs: Its outputs.
        operators: "CODE version" -> how many.
        kernel_bytes: Type -> bytes of the kernels stored in it.
        described: How the integers were trained, as `export_model` writes it; None in
            files from other tools.
        changed: Kernels whose codes differ from those that the metadata describes.
        standard: TFLite's standard metadata, such as labels; None if it has none.
        consumers: What each consumer does with the file.
    """

    path: str
    file_bytes: int
    sha256: str
    description: str
    min_runtime: str
    inputs: list[End]
    outputs: list[End]
    operators: dict[str, int]
    kernel_bytes: dict[str, int]
    described: dict[str, Any] | None
    changed: list[str]
    standard: StandardMetadata | None
    consumers: list[ConsumerReport]

    @property
    def damaged(self) -> list[str]:
        """What differs from what was written: kernels, and the standard metadata."""
        return self.changed + ([] if self.standard is None else self.standard.problems)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Returns a few readable tables."""
        lines = [f"{self.path}: {self.file_bytes} bytes, sha256 {self.sha256}"]
        lines += [self.description] if self.description else []
        for what in ("inputs", "outputs"):
            for end in getattr(self, what):
                grid = ""
                if end.scale is not None:
                    grid = f"  scale {end.scale:.8g}  zero point {end.zero_point}"
                lines.append(
                    f"{what[:-1]:<7} {end.name}: {end.dtype} {list(end.shape)}{grid}"
                )
        operators = ", ".join(f"{n} {code}" for code, n in self.operators.items())
        kernels = ", ".join(
            f"{n} bytes {kind}" for kind, n in self.kernel_bytes.items()
        )
        lines += [f"operators: {operators}", f"kernels: {kernels or 'none'}"]
        lines += [f"needs {self.min_runtime}"] if self.min_runtime else []
        lines += [] if self.standard is None else [str(self.standard)]
        lines += _described_lines(self.described, self.changed)
        return "\n".join([*lines, "consumers:", *table(self.consumers)])


def inspect_tflite(path: str | Path) -> FileReport:
    """Inspects a `.tflite` file, written by this library or by another tool.

    Args:
        path: The file.

    Returns:
        Inputs, outputs, operators and containers, labels and other standard metadata,
        how the integers were trained if the file describes it, and what each consumer
        does with the file; prints as a table.

    Raises:
        OSError: If `path` cannot be opened.
        ValueError: If the file cannot be read.
    """
    content = Path(path).read_bytes()
    graph = from_bytes(content)
    described = metadata.read(graph)
    operators = collections.Counter(
        f"{f'{op.code} {op.custom}'.strip()} v{op.version}" for op in graph.ops
    )
    return FileReport(
        path=str(path),
        file_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        description=graph.description,
        min_runtime=_runtime(graph),
        inputs=ends_of(graph, graph.inputs),
        outputs=ends_of(graph, graph.outputs),
        operators=dict(operators),
        kernel_bytes=_kernel_bytes(graph),
        described=described,
        changed=[] if described is None else _changed(graph, described),
        standard=standard_metadata.read(graph),
        consumers=judge_all(facts_of(graph)),
    )


def _runtime(graph: TFLiteGraph) -> str:
    """Returns the runtimes of a file, "" if an operator is unknown."""
    try:
        return runtime_of(graph)
    except ValueError:
        return ""


def _kernel_bytes(graph: TFLiteGraph) -> dict[str, int]:
    """Returns the bytes of all kernels by the type that stores them.

    The kernels of a file with float16 kernels are read through a DEQUANTIZE.
    """
    stored = {
        op.outputs[0]: op.inputs[0] for op in graph.ops if op.code == "DEQUANTIZE"
    }
    names = {
        stored.get(op.inputs[1], op.inputs[1])
        for op in graph.ops
        if op.code in OPERATORS and OPERATORS[op.code].weighted and len(op.inputs) > 1
    }
    num_bytes: collections.Counter[str] = collections.Counter()
    for name in names - {""}:
        num_bytes[graph.tensors[name].dtype] += graph.tensors[name].num_bytes
    return dict(num_bytes)


def _changed(graph: TFLiteGraph, described: dict[str, Any]) -> list[str]:
    """Returns the kernels whose codes do not have the hash in the metadata."""
    changed: list[str] = []
    for name, entry in described.get("tensors", {}).items():
        if not (isinstance(entry, dict) and "sha256" in entry):
            continue
        tensor = graph.tensors.get(name)
        stored = None if tensor is None or tensor.data is None else tensor.data
        if stored is None or stored.dtype.kind != "i" or stored.itemsize != 1:
            changed.append(name)
        elif metadata.code_hash(stored) != entry["sha256"]:
            changed.append(name)
    return changed


def _described_lines(described: dict[str, Any] | None, changed: list[str]) -> list[str]:
    """Returns readable lines on how the integers were trained."""
    if described is None:
        return [
            "not written by tf_lsq: no information on how its integers were trained"
        ]
    keys = [key for key in ("model", "target", "storage") if key in described]
    head = [f"{key} {described[key]!r}" for key in keys]
    if "versions" in described:
        head.append(f"versions {json.dumps(described['versions'])}")
    lines = [f"written by tf_lsq: {', '.join(head)}"]
    if "sha256" in described:
        lines.append(f"  described by its hash only: {described['sha256']}")
    for name, value in described.get("tensors", {}).items():
        entry = cast("dict[str, Any]", value if isinstance(value, dict) else {})
        steps = entry.get("step")
        if isinstance(steps, list):
            step = f"{len(cast('list[float]', steps))} steps"
        else:
            step = f"step {steps}"
        sign = _range_of(entry)
        lines.append(
            f"  {name}: {entry.get('kind')} of {entry.get('layer')!r}, "
            f"{entry.get('bits')} bits {sign}, {step}{_pixels_of(entry)}"
        )
    lines += [f"CHANGED since it was exported: `{name}`" for name in changed]
    return lines


def _pixels_of(entry: dict[str, Any]) -> str:
    """Returns what the model takes for bytes, "" if a tensor is no pixels."""
    pixels = entry.get("pixels")
    if not isinstance(pixels, dict):
        return ""
    numbers = cast("dict[str, Any]", pixels)
    order = ", channels reversed" if numbers.get("order") == "bgr" else ""
    mean, std = numbers.get("mean"), numbers.get("std")
    return f"; pixels, trained on (byte - {mean}) / {std}{order}"


def _range_of(entry: dict[str, Any]) -> str:
    """Returns one word for the integers that a tensor uses."""
    bits, smallest = entry.get("bits"), entry.get("smallest")
    if isinstance(bits, int) and isinstance(smallest, int):
        if smallest not in (0, -(2 ** (bits - 1))):
            return f"from {smallest}"
    return "signed" if entry.get("signed") else "unsigned"
