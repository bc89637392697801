"""What each target can run, as data."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that runs `.tflite` files.

    Attributes:
        name: As given to `quantize_model` and `export_model`.
        dynamic_batch: Whether the batch size may change at run time.
        source: Where the rules are from.
    """

    name: str
    dynamic_batch: bool
    source: str


TARGETS = {
    target.name: target
    for target in (
        Target(
            "phone",
            dynamic_batch=True,
            source="https://ai.google.dev/edge/litert/models/quantization_spec",
        ),
        Target(
            "edgetpu",
            dynamic_batch=False,
            source="https://coral.ai/docs/edgetpu/models-intro/#model-requirements",
        ),
    )
}


def resolve_target(wanted: str | None, trained_for: str) -> Target:
    """Returns the target of an export.

    Args:
        wanted: What the user asked for; None: what the model was quantized for.
        trained_for: What the model was quantized for.

    Raises:
        ValueError: If the target is unknown, or is not what the model was
            quantized for.
    """
    name = trained_for if wanted is None else wanted
    if name not in TARGETS:
        raise ValueError(
            f"`target` must be one of {sorted(TARGETS)}. Received: target={name!r}."
        )
    if name != trained_for:
        raise ValueError(
            f"`target` must be {trained_for!r}, which the model was quantized for. "
            f"Received: target={name!r}. Quantize it with "
            f"`quantize_model(..., target={name!r})`."
        )
    return TARGETS[name]


STORAGES = ("int8", "packed", "auto")


def container(
    op_code: str, num_bits: int, target: Target, storage: str, in_channels: int
) -> str:
    """Returns the type that stores the codes of a weight."""
    if storage == "int8" or target.name == "edgetpu":
        return "int8"
    dense = op_code == "FULLY_CONNECTED"
    if dense and num_bits == 2 and (storage == "packed" or in_channels % 4 == 0):
        return "int2"
    if num_bits <= 4 and (storage == "packed" or (dense and in_channels % 2 == 0)):
        return "int4"
    return "int8"
