"""Consumers of finished files and their rules, as data.

A target shapes training: its operators and zero points. A consumer reads a finished
file, and decides the types of its ends, its form and its metadata. `export_model`
chooses what a consumer takes, and refuses the rest before it writes anything;
`inspect_tflite` and the report of an export say what each consumer does with a file.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from ..file import StandardMetadata, TFLiteGraph

# What a consumer does with a file that breaks a rule, the worst first; "unknown": that
# is known neither from the file nor of the consumer. A note changes nothing: the file
# runs, but only a usual grid says what it was trained on, or it has no labels.
Effect = Literal["refuses", "is wrong", "unknown", "is slow", "note"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
FAULTY: tuple[Effect, ...] = ("refuses", "is wrong")
Verdict = Literal["refused", "wrong", "not known", "runs slowly", "runs"]
VERDICTS: dict[Effect, Verdict] = {
    "refuses": "refused",
    "is wrong": "wrong",
    "unknown": "not known",
    "is slow": "runs slowly",
    "note": "runs",
}

# Of the table for terminals.
_INDENT, _NAME_WIDTH, _LINE_WIDTH = "  ", 15, 80


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """What rules look at.

    Attributes:
        graph: The file's graph.
        standard: Its standard metadata; None: it has none.
        described: How its integers were trained, as `export_model` writes it; None in
            files from other tools.
    """

    graph: TFLiteGraph
    standard: StandardMetadata | None
    described: Mapping[str, Any] | None


# Describes how a file breaks a rule, everything at once; "" if it does not.
Found = Callable[[FileFacts, "Consumer"], str]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a consumer requires of a file.

    Attributes:
        name: Short name, unique in a consumer.
        effect: What the consumer does with a file that breaks it.
        expected: The requirement, as a sentence without its full stop.
        found: Describes the violation; "" if the file satisfies the rule.
        remedy: What to do about it.
        source: Where the rule comes from: its documentation or source, or
            `MEASURED` for what `make consumers` measures; "": the consumer's source.
        needed_by_code: Whether the code that a report shows for a consumer is only for
            files that satisfy it; it needs no more than the file's inputs and outputs.
    """

    name: str
    effect: Effect
    expected: str
    found: Found
    remedy: str
    source: str = ""
    needed_by_code: bool = False


@dataclasses.dataclass(frozen=True)
class Consumer:
    """Something that reads finished `.tflite` files.

    Attributes:
        name: As given to `export_model`.
        title: What developers call it.
        version: The version that the rules are about; "" if it is not known.
        rules: What it requires of a file.
        source: Where these facts come from, and rules that name no other source.
        input_types: Types of inputs that it takes.
        output_types: The same of outputs.
        takes_images: Whether it makes the inputs itself, of the bytes of an image.
        product: Whose operators it has, "TensorFlow Lite" or "LiteRT"; "": unknown.
        release: Which release of the product it is, or is as new as.
        strided_1x1: How 1x1 convolutions with strides are written for it.
        excluded_targets: Targets of models that it has no use for.
        measured: Whether its rules were compared with what it does, by `make consumers`
            and `make gpu`; else they are those of its documentation.
    """

    name: str
    title: str
    version: str
    rules: tuple[Rule, ...]
    source: str
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]
    takes_images: bool = False
    product: str = ""
    release: str = ""
    strided_1x1: str = "conv"
    excluded_targets: tuple[str, ...] = ()
    measured: bool = True


@dataclasses.dataclass(frozen=True)
class Finding:
    """A rule that a file breaks.

    Attributes:
        rule: Name of the rule.
        effect: What the consumer does with the file.
        expected: The requirement.
        found: What the file has instead.
        remedy: What to do about it.
        source: Where the rule comes from.
    """

    rule: str
    effect: Effect
    expected: str
    found: str
    remedy: str
    source: str

    def __str__(self) -> str:
        """Returns one line: expected, received, remedy, source."""
        text = f"{self.expected}. Received: {self.found}."
        return " ".join([text, *filter(None, [self.remedy]), f"({self.source})"])


@dataclasses.dataclass(frozen=True)
class ConsumerReport:
    """What a consumer does with a file.

    Attributes:
        consumer: Name of the consumer.
        title: What developers call it.
        version: The version that this is about; "" if it is not known.
        verdict: One of `VERDICTS`.
        findings: Why, the worst first, and notes.
        measured: As of `Consumer`.
    """

    consumer: str
    title: str
    version: str
    verdict: Verdict
    findings: list[Finding]
    measured: bool

    @property
    def about(self) -> str:
        """Title and version."""
        return f"{self.title} {self.version}".strip()

    @property
    def reasons(self) -> list[str]:
        """Why it does not just run, in a few words each.

        What would be slow does not matter where a file is refused or computed wrongly.
        """
        found = [one for one in self.findings if one.effect != "note"]
        faults = [one for one in found if one.effect in FAULTY]
        return [one.found for one in faults or found]

    @property
    def notes(self) -> list[str]:
        """What else to know, where the file runs."""
        if self.verdict in ("refused", "wrong"):
            return []
        return [finding.found for finding in self.findings if finding.effect == "note"]

    @property
    def remedies(self) -> list[str]:
        """What to do about the reasons and notes, each once."""
        shown = {*self.reasons, *self.notes}
        remedies = [f.remedy for f in self.findings if f.found in shown and f.remedy]
        return list(dict.fromkeys(remedies))

    def __str__(self) -> str:
        """Returns one line."""
        source = "" if self.measured else " by its documentation"
        because = f" because {'; '.join(self.reasons)}" if self.reasons else ""
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        name = f"{self.consumer:<{_NAME_WIDTH}}"
        return f"{name} {self.verdict}{source}{because}{notes}"


def table(reports: Iterable[ConsumerReport]) -> list[str]:
    """Returns the lines of a table for a terminal.

    Args:
        reports: What each consumer does with a file.
    """
    wrapper = textwrap.TextWrapper(
        _LINE_WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=" " * (len(_INDENT) + _NAME_WIDTH + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line for report in reports for line in wrapper.wrap(str(report))]
