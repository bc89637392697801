"""Targets and their rules, as data.

If a file breaks a rule, either the target refuses the file, or an operator runs on the
CPU. In the first case `export_model` raises an error before it writes anything;
`check_model` and the report of an export list both cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ..file import TFLiteGraph, TFLiteOp

XNNPACK = "XNNPACK"
TFLITE_MICRO = "TFLite Micro"
# Describes how an operator breaks a rule; "" if it does not.
Found = Callable[[TFLiteOp, TFLiteGraph, "Target"], str]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a target requires of an operator.

    Attributes:
        name: Short name, unique in a target.
        ops: Operators that the rule applies to; empty: all.
        expected: The requirement, as a sentence without its full stop.
        found: Describes the violation; "" if the operator satisfies the rule.
        remedy: What to do about it.
        source: Source of the rule.
        refused: Whether the target refuses the file; otherwise the operator, and those
            that need its result, run on the CPU.
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
        device: What runs the operators that satisfy all rules.
        dynamic_batch: Whether the batch size may change at run time.
        symmetric: Whether all zero points of activations must be 0.
        newest_release: Newest TensorFlow release whose operator versions it knows, ""
            if it knows all.
        containers: Operator -> packed containers that its kernel may have.
        fast: (operator, container) -> a packed kernel costs no time if the input
            channels are a multiple of this; missing: it is slower than int8.
        rules: What it requires of operators.
        source: Source of these facts.
        runtime: What runs its files, a key of `runtimes.RUNTIMES`.
        split_groups: Types of kernels, packed or not, for which a convolution with
            groups is written as one per group.
        one_scale: Operators whose packed kernels must have one scale for all channels.
        predictable: Whether its device rounds as the runtime does, as far as is known.
        dense_pointwise: Whether a packed 1x1 convolution is a FULLY_CONNECTED.
        refused_options: (option, value) of `export_model` -> why it is refused.
        compiler: Command that compiles its files, "" if none does.
        tables: Kinds whose operator its kernels do not have in int8: files have a
            table instead.
        int16_containers: The same as `containers`, for inputs in int16.
        mixed_products: Whether it multiplies matrices in int16 by others in int8.
        casts: Whether it runs CAST; else QUANTIZE stores int8 codes in int16.
        int32_places: Whether GATHER takes places in int32 only, which CAST makes of
            those in int16.
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
    runtime: str
    predictable: bool
    split_groups: tuple[str, ...] = ()
    one_scale: tuple[str, ...] = ()
    dense_pointwise: bool = True
    refused_options: Mapping[tuple[str, str], str] = dataclasses.field(
        default_factory=dict[tuple[str, str], str]
    )
    compiler: str = ""
    tables: tuple[str, ...] = ()
    int16_containers: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict[str, tuple[str, ...]]
    )
    mixed_products: bool = True
    casts: bool = True
    int32_places: bool = False

    def for_int16(self) -> Target:
        """Returns the target with the containers of operators in int16.

        No packed kernel is known to be as fast as that in int8.
        """
        return dataclasses.replace(self, containers=self.int16_containers, fast={})


@dataclasses.dataclass(frozen=True)
class Violation:
    """A rule that an operator of a file breaks.

    Attributes:
        op: Name of the operator's output.
        code: Operator.
        rule: The rule.
        found: Description of the violation.
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
