"""Learned Step Size Quantization for Keras, made to be exported exactly.

Importing this package registers its layers, so that quantized models load
without a custom-object scope.
"""

from . import lsq, models
from .batch_norm import BatchNormReestimation, reestimate_batch_norm
from .calibration import calibrate
from .diagnostics import Diagnostics
from .distillation import Distiller
from .folding import round_biases
from .keras3 import from_keras3
from .losses import CrossEntropy, DistillationLoss
from .model import LSQModel
from .optimizers import AdamWOnKernels, SGDWithL2, prepare_optimizer
from .oscillation import OscillationTracking
from .quantize import quantize_model
from .quantize_configs import LSQQuantizeConfig
from .quantizers import LSQActivationQuantizer, LSQWeightQuantizer
from .reader import register_layer
from .recipes import recipe
from .scheme import LSQQuantizeScheme
from .step_values import steps

__version__ = "0.1.0"

__all__ = [
    "AdamWOnKernels",
    "BatchNormReestimation",
    "CrossEntropy",
    "Diagnostics",
    "DistillationLoss",
    "Distiller",
    "LSQActivationQuantizer",
    "LSQModel",
    "LSQQuantizeConfig",
    "LSQQuantizeScheme",
    "LSQWeightQuantizer",
    "OscillationTracking",
    "SGDWithL2",
    "calibrate",
    "from_keras3",
    "lsq",
    "models",
    "prepare_optimizer",
    "quantize_model",
    "recipe",
    "reestimate_batch_norm",
    "register_layer",
    "round_biases",
    "steps",
]
