"""Learned Step Size Quantization for Keras, designed for exact export.

Importing this package registers its layers, so quantized models load without a
custom-object scope.
"""

from . import lsq, models
from ._compat import keras3_runs_on_tensorflow
from .comparison import compare
from .graph import from_keras3, register_elementwise, register_layer
from .layers import LSQActivationQuantizer, LSQQuantizeConfig, LSQWeightQuantizer
from .pixels import Pixels
from .quantize import quantize_model
from .scheme import LSQQuantizeScheme
from .to_float import to_float
from .training import (
    AdamWOnKernels,
    BatchNormReestimation,
    CrossEntropy,
    Diagnostics,
    DistillationLoss,
    Distiller,
    LSQModel,
    OscillationTracking,
    SGDWithL2,
    calibrate,
    prepare_optimizer,
    recipe,
    reestimate_batch_norm,
    round_biases,
    steps,
)

if keras3_runs_on_tensorflow():  # Keras 3 can load what it knows.
    from . import keras3 as keras3

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
    "Pixels",
    "SGDWithL2",
    "calibrate",
    "compare",
    "from_keras3",
    "lsq",
    "models",
    "prepare_optimizer",
    "quantize_model",
    "recipe",
    "reestimate_batch_norm",
    "register_elementwise",
    "register_layer",
    "round_biases",
    "steps",
    "to_float",
]
