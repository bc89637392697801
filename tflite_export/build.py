"""`build_file`: turns trained numbers into the bytes of a file."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import keras

from .file import (
    PACKED,
    UINT8_OFFSET,
    Additions,
    TFLiteGraph,
    TFLiteTensor,
    metadata,
    to_bytes,
    with_additions,
)
from .freezing import (
    GROUPED,
    ConvertedPart,
    FrozenModel,
    FrozenNode,
    QuantizedKernel,
    Storage,
    TrainedModel,
    TrainedPoint,
    freeze_model,
)
from .operators import PICKED, STRIDED_1X1, Builder, write_operator, write_part
from .targets import TARGETS, XNNPACK

IO_TYPES = ("int8", "uint8", "float32")
_NOTHING = Additions()


@dataclasses.dataclass(frozen=True)
class FileSettings:
    """The user's choices for a file.

    Attributes:
        storage: How the codes of kernels are stored.
        input_type: "int8", "uint8" or "float32", for all inputs; "int8" leaves tensors
            of more than 8 bits in int16.
        output_type: The same for all outputs.
        metadata: What the file says about how its integers were trained, one of
            `metadata.CONTENTS`.
        strided_1x1: How 1x1 convolutions with strides are written: "conv", or "pick",
            which computes the same integers in two operators, for GPUs that would
            ignore the strides.
        grouped: How convolutions with groups are written: "conv", as is fastest on the
            target, or "split", one per group, for GPUs that would compute others
            wrongly.
        additions: What to write into TFLite's standard metadata.
    """

    storage: Storage = dataclasses.field(default_factory=Storage)
    input_type: str = "int8"
    output_type: str = "int8"
    metadata: str = "full"
    strided_1x1: str = "conv"
    grouped: str = "conv"
    additions: Additions = _NOTHING

    def __post_init__(self) -> None:
        """Checks the types, the metadata and the form of convolutions."""
        options = {
            "input_type": IO_TYPES,
            "output_type": IO_TYPES,
            "metadata": metadata.CONTENTS,
            "strided_1x1": STRIDED_1X1,
            "grouped": GROUPED,
        }
        for name, allowed in options.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {list(allowed)}. Received: {value!r}."
                )


@dataclasses.dataclass(frozen=True, eq=False)
class BuiltFile:
    """A file, and what it was built from.

    Attributes:
        frozen: The operators with their constants and grids.
        graph: The same as TFLite operators and tensors.
        content: The bytes of the file.
        described: From `describe`; how much of it the file says is one of the settings.
        settings: The user's choices.
    """

    frozen: FrozenModel
    graph: TFLiteGraph
    content: bytes
    described: dict[str, Any]
    settings: FileSettings


def build_file(
    trained: TrainedModel, settings: FileSettings | None = None
) -> BuiltFile:
    """Builds the file of a trained model.

    Args:
        trained: The numbers of the model, from `freezing.read_model`.
        settings: The user's choices; None: int8 everywhere.

    Raises:
        ValueError: If there are numbers that do not fit a bias, the metadata
            would not be enough to verify the file, labels do not fit an output, an end
            in int16 should be uint8, or `strided_1x1` is "pick" for a target that is no
            phone.
    """
    settings = FileSettings() if settings is None else settings
    if settings.strided_1x1 == "pick" and TARGETS[trained.target].device != XNNPACK:
        raise ValueError(
            f'`strided_1x1` must be "conv" for the target {trained.target!r}, which '
            'computes strides right. Received: "pick", which is for GPUs of phones and '
            'computers: quantize the model for the target "phone".'
        )
    frozen = freeze_model(trained, settings.storage, settings.grouped)
    _check_uint8(frozen, settings)
    graph = _Integerizer(frozen, settings).graph()
    described = describe(frozen, graph, settings)
    if settings.metadata == "none" and "input_type" in described:
        raise ValueError(
            '`metadata` must be "full" or "hash" for a model with an input or output '
            'that has no scale, such as class numbers. Received: "none". The file does '
            "not show the types of its ends otherwise."
        )
    graph = dataclasses.replace(
        graph,
        metadata=metadata.encode(described, settings.metadata),
        description=f"{frozen.name}, quantized with tf_lsq {tf_lsq.__version__}",
    )
    if settings.additions:
        graph = with_additions(graph, settings.additions)
    return BuiltFile(frozen, graph, to_bytes(graph), described, settings)


def _check_uint8(frozen: FrozenModel, settings: FileSettings) -> None:
    """Refuses uint8 ends for tensors of more than 8 bits."""
    nodes, wide = frozen.by_name(), []
    for ends, dtype in (
        (frozen.inputs, settings.input_type),
        (frozen.outputs, settings.output_type),
    ):
        for name, tensor in ends.items() if dtype == "uint8" else ():
            grid = nodes[tensor].grid
            wide += [name] if grid is not None and grid.in_int16 else []
    if wide:
        raise ValueError(
            "Inputs and outputs of more than 8 bits must be int16 or float32. "
            f'Received: "uint8" for {wide}. Pass "int8", which leaves them in int16, '
            'or "float32".'
        )


class _Integerizer:
    """Writes a frozen model's operators, and conversions of its inputs and outputs."""

    def __init__(self, frozen: FrozenModel, settings: FileSettings) -> None:
        self._frozen, self._settings = frozen, settings
        self._builder = Builder(frozen, settings.strided_1x1)

    def graph(self) -> TFLiteGraph:
        """Returns the graph of the file."""
        builder, frozen = self._builder, self._frozen
        inputs = {}
        for node in frozen.nodes:
            if node.kind == "input":
                inputs[node.name] = self._input(node)
                continue
            tensors = node.inputs
            if node.is_float:
                tensors = [builder.as_float(name) for name in tensors]
            write_operator(builder, node, tensors)
        if frozen.converted is not None:
            write_part(builder, frozen.converted, self._ends_of(frozen.converted))
        outputs = {name: self._output(t) for name, t in frozen.outputs.items()}
        inputs = {name: inputs[name] for name in frozen.inputs}
        return dataclasses.replace(builder.graph, inputs=inputs, outputs=outputs)

    def _ends_of(self, part: ConvertedPart) -> dict[str, str]:
        """Returns the file's tensors of the ends of the layers without an operator."""
        used = {name for op in part.graph.ops for name in op.inputs}
        read = {
            tensor: self._builder.as_float(self._frozen.tensors[node.name])
            for tensor, node in part.inputs.items()
            if tensor in used  # A layer may compute nothing.
        }
        return read | {t: node.name for t, node in part.outputs.items()}

    def _input(self, node: FrozenNode) -> str:
        """Adds an input tensor and its conversion to codes; returns the input."""
        builder, dtype = self._builder, self._settings.input_type
        if dtype == "int8" or node.grid is None:
            return builder.output(node)
        outer = f"{node.name}/{dtype}"
        if dtype == "float32":
            builder.tensor(outer, node.shape, None)
        else:
            self._uint8(outer, node)
        builder.op("QUANTIZE", [outer], builder.output(node))
        return outer

    def _output(self, tensor: str) -> str:
        """Adds the conversion of an output from codes; returns the output."""
        builder, dtype = self._builder, self._settings.output_type
        outer = f"{tensor}/{dtype}"
        node = builder.nodes[tensor]
        if dtype == "int8" or node.grid is None:
            return tensor
        if outer not in builder.graph.tensors:
            if dtype == "float32":
                converted = builder.tensor(outer, node.shape, None)
                builder.op("DEQUANTIZE", [tensor], converted)
            else:
                builder.op("QUANTIZE", [tensor], self._uint8(outer, node))
        return outer

    def _uint8(self, name: str, node: FrozenNode) -> str:
        """Adds a uint8 tensor on the grid of a node."""
        grid = node.integer_grid
        moved = dataclasses.replace(grid, zero_point=grid.zero_point + UINT8_OFFSET)
        return self._builder.tensor(name, node.shape, moved, "uint8")


