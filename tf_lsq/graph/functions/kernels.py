"""TensorFlow functions with a kernel: convolutions and matrix products.

Those with a constant kernel become layers with that kernel. A kernel that is no trained
variable keeps its values: only its integers are chosen, once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._compat import keras
from ..activations import with_activation
from ..convolutions import convolution_options, depthwise_options
from ..copying import with_weights
from ..lowering import Call, Options
from ..nodes import Layer, Node
from ..products import Equation, add_matmul, add_product
from .recorded import Rows, Unsupported, constant, is_trained, weight

layers = keras.layers
_CONVOLUTIONS = {
    3: (layers.Conv1D, layers.DepthwiseConv1D),
    4: (layers.Conv2D, layers.DepthwiseConv2D),
}


def _argument(call: Call, *names: str) -> Any:
    """Returns an argument that TensorFlow's versions call by different names."""
    given = (call.arguments.get(name) for name in names)
    return next((value for value in given if value is not None), None)


def _tensor(call: Call, *names: str) -> Node:
    """Returns the tensor that a kernel is applied to."""
    x = _argument(call, *names)
    if not isinstance(x, Node):
        raise Unsupported("a constant must be the kernel, and not the input")
    return x


def _spatial(value: Any, rank: int) -> tuple[int, ...]:
    """Returns one number for every axis between batch and channels."""
    numbers = np.ravel(constant(1 if value is None else value)).astype(int).tolist()
    if len(numbers) == rank:
        numbers = numbers[1:-1]
    if len(numbers) == 1:
        numbers = numbers * (rank - 2)
    return tuple(numbers)


def _settings(call: Call, x: Node) -> dict[str, Any]:
    """Returns the settings that all convolutions have."""
    rank = len(x.shape)
    if rank not in _CONVOLUTIONS:
        raise Unsupported(f"the input must have 3 or 4 axes, received {rank}")
    data_format = str(call.arguments.get("data_format") or "N")
    if data_format.startswith("NC"):
        raise Unsupported(f"channels must come last, received {data_format}")
    padding = _argument(call, "padding")
    dilations = _argument(call, "dilations", "dilation_rate", "rate")
    return {
        "strides": _spatial(_argument(call, "strides", "stride"), rank),
        "padding": padding.lower() if isinstance(padding, str) else "valid",
        "dilation_rate": _spatial(dilations, rank),
        "use_bias": False,
    }


def _padded(call: Call, x: Node) -> Node:
    """Adds the zeros of explicit padding."""
    padding = _argument(call, "padding")
    if isinstance(padding, str):
        return x
    pairs = np.reshape(constant(padding), (-1, 2)).tolist()
    if len(pairs) != 4 or any(pairs[0]) or any(pairs[-1]):
        raise Unsupported(f"only height and width can be padded, received {pairs}")
    layer = layers.ZeroPadding2D(pairs[1:-1], name=f"{call.name}_pad")
    return call.add("pad", [x], layer=layer, paddings=(*pairs[1:-1], (0, 0)))


def _with_kernel(
    call: Call, kind: str, layer: Layer, x: Node, kernel: Any, shape: Any = None
) -> Node:
    """Adds an operator whose layer has a given kernel.

    Args:
        call: The call it belongs to.
        kind: Kind of the operator.
        layer: Its layer, not built.
        x: Its input.
        kernel: The kernel, as the user gave it.
        shape: Shape of the kernel in the layer; None: its own.
    """
    if kind == "depthwise" and len(set(layer.strides)) > 1:
        raise Unsupported(
            "strides of a depthwise convolution must be equal, received "
            f"{layer.strides}"
        )
    values = weight(kernel)

    def make() -> Layer:
        layer.trainable = is_trained(kernel)
        own = values if shape is None else values.reshape(shape)
        return with_weights(layer, x.shape, [own])

    part = call.part(call.replacement(kind, make), layer.name, [x])
    node = with_activation(kind, _OPTIONS.get(kind))(part)
    node.options["constant"] = not is_trained(kernel)
    return node


_OPTIONS: dict[str, Options] = {
    "conv": convolution_options,
    "depthwise": depthwise_options,
}


def _convolution(call: Call) -> Node:
    """A convolution; with one input channel per group, a depthwise one."""
    x = _tensor(call, "input", "value")
    kernel = _argument(call, "filters", "filter")
    settings = _settings(call, x)
    *size, depth, filters = weight(kernel).shape
    plain, depthwise = _CONVOLUTIONS[len(x.shape)]
    channels = x.shape[-1]
    x = _padded(call, x)
    uneven = len(set(settings["strides"])) > 1
    if depth > 1 or depth == channels or uneven:
        groups = channels // depth
        layer = plain(filters, size, **settings, groups=groups, name=call.name)
        return _with_kernel(call, "conv", layer, x, kernel)
    multiplier = filters // channels
    layer = depthwise(size, depth_multiplier=multiplier, **settings, name=call.name)
    shape = (*size, channels, multiplier)
    return _with_kernel(call, "depthwise", layer, x, kernel, shape)


