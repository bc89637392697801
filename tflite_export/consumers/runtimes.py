"""Runtimes that apps call themselves: they get the arrays that the file takes."""

from __future__ import annotations

from ..file import LITERT, TENSORFLOW
from . import conditions
from .rules import (
    MEASURED,
    MICROCONTROLLERS,
    NOT_PHONES,
    UNKNOWN_OPERATORS,
    end_types,
    operator_rules,
    operators,
    slow_weights,
)
from .types import Consumer, Rule

_ALL = ("int8", "uint8", "float32", "int16", "int32", "int64", "bool")
# Types of its buffers in Python.
_OF_BUFFERS = ("int8", "uint8", "float32", "int32", "bool")
_TEXT = "int8, uint8, float32, int32 or bool, in Python"
_GPU = "measured with ai-edge-litert 2.3.0 and software Vulkan"
_PLAY_SERVICES = "https://ai.google.dev/edge/litert/android/play_services"
_YEARS = "measured by `make runtimes`, see docs/runtimes.md"

LITERT_INTERPRETER = Consumer(
    "litert",
    title="LiteRT's Interpreter",
    version="2.3.0",
    rules=(*operator_rules(_YEARS), slow_weights(_YEARS)),
    source=_YEARS,
    input_types=_ALL,
    output_types=_ALL,
    product=LITERT,
    release="2.3.0",
)

COMPILED_MODEL = Consumer(
    "compiled_model",
    title="LiteRT's CompiledModel on the CPU",
    version="2.3.0",
    rules=(
        *end_types(MEASURED, inputs=_TEXT, outputs=_TEXT),
        *operator_rules(MEASURED),
        slow_weights(MEASURED),
    ),
    source=MEASURED,
    input_types=_OF_BUFFERS,
    output_types=_OF_BUFFERS,
    product=LITERT,
    release="2.3.0",
    excluded_targets=MICROCONTROLLERS,
)

GPU = Consumer(
    "gpu",
    title="LiteRT's CompiledModel on a GPU by WebGPU",
    version="2.3.0",
    rules=(
        *operator_rules(_GPU),
        Rule(
            "int4_convolutions",
            "refuses",
            "Kernels of convolutions must be int8; the CPU runs others",
            conditions.packed_weights("CONV_2D", "DEPTHWISE_CONV_2D"),
            remedy='Export with storage="int8".',
            source=_GPU,
        ),
        Rule(
            "int16_tensors",
            "refuses",
            "Tensors must not be in int16; the CPU runs operators with others",
            conditions.int16_tensors,
            remedy="Give every point at most 8 bits.",
            source=_GPU,
        ),
        Rule(
            "strided_1x1",
            "is wrong",
            "1x1 convolutions must have no strides, which it ignores",
            conditions.strided_1x1,
            remedy='Export with consumer="gpu", which picks the pixels first.',
            source=_GPU,
        ),
        Rule(
            "groups",
            "is wrong",
            "Convolutions must have no groups",
            conditions.grouped,
            remedy="Replace the layer by one convolution per group.",
            source=_GPU,
        ),
        Rule(
            "depthwise_1x1",
            "is wrong",
            "Depthwise 1x1 convolutions must have one output for each input",
            conditions.multiplied_1x1,
            remedy="Replace the layer by an ordinary 1x1 convolution.",
            source=_GPU,
        ),
    ),
    source=_GPU,
    input_types=_ALL,
    output_types=_ALL,
    product=LITERT,
    release="2.3.0",
    strided_1x1="pick",
    excluded_targets=NOT_PHONES,
)

TENSORFLOW_INTERPRETER = Consumer(
    "tensorflow",
    title="TensorFlow's tf.lite.Interpreter",
    version="2.21.0",
    rules=(*operator_rules(_YEARS), slow_weights(_YEARS)),
    source=_YEARS,
    input_types=_ALL,
    output_types=_ALL,
    product=TENSORFLOW,
    release="2.21.0",
)

TFLITE_RUNTIME = Consumer(
    "tflite_runtime",
    title="tflite-runtime's Interpreter",
    version="2.14.0",
    rules=(operators(_YEARS), UNKNOWN_OPERATORS),  # The faults are XNNPACK's.
    source=_YEARS,
    input_types=_ALL,
    output_types=_ALL,
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
    source=f"{_PLAY_SERVICES}, not measured",
    input_types=_ALL,
    output_types=_ALL,
    excluded_targets=MICROCONTROLLERS,
)