# --- Metadata in the file ----------------------------------------------------


def describe(
    frozen: FrozenModel, graph: TFLiteGraph, settings: FileSettings
) -> dict[str, Any]:
    """Describes how the integers of a file were trained, as plain data.

    Args:
        frozen: The model's numbers.
        graph: The file's graph.
        settings: The user's choices.

    Returns:
        Versions, model, target and storage; the types of the ends, if there are some
        without a grid, which have their own; and under "tensors", by the name of the
        tensor in the file: the layer, the bits, whether integers are signed, the
        trained step in the unit of the training graph; for an input that is pixels how
        the values that the model takes encode bytes; and for kernels also the
        container, the integers by which trained codes, and those of the input, were
        multiplied, and the SHA-256 of the codes as int8 in the order of the file.
    """
    tensors = {}
    for node in frozen.nodes:
        if node.point is not None and node.grid is not None:
            tensors[node.name] = _activation(node, node.point)
        kernel = node.trained.kernel
        if isinstance(kernel, QuantizedKernel) and not node.is_float:
            tensors |= _kernels(node, kernel, graph)
    nodes = frozen.by_name()
    ends = [nodes[name] for name in (*frozen.inputs.values(), *frozen.outputs.values())]
    types = {"input_type": settings.input_type, "output_type": settings.output_type}
    return {
        **(types if any(node.grid is None for node in ends) else {}),
        "format": metadata.FORMAT,
        "versions": {
            "tf_lsq": tf_lsq.__version__,
            "tensorflow": tf.__version__,
            "tf_keras": keras.__version__,
        },
        "model": frozen.name,
        "target": frozen.target,
        "storage": frozen.storage.name,
        "bias_grid": frozen.storage.bias_grid,
        "tensors": tensors,
    }


