"""Students of Keras 3 models, as Keras 3 models; needs the backend TensorFlow."""

from .distillation import Distiller
from .losses import CrossEntropy, DistillationLoss
from .model import LSQModel
from .optimizers import AdamWOnKernels, SGDWithL2
from .views import LayerView, ModelView

__all__ = [
    "AdamWOnKernels",
    "CrossEntropy",
    "DistillationLoss",
    "Distiller",
    "LSQModel",
    "LayerView",
    "ModelView",
    "SGDWithL2",
]
