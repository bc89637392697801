"""TensorFlow functions whose result is an index."""

from __future__ import annotations

from ..float_layers import ArgMax
from ..lowering import Call
from ..nodes import Node
from .recorded import Rows, Unsupported, constant, tensor_argument


def _arg_max(call: Call) -> Node:
    """``argmax(x, axis)``, along any axis but the batch."""
    x, axis = tensor_argument(call), call.arguments["axis"]
    axis = 0 if axis is None else int(constant(axis)) % len(x.shape)
    if axis == 0:
        raise Unsupported("axis must not be the batch axis, received 0")
    layer = ArgMax(axis, call.dtype.name, name=call.name)
    return call.add("arg_max", [x], layer=layer, axis=axis)


INDEX_FUNCTIONS: Rows = {
    ("math.argmax", "argmax", "compat.v1.argmax"): _arg_max,
}
