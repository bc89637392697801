"""Rules that several consumers share, with a consumer's own words and sources."""

from __future__ import annotations

from collections.abc import Sequence

from ..targets import TARGETS, TFLITE_MICRO, XNNPACK
from . import conditions
from .types import Rule

# Targets whose operators are not those of LiteRT on a phone's processor.
NOT_PHONES = tuple(name for name, one in TARGETS.items() if one.device != XNNPACK)
# Targets that run no apps.
MICROCONTROLLERS = tuple(
    name
    for name, target in TARGETS.items()
    if target.device == TFLITE_MICRO or target.compiler == "vela"
)
MEASURED = "measured by `make consumers`, see docs/consumers.md"
_OPEN_TYPES = (
    "Export with this `consumer`, and leave `input_type` and `output_type` open."
)

_SAY_NORMALIZATION = (
    "If you know how the model was trained, write its normalization into the standard "
    "metadata, by `tf-lsq metadata`."
)

UNKNOWN_OPERATORS = Rule(
    "unknown_operators",
    "unknown",
    "It must be known which releases run an operator",
    conditions.unknown_operators,
    remedy="",
    source="tflite_export/file/tflite_operators.py",
)
FAULTS = Rule(
    "faults",
    "is wrong",
    "Its release must compute all operators right",
    conditions.faulty_operators,
    remedy="Use another release.",
    source="docs/runtimes.md",
)


# The same of those whose release is not known.
NEWER_USES = Rule(
    "newer_uses",
    "unknown",
    "Every release must run all operators",
    conditions.newer_uses,
    remedy="",
    source="docs/runtimes.md",
)


# On operators of consumers whose release is known.
OPERATORS = Rule(
    "operators",
    "refuses",
    "All operators must be in its release",
    conditions.newer_operators,
    remedy='Use a newer release, or export with storage="int8".',
)
# The same of those that compute by XNNPACK, whose faults are known.
OPERATOR_RULES = (OPERATORS, FAULTS, UNKNOWN_OPERATORS)
SLOW_WEIGHTS = Rule(
    "slow_weights",
    "is slow",
    "XNNPACK must have a kernel for packed weights",
    conditions.slow_weights,
    remedy='storage="auto" packs only where that costs no time.',
)


OPEN_OUTPUTS = Rule(
    "open_outputs",
    "refuses",
    "Outputs must have sizes that are known before the file runs",
    conditions.open_outputs_of("TOPK_V2"),
    remedy="Give the model's input a fixed batch size, keras.Input(..., batch_size=1).",
)


def end_types(
    inputs: Sequence[str], outputs: Sequence[str], *, source: str = "", place: str = ""
) -> tuple[Rule, Rule]:
    """Returns the rules on the types of inputs and outputs.

    Args:
        inputs: Types of inputs that a consumer takes, at least two.
        outputs: The same of outputs.
        source: Source of the rules; "": the consumer's.
        place: Where that holds, as readable text; "": everywhere.
    """
    return (
        Rule(
            "input_types",
            "refuses",
            f"Inputs must be {_either(inputs)}{place}",
            conditions.other_input_types,
            remedy=_OPEN_TYPES,
            source=source,
            needed_by_code=True,
        ),
        Rule(
            "output_types",
            "refuses",
            f"Outputs must be {_either(outputs)}{place}",
            conditions.other_output_types,
            remedy=_OPEN_TYPES,
            source=source,
            needed_by_code=True,
        ),
    )


def _either(types: Sequence[str]) -> str:
    """Returns types as readable text."""
    return f"{', '.join(types[:-1])} or {types[-1]}"


def image_rules(source: str = "") -> tuple[Rule, ...]:
    """Returns the rules on the input of image classifiers.

    Args:
        source: Source of the rules; "": the consumer's.
    """
    return (
        Rule(
            "one_input",
            "refuses",
            "There must be one input",
            conditions.not_one("inputs"),
            remedy="Give the app a model of the image alone.",
            source=source,
            needed_by_code=True,
        ),
        Rule(
            "color_image",
            "refuses",
            "The input must be one image with three channels, [1, height, width, 3]",
            conditions.no_color_image,
            remedy="Put a layer at the front of the model that makes its input from "
            "red, green and blue.",
            source=source,
            needed_by_code=True,
        ),
        Rule(
            "normalization",
            "refuses",
            "Metadata must say how the bytes of a float32 image become numbers",
            conditions.no_normalization,
            remedy="Quantize with `inputs=tf_lsq.Pixels(...)`, which gives a uint8 "
            "input, or write a normalization into the standard metadata.",
            source=source,
        ),
        Rule(
            "numbers_of_normalization",
            "refuses",
            "A normalization must have one number, or one per channel",
            conditions.unfit_normalization,
            remedy="Write it again, by `tf-lsq metadata`.",
            source=source,
        ),
        Rule(
            "rgb",
            "refuses",
            "An image must not be gray in the metadata",
            conditions.gray_images,
            remedy="Write the metadata again, by `tf-lsq metadata`.",
            source=source,
        ),
        Rule(
            "codes_of_bytes",
            "is wrong",
            "The codes of an image must be its bytes",
            conditions.other_codes,
            remedy="Quantize with `inputs=tf_lsq.Pixels(mean=..., std=...)`, or put a "
            "Rescaling layer at the front of the model.",
            source=MEASURED,
        ),
        Rule(
            "values_of_bytes",
            "unknown",
            "The file must say what the bytes of a uint8 image stand for",
            conditions.unusual_codes,
            remedy=_SAY_NORMALIZATION,
            source=MEASURED,
        ),
        Rule(
            "usual_values",
            "note",
            "The file should say what the bytes of a uint8 image stand for",
            conditions.usual_codes,
            remedy=_SAY_NORMALIZATION,
            source=MEASURED,
        ),
    )


def metadata_rules(source: str = "") -> tuple[Rule, ...]:
    """Returns the rules on the standard metadata of classifiers.

    Args:
        source: Source of the rules; "": the consumer's.
    """
    return (
        Rule(
            "metadata",
            "refuses",
            "The standard metadata must fit the file",
            conditions.unfit_metadata,
            remedy="Write them again, by `labels` of `export_model` or by `tf-lsq "
            "metadata`.",
            source=source,
        ),
        Rule(
            "labels",
            "note",
            "Classes should have labels",
            conditions.no_labels,
            remedy="Pass `labels` to `export_model`.",
            source=source,
        ),
    )
