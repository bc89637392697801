"""TensorFlow functions that functional code calls on Keras tensors.

`x + y`, `tf.nn.relu6(x)` or `x[:, 1:]` make Keras record the function and its
arguments. Each row of `FUNCTIONS` lowers one to its operators, with the layers that
compute them in the quantized model.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from .float_layers import ConstantPadding, Reduction, StridedSlice, UnaryFunction
from .lowering import Call, activate, chained, rescaling
from .nodes import Layer, Node
from .unary import UNARY

layers = keras.layers


class Unsupported(Exception):
    """Raised by a lowering for arguments without an exact integer form."""


def check_function(layer: Layer) -> str | None:
    """Returns why a recorded function is not supported, or None."""
    if layer.symbol in FUNCTIONS:
        return None
    return (
        f"this library has no integer form of tf.{layer.symbol}; use one of "
        f"{', '.join(f'tf.{name}' for name in PUBLIC_FUNCTIONS)}, or a layer"
    )


def lower_function(call: Call) -> Node | list[Node]:
    """Lowers a recorded function by its row in `FUNCTIONS`."""
    return FUNCTIONS[call.layer.symbol](call)


def bind_arguments(layer: Layer, args: Any, kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of a recorded function by name, defaults included."""
    bound = inspect.signature(layer.function).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _constant(value: Any) -> np.ndarray:
    """Returns a constant argument as an array.

    Raises:
        Unsupported: If the model computes it.
    """
    if any(isinstance(part, Node | Unknown) for part in tf.nest.flatten(value)):
        raise Unsupported("the model computes an argument that must be constant")
    return np.asarray(value)


class Unknown:
    """Placeholder for an integer tensor, such as a shape, computed at run time."""


# --- Arithmetic --------------------------------------------------------------


def _operands(call: Call) -> tuple[Any, Any]:
    """Returns the two operands of an arithmetic function."""
    return call.arguments["x"], call.arguments["y"]


def _add(call: Call) -> Node:
    """``x + y``; a constant becomes a scaling."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("add", [x, y], layer=layers.Add(name=call.name))
    x, constant = (x, y) if isinstance(x, Node) else (y, x)
    return _affine(call, x, 1.0, constant)


def _subtract(call: Call) -> Node:
    """``x - y``."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("subtract", [x, y], layer=layers.Subtract(name=call.name))
    if isinstance(x, Node):
        return _affine(call, x, 1.0, -_constant(y))
    return _affine(call, y, -1.0, x)


def _multiply(call: Call) -> Node:
    """``x * y``."""
    x, y = _operands(call)
    if isinstance(x, Node) and isinstance(y, Node):
        return call.add("multiply", [x, y], layer=layers.Multiply(name=call.name))
    x, constant = (x, y) if isinstance(x, Node) else (y, x)
    return _affine(call, x, constant, 0.0)


def _divide(call: Call) -> Node:
    """``x / constant``."""
    x, y = _operands(call)
    if isinstance(y, Node):
        raise Unsupported("a division by a tensor has no integer form")
    return _affine(call, x, 1.0 / _constant(y).astype(np.float64), 0.0)


def _negative(call: Call) -> Node:
    """``-x``."""
    return _affine(call, call.arguments["x"], -1.0, 0.0)


def _affine(call: Call, x: Node, scale: Any, offset: Any) -> Node:
    """``scale * x + offset`` with one constant, or one per channel."""
    for value in (scale, offset):
        shape = _constant(value).shape
        if any(size != 1 for size in shape[:-1]) or len(shape) > len(x.shape):
            raise Unsupported(
                f"a constant must be one number or one per channel, received {shape}"
            )
    return call.add("affine", [x], layer=rescaling(scale, offset, call.name))


