"""Training of quantized models: the model, its losses, optimizers and callbacks."""

from .batch_norm import BatchNormReestimation, reestimate_batch_norm
from .biases import round_biases
from .calibration import calibrate, set_first_values
from .diagnostics import Diagnostics
from .distillation import (
    Distillation,
    Distiller,
    checked_pair,
)
from .learned_steps import (
    check_calibrated,
    is_calibrated,
    quantization_points,
    steps,
    trained_model,
    wrapped_layers,
)
from .losses import (
    CrossEntropy,
    CrossEntropyOfClasses,
    DistillationLoss,
    DistillationOfClasses,
    resolve,
)
from .model import NO_EXPORT, LSQModel, StepTraining
from .narrow_ranges import NarrowRange, measured_narrow_ranges
from .optimizers import (
    DEFAULT_STEP_CLIP,
    AdamWOnKernels,
    DecaysKernels,
    HasL2,
    SGDWithL2,
    check_step_clip,
    prepare_optimizer,
)
from .oscillation import OscillationTracking
from .other_keras import as_tf_keras, replaced
from .pixel_ranges import pixel_points
from .recipes import recipe

__all__ = [
    "DEFAULT_STEP_CLIP",
    "NO_EXPORT",
    "AdamWOnKernels",
    "BatchNormReestimation",
    "CrossEntropy",
    "CrossEntropyOfClasses",
    "DecaysKernels",
    "Diagnostics",
    "Distillation",
    "DistillationLoss",
    "DistillationOfClasses",
    "Distiller",
    "HasL2",
    "LSQModel",
    "NarrowRange",
    "OscillationTracking",
    "SGDWithL2",
    "StepTraining",
    "as_tf_keras",
    "calibrate",
    "check_calibrated",
    "check_step_clip",
    "checked_pair",
    "is_calibrated",
    "measured_narrow_ranges",
    "pixel_points",
    "prepare_optimizer",
    "quantization_points",
    "recipe",
    "reestimate_batch_norm",
    "replaced",
    "resolve",
    "round_biases",
    "set_first_values",
    "steps",
    "trained_model",
    "wrapped_layers",
]
