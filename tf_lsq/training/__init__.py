"""Training of quantized models: the model, its losses, optimizers and callbacks."""

from .batch_norm import BatchNormReestimation, reestimate_batch_norm
from .biases import round_biases
from .calibration import calibrate, set_first_values
from .diagnostics import Diagnostics
from .distillation import Distiller
from .learned_steps import (
    check_calibrated,
    is_calibrated,
    quantization_points,
    steps,
    wrapped_layers,
)
from .losses import CrossEntropy, DistillationLoss
from .model import LSQModel, StepTraining
from .narrow_ranges import NarrowRange, measured_narrow_ranges
from .optimizers import (
    DEFAULT_STEP_CLIP,
    AdamWOnKernels,
    SGDWithL2,
    check_step_clip,
    prepare_optimizer,
)
from .oscillation import OscillationTracking
from .recipes import recipe

__all__ = [
    "DEFAULT_STEP_CLIP",
    "AdamWOnKernels",
    "BatchNormReestimation",
    "CrossEntropy",
    "Diagnostics",
    "DistillationLoss",
    "Distiller",
    "LSQModel",
    "NarrowRange",
    "OscillationTracking",
    "SGDWithL2",
    "StepTraining",
    "calibrate",
    "check_calibrated",
    "check_step_clip",
    "is_calibrated",
    "measured_narrow_ranges",
    "prepare_optimizer",
    "quantization_points",
    "recipe",
    "reestimate_batch_norm",
    "round_biases",
    "set_first_values",
    "steps",
    "wrapped_layers",
]