def _depthwise(call: Call) -> Node:
    """A depthwise convolution."""
    x, kernel = _tensor(call, "input"), _argument(call, "filter", "filters")
    return _channelwise(call, x, kernel, call.name)


def _channelwise(call: Call, x: Node, kernel: Any, name: str) -> Node:
    """Adds a depthwise convolution."""
    settings = _settings(call, x)
    *size, _, multiplier = weight(kernel).shape
    layer = layers.DepthwiseConv2D(
        size, depth_multiplier=multiplier, **settings, name=name
    )
    return _with_kernel(call, "depthwise", layer, _padded(call, x), kernel)


def _separable(call: Call) -> Node:
    """A depthwise convolution, then a 1x1 convolution."""
    x, pointwise = _tensor(call, "input"), call.arguments["pointwise_filter"]
    kernel = call.arguments["depthwise_filter"]
    x = _channelwise(call, x, kernel, f"{call.name}_depthwise")
    filters = weight(pointwise).shape[-1]
    layer = layers.Conv2D(filters, 1, use_bias=False, name=call.name)
    return _with_kernel(call, "conv", layer, x, pointwise)


def _matmul(call: Call) -> Node:
    """``matmul(x, y)`` of two tensors, or of one with a constant matrix."""
    x, kernel = _tensor(call, "a"), call.arguments["b"]
    if isinstance(kernel, Node):
        transposed = _is_transposed(call, "a"), _is_transposed(call, "b")
        return add_matmul(call, x, kernel, transposed, call.name)
    names = ("transpose_a", "adjoint_a", "a_is_sparse", "b_is_sparse", "adjoint_b")
    given = [name for name in names if call.arguments.get(name)]
    if given:
        raise Unsupported(f"{', '.join(given)} must be False, received True")
    transposed = bool(call.arguments.get("transpose_b"))
    return _product(call, x, kernel, transposed=transposed)


def _is_transposed(call: Call, name: str) -> bool:
    """Returns whether the matrices of an argument are transposed; they are real."""
    kinds = ("transpose", "adjoint")
    return any(bool(call.arguments.get(f"{kind}_{name}")) for kind in kinds)


def _product(call: Call, x: Node, kernel: Any, *, transposed: bool) -> Node:
    """Adds the product of the last axis with a constant matrix."""
    matrix = weight(kernel)
    if matrix.ndim != 2:
        raise Unsupported(f"the kernel must be one matrix, received {matrix.shape}")
    if transposed:
        if is_trained(kernel):
            raise Unsupported("a trained kernel must not be transposed")
        kernel = matrix.T
    layer = layers.Dense(weight(kernel).shape[1], use_bias=False, name=call.name)
    return _with_kernel(call, "dense", layer, x, kernel)


def _tensordot(call: Call) -> Node:
    """``tensordot(x, kernel, 1)`` with a constant matrix."""
    x, axes = _tensor(call, "a"), constant(call.arguments["axes"])
    last = len(x.shape) - 1
    if axes.ndim and np.ravel(axes).tolist() in ([-1, 0], [last, 0]):
        axes = np.array(1)
    if axes.ndim or int(axes) != 1:
        raise Unsupported(
            "axes must be 1: the last axis of the tensor with the first of the kernel, "
            f"received {axes.tolist()}"
        )
    return _product(call, x, call.arguments["b"], transposed=False)


def _einsum(call: Call) -> Node:
    """``einsum(equation, x, y)`` of two tensors, or of one with a constant matrix."""
    equation = str(call.arguments["equation"]).replace(" ", "")
    inputs = call.arguments["inputs"]
    if len(inputs) == 2 and all(isinstance(x, Node) for x in inputs):
        x, y = inputs
        parsed = Equation.parse(equation, (len(x.shape), len(y.shape)))
        return add_product(call, x, y, parsed, call.name)
    terms = equation.replace("->", ",").split(",")
    if len(terms) == 3 and len(inputs) == 2 and isinstance(inputs[0], Node):
        first, second, result = terms
        if second == first[-1] + result[-1] and first[:-1] == result[:-1]:
            return _product(call, inputs[0], inputs[1], transposed=False)
    raise Unsupported(
        "the equation must multiply the last axis by a constant matrix, such as "
        f"'bhwi,io->bhwo', received {equation!r}"
    )


KERNEL_FUNCTIONS: Rows = {
    ("nn.convolution", "compat.v1.nn.convolution"): _convolution,
    ("nn.conv2d", "compat.v1.nn.conv2d"): _convolution,
    ("nn.conv1d", "compat.v1.nn.conv1d"): _convolution,
    ("nn.depthwise_conv2d", "compat.v1.nn.depthwise_conv2d"): _depthwise,
    ("nn.separable_conv2d", "compat.v1.nn.separable_conv2d"): _separable,
    ("linalg.matmul", "matmul"): _matmul,
    ("tensordot",): _tensordot,
    ("einsum",): _einsum,
}
