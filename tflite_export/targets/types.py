"""Targets and their rules, as data.

A rule that a file breaks either makes the target refuse it, or moves an operator to
the CPU. `export_model` raises for the former, before anything is written;
`check_model` and the report of an export name both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from ..file import TFLiteGraph, TFLiteOp

XNNPACK = "XNNPACK"
# Returns what an operator has where it breaks a rule, in words, and "" otherwise.
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
