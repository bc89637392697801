"""Queries consumers: what each does with a file, and what an export chooses for one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..file import TFLiteGraph, metadata, standard_metadata
from .gpu import GPU
from .image_apps import MEDIAPIPE, ML_KIT, TFLITE_SUPPORT
from .runtimes import (
    COMPILED_MODEL,
    IOS,
    LITERT_INTERPRETER,
    PLAY_SERVICES,
    TENSORFLOW_INTERPRETER,
    TFLITE_RUNTIME,
)
from .types import (
    EFFECTS,
    VERDICTS,
    Consumer,
    ConsumerReport,
    FileFacts,
    Finding,
)
from .web import TFJS_TFLITE, WEB

CONSUMERS = {
    consumer.name: consumer
    for consumer in (
        LITERT_INTERPRETER,
        COMPILED_MODEL,
        GPU,
        WEB,
        MEDIAPIPE,
        ML_KIT,
        PLAY_SERVICES,
        IOS,
        TENSORFLOW_INTERPRETER,
        TFLITE_RUNTIME,
        TFLITE_SUPPORT,
        TFJS_TFLITE,
    )
}


def find_consumer(name: str) -> Consumer:
    """Returns a consumer by its name.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in CONSUMERS:
        raise ValueError(
            f"`consumer` must be one of {list(CONSUMERS)}. Received: {name!r}."
        )
    return CONSUMERS[name]


def facts_of(
    graph: TFLiteGraph, described: Mapping[str, Any] | None = None
) -> FileFacts:
    """Returns what rules look at.

    Args:
        graph: The file's graph.
        described: How its integers were trained, where its writer knows more than the
            file says; None: as the file says.

    Raises:
        ValueError: If the description in the file cannot be read.
    """
    if described is None:
        described = metadata.read(graph)
    return FileFacts(graph, standard_metadata.read(graph), described)


def judge(file: FileFacts, consumer: Consumer) -> ConsumerReport:
    """Returns what a consumer does with a file.

    Args:
        file: The file.
        consumer: What reads it.
    """
    findings = [
        Finding(
            rule.name,
            rule.effect,
            rule.expected,
            found,
            rule.remedy,
            rule.source or consumer.source,
        )
        for rule in consumer.rules
        if (found := rule.found(file, consumer))
    ]
    findings.sort(key=lambda finding: EFFECTS.index(finding.effect))
    verdict = VERDICTS[findings[0].effect] if findings else "runs"
    return ConsumerReport(
        consumer.name,
        consumer.title,
        consumer.version,
        verdict,
        findings,
        consumer.measured,
    )


def judge_all(
    file: FileFacts, refusals: Mapping[str, str] | None = None
) -> list[ConsumerReport]:
    """Returns what every consumer does with a file, ours or not.

    Args:
        file: The file.
        refusals: Consumer -> why it was seen to refuse the file on this machine.
    """
    reports = [judge(file, consumer) for consumer in CONSUMERS.values()]
    refusals = refusals or {}
    return [
        _refused(report, refusals[report.consumer])
        if report.consumer in refusals
        else report
        for report in reports
    ]


def _refused(report: ConsumerReport, reason: str) -> ConsumerReport:
    """Returns the report of a consumer that was seen to refuse the file."""
    if any(finding.effect == "refuses" for finding in report.findings):
        return report  # With the remedy.
    refusal = Finding(
        "run", "refuses", "It must run the file", reason, "", "run on this machine"
    )
    return dataclasses.replace(
        report, verdict=VERDICTS["refuses"], findings=[refusal, *report.findings]
    )
