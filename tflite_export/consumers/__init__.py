"""What reads a finished file, and what it does with it; needs no TensorFlow."""

from .choices import (
    Choice,
    check_consumer,
    check_report,
    choose,
    resolve_consumer,
)
from .queries import CONSUMERS, facts_of, find_consumer, judge, judge_all
from .runtimes import COMPILED_MODEL
from .types import Consumer, ConsumerReport, FileFacts, Finding, table

__all__ = [
    "COMPILED_MODEL",
    "CONSUMERS",
    "Choice",
    "Consumer",
    "ConsumerReport",
    "FileFacts",
    "Finding",
    "check_consumer",
    "check_report",
    "choose",
    "facts_of",
    "find_consumer",
    "judge",
    "judge_all",
    "resolve_consumer",
    "table",
]
