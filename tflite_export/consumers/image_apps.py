"""Libraries that take an image and answer with classes: they make the input."""

from __future__ import annotations

import dataclasses

from ..file import LITERT, TENSORFLOW
from . import conditions
from .rules import (
    MEASURED,
    MICROCONTROLLERS,
    NEWER_USES,
    OPERATOR_RULES,
    SLOW_WEIGHTS,
    UNKNOWN_OPERATORS,
    end_types,
    image_rules,
    metadata_rules,
)
from .types import Consumer, Rule

_TYPES = ("uint8", "float32")
_MEDIAPIPE_OUTPUTS = ("uint8", "float32", "bool")
_SPECS = (
    "https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/cc/vision/"
    "utils/image_tensor_specs.cc"
)
_SCORES = (
    "https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/cc/"
    "components/processors/classification_postprocessing_graph.cc"
)
_ML_KIT = "https://developers.google.com/ml-kit/custom-models"
# Messages of ML Kit that users quote; they are those of the TFLite Task Library.
_ML_KIT_INPUTS = f"{_ML_KIT}; https://github.com/googlesamples/mlkit/issues/280"
_ML_KIT_OUTPUTS = f"{_ML_KIT}; https://github.com/googlesamples/mlkit/issues/402"
_ML_KIT_LIBRARY = (
    "the TFLite Task Library, which ML Kit runs: "
    "https://github.com/googlesamples/mlkit/issues/402"
)


def _mixed_outputs(source: str = "") -> Rule:
    """Returns the rule on outputs of several types."""
    return Rule(
        "mixed_outputs",
        "refuses",
        "All outputs must be integers, or none",
        conditions.mixed_outputs,
        remedy='Export with output_type="float32".',
        source=source,
    )


_SINGLE_LIST = Rule(
    "classes",
    "refuses",
    "Outputs must have one score per class: [1, classes] or [1, 1, 1, classes]",
    conditions.no_list_of_scores(axes=(2, 4)),
    remedy="Use a library for such outputs, or LiteRT itself.",
)

MEDIAPIPE = Consumer(
    "mediapipe",
    title="MediaPipe Tasks' ImageClassifier",
    version="1.2.3",
    rules=(
        *end_types(_TYPES, _MEDIAPIPE_OUTPUTS, source=_SPECS),
        _mixed_outputs(_SCORES),
        *image_rules(_SPECS),
        Rule(
            "classes",
            "is wrong",
            "Outputs must have one score per class; every number is read as a class",
            conditions.no_list_of_scores(),
            remedy="Use the task for such outputs, or LiteRT itself.",
        ),
        *OPERATOR_RULES,
        SLOW_WEIGHTS,
        Rule(
            "named_outputs",
            "refuses",
            "Outputs must have names in the metadata; else it reads any memory",
            conditions.unnamed_outputs,
            remedy="Write the metadata again, by `tf-lsq metadata`.",
            source=_SCORES,
        ),
        *metadata_rules(_SCORES),
    ),
    source=MEASURED,
    input_types=_TYPES,
    output_types=_MEDIAPIPE_OUTPUTS,
    takes_images=True,
    product=LITERT,
    release="2.1.6",  # INT2 runs, which LiteRT 2.1 is the first to have.
    excluded_targets=MICROCONTROLLERS,
)

ML_KIT = Consumer(
    "mlkit",
    title="ML Kit, image labeling and object detection with a custom model",
    version="",
    rules=(
        *end_types(_TYPES, _TYPES, source=_ML_KIT_INPUTS),
        _mixed_outputs(_ML_KIT_LIBRARY),
        *image_rules(_ML_KIT_INPUTS),
        dataclasses.replace(_SINGLE_LIST, source=_ML_KIT_OUTPUTS),
        Rule(
            "one_output",
            "note",
            "There should be one output; several may give unexpected results",
            conditions.not_one("outputs"),
            remedy="",
        ),
        Rule(
            "packed_weights",
            "unknown",
            "It must be known whether its runtime has packed weights",
            conditions.unknown_weights,
            remedy='storage="int8" runs everywhere.',
        ),
        NEWER_USES,
        UNKNOWN_OPERATORS,
        *metadata_rules(_ML_KIT_LIBRARY),
    ),
    source=_ML_KIT,
    input_types=_TYPES,
    output_types=_TYPES,
    takes_images=True,
    excluded_targets=MICROCONTROLLERS,
    measured=False,
)

TFLITE_SUPPORT = Consumer(
    "tflite_support",
    title="TFLite Task Library's ImageClassifier",
    version="0.4.4",
    rules=(
        *end_types(_TYPES, _TYPES),
        _mixed_outputs(),
        *image_rules(),
        _SINGLE_LIST,
        *OPERATOR_RULES,
        Rule(
            "packed_weights",
            "refuses",
            "Weights must be int8, since it checks files for a byte per code",
            conditions.packed_weights(),
            remedy='Export with storage="int8".',
        ),
        *metadata_rules(),
    ),
    source=MEASURED,
    input_types=_TYPES,
    output_types=_TYPES,
    takes_images=True,
    product=TENSORFLOW,
    release="2.13.0",  # TRANSPOSE_CONV v4 runs, which is the first to have it.
    excluded_targets=MICROCONTROLLERS,
)
