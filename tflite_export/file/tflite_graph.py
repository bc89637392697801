"""A `.tflite` file as plain data: tensors, operators, inputs, outputs. NumPy only."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .packing import PACKED, num_packed_bytes


@dataclasses.dataclass(frozen=True, eq=False)
class TensorQuantization:
    """How the integers of a tensor represent values.

    Attributes:
        scale: float32, shape `[1]` or `[channels]`.
        zero_point: Integer that represents 0.
        axis: Axis of the channels; 0 for one scale per tensor.
    """

    scale: np.ndarray
    zero_point: int
    axis: int = 0

    def __eq__(self, other: object) -> bool:
        """Compares bit by bit; one scale per tensor has no axis to compare."""
        if not isinstance(other, TensorQuantization):
            return NotImplemented
        ours, theirs = (np.asarray(q.scale, np.float32) for q in (self, other))
        return (
            ours.shape == theirs.shape
            and ours.tobytes() == theirs.tobytes()
            and self.zero_point == other.zero_point
            and (self.axis == other.axis or len(ours) == 1)
        )


@dataclasses.dataclass(eq=False)
class TFLiteTensor:
    """One tensor.

    Attributes:
        name: Unique in the graph.
        shape: Sizes; a dynamic batch counts as 1.
        dtype: "float32", "int8", "uint8", "int32", or "int4" and "int2", which the
            file packs.
        quantization: None for a tensor that is not quantized.
        data: Values of a constant; int8 for the packed types.
        dynamic_batch: Whether the first size may change at run time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: TensorQuantization | None = None
    data: np.ndarray | None = None
    dynamic_batch: bool = False

    @property
    def constant(self) -> np.ndarray:
        """The values of a constant.

        Raises:
            TypeError: If the tensor is computed.
        """
        if self.data is None:
            raise TypeError(f"`{self.name}` is computed, not a constant.")
        return self.data

    @property
    def num_scales(self) -> int:
        """How many scales the tensor has: one per channel, one, or none."""
        return 0 if self.quantization is None else self.quantization.scale.size

    @property
    def num_bytes(self) -> int:
        """Size of the constant in the file, 0 for a computed tensor."""
        if self.data is None:
            return 0
        if self.dtype in PACKED:
            return num_packed_bytes(self.data.size, self.dtype)
        return self.data.nbytes


# Code of operators that only some runtimes have: an app registers them, or LiteRT's
# "Flex" delegate runs those of TensorFlow.
CUSTOM = "CUSTOM"


@dataclasses.dataclass
class TFLiteOp:
    """One operator.

    Attributes:
        code: Name of the builtin operator, such as "CONV_2D", or `CUSTOM`.
        inputs: Names of tensors; "" where an optional one is left out.
        outputs: Names of tensors.
        options: Fields of the operator's options table; enums as their names.
        version: Version of the operator; None: the smallest that covers its use.
        table: Name of the options table; "": the one this library writes.
        custom: Name of a custom operator, such as "FlexErf" for TensorFlow's Erf; "":
            it is no custom one.
        custom_options: Its options, in a form that only its kernel knows.
    """

    code: str
    inputs: list[str]
    outputs: list[str]
    options: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    version: int | None = None
    table: str = ""
    custom: str = ""
    custom_options: bytes = b""


@dataclasses.dataclass
class TFLiteGraph:
    """A file with one subgraph.

    Attributes:
        tensors: Tensors by name.
        ops: Operators in order of execution.
        inputs: Signature name -> tensor.
        outputs: Signature name -> tensor.
        metadata: Metadata in the file, by name.
        description: One line.
        min_runtime: Oldest TFLite release that runs the operators that this library
            does not write itself; "" if there are none.
        files: Attached files, by name, such as labels.
        compressed_files: Those that were compressed in the file that was read; none is
            in a file that is written.
    """

    tensors: dict[str, TFLiteTensor]
    ops: list[TFLiteOp]
    inputs: dict[str, str]
    outputs: dict[str, str]
    metadata: dict[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])
    description: str = ""
    min_runtime: str = ""
    files: dict[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])
    compressed_files: list[str] = dataclasses.field(default_factory=list[str])

    def constants(self) -> dict[str, np.ndarray]:
        """Returns the values of the constant tensors by name."""
        return {
            name: tensor.data
            for name, tensor in self.tensors.items()
            if tensor.data is not None
        }

    def producers(self) -> dict[str, TFLiteOp]:
        """Returns the operator that writes each computed tensor."""
        return {name: op for op in self.ops for name in op.outputs}

    def with_outputs(self, names: list[str]) -> TFLiteGraph:
        """Returns a copy with probes: these tensors can also be read after a run.

        Args:
            names: Tensors; those that are already inputs or outputs add nothing. The
                name of each in the signature is that of its tensor, followed by
                "#probe" if another output has that name.

        Raises:
            ValueError: If one of the tensors is not in the graph.
        """
        unknown = [name for name in names if name not in self.tensors]
        if unknown:
            raise ValueError(
                f"Probes must be tensors of the graph. Received: {unknown}. "
                "See `tensors` for the names."
            )
        outputs = dict(self.outputs)
        present = {*outputs.values(), *self.inputs.values()}
        for name in names:
            if name in present:
                continue
            present.add(name)
            end = name
            while end in outputs:
                end += "#probe"
            outputs[end] = name
        return dataclasses.replace(self, outputs=outputs)


@dataclasses.dataclass(frozen=True)
class End:
    """One input or output of a file.

    Attributes:
        name: Name in the signature.
        dtype: Type of the tensor.
        shape: Sizes; -1 for a dynamic batch.
        scale: Difference between the values of consecutive codes, None for floats.
        zero_point: Code of the value 0, None for floats.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


def ends_of(graph: TFLiteGraph, ends: dict[str, str]) -> list[End]:
    """Describes the inputs or outputs of a file.

    Args:
        graph: The file's graph.
        ends: Its `inputs` or `outputs`.
    """
    described: list[End] = []
    for name, tensor_name in ends.items():
        tensor = graph.tensors[tensor_name]
        grid = tensor.quantization
        batch = (-1,) if tensor.dynamic_batch else tensor.shape[:1]
        described.append(
            End(
                name,
                tensor.dtype,
                (*batch, *tensor.shape[1:]),
                None if grid is None else float(grid.scale[0]),
                None if grid is None else grid.zero_point,
            )
        )
    return described
