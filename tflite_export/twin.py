"""`integer_twin`: a Keras model that computes the integers of a file.

It runs at the speed of Keras, on whole batches and on any device, so the accuracy of a
phone is known from `evaluate`. Products of integers are convolutions in float32, which
are exact as long as every partial sum is below 2**24; beyond that they are computed in
float64. What follows them rounds as the kernel does that LiteRT would choose for the
operator, see `arithmetic`.

Between operators flow the codes less their zero point, as float32 tensors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lsq._compat import keras, model_structure

from . import arithmetic, expectation
from .containers import PACKABLE, Storage
from .freeze import FrozenModel, FrozenNode, freeze_model
from .grids import INT8_MAX, INT8_MIN, ONE, Grid
from .rounding import fixed_point, half_up_channels
from .targets import TARGETS, takes_container

KERNELS = ("xnnpack", "builtin")
_EXACT_FLOAT32 = 2**24
_RELU6 = np.float32(6.0)
_CPU = TARGETS["phone"]

Compute = Callable[[list[tf.Tensor]], tf.Tensor]


def integer_twin(
    model: keras.Model,
    *,
    storage: str = "int8",
    bias_grid: str = "own",
    kernels: str = "xnnpack",
) -> keras.Model:
    """Returns a Keras model that computes the integers of the exported file.

    It takes what `model` takes and returns what it returns, each output on the grid of
    the file. `evaluate` and `predict` work as usual; it has nothing to train and is
    not saved.

    Exact for integers on CPUs, where it was measured against LiteRT on x86-64. Layers
    left in float are computed in float, and quantized behind it.

    Args:
        model: A quantized model, trained or calibrated.
        storage: As given to `export_model`.
        bias_grid: As given to `export_model`.
        kernels: "xnnpack": LiteRT as phones run it. "builtin": without XNNPACK.

    Returns:
        A `tf_keras` model with the inputs and outputs of `model`, uncompiled. The
        layer of each operator of the file has its name; "." stands for "/" and for
        whatever else TensorFlow does not allow in names.

    Raises:
        TypeError: If `model` is no tf_keras model.
        ValueError: If an option is unknown, or `model` cannot be exported.
        RuntimeError: If `model` was never trained or calibrated.
    """
    if kernels not in KERNELS:
        raise ValueError(
            f"`kernels` must be one of {list(KERNELS)}. Received: {kernels!r}."
        )
    return build_twin(freeze_model(model, Storage(storage, bias_grid)), model, kernels)


def build_twin(
    frozen: FrozenModel, model: keras.Model, kernels: str = "xnnpack"
) -> keras.Model:
    """Returns the twin of a file.

    Args:
        frozen: The numbers of the file.
        model: The model that they are from.
        kernels: One of `KERNELS`.
    """
    operators = twin_operators(frozen, kernels)
    nodes, tensors, inputs = frozen.by_name(), {}, {}
    for node in frozen.nodes:
        if node.kind == "input":
            inputs[node.name] = _input_like(model, node)
            codes = _Operator(_quantized_input(node.grid), f"{_plain(node.name)}_codes")
            tensors[node.name] = codes(inputs[node.name])
        else:
            layer = _Operator(operators[node.name], _plain(node.name))
            tensors[node.name] = layer([tensors[name] for name in node.inputs])
    outputs = []
    for name, tensor in frozen.outputs.items():
        values = _Operator(_real_values(nodes[tensor].grid), f"{_plain(name)}_values")
        outputs.append(values(tensors[tensor]))
    ends = [inputs[tensor] for tensor in frozen.inputs.values()]
    input_structure, output_structure = model_structure(model)
    return keras.Model(
        tf.nest.pack_sequence_as(input_structure, ends),
        tf.nest.pack_sequence_as(output_structure, outputs),
        name=f"{model.name}_twin",
    )


def _input_like(model: keras.Model, node: FrozenNode) -> Any:
    """Returns an input of the shape and type of the model's."""
    config = model.get_layer(node.layer.name).get_config()
    return keras.Input(
        batch_shape=config["batch_input_shape"],
        dtype=config["dtype"],
        name=node.layer.name,
    )


