"""Reports of what `export_model` wrote, as objects that print well."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..consumers import ConsumerReport, table
from ..targets import TARGETS, XNNPACK, CompiledFile
from .verification_report import CodeStatistics, VerificationReport

# In output codes; `round_biases` reduces it to 0 if the file's grid is fine enough.
NOTABLE_BIAS_ERROR = 0.05


@dataclasses.dataclass(frozen=True)
class Latency:
    """Median times of one inference, in milliseconds.

    Attributes:
        own: Kernels as stored in the file.
        int8: Kernels in int8.
        float32: The same operators in float32.
    """

    own: float
    int8: float
    float32: float

    def __str__(self) -> str:
        """Returns the times with their ratios."""
        return (
            f"{self.own:.3f} ms ({self.own / self.int8:.2f} x int8, "
            f"{self.own / self.float32:.2f} x float32)"
        )


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One operator with a kernel in the file.

    Attributes:
        name: Output tensor of the operator.
        kind: Operator.
        num_bits: Bits of the trained codes; None in float.
        container: Type that stores the codes.
        input_container: Type that stores the codes of the input.
        num_codes: Codes of the kernel.
        num_channels: Channels with their own scale and bias.
        num_bytes: Bytes of kernel and bias.
        multiplier: Integer by which the trained codes are multiplied.
        widening: Integer by which the input's codes are multiplied before the kernel.
        constant_channels: Channels whose batch norm makes their output constant.
        bias_error: The most that rounding the bias moves an output, in codes.
        remark: Why the codes are not in the requested container.
        statistics: How the kernel uses its integers; None without data, or if it was
            not trained (batch norms, slopes).
        latency: Latency of this operator alone; None unless measured.
    """

    name: str
    kind: str
    num_bits: int | None
    container: str
    num_codes: int
    num_channels: int
    num_bytes: int
    multiplier: int = 1
    widening: int = 1
    input_container: str = "int8"
    constant_channels: int = 0
    bias_error: float = 0.0
    remark: str = ""
    statistics: CodeStatistics | None = None
    latency: Latency | None = None

    @property
    def notes(self) -> str:
        """What is unusual about the operator, "" if nothing is."""
        notes = [self.remark] if self.remark else []
        if self.constant_channels:
            notes.append(f"{self.constant_channels} constant channels")
        if self.bias_error > NOTABLE_BIAS_ERROR:
            notes.append(f"its bias moves outputs by up to {self.bias_error:.2g} codes")
        return "; ".join(notes)


