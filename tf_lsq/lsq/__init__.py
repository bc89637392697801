"""Learned Step Size Quantization as functions of tensors.

Nothing in this package knows about layers, variables or TF-MOT.
"""

from .first_steps import STEP_INITS, check_step_init, initial_step, sampled
from .plain import (
    MIN_STEP_FACTOR,
    ROUNDING,
    SMALLEST,
    fake_quantize,
    is_inside,
    learned_step,
    quantize,
    step_gradient_scale,
)
from .ranges import (
    MAX_ACTIVATION_BITS,
    MAX_NUM_BITS,
    MIN_NUM_BITS,
    IntegerRange,
    activation_range,
    check_num_bits,
    counted_together,
    weight_range,
)

__all__ = [
    "MAX_ACTIVATION_BITS",
    "MAX_NUM_BITS",
    "MIN_NUM_BITS",
    "MIN_STEP_FACTOR",
    "ROUNDING",
    "SMALLEST",
    "STEP_INITS",
    "IntegerRange",
    "activation_range",
    "check_num_bits",
    "check_step_init",
    "counted_together",
    "fake_quantize",
    "initial_step",
    "is_inside",
    "learned_step",
    "quantize",
    "sampled",
    "step_gradient_scale",
    "weight_range",
]