def _plain(name: str) -> str:
    """Returns a tensor's name as TensorFlow allows for a layer with operators."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", ".", name)
    return plain if plain[0].isalnum() else f".{plain}"


class _Operator(keras.layers.Layer):
    """A function of tensors as a layer without weights."""

    def __init__(self, compute: Compute, name: str) -> None:
        super().__init__(name=name, dtype="float32", trainable=False)
        self._compute = compute

    def call(self, inputs: Any) -> tf.Tensor:
        """Computes the operator."""
        return self._compute(inputs if isinstance(inputs, list) else [inputs])

    def get_config(self) -> Any:
        """Raises: the twin is made from the trained model whenever it is needed."""
        raise NotImplementedError(
            "A twin cannot be saved. Save the trained model, and make it again with "
            "`integer_twin`."
        )


def _quantized_input(grid: Grid) -> Compute:
    """Returns real values -> codes less their zero point."""

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        values = tf.cast(inputs[0], tf.float32)
        return _limited(tf.round(values / np.float32(grid.scale)), grid)

    return compute


def _real_values(grid: Grid | None) -> Compute:
    """Returns codes less their zero point -> real values; floats stay as they are."""
    scale = np.float32(1.0 if grid is None else grid.scale)
    return lambda inputs: inputs[0] * scale


def _limited(codes: tf.Tensor, grid: Grid, activation: str | None = None) -> tf.Tensor:
    """Returns codes less their zero point within int8 and the fused activation."""
    low, high = INT8_MIN - grid.zero_point, INT8_MAX - grid.zero_point
    if activation:
        low = max(low, 0)
    if activation == "relu6":
        high = min(high, int(np.floor(_RELU6 / np.float32(grid.scale) + 0.5)))
    return tf.clip_by_value(tf.cast(codes, tf.float32), float(low), float(high))


# --- Operators ---------------------------------------------------------------


def twin_operators(frozen: FrozenModel, kernels: str) -> dict[str, Compute]:
    """Returns what each operator of a file computes, by the name of its output.

    Args:
        frozen: A trained model as plain numbers.
        kernels: One of `KERNELS`.

    Returns:
        Functions from the inputs to the output; integer tensors as codes less their
        zero point, others as real values, all float32.
    """
    nodes = frozen.by_name()
    found = {}
    for node in frozen.nodes:
        if node.kind == "input":
            continue
        sources = [nodes[name] for name in node.inputs]
        context = _Context(node, sources, kernels)
        if node.is_float:
            found[node.name] = _in_float(context)
        else:
            found[node.name] = OPERATORS.get(node.kind, _moves)(context)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Context:
    """One operator, what feeds it, and the kernels that are there to run it.

    Attributes:
        node: The operator.
        sources: The operators that make its inputs.
        kernels: One of `KERNELS`.
    """

    node: FrozenNode
    sources: list[FrozenNode]
    kernels: str

    @property
    def family(self) -> str:
        """The kernels that run the operator: XNNPACK does not take every one."""
        taken = self.node.weight is None or self._kernel_is_taken()
        return self.kernels if taken else "builtin"

    def _kernel_is_taken(self) -> bool:
        """Returns whether XNNPACK takes the operator's kernel as it is stored."""
        if self.node.kind == "transposed_conv":
            layer = self.node.layer
            sizes = zip(layer.kernel_size, layer.strides, strict=True)
            gaps = any(size < stride for size, stride in sizes)
            return not (gaps and layer.padding == "same")
        code = PACKABLE.get(self.node.kind)
        container, channels = self.node.weight.container, self.sources[0].shape[-1]
        return code is None or takes_container(_CPU, code, container, channels)

    @property
    def scales(self) -> list[np.float32]:
        """Scales of the inputs, then of the output."""
        grids = [source.grid for source in self.sources] + [self.node.grid]
        return [np.float32(grid.scale) for grid in grids]

    def limited(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns the operator's result with its fused activation."""
        return _limited(codes, self.node.grid, self.node.activation)


def _moves(context: _Context) -> Compute:
    """An operator that moves codes, or compares them."""
    node = context.node.node
    compute = expectation.COMPUTE[context.node.kind]
    return lambda inputs: context.limited(compute(node, inputs))


def _in_float(context: _Context) -> Compute:
    """An operator that is left in float."""
    grids = [source.grid for source in context.sources]

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        values = [
            tf.cast(x, tf.float64) * (1.0 if grid is None else grid.scale)
            for x, grid in zip(inputs, grids, strict=True)
        ]
        result = expectation.operator_tensor(context.node.node, values)
        return tf.cast(result, tf.float32)

    return compute


def _product(context: _Context) -> Compute:
    """Codes of the input times trained codes of the kernel, exact, as int64."""
    node = context.node.node
    if not node.properties.matmul:
        return lambda inputs: tf.cast(inputs[0], tf.int64) * INT8_MAX
    kernel = tf.round(node.model_layer.codes())
    reach = context.sources[0].grid.reach
    codes = np.abs(context.node.weight.codes.codes) // context.node.weight.multiplier
    largest = reach * int(codes.reshape(-1, codes.shape[-1]).sum(axis=0).max())
    dtype = tf.float32 if largest < _EXACT_FLOAT32 else tf.float64
    kernel = tf.cast(kernel, dtype)
    multiply = expectation.PRODUCTS[node.kind]
    return lambda inputs: tf.cast(
        tf.round(multiply(node, tf.cast(inputs[0], dtype), kernel)), tf.int64
    )


def _matmul(context: _Context) -> Compute:
    """A product with a kernel, and a bias."""
    product, requantize = _product(context), _requantize(context)
    weight = context.node.weight
    factor = tf.constant(weight.sign.astype(np.int64) * weight.multiplier)
    bias = tf.constant(weight.bias.codes)
    return lambda inputs: context.limited(requantize(product(inputs) * factor + bias))


def _requantize(context: _Context) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns accumulator -> codes of the output, for an operator with a kernel."""
    source, output = context.scales
    scale = context.node.weight.codes.scale
    if context.family == "xnnpack":
        return lambda acc: arithmetic.float_requantize(acc, source * scale / output)
    ratio = np.float64(source) * np.float64(scale)
    if context.node.kind == "dense" and len(scale) == 1:
        ratio = np.float64(source * scale)  # One scale per tensor: a float32 product.
    multiplier, exponent = fixed_point(ratio / np.float64(output))
    half_up = half_up_channels(context.node.kind, len(scale))
    return lambda acc: arithmetic.fixed_requantize(
        acc, multiplier, exponent, half_up=half_up
    )


def _elementwise(context: _Context, ratio: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns accumulator -> codes of the output, for an elementwise operator."""
    if context.family == "xnnpack":
        return lambda acc: arithmetic.float_requantize(acc, ratio)
    multiplier, exponent = fixed_point(np.float64(ratio))
    return lambda acc: arithmetic.fixed_requantize(
        acc, multiplier, exponent, half_up=False
    )


def _multiply(context: _Context) -> Compute:
    """Elementwise product."""
    first, second, output = context.scales
    requantize = _elementwise(context, first * second / output)
    return lambda inputs: context.limited(
        requantize(_integers(inputs[0]) * _integers(inputs[1]))
    )


def _rescale(context: _Context) -> Compute:
    """A change of scale: the product with a constant 1."""
    source, output = context.scales
    requantize = _elementwise(context, source * np.float32(1.0 / ONE) / output)
    return lambda inputs: context.limited(requantize(_integers(inputs[0]) * ONE))


def _quantize(context: _Context) -> Compute:
    """From float, or from another grid."""
    grid = context.sources[0].grid
    if grid is None:
        return _quantized_input(context.node.grid)
    if grid.scale == context.node.grid.scale:
        return lambda inputs: context.limited(inputs[0])
    return _rescale(context)


def _clip(context: _Context) -> Compute:
    """Clipping to the ends of the grid."""
    grid = context.node.grid
    low, high = (float(end - grid.zero_point) for end in (grid.low, grid.high))
    return lambda inputs: tf.clip_by_value(inputs[0], low, high)


def _sum(sign: int) -> Callable[[_Context], Compute]:
    """Returns the function of an addition or subtraction."""

    def build(context: _Context) -> Compute:
        add = {"xnnpack": arithmetic.float_sum, "builtin": arithmetic.fixed_sum}
        total = add[context.family]
        return lambda inputs: context.limited(
            total(*map(_integers, inputs), context.scales, sign)
        )

    return build


def _mean(context: _Context) -> Compute:
    """Mean over axes."""
    options, shape = context.node.node.options, context.sources[0].shape
    count = int(np.prod([shape[axis] for axis in options["axes"]]))
    ratio = context.scales[0] / context.scales[1]
    zeros = context.sources[0].grid.zero_point, context.node.grid.zero_point
    axes = sorted(options["axes"])
    image = len(shape) == 4 and axes == [1, 2] and options["keepdims"]

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        acc = tf.reduce_sum(
            _integers(inputs[0]), options["axes"], keepdims=options["keepdims"]
        )
        raw = acc + count * zeros[0]
        if context.family == "xnnpack":
            mean = arithmetic.float_mean(raw, count, ratio, zeros) - zeros[1]
        elif image:
            mean = arithmetic.fixed_image_mean(raw, count, context.scales, zeros)
            mean = mean - zeros[1]
        else:
            mean = arithmetic.fixed_mean(acc, count, ratio)
        return context.limited(mean)

    return compute


def _average_pool(context: _Context) -> Compute:
    """Average pooling."""
    node, zero_point = context.node.node, context.node.grid.zero_point
    pool = expectation.COMPUTE["average_pool"]
    count = _pool_counts(context)

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        average = pool(node, [tf.cast(inputs[0], tf.float64)])
        acc = _integers(tf.round(average * tf.cast(count, tf.float64)))
        raw = arithmetic.rounded_average(acc + count * zero_point, count)
        return context.limited(raw - zero_point)

    return compute


def _pool_counts(context: _Context) -> tf.Tensor:
    """Returns how many pixels of the image each window of a pooling holds, int64."""
    options, shape = context.node.node.options, context.sources[0].shape
    counts = []
    spatial = shape[1:-1] if len(shape) == 4 else (1, *shape[1:-1])
    for size, window, stride in zip(
        spatial, options["size"], options["strides"], strict=True
    ):
        inside = tf.ones([1, size, 1])
        total = tf.nn.conv1d(
            inside, tf.ones([window, 1, 1]), stride, options["padding"]
        )
        counts.append(tf.cast(tf.reshape(total, [-1]), tf.int64))
    grid = (counts[0][:, None] * counts[1])[..., None]
    return grid if len(shape) == 4 else grid[0]


def _bilinear(context: _Context) -> Compute:
    """Bilinear resizing."""
    size, shape = context.node.node.options["size"], context.sources[0].shape
    zero_point = context.node.grid.zero_point
    flat = len(shape) == 3
    source = (1, shape[1]) if flat else shape[1:3]

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        codes = _integers(inputs[0]) + zero_point
        codes = codes[:, tf.newaxis] if flat else codes
        result = arithmetic.bilinear(codes, tuple(size), source, context.family)
        return context.limited((result[:, 0] if flat else result) - zero_point)

    return compute


def _prelu(context: _Context) -> Compute:
    """Leaky ReLU: each side of zero by itself."""
    source, output = context.scales
    weight = context.node.weight.codes
    keep = _elementwise(context, source * np.float32(1.0 / ONE) / output)
    tilt = _elementwise(context, source * weight.scale[0] / output)
    slope = tf.constant(weight.codes)

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        codes = _integers(inputs[0])
        positive = context.limited(keep(codes * ONE))
        sloped = context.limited(tilt(codes * slope))
        return tf.where(codes >= 0, positive, sloped)

    return compute


def _function(function: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Compute]:
    """Returns the function of an activation that kernels look up in a table."""

    def build(context: _Context) -> Compute:
        grid = context.sources[0].grid
        values = (np.arange(INT8_MIN, INT8_MAX + 1) - grid.zero_point) * grid.scale
        table = np.rint(function(values) / context.node.grid.scale).astype(np.int64)
        return lambda inputs: context.limited(
            arithmetic.look_up(_integers(inputs[0]) + grid.zero_point, table)
        )

    return build


def _softmax(context: _Context) -> Compute:
    """Softmax over the last axis."""
    scale = context.sources[0].grid.scale

    def compute(inputs: list[tf.Tensor]) -> tf.Tensor:
        shares = tf.nn.softmax(tf.cast(inputs[0], tf.float64) * scale)
        return context.limited(tf.round(shares / context.node.grid.scale))

    return compute


def _integers(codes: tf.Tensor) -> tf.Tensor:
    """Returns whole numbers as int64."""
    return tf.cast(codes, tf.int64)


OPERATORS: dict[str, Callable[[_Context], Compute]] = {
    **dict.fromkeys(expectation.PRODUCTS, _matmul),
    "pointwise": _matmul,
    "affine": _matmul,
    "hard_sigmoid": _matmul,
    "prelu": _prelu,
    "add": _sum(1),
    "subtract": _sum(-1),
    "multiply": _multiply,
    "relu": _rescale,
    "softmax": _softmax,
    "sigmoid": _function(lambda x: 1.0 / (1.0 + np.exp(-x))),
    "tanh": _function(np.tanh),
    "mean": _mean,
    "average_pool": _average_pool,
    "resize_bilinear": _bilinear,
    "quantize": _quantize,
    "widen": _rescale,
    "clip_high": _clip,
    "clip_low": _clip,
}
