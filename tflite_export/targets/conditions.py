"""Conditions of rules: functions that describe how an operator breaks a rule."""

from __future__ import annotations

import math
from collections.abc import Collection

from ..file import PACKED, TFLiteGraph, TFLiteOp, first_release, is_newer, op_version
from .types import Found, Target

_WITH_KERNEL = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")

SOFTMAX_LIMIT = 16_000
_MOST_LARGE_SIZES = 3
# Limit of output codes per unit of the accumulator.
STEEPEST = 256


def _shapes(op: TFLiteOp, graph: TFLiteGraph) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the computed tensors of an operator, by name."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    tensors = [graph.tensors[name] for name in names]
    return {tensor.name: tensor.shape for tensor in tensors if tensor.data is None}


def constant_values(op: TFLiteOp, graph: TFLiteGraph, number: int) -> list[int]:
    """Returns the values of a constant input."""
    data = graph.tensors[op.inputs[number]].data
    return [] if data is None else data.reshape(-1).tolist()


def not_among(operators: Collection[str]) -> Found:
    """Returns a condition that finds operators outside a list.

    Args:
        operators: Those that the target has.
    """

    def found(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
        return "" if op.code in operators else f"the operator {op.code}"

    return found


def open_batch(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a batch size that can change."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    open_ends = [name for name in names if graph.tensors[name].dynamic_batch]
    return f"a dynamic batch size of {open_ends}" if open_ends else ""


def new_version(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a version that the target does not know."""
    version = op_version(op, graph)
    release = first_release(op, graph)
    if version == 1 and not release:  # Older than what this library writes.
        return ""
    if is_newer(release, target.newest_release):
        return f"version {version}, of TensorFlow {release or '(unknown)'}"
    return ""


def packed_weights(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds weight codes of less than a byte."""
    packed = [n for n in op.inputs if n and graph.tensors[n].dtype in PACKED]
    return ", ".join(f"`{name}` is {graph.tensors[name].dtype}" for name in packed)


def int16_tensors(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds tensors of 16-bit integers."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    found = [name for name in names if graph.tensors[name].dtype == "int16"]
    return f"int16 tensors {found}" if found else ""


def _in_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether the first input of an operator is in int16."""
    return graph.tensors[op.inputs[0]].dtype == "int16"


def widened_for_kernel(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds int8 tensors that become int16 for an operator with a kernel alone."""
    [source], [output] = op.inputs, op.outputs
    types = (graph.tensors[source].dtype, graph.tensors[output].dtype)
    readers = [reader.code for reader in graph.ops if output in reader.inputs]
    alone = len(readers) == 1 and output not in graph.outputs.values()
    if types != ("int8", "int16") or not alone or readers[0] not in _WITH_KERNEL:
        return ""
    return f"`{output}` for {readers[0]}"


def missing_kernels(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds packed weights for which the target has no kernel."""
    if _in_int16(op, graph):
        target = target.for_int16()
    held = target.containers.get(op.code, ())
    found: list[str] = []
    for name in op.inputs:
        tensor = graph.tensors.get(name)
        if tensor is None or tensor.dtype not in PACKED:
            continue
        if tensor.dtype not in held:
            found.append(f"`{name}` is {tensor.dtype}")
        elif op.code in target.one_scale and tensor.num_scales > 1:
            found.append(f"`{name}` is {tensor.dtype}, {tensor.num_scales} scales")
    return ", ".join(found)


def more_axes_than(most: int) -> Found:
    """Returns a condition that finds tensors with more axes.

    Args:
        most: How many axes a tensor may have, with the batch.
    """

    def found(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
        ranks = {n: s for n, s in _shapes(op, graph).items() if len(s) > most}
        return ", ".join(f"`{name}` {shape}" for name, shape in ranks.items())

    return found


def float_tensors(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds tensors that are not integers."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    tensors = [name for name in names if graph.tensors[name].dtype.startswith("float")]
    return f"float tensors {tensors}" if tensors else ""


def variable_weights(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds weights that are not constants."""
    variable = [n for n in op.inputs[1:3] if n and graph.tensors[n].data is None]
    return f"{variable} computed at run time" if variable else ""


def large_sizes(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds tensors with more than three sizes above 1."""
    large = {
        name: shape
        for name, shape in _shapes(op, graph).items()
        if any(size > 1 for size in shape[:-_MOST_LARGE_SIZES])
    }
    return ", ".join(f"`{name}` {shape}" for name, shape in large.items())


def uneven_dilation(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds dilations that differ between axes."""
    factors = [op.options.get(f"dilation_{axis}_factor", 1) for axis in "hw"]
    return f"dilations {factors}" if len(set(factors)) > 1 else ""


def weights_format(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds shuffled weights."""
    weights = op.options.get("weights_format", "DEFAULT")
    return f"the format {weights}" if weights != "DEFAULT" else ""


def matrix_output(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds an output of several vectors."""
    shape = graph.tensors[op.outputs[0]].shape
    return f"an output {shape}" if math.prod(shape[:-1]) > 1 else ""


def fused_activation(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a fused activation."""
    activation = op.options.get("fused_activation_function")
    return f"a fused {activation}" if activation not in (None, "NONE") else ""


def constant_part(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds constants among the concatenated tensors."""
    data = [graph.tensors[name].data for name in op.inputs]
    constants = [values for values in data if values is not None]
    zeros = all(not values.any() for values in constants)
    if constants and (len(data) != 2 or not zeros):
        return f"{len(constants)} constants among {len(data)} inputs"
    return ""


def batch_reduction(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a reduction over the batch."""
    rank = len(graph.tensors[op.inputs[0]].shape)
    axes = [axis % rank for axis in constant_values(op, graph, 1)]
    return f"axes {axes}" if 0 in axes else ""


def channel_mean(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a mean over channels whose number is not a multiple of 4."""
    shape = graph.tensors[op.inputs[0]].shape
    axes = [axis % len(shape) for axis in constant_values(op, graph, 1)]
    channels = len(shape) - 1
    reduced = channels in axes and channels > 0
    return f"{shape[-1]} channels" if reduced and shape[-1] % 4 else ""


def batch_padding(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a padded batch."""
    amounts = constant_values(op, graph, 1)
    return f"padding {amounts[:2]} of the batch" if any(amounts[:2]) else ""


def batch_split(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a split of the batch."""
    rank = len(graph.tensors[op.inputs[1]].shape)
    axes = [axis % rank for axis in constant_values(op, graph, 0)]
    return "the axis 0" if 0 in axes else ""


def slopes(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds slopes that differ between positions."""
    shape = graph.tensors[op.inputs[1]].shape
    return f"slopes {shape}" if any(size > 1 for size in shape[:-1]) else ""


def steps_of_slice(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds strides other than 1."""
    steps = constant_values(op, graph, 3)
    return f"strides {steps}" if any(step != 1 for step in steps) else ""


def masks_of_slice(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds axes that a slice adds."""
    masks = {n: op.options.get(n, 0) for n in ("ellipsis_mask", "new_axis_mask")}
    return str(masks) if any(masks.values()) else ""


def wide_softmax(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds a softmax of several vectors or of a long one."""
    shape = graph.tensors[op.inputs[0]].shape
    wide = math.prod(shape[:-1]) > 1 or shape[-1] > SOFTMAX_LIMIT
    return f"an input {shape}" if wide else ""


def nonzero_zero_point(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds zero points other than 0."""
    zero_points = {}
    for name in (*op.inputs, *op.outputs):
        quantization = graph.tensors[name].quantization if name else None
        if quantization is not None and quantization.zero_point != 0:
            zero_points[name] = quantization.zero_point
    return f"zero points {zero_points}" if zero_points else ""


def steep_rescaling(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    """Finds an int8 output whose scale is much finer than that of the accumulator."""
    if _in_int16(op, graph):
        return ""
    ends = (*op.inputs[:2], *op.outputs)
    tensors = [graph.tensors[name] for name in ends]
    grids = [t.quantization for t in tensors if t.quantization is not None]
    if len(grids) != len(tensors):
        return ""
    source, kernel, output = (grid.scale.astype(float) for grid in grids)
    ratio = float((source * kernel / output).max())
    return f"{ratio:.0f} times" if ratio >= STEEPEST else ""
