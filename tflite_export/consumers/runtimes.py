"""Runtimes that apps call themselves: they get the arrays that the file takes."""

from __future__ import annotations

from ..file import LITERT, TENSORFLOW
from . import conditions
from .rules import (
    MEASURED,
    MICROCONTROLLERS,
    UNKNOWN_OPERATORS,
    end_types,
    operator_rules,
    operators,
    slow_weights,
)
from .types import Consumer, Rule

ALL_TYPES = ("int8", "uint8", "float32", "int16", "int32", "int64", "bool")
# Types of the buffers of CompiledModel in Python.
BUFFER_TYPES = ("int8", "uint8", "float32", "int32", "bool")
BUFFER_TEXT = "int8, uint8, float32, int32 or bool, in Python"
_PLAY_SERVICES = "https://ai.google.dev/edge/litert/android/play_services"
_YEARS = "measured by `make runtimes`, see docs/runtimes.md"

LITERT_INTERPRETER = Consumer(
    "litert",
    title="LiteRT's Interpreter",
    version="2.3.0",
    rules=(*operator_rules(_YEARS), slow_weights(_YEARS)),
    source=_YEARS,
    input_types=ALL_TYPES,
    output_types=ALL_TYPES,
    product=LITERT,
    release="2.3.0",
)

COMPILED_MODEL = Consumer(
    "compiled_model",
    title="LiteRT's CompiledModel on the CPU",
    version="2.3.0",
    rules=(
        *end_types(MEASURED, inputs=BUFFER_TEXT, outputs=BUFFER_TEXT),
        *operator_rules(MEASURED),
        slow_weights(MEASURED),
    ),
    source=MEASURED,
    input_types=BUFFER_TYPES,
    output_types=BUFFER_TYPES,
    product=LITERT,
    release="2.3.0",
    excluded_targets=MICROCONTROLLERS,
)

TENSORFLOW_INTERPRETER = Consumer(
    "tensorflow",
    title="TensorFlow's tf.lite.Interpreter",
    version="2.21.0",
    rules=(*operator_rules(_YEARS), slow_weights(_YEARS)),
    source=_YEARS,
    input_types=ALL_TYPES,
    output_types=ALL_TYPES,
    product=TENSORFLOW,
    release="2.21.0",
)

TFLITE_RUNTIME = Consumer(
    "tflite_runtime",
    title="tflite-runtime's Interpreter",
    version="2.14.0",
    rules=(operators(_YEARS), UNKNOWN_OPERATORS),  # The faults are XNNPACK's.
    source=_YEARS,
    input_types=ALL_TYPES,
    output_types=ALL_TYPES,
    product=TENSORFLOW,
    release="2.14.0",
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
            source=_PLAY_SERVICES,
        ),
        UNKNOWN_OPERATORS,
    ),
    source=_PLAY_SERVICES,
    input_types=ALL_TYPES,
    output_types=ALL_TYPES,
    excluded_targets=MICROCONTROLLERS,
    measured=False,
)
