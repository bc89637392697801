"""TensorFlow functions that reduce a tensor over axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..float_layers import REDUCED_KINDS, Reduction
from ..lowering import Call
from ..nodes import Node
from ..normalizing import l2_normalize
from .recorded import Rows, Unsupported, constant


def _reduce(reduction: str) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.reduce_mean` and others."""

    def lower(call: Call) -> Node:
        x, axes = call.arguments["input_tensor"], call.arguments["axis"]
        if axes is None:
            raise Unsupported("axis must be given, excluding the batch, received None")
        axes = sorted(int(a) % len(x.shape) for a in np.ravel(constant(axes)))
        if 0 in axes:
            raise Unsupported("axis must not be the batch axis, received 0")
        keepdims = bool(call.arguments["keepdims"])
        layer = Reduction(reduction, axes, keepdims, name=call.name)
        kind = REDUCED_KINDS[reduction]
        return call.add(kind, [x], layer=layer, axes=layer.axes, keepdims=keepdims)

    return lower


def _l2_normalize(call: Call) -> Node:
    """Division by the Euclidean norm."""
    arguments = call.arguments
    axes = arguments["axis"] if arguments["dim"] is None else arguments["dim"]
    epsilon = float(constant(arguments["epsilon"]))
    return l2_normalize(call, arguments["x"], constant(axes), epsilon)


REDUCTION_FUNCTIONS: Rows = {
    **{
        (f"math.reduce_{name}", f"reduce_{name}"): _reduce(name)
        for name in REDUCED_KINDS
    },
    ("math.l2_normalize",): _l2_normalize,
}
