"""What each target can run, as data: operators, types, shapes, containers, grids.

A rule that a file breaks either makes the target refuse it, or moves an operator to
the CPU. `export_model` raises for the former, before anything is written;
`check_model` and the report of an export name both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from .op_versions import first_release, is_newer, op_version
from .packing import PACKED
from .tflite_graph import TFLiteGraph, TFLiteOp

STORAGES = ("int8", "packed", "auto")
CORAL = "https://coral.ai/docs/edgetpu/models-intro/"
# The same table in full, from a maker of cameras with an Edge TPU.
AXIS = (
    "https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/"
    "supported-ops/"
)
SPECIFICATION = "https://ai.google.dev/edge/litert/models/quantization_spec"
TENSOR_G5 = "https://github.com/google-ai-edge/LiteRT-LM/issues/2497"
XNNPACK_CONVOLUTION = (
    "https://github.com/google/XNNPACK/blob/master/src/operators/convolution-nhwc.c"
)
VERSIONS = "https://github.com/google-coral/edgetpu/issues/879"
DYNAMIC = "https://github.com/google-coral/edgetpu/issues/168"
_SOFTMAX_LIMIT = 16_000
_MOST_LARGE_SIZES = 3
# Of output codes for one unit of the accumulator.
_STEEPEST = 256

Found = Callable[[TFLiteOp, TFLiteGraph, "Target"], str]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a target asks of an operator.

    Attributes:
        name: Short and unique in a target.
        ops: Operators that it is about; empty: all.
        expected: What must hold, as a sentence without its end.
        found: Returns what an operator has instead, "" if the rule is kept.
        remedy: What to do about it.
        source: Where the rule is from.
        refused: Whether the target refuses the file; else it leaves the operator, and
            those that need its result, to the CPU.
    """

    name: str
    ops: tuple[str, ...]
    expected: str
    found: Found
    remedy: str
    source: str
    refused: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that runs `.tflite` files.

    Attributes:
        name: As given to `quantize_model` and `export_model`.
        device: What runs the operators that keep all rules.
        dynamic_batch: Whether the batch size may change at run time.
        symmetric: Whether all zero points of activations must be 0.
        newest_release: TensorFlow release whose operator versions it still knows, ""
            for the newest.
        containers: Operator -> packed containers that its kernel may have.
        fast: (operator, container) -> a packed kernel costs no time if the input
            channels are a multiple of this; missing: it is slower than int8.
        rules: What it asks of operators.
        source: Where that is from.
    """

    name: str
    device: str
    dynamic_batch: bool
    symmetric: bool
    newest_release: str
    containers: Mapping[str, tuple[str, ...]]
    fast: Mapping[tuple[str, str], int]
    rules: tuple[Rule, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Violation:
    """A rule that an operator of a file breaks.

    Attributes:
        op: Name of the operator's output.
        code: Operator.
        rule: The rule.
        found: What the operator has.
    """

    op: str
    code: str
    rule: Rule
    found: str

    def __str__(self) -> str:
        """Returns one line: expected, received, consequence, remedy, source."""
        effect = "refused" if self.rule.refused else "runs on the CPU"
        return (
            f"`{self.op}` ({self.code}) {effect}: {self.rule.expected}. "
            f"Received: {self.found}. {self.rule.remedy} ({self.rule.source})"
        )


def find_violations(graph: TFLiteGraph, target: Target) -> list[Violation]:
    """Returns every rule of a target that a file breaks.

    Args:
        graph: The file's graph.
        target: What shall run it.
    """
    return [
        Violation(op.outputs[0], op.code, rule, found)
        for op in graph.ops
        for rule in target.rules
        if not rule.ops or op.code in rule.ops
        if (found := rule.found(op, graph, target))
    ]


def check_graph(graph: TFLiteGraph, target: Target) -> list[Violation]:
    """Refuses a file that a target would refuse.

    Args:
        graph: The file's graph.
        target: What shall run it.

    Returns:
        Rules whose operators run on the CPU.

    Raises:
        ValueError: Naming everything that the target refuses.
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
    """Returns what runs an operator: "XNNPACK", "Edge TPU", "TFLite's kernel" or "CPU".

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
    if op.code in TFLITE_ONLY or not _is_fast(op, graph, target):
        return "TFLite's kernel"
    return XNNPACK


def _is_fast(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> bool:
    """Returns whether XNNPACK takes an operator's weights as they are stored."""
    if op.code not in target.containers:
        return True
    source, weight = (graph.tensors[name] for name in op.inputs[:2])
    return takes_container(target, op.code, weight.dtype, source.shape[-1])


