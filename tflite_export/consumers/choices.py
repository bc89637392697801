"""What an export chooses for a consumer, and refuses because of it."""

from __future__ import annotations

import dataclasses
import warnings

from ..targets import Target
from .queries import find_consumer, judge
from .types import FAULTY, VERDICTS, Consumer, ConsumerReport, FileFacts

_CODES, _BYTES, _NUMBERS = "int8", "uint8", "float32"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The form of a file.

    Attributes:
        input_type: Type of the inputs.
        output_type: Type of the outputs.
        strided_1x1: How 1x1 convolutions with strides are written.
        grouped: How convolutions with groups are written.
    """

    input_type: str
    output_type: str
    strided_1x1: str
    grouped: str


def choose(
    consumer: Consumer | None,
    *,
    input_type: str | None,
    output_type: str | None,
    pixels: bool,
) -> Choice:
    """Returns the form of a file, where it is open the one that a consumer takes.

    Codes in int8 need nothing more in the file, and are chosen where they are taken.
    Else an input whose codes are bytes is uint8, so that an app copies bytes, and other
    ends are float32, which need no scale in an app.

    Args:
        consumer: What will read the file; None: it is not known.
        input_type: What the user chose; None: it is open.
        output_type: The same.
        pixels: Whether the codes of all inputs are bytes.
    """
    if consumer is None:
        own_input, own_output = _CODES, _CODES
        strided_1x1 = grouped = "conv"
    else:
        otherwise = _BYTES if pixels else _NUMBERS
        own_input = _CODES if _CODES in consumer.input_types else otherwise
        own_output = _CODES if _CODES in consumer.output_types else _NUMBERS
        strided_1x1, grouped = consumer.strided_1x1, consumer.grouped
    return Choice(
        own_input if input_type is None else input_type,
        own_output if output_type is None else output_type,
        strided_1x1,
        grouped,
    )


def resolve_consumer(name: str | None, target: Target) -> Consumer | None:
    """Returns the consumer of an export, None if none is named.

    Args:
        name: Its name; None: it is not known.
        target: What the model was quantized for.

    Raises:
        ValueError: If the consumer is unknown, or has no use for models of the target.
    """
    if name is None:
        return None
    consumer = find_consumer(name)
    if target.name in consumer.excluded_targets:
        raise ValueError(
            f"`consumer` must be something that runs files for the target "
            f"{target.name!r}. Received: {name!r}, {consumer.title}. Quantize the "
            'model with `quantize_model(..., target="phone")`, or leave `consumer` out.'
        )
    return consumer


def check_report(report: ConsumerReport) -> None:
    """Raises an error unless a consumer runs a file right.

    Args:
        report: What it does with the file.

    Raises:
        ValueError: If it refuses the file or computes it wrongly; the message names
            every cause.
    """
    faults = [f for f in report.findings if f.effect in FAULTY]
    if faults:
        listed = "\n  ".join(f"{VERDICTS[one.effect]}: {one}" for one in faults)
        raise ValueError(
            f"The consumer {report.consumer!r}, {report.about}, must run the file "
            f"right. Received:\n  {listed}"
        )


def check_consumer(file: FileFacts, consumer: Consumer) -> ConsumerReport:
    """Returns what a consumer does with a file, if it runs it right.

    Warns of what is slow there, or not known.

    Args:
        file: The file.
        consumer: What will read the file.

    Raises:
        ValueError: If the consumer refuses the file or computes it wrongly; the message
            names every cause.
    """
    report = judge(file, consumer)
    check_report(report)
    for finding in report.findings:
        if finding.effect != "note":
            verdict = VERDICTS[finding.effect]
            warnings.warn(f"{report.about}: {verdict}. {finding}", stacklevel=3)
    return report
