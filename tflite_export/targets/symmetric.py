"""Accelerators that require zero points of 0."""

from __future__ import annotations

from . import conditions
from .phone import (
    FAST_ON_CPU,
    PACKED_IN_INT16,
    PACKED_ON_CPU,
    SPLIT_ON_CPU,
    XNNPACK_RULES,
)
from .types import XNNPACK, Rule, Target

TENSOR_G5 = "https://github.com/google-ai-edge/LiteRT-LM/issues/2497"

_SYMMETRIC_RULES = (
    *XNNPACK_RULES,
    Rule(
        "zero_point",
        (),
        "All zero points must be 0",
        conditions.nonzero_zero_point,
        remedy="Leave sigmoid and softmax out of the model: their output has a zero "
        "point of -128 in TFLite. Export with int8 inputs and outputs.",
        source=TENSOR_G5,
        refused=True,
    ),
)

SYMMETRIC = Target(
    "symmetric",
    device=XNNPACK,
    dynamic_batch=True,
    symmetric=True,
    newest_release="",
    containers=PACKED_ON_CPU,
    fast=FAST_ON_CPU,
    rules=_SYMMETRIC_RULES,
    source=TENSOR_G5,
    runtime="arm64",
    predictable=False,
    split_groups=SPLIT_ON_CPU,
    int16_containers=PACKED_IN_INT16,
)