def _activation(node: FrozenNode, point: TrainedPoint) -> dict[str, Any]:
    """Describes the trained quantizer of an activation tensor."""
    entry: dict[str, Any] = {
        "kind": "activation",
        "layer": point.layer,
        "bits": point.num_bits,
        "signed": point.q_min < 0,
        "step": point.step,
    }
    if node.pixels is not None:
        entry["pixels"] = node.pixels.to_dict()
    # Others begin at 0 or at -2^(b-1).
    return entry | {"smallest": point.q_min} if point.has_offset else entry


def _kernels(
    node: FrozenNode, kernel: QuantizedKernel, graph: TFLiteGraph
) -> dict[str, dict[str, Any]]:
    """Describes the trained quantizer of a kernel, for each tensor with its codes."""
    names = [f"{part}/weight" for part in node.parts]
    steps = np.array_split(kernel.step, len(names))
    if len(kernel.step) == 1:
        steps = [kernel.step] * len(names)
    return {
        name: _kernel(node, kernel.layer, own.tolist(), graph.tensors[name])
        for name, own in zip(names, steps, strict=True)
    }


def _kernel(
    node: FrozenNode, layer: str, steps: list[float], tensor: TFLiteTensor
) -> dict[str, Any]:
    """Describes the trained quantizer of the codes in one tensor."""
    weight = node.integer_weight
    return {
        "kind": "kernel",
        "layer": layer,
        "bits": weight.num_bits,
        "signed": True,
        "step": steps[0] if len(steps) == 1 else steps,
        "container": tensor.dtype,
        "multiplier": weight.multiplier,
        "widening": weight.widening,
        "sha256": metadata.code_hash(tensor.constant),
    }


def settings_of(
    graph: TFLiteGraph,
    name: str,
    storage: str | None = None,
    bias_grid: str | None = None,
) -> FileSettings:
    """Reads the settings that a file was built with from its metadata.

    Args:
        graph: The file's graph.
        name: Name of the file in messages.
        storage: The storage of a file without metadata; None: it is in the metadata.
        bias_grid: Its bias grid; None: "own", or what is in the metadata.

    Raises:
        ValueError: If the storage is neither given nor in the metadata, is not the one
            in the metadata, or is unknown.
    """
    described = metadata.read(graph)
    if described is None:
        if storage is None:
            raise ValueError(
                f"`{name}` must contain the metadata that `export_model` writes, so "
                "that it can be compared with a model. Received a file without "
                "metadata: it is from another tool, or was exported with "
                'metadata="none". In the second case, pass the `storage` and '
                "`bias_grid` of that export."
            )
        stored = Storage(storage, bias_grid or "own")
        return FileSettings(stored, *_io_types(graph), "none", *_forms(graph))
    for argument, wanted in (("storage", storage), ("bias_grid", bias_grid)):
        if wanted not in (None, described.get(argument)):
            raise ValueError(
                f"`{argument}` must be {described.get(argument)!r}, as in the metadata "
                f"of `{name}`, or left out. Received: {wanted!r}."
            )
    try:
        stored = Storage(described.get("storage", ""), described.get("bias_grid", ""))
    except ValueError as error:
        raise ValueError(
            f"The metadata of `{name}` must name the storage it was exported with: "
            f"{error}"
        ) from error
    contents = "hash" if "sha256" in described else "full"
    if "input_type" in described:
        types = described["input_type"], described.get("output_type", "")
    else:
        types = _io_types(graph)
    return FileSettings(stored, *types, contents, *_forms(graph))


def _forms(graph: TFLiteGraph) -> tuple[str, str]:
    """Returns how a file's convolutions are written: strided 1x1 ones, and groups.

    Files without such a convolution are the same with either setting.
    """
    picked = any(
        op.code == "MAX_POOL_2D"
        and op.outputs[0].endswith(PICKED)
        and op.options["filter_height"] == op.options["filter_width"] == 1
        for op in graph.ops
    )
    # Packed kernels may be split with either setting.
    split = any(
        tensor.dtype not in PACKED and re.search(r"/group_\d+/weight$", name)
        for name, tensor in graph.tensors.items()
    )
    return "pick" if picked else "conv", "split" if split else "conv"


def _io_types(graph: TFLiteGraph) -> tuple[str, str]:
    """Returns the types of the inputs and outputs of a file."""
    types = []
    for ends in (graph.inputs, graph.outputs):
        found = {graph.tensors[name].dtype for name in ends.values()}
        dtypes = sorted({"int8" if dtype == "int16" else dtype for dtype in found})
        types.append(dtypes[0] if len(dtypes) == 1 else str(dtypes))
    for what, dtype in zip(("input", "output"), types, strict=True):
        if dtype not in IO_TYPES:
            raise ValueError(
                f"All {what}s of the file must have the same type, one of int8, uint8 "
                f"and float32. Received: {dtype}."
            )
    return types[0], types[1]