def takes_container(
    target: Target, op_code: str, container: str, in_channels: int
) -> bool:
    """Returns whether a packed kernel is as fast as an int8 one on a target.

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
        op_code: Operator that it belongs to.
        num_bits: Bits of the codes.
        target: What will run the file.
        storage: One of `STORAGES`.
        in_channels: Channels of the operator's input.

    Returns:
        The smallest that holds the codes and that storage and target allow.
    """
    for name, room in (("int2", 2), ("int4", 4)):
        held = name in target.containers.get(op_code, ())
        if not held or num_bits > room or storage == "int8":
            continue
        if storage == "packed" or takes_container(target, op_code, name, in_channels):
            return name
    return "int8"


def resolve_target(wanted: str | None, trained_for: str) -> Target:
    """Returns the target of an export.

    Args:
        wanted: What the user asked for; None: what the model was quantized for.
        trained_for: What the model was quantized for.

    Raises:
        ValueError: If the target is unknown, or is not what the model was
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
            f"Received: target={name!r}. Quantize it with "
            f"`quantize_model(..., target={name!r})`."
        )
    return TARGETS[name]


# --- What an operator has ------------------------------------------------------
# Functions of an operator: what breaks a rule, in words, or "".


def _shapes(op: TFLiteOp, graph: TFLiteGraph) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the computed tensors of an operator, by name."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    tensors = [graph.tensors[name] for name in names]
    return {tensor.name: tensor.shape for tensor in tensors if tensor.data is None}


def _constant(op: TFLiteOp, graph: TFLiteGraph, number: int) -> list[int]:
    """Returns the values of a constant input."""
    data = graph.tensors[op.inputs[number]].data
    return [] if data is None else data.reshape(-1).tolist()


def _dynamic(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    names = [name for name in (*op.inputs, *op.outputs) if name]
    open_ends = [name for name in names if graph.tensors[name].dynamic_batch]
    return f"an open batch size of {open_ends}" if open_ends else ""


def _version(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    version = op_version(op, graph)
    release = first_release(op, graph)
    if is_newer(release, target.newest_release):
        return f"version {version}, of TensorFlow {release or '(unknown)'}"
    return ""


def _packed(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    packed = [n for n in op.inputs if n and graph.tensors[n].dtype in PACKED]
    return ", ".join(f"`{name}` is {graph.tensors[name].dtype}" for name in packed)


def _float(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    names = [name for name in (*op.inputs, *op.outputs) if name]
    found = [name for name in names if graph.tensors[name].dtype.startswith("float")]
    return f"float tensors {found}" if found else ""


def _variable_weights(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    found = [n for n in op.inputs[1:3] if n and graph.tensors[n].data is None]
    return f"{found} computed at run time" if found else ""


def _large_sizes(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    found = {
        name: shape
        for name, shape in _shapes(op, graph).items()
        if any(size > 1 for size in shape[:-_MOST_LARGE_SIZES])
    }
    return ", ".join(f"`{name}` {shape}" for name, shape in found.items())


def _uneven_dilation(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    factors = [op.options.get(f"dilation_{axis}_factor", 1) for axis in "hw"]
    return f"dilations {factors}" if len(set(factors)) > 1 else ""


def _weights_format(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    found = op.options.get("weights_format", "DEFAULT")
    return f"the format {found}" if found != "DEFAULT" else ""


def _matrix_output(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    shape = graph.tensors[op.outputs[0]].shape
    return f"an output {shape}" if math.prod(shape[:-1]) > 1 else ""


def _fused_activation(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    found = op.options.get("fused_activation_function")
    return f"a fused {found}" if found not in (None, "NONE") else ""


def _constant_part(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    data = [graph.tensors[name].data for name in op.inputs]
    constants = [values for values in data if values is not None]
    zeros = all(not values.any() for values in constants)
    if constants and (len(data) != 2 or not zeros):
        return f"{len(constants)} constants among {len(data)} inputs"
    return ""


def _batch_reduction(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    rank = len(graph.tensors[op.inputs[0]].shape)
    axes = [axis % rank for axis in _constant(op, graph, 1)]
    return f"axes {axes}" if 0 in axes else ""


def _channel_mean(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    shape = graph.tensors[op.inputs[0]].shape
    axes = [axis % len(shape) for axis in _constant(op, graph, 1)]
    channels = len(shape) - 1
    reduced = channels in axes and channels > 0
    return f"{shape[-1]} channels" if reduced and shape[-1] % 4 else ""


def _batch_padding(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    amounts = _constant(op, graph, 1)
    return f"padding {amounts[:2]} of the batch" if any(amounts[:2]) else ""


def _slopes(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    shape = graph.tensors[op.inputs[1]].shape
    return f"slopes {shape}" if any(size > 1 for size in shape[:-1]) else ""


def _steps_of_slice(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    steps = _constant(op, graph, 3)
    return f"strides {steps}" if any(step != 1 for step in steps) else ""


def _masks_of_slice(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    masks = {n: op.options.get(n, 0) for n in ("ellipsis_mask", "new_axis_mask")}
    return str(masks) if any(masks.values()) else ""


def _wide_softmax(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    shape = graph.tensors[op.inputs[0]].shape
    wide = math.prod(shape[:-1]) > 1 or shape[-1] > _SOFTMAX_LIMIT
    return f"an input {shape}" if wide else ""


def _zero_point(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    found = {}
    for name in (*op.inputs, *op.outputs):
        quantization = graph.tensors[name].quantization if name else None
        if quantization is not None and quantization.zero_point != 0:
            found[name] = quantization.zero_point
    return f"zero points {found}" if found else ""


def _unknown(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    return "" if op.code in _EDGE_TPU_OPS else f"the operator {op.code}"


def _steep(op: TFLiteOp, graph: TFLiteGraph, target: Target) -> str:
    ends = (*op.inputs[:2], *op.outputs)
    grids = [graph.tensors[name].quantization for name in ends]
    if None in grids:
        return ""
    source, kernel, output = (grid.scale.astype(float) for grid in grids)
    steps = float((source * kernel / output).max())
    return f"{steps:.0f} steps" if steps >= _STEEPEST else ""


# --- The targets ---------------------------------------------------------------

XNNPACK = "XNNPACK"
# Operators that XNNPACK has no kernel for in int8.
TFLITE_ONLY = ("AVERAGE_POOL_2D", "PRELU", "REDUCE_MAX", "SOFTMAX")
_LEAVE_FLOAT = "Leave the layer out of the model, and run it behind the file."
_EDGE_TPU_OPS = frozenset(
    """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED
    LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PAD PRELU QUANTIZE REDUCE_MAX RELU
    RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SOFTMAX STRIDED_SLICE SUB TANH
    TRANSPOSE TRANSPOSE_CONV""".split()
)
_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def _rule(name: str, ops: Any, expected: str, found: Found, **more: Any) -> Rule:
    """Returns a rule of the Edge TPU's table of operators, unless told otherwise."""
    ops = tuple(ops.split()) if isinstance(ops, str) else ops
    return Rule(name, ops, expected, found, **{"source": AXIS, **more})


