"""Checks that a file is, tensor by tensor, what the model exports to."""

from __future__ import annotations

import numpy as np

from ..build import BuiltFile, describe
from ..file import (
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    additions_missing,
    contradiction,
    ends_of,
    from_bytes,
    metadata,
    standard_metadata,
)
from ..operators import FLOAT_PART
from ..runtimes import KERNELS, Runner, start


def compare_structure(graph: TFLiteGraph, built: BuiltFile) -> list[str]:
    """Returns how a file differs from what the model exports to.

    Args:
        graph: The file's graph.
        built: The file that the model exports to with the same settings.
    """
    # As read from a file: with every option and every version.
    expected = from_bytes(built.content)
    return _float_tensors(graph, built) + _structure(graph, expected)


def compare_standard_metadata(graph: TFLiteGraph, built: BuiltFile) -> list[str]:
    """Returns what is wrong with a file's standard metadata, or missing in them.

    A normalization must be that of the model's pixels.

    Args:
        graph: The file's graph.
        built: The file that the model exports to; its settings say what was asked.
    """
    faults = [
        f"its standard metadata are damaged: {problem}"
        for problem in standard_metadata.problems(graph)
    ]
    faults += _normalization_faults(graph, built)
    additions = built.settings.additions
    return faults + (additions_missing(graph, additions) if additions else [])


def _normalization_faults(graph: TFLiteGraph, built: BuiltFile) -> list[str]:
    """Returns which normalizations in a file contradict the model's pixels."""
    standard = standard_metadata.read(graph)
    said = {} if standard is None else standard.normalization
    nodes = built.frozen.by_name()
    pixels = [n for n, node in built.frozen.inputs.items() if nodes[node].pixels]
    return [
        f"`{end.name}`: its standard metadata have {fault}"
        for end in ends_of(graph, graph.inputs)
        if end.name in said and end.name in pixels
        if (fault := contradiction(graph, end, said[end.name]))
    ]


def compare_description(graph: TFLiteGraph, built: BuiltFile) -> list[str]:
    """Returns where a file's metadata differs from how its tensors were trained.

    Args:
        graph: The file's graph.
        built: The file that the model exports to with the same settings.
    """
    described = metadata.read(graph)
    if described is None:
        return []  # The settings say so.
    expected = describe(built.frozen, graph, built.settings)
    if built.settings.metadata == "hash":
        wanted = metadata.hashed(expected)
        keys = sorted(wanted.keys() | described.keys())
        return [
            f"its metadata has {described.get(key)!r} for {key!r}, expected "
            f"{wanted.get(key)!r}"
            for key in keys
            if described.get(key) != wanted.get(key)
        ]
    mismatches = [
        f"its metadata has {described.get(key)!r} for {key!r}, expected {value!r}"
        for key, value in expected.items()
        if key not in ("versions", "tensors") and described.get(key) != value
    ]
    for name in sorted(described["tensors"].keys() | expected["tensors"].keys()):
        ours, theirs = (d["tensors"].get(name) for d in (expected, described))
        if ours != theirs:
            mismatches.append(f"`{name}`: its metadata is {theirs}, expected {ours}")
    return mismatches


def find_load_errors(graph: TFLiteGraph, content: bytes) -> list[str]:
    """Returns why LiteRT cannot load a file, with either set of kernels.

    Args:
        graph: The file's graph.
        content: Its bytes.
    """
    for kernels in KERNELS:
        try:
            start(content, kernels).allocate_tensors()  # XNNPACK may refuse.
            Runner(graph, kernels, content)
        except (ValueError, RuntimeError) as error:
            return [
                f"LiteRT does not load it ({kernels} kernels): "
                f"{type(error).__name__}: {error}"
            ]
    return []


