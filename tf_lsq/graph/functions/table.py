"""The table of TensorFlow functions that functional code calls on Keras tensors.

Each row lowers one function to its operators, with the layers that compute them in the
quantized model. A family of functions has its own module with its rows.
"""

from __future__ import annotations

from ..lowering import Call
from ..nodes import Layer, Node
from .activations import ACTIVATION_FUNCTIONS
from .images import IMAGE_FUNCTIONS
from .indices import INDEX_FUNCTIONS
from .joining import JOINING_FUNCTIONS
from .kernels import KERNEL_FUNCTIONS
from .pooling import POOLING_FUNCTIONS
from .reductions import REDUCTION_FUNCTIONS
from .resizing import RESIZING_FUNCTIONS
from .selecting import SELECTING_FUNCTIONS
from .shapes import SHAPE_FUNCTIONS
from .slicing import SLICING_FUNCTIONS
from .values import VALUE_FUNCTIONS

_ROWS = {
    **VALUE_FUNCTIONS,
    **SHAPE_FUNCTIONS,
    **JOINING_FUNCTIONS,
    **SLICING_FUNCTIONS,
    **SELECTING_FUNCTIONS,
    **IMAGE_FUNCTIONS,
    **INDEX_FUNCTIONS,
    **RESIZING_FUNCTIONS,
    **POOLING_FUNCTIONS,
    **ACTIVATION_FUNCTIONS,
    **REDUCTION_FUNCTIONS,
    **KERNEL_FUNCTIONS,
}
FUNCTIONS = {symbol: lower for symbols, lower in _ROWS.items() for symbol in symbols}


def check_function(layer: Layer) -> str | None:
    """Returns why a recorded function is not supported, or None."""
    if layer.symbol in FUNCTIONS:
        return None
    return "it has no exact integer form here"


def lower_function(call: Call) -> Node | list[Node]:
    """Lowers a recorded function by its row in `FUNCTIONS`."""
    return FUNCTIONS[call.layer.symbol](call)