_EDGE_TPU_RULES = (
    _rule(
        "static_shapes",
        "",
        "All sizes must be known to the compiler",
        _dynamic,
        remedy="Quantize the model for 'edgetpu', which fixes the batch size.",
        source=CORAL,
        refused=True,
    ),
    _rule(
        "op_version",
        "",
        "Operators must have versions that compiler 16 knows (TensorFlow 2.5)",
        _version,
        remedy="Write the layer with others: no groups, no ReLU behind a transposed "
        "convolution, one scale per tensor where it is quantized.",
        source=VERSIONS,
        refused=True,
    ),
    _rule(
        "int8_containers",
        "",
        "Weights must be stored in int8",
        _packed,
        remedy='Export with storage="int8".',
        source=CORAL,
        refused=True,
    ),
    _rule(
        "constant_weights",
        _KERNELS,
        "Kernel and bias must be constants",
        _variable_weights,
        remedy="Use a layer with a kernel of its own.",
        source=CORAL,
        refused=True,
    ),
    _rule(
        "supported_operator",
        "",
        "Operators must be among those of the Edge TPU",
        _unknown,
        remedy=_LEAVE_FLOAT,
        source=CORAL,
    ),
    _rule(
        "integer_tensors",
        "",
        "All tensors must be integers",
        _float,
        remedy="Do not leave the layer in float; export with int8 ends.",
        source=CORAL,
    ),
    _rule(
        "three_dimensions",
        "",
        "Only the three innermost sizes may exceed 1",
        _large_sizes,
        remedy="Reshape the tensor to fewer axes.",
        source=CORAL,
    ),
    _rule(
        "even_dilation",
        "CONV_2D DEPTHWISE_CONV_2D",
        "Both dilations must be equal",
        _uneven_dilation,
        remedy="Give `dilation_rate` one number.",
    ),
    _rule(
        "weights_format",
        "FULLY_CONNECTED",
        "Weights must have the default format",
        _weights_format,
        remedy="Export the model anew.",
    ),
    _rule(
        "vector_output",
        "FULLY_CONNECTED",
        "The output must be one vector",
        _matrix_output,
        remedy="Use a 1x1 convolution instead of a dense layer on several positions.",
    ),
    _rule(
        "no_fused_activation",
        "AVERAGE_POOL_2D MAX_POOL_2D CONCATENATION",
        "Nothing may be fused into the operator",
        _fused_activation,
        remedy="Put the activation in front of it.",
    ),
    _rule(
        "constant_part",
        "CONCATENATION",
        "A constant must be all zeros, and one of two inputs",
        _constant_part,
        remedy="Add the constant outside of the model.",
    ),
    _rule(
        "no_batch_reduction",
        "MEAN REDUCE_MAX",
        "The batch must not be reduced",
        _batch_reduction,
        remedy="Reduce the other axes only.",
    ),
    _rule(
        "channel_mean",
        "MEAN",
        "A mean over channels needs a multiple of 4 of them",
        _channel_mean,
        remedy="Change the number of channels.",
    ),
    _rule(
        "no_batch_padding",
        "PAD",
        "The batch must not be padded",
        _batch_padding,
        remedy="Pad the other axes only.",
    ),
    _rule(
        "slope_per_channel",
        "PRELU",
        "Slopes must be one per channel",
        _slopes,
        remedy="Use `PReLU(shared_axes=[1, 2])`.",
    ),
    _rule(
        "image",
        "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
        "Images must have a batch size of 1",
        _large_sizes,
        remedy="Resize one image at a time.",
    ),
    _rule(
        "small_softmax",
        "SOFTMAX",
        f"The input must be one vector of at most {_SOFTMAX_LIMIT} numbers",
        _wide_softmax,
        remedy="Leave the softmax out: the largest logit is the largest probability.",
        source=CORAL,
    ),
    _rule(
        "slice_of_ones",
        "STRIDED_SLICE",
        "All strides must be 1",
        _steps_of_slice,
        remedy="Use a pooling or a convolution with strides.",
        source=CORAL,
    ),
    _rule(
        "slice_masks",
        "STRIDED_SLICE",
        "No axis may be added, and none left out",
        _masks_of_slice,
        remedy="Reshape behind the slice.",
        source=CORAL,
    ),
)