def _float_tensors(graph: TFLiteGraph, built: BuiltFile) -> list[str]:
    """Finds float tensors that are not inputs, outputs or in a layer left in float."""
    allowed = {n for n in graph.tensors if n.startswith(FLOAT_PART)}
    allowed |= {
        node.name
        for node in built.frozen.nodes
        if node.kind == "input" and node.grid is None
    }
    if built.settings.input_type == "float32":
        allowed |= set(graph.inputs.values())
    if built.settings.output_type == "float32":
        allowed |= set(graph.outputs.values())
    for node in built.frozen.nodes:
        if node.is_float:
            own = (name for name in graph.tensors if name.startswith(f"{node.name}/"))
            allowed |= {node.name, *own}
            allowed |= {f"{name}/dequantized" for name in node.inputs}
    return [
        f"`{name}` is a float tensor"
        for name, tensor in graph.tensors.items()
        if tensor.dtype.startswith("float") and name not in allowed
    ]


def _structure(graph: TFLiteGraph, expected: TFLiteGraph) -> list[str]:
    """Compares every tensor and operator with what the model exports to."""
    mismatches = []
    for what in ("inputs", "outputs"):
        actual, wanted = (list(getattr(g, what).items()) for g in (graph, expected))
        if actual != wanted:
            mismatches.append(f"its {what} are {actual}, expected {wanted}")
    if [op.code for op in graph.ops] != [op.code for op in expected.ops]:
        mismatches.append(
            f"its operators are {[op.code for op in graph.ops]}, expected "
            f"{[op.code for op in expected.ops]}"
        )
    else:
        for ours, theirs in zip(expected.ops, graph.ops, strict=True):
            mismatches += _compare_ops(theirs, ours)
    missing = sorted(expected.tensors.keys() - graph.tensors.keys())
    extra = sorted(graph.tensors.keys() - expected.tensors.keys())
    mismatches += [f"`{name}` is missing" for name in missing]
    mismatches += [f"`{name}` does not belong to the model" for name in extra]
    for name in expected.tensors.keys() & graph.tensors.keys():
        mismatches += _compare_tensors(graph.tensors[name], expected.tensors[name])
    return mismatches


def _compare_ops(found: TFLiteOp, expected: TFLiteOp) -> list[str]:
    """Compares one operator, including all its options."""
    name = expected.outputs[0]
    if (found.inputs, found.outputs) != (expected.inputs, expected.outputs):
        return [
            f"`{name}`: {found.code} reads {found.inputs} and writes {found.outputs}, "
            f"expected {expected.inputs} and {expected.outputs}"
        ]
    mismatches = []
    if found.version != expected.version:
        mismatches.append(
            f"`{name}`: {found.code} has version {found.version}, expected "
            f"{expected.version}"
        )
    for what in ("custom", "custom_options"):
        ours, theirs = getattr(expected, what), getattr(found, what)
        if ours != theirs:
            mismatches.append(f"`{name}`: {what} is {theirs!r}, expected {ours!r}")
    return mismatches + [
        f"`{name}`: {option} is {found.options.get(option)!r}, expected "
        f"{expected.options.get(option)!r}"
        for option in sorted(found.options.keys() | expected.options.keys())
        if found.options.get(option) != expected.options.get(option)
    ]


def _compare_tensors(found: TFLiteTensor, expected: TFLiteTensor) -> list[str]:
    """Compares type, shape, quantization and constants of one tensor."""
    name = expected.name
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return [
            f"`{name}` is {found.dtype} {found.shape}, expected {expected.dtype} "
            f"{expected.shape}"
        ]
    mismatches = []
    if found.dynamic_batch != expected.dynamic_batch:
        mismatches.append(f"`{name}`: dynamic batch is {found.dynamic_batch}")
    if found.quantization != expected.quantization:
        mismatches.append(
            f"`{name}`: scale or zero point is {found.quantization}, expected "
            f"{expected.quantization}"
        )
    if (found.data is None) != (expected.data is None):
        mismatches.append(f"`{name}`: only one of the two tensors is a constant")
    elif found.data is not None and (
        different := _num_different(found.data, expected.constant)
    ):
        mismatches.append(
            f"`{name}`: {different} of {found.data.size} constants differ"
        )
    return mismatches


def _num_different(found: np.ndarray, expected: np.ndarray) -> int:
    """Counts the constants that differ; NaN equals NaN."""
    if found.shape != expected.shape:
        return max(found.size, expected.size, 1)
    both_nan = (found != found) & (expected != expected)
    return int(((found != expected) & ~both_nan).sum())
