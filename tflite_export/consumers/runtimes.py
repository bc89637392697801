"""Runtimes that apps call themselves: they get the arrays that the file takes."""

from __future__ import annotations

import dataclasses

from ..file import LITERT, TENSORFLOW
from . import conditions
from .rules import (
    FAULTS,
    MEASURED,
    MICROCONTROLLERS,
    NEWER_USES,
    OPEN_OUTPUTS,
    OPERATOR_RULES,
    OPERATORS,
    SLOW_WEIGHTS,
    UNKNOWN_OPERATORS,
    end_types,
)
from .types import Consumer, Rule

ALL_TYPES = ("int8", "uint8", "float32", "int16", "int32", "int64", "bool")
# Types of the buffers of CompiledModel in Python.
BUFFER_TYPES = ("int8", "uint8", "float32", "int32", "bool")
BUFFER_RULES = end_types(BUFFER_TYPES, BUFFER_TYPES, place=", in Python")
# Types of tensors in Swift; its Tensor.DataType has no int8.
SWIFT_TYPES = ("uint8", "float32", "int16", "int32", "int64", "bool")
_SWIFT = (
    "https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/swift/"
    "Sources/Tensor.swift"
)
_PODS = "https://github.com/tensorflow/flutter-tflite/issues/308"
_PLAY_SERVICES = "https://ai.google.dev/edge/litert/android/play_services"


def _interpreter(
    name: str,
    title: str,
    product: str,
    release: str,
    rules: tuple[Rule, ...] = (*OPERATOR_RULES, SLOW_WEIGHTS),
) -> Consumer:
    """Returns an interpreter in Python, which takes all types."""
    return Consumer(
        name,
        title=title,
        version=release,
        rules=rules,
        source="measured by `make runtimes`, see docs/runtimes.md",
        input_types=ALL_TYPES,
        output_types=ALL_TYPES,
        product=product,
        release=release,
    )


LITERT_INTERPRETER = _interpreter("litert", "LiteRT's Interpreter", LITERT, "2.3.0")
TENSORFLOW_INTERPRETER = _interpreter(
    "tensorflow", "TensorFlow's tf.lite.Interpreter", TENSORFLOW, "2.21.0"
)
TFLITE_RUNTIME = _interpreter(
    "tflite_runtime",
    "tflite-runtime's Interpreter",
    TENSORFLOW,
    "2.14.0",
    (OPERATORS, UNKNOWN_OPERATORS),  # The faults are XNNPACK's.
)
COMPILED_MODEL = Consumer(
    "compiled_model",
    title="LiteRT's CompiledModel on the CPU",
    version="2.3.0",
    rules=(
        *BUFFER_RULES,
        *OPERATOR_RULES,
        OPEN_OUTPUTS,
        SLOW_WEIGHTS,
    ),
    source=MEASURED,
    input_types=BUFFER_TYPES,
    output_types=BUFFER_TYPES,
    product=LITERT,
    release="2.3.0",
    excluded_targets=MICROCONTROLLERS,
)

PLAY_SERVICES = Consumer(
    "play_services",
    title="LiteRT in Google Play services",
    version="",
    rules=(
        Rule(
            "packed_weights",
            "unknown",
            "It must be known whether the release on a phone has packed weights",
            conditions.unknown_weights,
            remedy='storage="int8" runs everywhere.',
        ),
        NEWER_USES,
        UNKNOWN_OPERATORS,
    ),
    source=_PLAY_SERVICES,
    input_types=ALL_TYPES,
    output_types=ALL_TYPES,
    excluded_targets=MICROCONTROLLERS,
    measured=False,
)

IOS = Consumer(
    "ios",
    title="the pod TensorFlowLiteSwift",
    version="2.17.0",  # The last one.
    rules=(
        *end_types(SWIFT_TYPES, SWIFT_TYPES, source=_SWIFT),
        OPERATORS,
        UNKNOWN_OPERATORS,
        # Measured on other processors, where XNNPACK is the default.
        dataclasses.replace(FAULTS, effect="unknown"),
        SLOW_WEIGHTS,
    ),
    source=f"{_PODS}, and docs/runtimes.md for the release on x86-64",
    input_types=SWIFT_TYPES,
    output_types=SWIFT_TYPES,
    product=TENSORFLOW,
    release="2.17.0",
    excluded_targets=MICROCONTROLLERS,
    measured=False,
)