_XNNPACK_RULES = (
    Rule(
        "rescaling",
        _KERNELS,
        "One unit of the accumulator, scale of input times scale of kernel, must be "
        f"less than {_STEEPEST} steps of the output, or LiteRT does not start",
        _steep,
        remedy="The output's learned step has shrunk far below its values: train "
        "again, with a lower learning rate or with `tf_lsq.recipe`.",
        source=XNNPACK_CONVOLUTION,
        refused=True,
    ),
)

_SYMMETRIC_RULES = (
    *_XNNPACK_RULES,
    Rule(
        "zero_point",
        (),
        "All zero points must be 0",
        _zero_point,
        remedy="Leave sigmoid and softmax out of the model: their output has a zero "
        "point of -128 in TFLite. Export with int8 inputs and outputs.",
        source=TENSOR_G5,
        refused=True,
    ),
)

_PACKED_ON_CPU: dict[str, tuple[str, ...]] = {
    "CONV_2D": ("int4",),
    "DEPTHWISE_CONV_2D": ("int4",),
    "FULLY_CONNECTED": ("int2", "int4"),
}
_FAST_ON_CPU = {("FULLY_CONNECTED", "int4"): 2, ("FULLY_CONNECTED", "int2"): 4}

TARGETS = {
    target.name: target
    for target in (
        Target(
            "phone",
            device=XNNPACK,
            dynamic_batch=True,
            symmetric=False,
            newest_release="",
            containers=_PACKED_ON_CPU,
            fast=_FAST_ON_CPU,
            rules=_XNNPACK_RULES,
            source=SPECIFICATION,
        ),
        Target(
            "edgetpu",
            device="Edge TPU",
            dynamic_batch=False,
            symmetric=False,
            newest_release="2.5.0",
            containers={},
            fast={},
            rules=_EDGE_TPU_RULES,
            source=CORAL,
        ),
        Target(
            "symmetric",
            device=XNNPACK,
            dynamic_batch=True,
            symmetric=True,
            newest_release="",
            containers=_PACKED_ON_CPU,
            fast=_FAST_ON_CPU,
            rules=_SYMMETRIC_RULES,
            source=TENSOR_G5,
        ),
    )
}
