"""Graph analysis: from Keras layers to the fused graph of operators TFLite runs."""

from .float_layers import HardSigmoid, SynchronizedBatchNormalization
from .folding import affine_part, bias_unit, code_multiplier, input_factor, point_of
from .fusing import analyze
from .keras3 import float_model, from_keras3, is_keras3_file
from .kinds import Kind
from .nodes import Graph, Layer, Node
from .reader import register_layer
from .unary import KINDS

__all__ = [
    "KINDS",
    "Graph",
    "HardSigmoid",
    "Kind",
    "Layer",
    "Node",
    "SynchronizedBatchNormalization",
    "affine_part",
    "analyze",
    "bias_unit",
    "code_multiplier",
    "float_model",
    "from_keras3",
    "input_factor",
    "is_keras3_file",
    "point_of",
    "register_layer",
]
