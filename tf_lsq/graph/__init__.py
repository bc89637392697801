"""Graph analysis: from Keras layers to the fused graph of operators TFLite runs."""

from .copying import copied
from .elementwise import infinite
from .evaluation import Values
from .expansions import register_layer
from .float_layers import HardSigmoid, UnaryFunction
from .float_part import FloatPart, convert_float_part, try_float_part
from .folding import (
    LARGEST_INT8,
    affine_part,
    bias_unit,
    code_multiplier,
    input_factor,
    point_of,
)
from .fusing import analyze
from .integers import make_foreign, takes_as_is
from .keras3.layer import Keras3Layer
from .keras3.models import (
    float_model,
    from_keras3,
    is_keras3_file,
    load_keras3,
    tf_keras_model,
)
from .kinds import Kind
from .masks import SCORE_BITS, ScoreMask, least_step
from .nodes import ForeignCall, Graph, Layer, Node, override_for, tensors_of
from .norm_expanding import NormForm, expand_norm, most_values, num_values
from .norm_folding import fold_norm
from .normalizing import NORMALIZE
from .pairing import paired_tensors
from .rewriting import (
    bypass,
    insert_reversal,
    insert_scaling,
    is_scaling,
    replace_scaling,
    scaling_numbers,
    unique_name,
)
from .tabulated import register_elementwise
from .unary import KINDS, WITHOUT_FLOAT

__all__ = [
    "KINDS",
    "LARGEST_INT8",
    "NORMALIZE",
    "SCORE_BITS",
    "WITHOUT_FLOAT",
    "FloatPart",
    "ForeignCall",
    "Graph",
    "HardSigmoid",
    "Keras3Layer",
    "Kind",
    "Layer",
    "Node",
    "NormForm",
    "ScoreMask",
    "UnaryFunction",
    "Values",
    "affine_part",
    "analyze",
    "bias_unit",
    "bypass",
    "code_multiplier",
    "convert_float_part",
    "copied",
    "expand_norm",
    "float_model",
    "fold_norm",
    "from_keras3",
    "infinite",
    "input_factor",
    "insert_reversal",
    "insert_scaling",
    "is_keras3_file",
    "is_scaling",
    "least_step",
    "load_keras3",
    "make_foreign",
    "most_values",
    "num_values",
    "override_for",
    "paired_tensors",
    "point_of",
    "register_elementwise",
    "register_layer",
    "replace_scaling",
    "scaling_numbers",
    "takes_as_is",
    "tensors_of",
    "tf_keras_model",
    "try_float_part",
    "unique_name",
]