def _joining(kind: str, layer_class: type) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.maximum` or `tf.minimum`."""

    def lower(call: Call) -> Node:
        x, y = _operands(call)
        if not (isinstance(x, Node) and isinstance(y, Node)):
            return _limit(call, kind, x, y)
        return call.add(kind, [x, y], layer=layer_class(name=call.name))

    return lower


def _limit(call: Call, kind: str, x: Any, y: Any) -> Node:
    """``maximum(x, 0)`` is a ReLU; other limits have no operator."""
    x, constant = (x, y) if isinstance(x, Node) else (y, x)
    if kind == "maximum" and np.all(_constant(constant) == 0):
        return activate(call, x, tf.nn.relu, call.name)
    raise Unsupported(f"a limit must be maximum(x, 0), received {kind} of {constant}")


def _clip(call: Call) -> Node:
    """``clip_by_value(x, 0, 6)`` is a ReLU6."""
    low, high = (
        _constant(call.arguments[f"clip_value_{end}"]) for end in ("min", "max")
    )
    if np.any(low != 0) or np.any(high != 6):
        raise Unsupported(f"limits must be 0 and 6, received {low} and {high}")
    return activate(call, call.arguments["t"], tf.nn.relu6, call.name)


def _add_n(call: Call) -> Node:
    """Sum of a list of tensors."""
    return chained(call, "add", layers.Add, call.arguments["inputs"], call.name)


def _activation(function: Any) -> Callable[[Call], Node]:
    """Returns the lowering of an activation function."""

    def lower(call: Call) -> Node:
        x = next(v for v in call.arguments.values() if isinstance(v, Node))
        if call.arguments.get("axis") not in (None, -1, len(x.shape) - 1):
            raise Unsupported(f"axis must be -1, received {call.arguments['axis']}")
        if call.arguments.get("beta", 1.0) != 1.0:
            raise Unsupported(f"beta must be 1, received {call.arguments['beta']}")
        return activate(call, x, function, call.name)

    return lower


def _leaky_relu(call: Call) -> Node:
    """``leaky_relu(x, alpha)``."""
    slope = float(_constant(call.arguments["alpha"]))
    layer = layers.LeakyReLU(slope, name=call.name)
    return activate(call, call.arguments["features"], layer, call.name)


def _identity(call: Call) -> Node:
    """A function that changes nothing, such as a cast between floats."""
    x = next(v for v in call.arguments.values() if isinstance(v, Node))
    linear = layers.Activation("linear", name=call.name)
    return call.add("identity", [x], layer=linear)


# --- Shapes ------------------------------------------------------------------


def _reshape(call: Call) -> Node:
    """Reshape, squeeze or expand_dims: only the output shape counts."""
    x = next(v for v in call.arguments.values() if isinstance(v, Node))
    return _reshaped(call, x, call.shape, call.name)


def _reshaped(call: Call, x: Node, shape: Any, name: str) -> Node:
    """Adds a reshape to `shape`, apart from the batch."""
    if any(size is None for size in shape[1:]):
        raise Unsupported(f"every size but the batch must be known, received {shape}")
    if x.shape[0] != shape[0] and shape[0] is not None:
        raise Unsupported(f"the batch axis must stay, received the shape {shape}")
    return call.add("reshape", [x], layer=layers.Reshape(shape[1:], name=name))


def _transpose(call: Call) -> Node:
    """Transposition that keeps the batch axis first."""
    x = call.arguments["a"]
    perm = call.arguments["perm"]
    perm = list(reversed(range(len(x.shape)))) if perm is None else perm
    perm = [int(axis) for axis in _constant(perm)]
    if perm[0] != 0:
        raise Unsupported(f"the batch axis must stay first, received perm={perm}")
    layer = layers.Permute(perm[1:], name=call.name)
    return call.add("transpose", [x], layer=layer, perm=tuple(perm))


def _concat(call: Call) -> Node:
    """Concatenation along any axis but the batch."""
    values, axis = call.arguments["values"], int(_constant(call.arguments["axis"]))
    if not all(isinstance(value, Node) for value in values):
        raise Unsupported("constants cannot be concatenated")
    if axis % len(values[0].shape) == 0:
        raise Unsupported("axis must not be the batch axis, received 0")
    layer = layers.Concatenate(axis=axis, name=call.name)
    return call.add("concat", values, layer=layer)


def _pad(call: Call) -> Node:
    """Padding with zeros."""
    mode, value = call.arguments["mode"], call.arguments["constant_values"]
    if str(mode).upper() != "CONSTANT" or np.any(_constant(value) != 0):
        raise Unsupported(f"padding must use zeros, received {mode} with {value}")
    paddings = _constant(call.arguments["paddings"]).tolist()
    if any(paddings[0]):
        raise Unsupported("the batch axis cannot be padded")
    layer = ConstantPadding(paddings[1:], name=call.name)
    x = call.arguments["tensor"]
    return call.add("pad", [x], layer=layer, paddings=layer.paddings)


def _reduce(reduction: str) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.reduce_mean` or `tf.reduce_max`."""

    def lower(call: Call) -> Node:
        x, axes = call.arguments["input_tensor"], call.arguments["axis"]
        if axes is None:
            raise Unsupported("axis must be given, excluding the batch, received None")
        axes = sorted(int(a) % len(x.shape) for a in np.ravel(_constant(axes)))
        if 0 in axes:
            raise Unsupported("axis must not be the batch axis, received 0")
        keepdims = bool(call.arguments["keepdims"])
        layer = Reduction(reduction, axes, keepdims, name=call.name)
        kind = {"mean": "mean", "max": "reduce_max"}[reduction]
        return call.add(kind, [x], layer=layer, axes=layer.axes, keepdims=keepdims)

    return lower


def _getitem(call: Call) -> Node:
    """``x[...]``: a strided slice, then a reshape for dropped and new axes."""
    x = call.arguments["tensor"]
    begin, size, strides = _slices(x.shape, call.arguments["slice_spec"])
    whole = (None, *size)
    if whole == tuple(x.shape):
        return _reshaped(call, x, call.shape, call.name)
    plain = len(call.shape) == len(whole) and tuple(call.shape[1:]) == whole[1:]
    name = call.name if plain else f"{call.name}_slice"
    part = _slice(call, x, (begin, size, strides), name)
    return part if plain else _reshaped(call, part, call.shape, call.name)


def _slice(call: Call, x: Node, bounds: tuple[Any, Any, Any], name: str) -> Node:
    """Adds a strided slice."""
    layer = StridedSlice(*bounds, name=name)
    return call.add(
        "slice",
        [x],
        layer=layer,
        begin=layer.begin,
        end=layer.end,
        strides=layer.strides,
    )


def _slices(shape: Any, spec: Any) -> tuple[list[int], list[int], list[int]]:
    """Returns begin, size and strides of an index expression, without the batch."""
    spec = list(spec) if isinstance(spec, list | tuple) else [spec]
    items = [_index(item) for item in spec if item is not None]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        missing = len(shape) - len(items) + 1
        items[at : at + 1] = [slice(None)] * missing
    items += [slice(None)] * (len(shape) - len(items))
    if items[0] != slice(None):
        raise Unsupported("the batch axis must stay whole in a slice")
    begin, size, strides = [], [], []
    for item, length in zip(items[1:], shape[1:], strict=True):
        if length is None:
            raise Unsupported(
                f"every size but the batch must be known, received {shape}"
            )
        if isinstance(item, int):
            item = slice(item % length, item % length + 1)
        first, last, stride = item.indices(length)
        if stride < 1 or last <= first:
            raise Unsupported(f"slices must be non-empty and forward, received {item}")
        begin.append(first)
        size.append(math.ceil((last - first) / stride))
        strides.append(stride)
    return begin, size, strides


def _index(item: Any) -> Any:
    """Returns one index of a recorded slice; Keras records slices as dicts."""
    if item is Ellipsis or isinstance(item, int):
        return item
    if isinstance(item, dict):
        parts = [item["start"], item["stop"], item["step"]]
        return slice(*(None if p is None else int(_constant(p)) for p in parts))
    if isinstance(item, slice):
        return item
    return int(_constant(item))


def _split(call: Call) -> list[Node]:
    """``tf.split``: one slice per part."""
    x, parts = call.arguments["value"], call.arguments["num_or_size_splits"]
    axis = int(_constant(call.arguments["axis"])) % len(x.shape)
    if axis == 0 or x.shape[axis] is None:
        raise Unsupported("axis must not be the batch axis, and its size must be known")
    length = x.shape[axis]
    sizes = np.ravel(_constant(parts)).tolist()
    if np.ndim(parts) == 0:
        sizes = [length // parts] * parts
    if -1 in sizes:
        sizes[sizes.index(-1)] = length - sum(sizes) - 1
    slices, begin = [], 0
    for number, size in enumerate(sizes):
        first, full = [0] * (len(x.shape) - 1), list(x.shape[1:])
        first[axis - 1], full[axis - 1] = begin, size
        begin += size
        bounds = (first, full, [1] * len(first))
        slices.append(_slice(call, x, bounds, f"{call.name}_{number}"))
    return slices


# --- Images ------------------------------------------------------------------


def _resize(call: Call) -> Node:
    """``tf.image.resize``."""
    method = str(call.arguments["method"])
    if method not in ("bilinear", "nearest") or call.arguments["antialias"]:
        raise Unsupported(
            f"method must be bilinear or nearest without antialias, received {method}"
        )
    size = tuple(call.shape[1:3])
    layer = layers.Resizing(*size, interpolation=method, name=call.name)
    x = call.arguments["images"]
    return call.add(f"resize_{method}", [x], layer=layer, size=size)


def _pool(layer_class: type, kind: str) -> Callable[[Call], Node]:
    """Returns the lowering of `tf.nn.max_pool2d` or `tf.nn.avg_pool2d`."""

    def lower(call: Call) -> Node:
        size, strides = (_window(call.arguments[name]) for name in ("ksize", "strides"))
        padding = str(call.arguments["padding"])
        if padding not in ("SAME", "VALID"):
            raise Unsupported(f"padding must be SAME or VALID, received {padding}")
        if call.arguments["data_format"] not in (None, "NHWC"):
            raise Unsupported("data_format must be NHWC")
        layer = layer_class(size, strides, padding.lower(), name=call.name)
        x = call.arguments["input"]
        options = {"size": size, "strides": strides, "padding": padding}
        return call.add(kind, [x], layer=layer, **options)

    return lower


def _window(value: Any) -> tuple[int, int]:
    """Returns (height, width) of a window argument."""
    sizes = np.ravel(_constant(value)).astype(int).tolist()
    if len(sizes) == 4:
        sizes = sizes[1:3]
    return (sizes[0], sizes[-1])


def _unary(kind: str) -> Callable[[Call], Node]:
    """Returns the lowering of a function of one tensor."""

    def lower(call: Call) -> Node:
        x = next(v for v in call.arguments.values() if isinstance(v, Node))
        return call.add(kind, [x], layer=UnaryFunction(kind, name=call.name))

    return lower


_ROWS: dict[tuple[str, ...], Callable[[Call], Node | list[Node]]] = {
    ("__operators__.add", "math.add", "add"): _add,
    ("math.subtract", "subtract"): _subtract,
    ("math.multiply", "multiply"): _multiply,
    ("math.truediv", "math.divide", "divide"): _divide,
    ("math.negative", "negative"): _negative,
    ("math.maximum", "maximum"): _joining("maximum", layers.Maximum),
    ("math.minimum", "minimum"): _joining("minimum", layers.Minimum),
    ("clip_by_value",): _clip,
    ("math.add_n", "add_n"): _add_n,
    ("nn.relu",): _activation(tf.nn.relu),
    ("nn.relu6",): _activation(tf.nn.relu6),
    ("nn.leaky_relu",): _leaky_relu,
    ("math.sigmoid", "nn.sigmoid", "sigmoid"): _activation(tf.nn.sigmoid),
    ("math.tanh", "nn.tanh", "tanh"): _activation(tf.nn.tanh),
    ("nn.silu", "nn.swish"): _activation(tf.nn.silu),
    ("nn.softmax",): _activation(tf.nn.softmax),
    ("identity", "cast"): _identity,
    ("reshape", "squeeze", "compat.v1.squeeze", "expand_dims"): _reshape,
    ("transpose", "compat.v1.transpose"): _transpose,
    ("concat",): _concat,
    ("pad", "compat.v1.pad"): _pad,
    ("math.reduce_mean", "reduce_mean"): _reduce("mean"),
    ("math.reduce_max", "reduce_max"): _reduce("max"),
    ("__operators__.getitem",): _getitem,
    ("split",): _split,
    ("image.resize",): _resize,
    ("nn.max_pool2d",): _pool(layers.MaxPooling2D, "max_pool"),
    ("nn.avg_pool2d",): _pool(layers.AveragePooling2D, "average_pool"),
    **{row.symbols: _unary(name) for name, row in UNARY.items() if row.symbols},
}
FUNCTIONS = {symbol: lower for symbols, lower in _ROWS.items() for symbol in symbols}
PUBLIC_FUNCTIONS = sorted(
    symbols[0].replace("compat.v1.", "").replace("__operators__", "Tensor")
    for symbols in _ROWS
)
