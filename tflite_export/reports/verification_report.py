"""Reports of verification, as objects that print well."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class CodeStatistics:
    """How a quantizer uses its integers.

    Attributes:
        num_bits: Bits of one integer.
        q_min: Smallest integer of the range.
        q_max: Largest integer of the range.
        counts: How often each integer from `q_min` to `q_max` is used; beyond 8 bits,
            each `width` of them.
        clipped: Share of the values that are more than half a step beyond the range.
            Negative values of an unsigned range do not count: its ReLU clips them.
        step: The learned step, in the unit of the values; the geometric mean if there
            is one step per channel.
        mse_step: The step with the least mean squared error for the same values.
        width: How many neighbouring integers are counted together.
    """

    num_bits: int
    q_min: int
    q_max: int
    counts: list[int]
    clipped: float
    step: float
    mse_step: float
    width: int = 1

    @property
    def dead_levels(self) -> int:
        """Counts of integers of the range that are never used."""
        return self.counts.count(0)


@dataclasses.dataclass(frozen=True)
class PointReport:
    """One integer tensor compared with the training graph.

    Attributes:
        name: Tensor in the file.
        kind: Operator that computes it.
        num_codes: Codes compared.
        off_by_one: How many of them differ by one.
        max_difference: Largest difference, in codes.
        twin_differences: Codes that the integer twin computes differently; None in a
            prediction.
        statistics: Statistics of its quantization point, if requested, at the first
            tensor on the point's grid.
    """

    name: str
    kind: str
    num_codes: int
    off_by_one: int
    max_difference: int
    twin_differences: int | None = None
    statistics: CodeStatistics | None = None


@dataclasses.dataclass(frozen=True)
class OutputReport:
    """One output of the file compared with the Keras model, end to end.

    Attributes:
        num_rows: Rows compared (examples, if outputs have two axes).
        agreements: Rows in which both have the same largest value.
        max_code_difference: Largest difference of an output code.
        num_codes: Codes compared with those of the integer twin.
        twin_differences: Codes that the twin computes differently, end to end; None in
            a prediction.
        int8_agreements: In a prediction, rows in which int8 storage has the same
            largest value.
        labelled: Rows with a label.
        keras_correct: Rows that the Keras model classifies correctly.
        tflite_correct: Rows that the file classifies correctly.
    """

    num_rows: int = 0
    agreements: int = 0
    max_code_difference: int = 0
    num_codes: int = 0
    twin_differences: int | None = None
    int8_agreements: int | None = None
    labelled: int = 0
    keras_correct: int = 0
    tflite_correct: int = 0

    def joined(self, other: OutputReport) -> OutputReport:
        """Combines two reports.

        Args:
            other: Report of the same output for other examples.
        """
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        sums: dict[str, Any] = {
            name: None if value is None else value + theirs[name]
            for name, value in ours.items()
        }
        largest = max(self.max_code_difference, other.max_code_difference)
        return OutputReport(**{**sums, "max_code_difference": largest})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a file computes on one runtime, compared with the training graph.

    Attributes:
        runtime: Name of the runtime; "" without data.
        points: Integer tensors compared with the training graph; empty without data.
        outputs: Outputs compared end to end, by name; empty without data.
    """

    runtime: str = ""
    points: list[PointReport] = dataclasses.field(default_factory=list[PointReport])
    outputs: dict[str, OutputReport] = dataclasses.field(
        default_factory=dict[str, OutputReport]
    )

    @property
    def num_examples(self) -> int:
        """Rows compared end to end, of the first output."""
        return self._first.num_rows

    @property
    def top1_agreement(self) -> float | None:
        """Share of rows with the same largest value."""
        return _share(self._first.agreements, self._first.num_rows)

    @property
    def max_code_difference(self) -> int:
        """Largest difference of an output code, of all outputs."""
        return max((o.max_code_difference for o in self.outputs.values()), default=0)

    @property
    def tflite_accuracy(self) -> float | None:
        """Top-1 accuracy of the file, of the first output."""
        return _share(self._first.tflite_correct, self._first.labelled)

    @property
    def off_by_one(self) -> float | None:
        """Share of intermediate codes that differ by one."""
        return _share(
            sum(point.off_by_one for point in self.points),
            sum(point.num_codes for point in self.points),
        )

    @property
    def _first(self) -> OutputReport:
        """The first output, or an empty one."""
        return next(iter(self.outputs.values()), OutputReport())

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {
            **dataclasses.asdict(self),
            "num_examples": self.num_examples,
            "top1_agreement": self.top1_agreement,
            "max_code_difference": self.max_code_difference,
            "tflite_accuracy": self.tflite_accuracy,
            "off_by_one": self.off_by_one,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction(Comparison):
    """What a file will compute on the target's runtime, by its integer twin."""

    @property
    def int8_agreement(self) -> float | None:
        """Share of rows in which int8 storage has the same largest value."""
        return _share(self._first.int8_agreements or 0, self._first.num_rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {**super().to_dict(), "int8_agreement": self.int8_agreement}

    def __str__(self) -> str:
        """Returns a few readable lines."""
        lines = [f"predicted for {self.runtime}"]
        if self.points:
            lines.append(f"  codes off by one   {self.off_by_one:.4%}")
        lines += [
            f"  top-1 agreement    {self.top1_agreement:.2%}, "
            f"{self.int8_agreement:.2%} with int8 storage",
        ]
        if self.tflite_accuracy is not None:
            lines.append(f"  accuracy           {self.tflite_accuracy:.2%}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerificationReport(Comparison):
    """A file that ran on this machine, compared with the model it was exported from.

    Attributes:
        weight_codes: Codes of all kernels.
        equal_codes: Codes that are the trained code times sign times multiplier.
        compiled_codes: Output codes that LiteRT's `CompiledModel` computes on the CPU
            as its interpreter does, all of those compared. None without data, if a GPU
            ran the file, if Python cannot read an output, or LiteRT refuses the file.
        compiled_refusal: Why LiteRT does not run the file by `CompiledModel` on the
            CPU, "" if it does or was not asked.
        prediction: The same for the target's runtime; None without data, or if it is
            not known how the target rounds.
    """

    weight_codes: int
    equal_codes: int
    compiled_codes: int | None = None
    compiled_refusal: str = ""
    prediction: Prediction | None = None

    @property
    def keras_accuracy(self) -> float | None:
        """Top-1 accuracy of the Keras model, of the first output."""
        return _share(self._first.keras_correct, self._first.labelled)

    @property
    def twin_differences(self) -> int:
        """Output codes that the integer twin computes differently, end to end."""
        return sum(output.twin_differences or 0 for output in self.outputs.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        prediction = None if self.prediction is None else self.prediction.to_dict()
        return {
            **super().to_dict(),
            "keras_accuracy": self.keras_accuracy,
            "twin_differences": self.twin_differences,
            "prediction": prediction,
        }

    def __str__(self) -> str:
        """Returns a few readable lines."""
        lines = [f"weight codes equal   {self.equal_codes} of {self.weight_codes}"]
        if self.runtime:
            lines.append(f"measured on          {self.runtime}")
        if self.points:
            worst = max(self.points, key=lambda p: p.off_by_one / p.num_codes)
            lines += [
                f"codes off by one     {self.off_by_one:.4%} of "
                f"{sum(p.num_codes for p in self.points)}, none differ by more than "
                "one",
                f"  most at            {worst.name}: "
                f"{worst.off_by_one / worst.num_codes:.4%}",
            ]
        if self.outputs:
            lines += [
                f"top-1 agreement      {self.top1_agreement:.2%} of "
                f"{self.num_examples}",
                f"output codes differ  by at most {self.max_code_difference}",
                f"integer twin         differs in {self.twin_differences} of "
                f"{sum(o.num_codes for o in self.outputs.values())} output codes",
            ]
        if self.compiled_codes is not None:
            codes = f"{self.compiled_codes} output codes"
            lines.append(f"CompiledModel        computes the same {codes}")
        if self.compiled_refusal:
            lines.append(f"CompiledModel        refuses it: {self.compiled_refusal}")
        if self.keras_accuracy is not None:
            lines.append(
                f"accuracy             Keras {self.keras_accuracy:.2%}, "
                f"TFLite {self.tflite_accuracy:.2%}"
            )
        if self.prediction is not None:
            lines.append(str(self.prediction))
        return "\n".join(lines)


def _share(part: int, whole: int) -> float | None:
    """Returns the share of a part, None if the whole is 0."""
    return part / whole if whole else None
