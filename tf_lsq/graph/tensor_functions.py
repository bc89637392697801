"""The table of TensorFlow functions that functional code calls on Keras tensors.

Each row lowers one function to its operators, with the layers that compute them in the
quantized model. A family of functions has its own module with its rows.
"""

from __future__ import annotations

from .activation_functions import ACTIVATION_FUNCTIONS
from .image_functions import IMAGE_FUNCTIONS
from .index_functions import INDEX_FUNCTIONS
from .joining_functions import JOINING_FUNCTIONS
from .kernel_functions import KERNEL_FUNCTIONS
from .lowering import Call
from .nodes import Layer, Node
from .pooling_functions import POOLING_FUNCTIONS
from .reduction_functions import REDUCTION_FUNCTIONS
from .resizing_functions import RESIZING_FUNCTIONS
from .selecting_functions import SELECTING_FUNCTIONS
from .shape_functions import SHAPE_FUNCTIONS
from .slicing_functions import SLICING_FUNCTIONS
from .value_functions import VALUE_FUNCTIONS

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
PUBLIC_FUNCTIONS = sorted(
    symbols[0].replace("compat.v1.", "").replace("__operators__", "Tensor")
    for symbols in _ROWS
)


def check_function(layer: Layer) -> str | None:
    """Returns why a recorded function is not supported, or None."""
    if layer.symbol in FUNCTIONS:
        return None
    return "it has no exact integer form here"


def lower_function(call: Call) -> Node | list[Node]:
    """Lowers a recorded function by its row in `FUNCTIONS`."""
    return FUNCTIONS[call.layer.symbol](call)
