"""Phones and other CPUs: LiteRT with XNNPACK."""

from __future__ import annotations

from . import conditions
from .types import XNNPACK, Rule, Target

SPECIFICATION = "https://ai.google.dev/edge/litert/models/quantization_spec"
XNNPACK_CONVOLUTION = (
    "https://github.com/google/XNNPACK/blob/master/src/operators/convolution-nhwc.c"
)
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Depthwise kernels stay in int8. TFLite's own INT4 kernel rounds twice, on arm64 as
# well, and takes longer than XNNPACK's in int8. MobileNetV2 0.35 with 4 bits is 2 %
# larger for that; a small residual network is smaller, without the operators that
# would widen the inputs of these kernels.
PACKED_ON_CPU: dict[str, tuple[str, ...]] = {
    "CONV_2D": ("int4",),
    "FULLY_CONNECTED": ("int2", "int4"),
}
# TFLite's own kernel of a CONV_2D with groups is a plain loop: in INT4, one CONV_2D per
# group was 4 to 20 times faster. In int8, XNNPACK has a kernel for all groups, 1 to 4
# times faster than one per group. See `benchmarks/grouped.py`.
SPLIT_ON_CPU = ("int2", "int4")
# TFLite's DEPTHWISE_CONV_2D reads INT4 codes as int8 if its input is int16.
PACKED_IN_INT16: dict[str, tuple[str, ...]] = {
    "CONV_2D": ("int4",),
    "FULLY_CONNECTED": ("int2", "int4"),
}
FAST_ON_CPU = {("FULLY_CONNECTED", "int4"): 2, ("FULLY_CONNECTED", "int2"): 4}

XNNPACK_RULES = (
    Rule(
        "rescaling",
        KERNELS,
        "One unit of the accumulator, scale of input times scale of kernel, must be "
        f"less than {conditions.STEEPEST} times the scale of the output; otherwise "
        "LiteRT does not load the file",
        conditions.steep_rescaling,
        remedy="The output's learned step has shrunk far below its values: train "
        "again, with a lower learning rate or with `tf_lsq.recipe`.",
        source=XNNPACK_CONVOLUTION,
        refused=True,
    ),
)

PHONE = Target(
    "phone",
    device=XNNPACK,
    dynamic_batch=True,
    symmetric=False,
    newest_release="",
    containers=PACKED_ON_CPU,
    fast=FAST_ON_CPU,
    rules=XNNPACK_RULES,
    source=SPECIFICATION,
    runtime="arm64",
    predictable=True,
    split_groups=SPLIT_ON_CPU,
    int16_containers=PACKED_IN_INT16,
)
