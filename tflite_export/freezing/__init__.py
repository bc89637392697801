"""Converts a trained Keras model to plain numbers: operators, constants and grids."""

from tf_lsq.training import round_biases

from .biases import divisions_of_biases
from .containers import BIAS_GRIDS, PACKABLE, Storage
from .freeze import GROUPED, FrozenModel, FrozenNode, freeze_model
from .grids import INT8_MAX, INT8_MIN, ONE, ONE_IN_INT16, Grid
from .reader import check_quantized, read_model, target_of
from .sizes import InputShapes, at_shapes
from .trained import (
    CONSTANT,
    ConvertedPart,
    PixelGrid,
    QuantizedKernel,
    TrainedKernel,
    TrainedModel,
    TrainedNode,
    TrainedPoint,
)
from .weights import FloatKernelWeight, FloatWeight, IntegerWeight, KernelWeight, Weight

__all__ = [
    "BIAS_GRIDS",
    "CONSTANT",
    "GROUPED",
    "INT8_MAX",
    "INT8_MIN",
    "ONE",
    "ONE_IN_INT16",
    "PACKABLE",
    "ConvertedPart",
    "FloatKernelWeight",
    "FloatWeight",
    "FrozenModel",
    "FrozenNode",
    "Grid",
    "InputShapes",
    "IntegerWeight",
    "KernelWeight",
    "PixelGrid",
    "QuantizedKernel",
    "Storage",
    "TrainedKernel",
    "TrainedModel",
    "TrainedNode",
    "TrainedPoint",
    "Weight",
    "at_shapes",
    "check_quantized",
    "divisions_of_biases",
    "freeze_model",
    "read_model",
    "round_biases",
    "target_of",
]
