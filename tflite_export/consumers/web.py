"""Browsers: LiteRT.js, and tfjs-tflite before it."""

from __future__ import annotations

from ..file import LITERT, TENSORFLOW
from . import conditions
from .rules import MICROCONTROLLERS, end_types, operator_rules
from .types import Consumer, Rule

_LITERT_JS = "measured with @litertjs/core 2.5.3 in Chromium"
_TFJS = "measured with @tensorflow/tfjs-tflite 0.0.1-alpha.10 in Chromium"
_TYPES = ("float32", "uint8", "int32")

WEB = Consumer(
    "web",
    title="LiteRT.js",
    version="2.5.3",
    rules=(
        *end_types(_LITERT_JS, inputs=", ".join(_TYPES), outputs=", ".join(_TYPES)),
        *operator_rules(_LITERT_JS),
        Rule(
            "packed_weights",
            "is slow",
            "Weights should be int8: packed ones take 3 to 55 times as long",
            conditions.packed_weights(),
            remedy='Export with storage="int8"; compressed by HTTP, the file is as '
            "small.",
            source=_LITERT_JS,
        ),
    ),
    source=_LITERT_JS,
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
    rules=operator_rules(_TFJS),
    source=_TFJS,
    input_types=("int8", *_TYPES),
    output_types=("int8", *_TYPES),
    product=TENSORFLOW,
    release="2.11.0",  # INT4 does not run, which TensorFlow 2.12 is the first to have.
    excluded_targets=MICROCONTROLLERS,
)
