"""Browsers: LiteRT.js, and tfjs-tflite before it."""

from __future__ import annotations

import dataclasses

from ..file import LITERT, TENSORFLOW
from . import conditions
from .rules import (
    MEASURED,
    MICROCONTROLLERS,
    OPEN_OUTPUTS,
    OPERATOR_RULES,
    end_types,
)
from .types import Consumer, Rule

_TFJS_TYPES = ("float32", "int8", "uint8", "int32")
_TFJS_INPUTS, _TFJS_OUTPUTS = end_types(_TFJS_TYPES, _TFJS_TYPES)
_TYPES = ("float32", "uint8", "int32")
_OPEN_OUTPUTS = dataclasses.replace(OPEN_OUTPUTS, effect="is wrong")

WEB = Consumer(
    "web",
    title="LiteRT.js",
    version="2.5.3",
    rules=(
        *end_types(_TYPES, _TYPES),
        *OPERATOR_RULES,
        _OPEN_OUTPUTS,
        Rule(
            "packed_weights",
            "is slow",
            "Weights should be int8: packed ones take 3 to 55 times as long",
            conditions.packed_weights(),
            remedy='Export with storage="int8"; compressed by HTTP, the file is as '
            "small.",
        ),
    ),
    source=MEASURED,
    input_types=_TYPES,
    output_types=_TYPES,
    product=LITERT,
    release="2.1.6",
    excluded_targets=MICROCONTROLLERS,
)

TFJS_TFLITE = Consumer(
    "tfjs_tflite",
    title="tfjs-tflite",
    version="0.0.1-alpha.10",
    rules=(
        _TFJS_INPUTS,
        dataclasses.replace(_TFJS_OUTPUTS, effect="is wrong"),  # Without a word.
        *OPERATOR_RULES,
        _OPEN_OUTPUTS,
    ),
    source=MEASURED,
    input_types=_TFJS_TYPES,
    output_types=_TFJS_TYPES,
    product=TENSORFLOW,
    release="2.11.0",  # INT4 does not run, which TensorFlow 2.12 is the first to have.
    excluded_targets=MICROCONTROLLERS,
)