@dataclasses.dataclass(frozen=True)
class StorageReport:
    """The file of another storage of the same model, compared with this one.

    Attributes:
        storage: "int8", "packed" or "auto".
        file_bytes: Size of its file.
        num_codes: Codes compared, of every tensor that operators of both files compute.
        different_codes: Codes that differ from this file's, under the same kernels.
        top1_agreement: Share of rows of the first output with the same largest code.
    """

    storage: str
    file_bytes: int
    num_codes: int
    different_codes: int
    top1_agreement: float

    def __str__(self) -> str:
        """Returns one line."""
        share = self.different_codes / max(self.num_codes, 1)
        return (
            f"{self.storage}: {self.file_bytes} bytes, {share:.4%} of codes differ, "
            f"top-1 agreement {self.top1_agreement:.2%}"
        )


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_model` wrote.

    Attributes:
        path: The file.
        file_bytes: Its size.
        target: What it is for.
        storage: How codes are stored.
        min_runtime: The oldest TensorFlow Lite, and LiteRT, that compute the file
            right, and newer ones that do not.
        operators: Number of operators by name.
        float_layers: Operators left in float, by name.
        int16_operators: Number of operators that compute in int16, by name.
        layers: Operators with a kernel.
        verification: The file compared with the model; on data if there was any.
        snippets: Language -> functions that run the file with the scales of its inputs
            and outputs: "python", "javascript", "kotlin", "kotlin-compiled-model",
            "kotlin-mediapipe" and "swift", without those whose library refuses the
            file; "cpp" for TFLite Micro.
        pixels: Inputs that are pixels, each with what the model and the file take.
        consumer: What the file was written for, "" if that was left open.
        consumers: What each consumer does with the file.
        on_cpu: Operators that the target runs on the CPU, and why.
        narrow: With data, tensors that use few codes of a grid that they share, each
            with its remedy.
        compiler: What a tool of the target says (the Edge TPU's compiler, or Vela for
            the Ethos-U), or that it is not installed.
        compiled: What the file needs after Vela compiled it; None for other targets.
        arena_bytes: Memory that TFLite Micro needs for the file; None for other
            targets, or if `tflite-micro` is not installed.
        storages: The other storages compared with this one on the target's runtime;
            empty without data.
        latency: Latency of the whole file; None unless measured.
        latency_setting: How it was measured.
    """

    path: str
    file_bytes: int
    target: str
    storage: str
    min_runtime: str
    operators: dict[str, int]
    float_layers: list[str]
    int16_operators: dict[str, int]
    layers: list[LayerReport]
    verification: VerificationReport
    snippets: dict[str, str]
    pixels: list[str] = dataclasses.field(default_factory=list[str])
    consumer: str = ""
    consumers: list[ConsumerReport] = dataclasses.field(
        default_factory=list[ConsumerReport]
    )
    on_cpu: list[str] = dataclasses.field(default_factory=list[str])
    narrow: list[str] = dataclasses.field(default_factory=list[str])
    compiler: list[str] = dataclasses.field(default_factory=list[str])
    compiled: CompiledFile | None = None
    arena_bytes: int | None = None
    storages: list[StorageReport] = dataclasses.field(
        default_factory=list[StorageReport]
    )
    latency: Latency | None = None
    latency_setting: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {
            **dataclasses.asdict(self),
            "verification": self.verification.to_dict(),
        }

    def __str__(self) -> str:
        """Returns a readable table."""
        lines = [
            f"{self.path}: {self.file_bytes} bytes for {self.target}",
            *self._layer_lines(),
        ]
        lines += [f"pixels               {line}" for line in self.pixels]
        lines += ["consumers:", *table(self.consumers)]
        operators = ", ".join(f"{n} {code}" for code, n in self.operators.items())
        lines.append(f"operators            {operators}")
        lines.append(f"runs on              {self.min_runtime}")
        lines.append(f"left in float        {', '.join(self.float_layers) or 'none'}")
        if self.int16_operators:
            lines.append(f"in int16             {self.int16_cost}")
        if self.arena_bytes is not None:
            lines.append(f"arena                {self.arena_bytes} bytes")
        lines += [*self.on_cpu, *self.compiler]
        lines += [f"remark: {tensor}" for tensor in self.narrow]
        lines += [f"other storage        {storage}" for storage in self.storages]
        if self.latency is not None:
            lines.append(f"latency              {self.latency}")
            lines.append(f"  measured with      {self.latency_setting}")
        return "\n".join([*lines, str(self.verification)])

    @property
    def int16_cost(self) -> str:
        """What operators in int16 cost, "" if there are none."""
        if not self.int16_operators:
            return ""
        operators = ", ".join(f"{n} {code}" for code, n in self.int16_operators.items())
        kernels = ""
        if TARGETS[self.target].device == XNNPACK:
            kernels = (
                ": XNNPACK has no kernels for them, and those of TFLite take 10 to 200 "
                "times as long as XNNPACK in int8"
            )
        return f"{operators}{kernels}"

    def _layer_lines(self) -> list[str]:
        """Returns the table of operators with a kernel."""
        width = max([len(layer.name) for layer in self.layers] + [5])
        times = "  latency" if self.latency is not None else ""
        lines = [f"{'layer':<{width}}  operator   bits  stored as   bytes{times}"]
        for layer in self.layers:
            bits = "float" if layer.num_bits is None else str(layer.num_bits)
            if layer.input_container == "int16":
                bits = f"16x{bits}"
            time = "" if layer.latency is None else f"  {layer.latency}"
            lines.append(
                f"{layer.name:<{width}}  {layer.kind:<9} {bits:>5}  "
                f"{layer.container:<9} {layer.num_bytes:>7}{time}"
                + (f"  {layer.notes}" if layer.notes else "")
            )
        return lines
