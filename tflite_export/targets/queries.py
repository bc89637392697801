"""Queries a target: what it refuses, what runs where, how kernels are stored."""

from __future__ import annotations

from ..file import (
    CONTAINERS,
    PACKED,
    SMALLEST_FIRST,
    TFLiteGraph,
    TFLiteOp,
    in_int16,
    xnnpack_has,
)
from .edgetpu import EDGETPU
from .ethos_u import ETHOS_U
from .phone import PHONE
from .symmetric import SYMMETRIC
from .tflm import TFLM
from .types import XNNPACK, Target, Violation

TARGETS = {
    target.name: target for target in (PHONE, EDGETPU, SYMMETRIC, TFLM, *ETHOS_U)
}
STORAGES = ("int8", "packed", "auto")


def find_violations(graph: TFLiteGraph, target: Target) -> list[Violation]:
    """Finds every rule of a target that a file breaks.

    Args:
        graph: The file's graph.
        target: What will run it.
    """
    return [
        Violation(op.outputs[0], op.code, rule, received)
        for op in graph.ops
        for rule in target.rules
        if not rule.ops or op.code in rule.ops
        if (received := rule.found(op, graph, target))
    ]


def check_graph(graph: TFLiteGraph, target: Target) -> list[Violation]:
    """Checks that a target does not refuse a file.

    Args:
        graph: The file's graph.
        target: What will run it.

    Returns:
        Broken rules whose operators run on the CPU.

    Raises:
        ValueError: If the target refuses the file; the message names every cause.
    """
    violations = find_violations(graph, target)
    refused = [str(violation) for violation in violations if violation.rule.refused]
    if refused:
        raise ValueError(
            f"The file must run on the target {target.name!r}, which refuses:\n  "
            + "\n  ".join(refused)
        )
    return violations


def runs_on(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Returns what runs an operator: a target's device, "TFLite's kernel" or "CPU".

    Args:
        op: An operator of `graph`.
        graph: The file's graph.
        target: What runs it.
    """
    rules = [rule for rule in target.rules if not rule.ops or op.code in rule.ops]
    if any(rule.found(op, graph, target) for rule in rules):
        return "CPU"
    if target.device != XNNPACK:
        return target.device
    has_kernel = xnnpack_has(op.code) and not in_int16(op, graph)
    if not (has_kernel and _is_fast(op, graph, target)):
        return "TFLite's kernel"
    return XNNPACK


def _is_fast(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> bool:
    """Returns whether XNNPACK supports an operator's weights in their container."""
    if op.code not in target.containers:
        return True
    source, weight = (graph.tensors[name] for name in op.inputs[:2])
    return takes_container(target, op.code, weight.dtype, source.shape[-1])


def takes_container(
    target: Target, op_code: str, container: str, in_channels: int
) -> bool:
    """Returns whether a packed kernel is as fast as an int8 kernel on a target.

    Args:
        target: What runs it.
        op_code: Operator.
        container: Type that stores the codes.
        in_channels: Channels of the operator's input.
    """
    if container not in PACKED:
        return True
    multiple = target.fast.get((op_code, container))
    return multiple is not None and in_channels % multiple == 0


def container(
    op_code: str, num_bits: int, target: Target, storage: str, in_channels: int
) -> str:
    """Returns the type that stores the codes of a kernel.

    Args:
        op_code: Operator of the kernel.
        num_bits: Bits of the codes.
        target: What will run the file.
        storage: One of `STORAGES`.
        in_channels: Channels of the operator's input.

    Returns:
        The smallest container that fits the codes and that storage and target allow.
    """
    for name in fitting_containers(num_bits):
        held = name in target.containers.get(op_code, ())
        if not held or storage == "int8":
            continue
        if storage == "packed" or takes_container(target, op_code, name, in_channels):
            return name
    return "int8"


def fitting_containers(num_bits: int) -> list[str]:
    """Returns the packed containers that hold codes, the smallest first.

    Args:
        num_bits: Bits of the codes.
    """
    return [
        name
        for name in SMALLEST_FIRST
        if name in PACKED and CONTAINERS[name].num_bits >= num_bits
    ]


def option_problems(target: Target, **options: str) -> list[str]:
    """Returns why a target refuses options of `export_model`.

    Args:
        target: What the file will run on.
        **options: Option -> value.
    """
    return [
        f"The target {target.name!r} refuses {name}={value!r}: {reason}"
        for (name, value), reason in target.refused_options.items()
        if options.get(name) == value
    ]


def check_options(target: Target, **options: str) -> None:
    """Checks that a target does not refuse options of `export_model`.

    Args:
        target: What the file will run on.
        **options: Option -> value.

    Raises:
        ValueError: If it does; the message names every reason.
    """
    problems = option_problems(target, **options)
    if problems:
        raise ValueError(" ".join(problems))


def resolve_target(wanted: str | None, trained_for: str) -> Target:
    """Returns the target of an export.

    Args:
        wanted: The requested target; None: the target the model was quantized for.
        trained_for: The target that the model was quantized for.

    Raises:
        ValueError: If the target is unknown, or is not the one that the model was
            quantized for.
    """
    name = trained_for if wanted is None else wanted
    if name not in TARGETS:
        raise ValueError(
            f"`target` must be one of {sorted(TARGETS)}. Received: target={name!r}."
        )
    if name != trained_for:
        raise ValueError(
            f"`target` must be {trained_for!r}, which the model was quantized for. "
            f"Received: target={name!r}. Quantize the model with "
            f"`quantize_model(..., target={name!r})`."
        )
    return TARGETS[name]
