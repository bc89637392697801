"""Operations and layers of Keras 3: the twin of each computes the same.

`from_keras3` compares them itself; these cases show that it does, and which operations
have a recorded TensorFlow function as their twin.
"""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import OpLambda, SlicingOpLambda, keras
from tf_lsq.graph import Keras3Layer, UnaryFunction
from tf_lsq.graph.keras3 import twins
from tf_lsq.graph.product_layers import Einsum

layers3 = keras3.layers
ops = keras3.ops
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)


def positive(x):
    return ops.abs(x) + 0.1


def whole(x):
    return ops.cast(x * 9.0, "int32")


# Functions of x and y, both of shape [batch, 8, 8, 4].
CASES = {
    "absolute": lambda x, y: ops.absolute(x),
    "add": lambda x, y: x + y,
    "add_number": lambda x, y: 1 + x,
    "add_to_integers": lambda x, y: whole(x) + y,
    "all": lambda x, y: ops.all(x > -0.9, axis=1),
    "amax": lambda x, y: ops.amax(x, axis=1),
    "amin": lambda x, y: ops.amin(x, axis=1),
    "any": lambda x, y: ops.any(x > 0.9, axis=1),
    "append": lambda x, y: ops.append(x, y, axis=1),
    "arccos": lambda x, y: ops.arccos(ops.tanh(x)),
    "arccosh": lambda x, y: ops.arccosh(positive(x) + 1.0),
    "arcsin": lambda x, y: ops.arcsin(ops.tanh(x)),
    "arcsinh": lambda x, y: ops.arcsinh(x),
    "arctan": lambda x, y: ops.arctan(x),
    "arctan2": lambda x, y: ops.arctan2(x, y),
    "arctanh": lambda x, y: ops.arctanh(ops.tanh(x)),
    "argmax": lambda x, y: ops.argmax(x, axis=-1),
    "argmax_keepdims": lambda x, y: ops.argmax(x, axis=-1, keepdims=True),
    "argmin": lambda x, y: ops.argmin(x, axis=1),
    "array_split": lambda x, y: ops.array_split(x, 3, axis=1)[0],
    "average": lambda x, y: ops.average(x, axis=1),
    "attention": lambda x, y: ops.dot_product_attention(x, y, y),
    "attention_masked": lambda x, y: ops.dot_product_attention(
        x, y, y, mask=np.tri(8, dtype=bool)[None, None], scale=0.3
    ),
    "attention_causal": lambda x, y: ops.dot_product_attention(x, y, x, is_causal=True),
    "average_pool": lambda x, y: ops.average_pool(x, 3, 2, padding="same"),
    "broadcast_to": lambda x, y: ops.broadcast_to(x[:, :1], (2, 8, 8, 4)),
    "cast": lambda x, y: ops.cast(x * 9.0, "int32"),
    "ceil": lambda x, y: ops.ceil(x * 3.0),
    "deg2rad": lambda x, y: ops.deg2rad(x),
    "rad2deg": lambda x, y: ops.rad2deg(x),
    "glu": lambda x, y: ops.glu(x),
    "bessel_i0": lambda x, y: ops.i0(x),
    "cbrt": lambda x, y: ops.cbrt(x),
    "celu": lambda x, y: ops.celu(x, 0.5),
    "clip": lambda x, y: ops.clip(x, -0.5, 0.4),
    "clip_to_6": lambda x, y: ops.clip(x, 0.0, 6.0),
    "concatenate": lambda x, y: ops.concatenate([x, y], axis=-1),
    "conv": lambda x, y: ops.conv(x, KERNEL, strides=2, padding="same"),
    "conv_dilated": lambda x, y: ops.conv(x, KERNEL, dilation_rate=2),
    "conv_1d": lambda x, y: ops.conv(x[:, 0], KERNEL[0], padding="same"),
    "array": lambda x, y: ops.array(x) + y,
    "convert_to_tensor": lambda x, y: ops.convert_to_tensor(x, "int32"),
    "copy": lambda x, y: ops.copy(x),
    "cos": lambda x, y: ops.cos(x),
    "cosh": lambda x, y: ops.cosh(x),
    "count_nonzero": lambda x, y: ops.count_nonzero(whole(x), axis=1),
    "crop": lambda x, y: ops.image.crop_images(
        x, 1, 2, target_height=4, target_width=3
    ),
    "cumprod": lambda x, y: ops.cumprod(x, axis=1),
    "cumsum": lambda x, y: ops.cumsum(x, axis=1),
    "depth_to_space": lambda x, y: ops.depth_to_space(x, 2),
    "depthwise_conv": lambda x, y: ops.depthwise_conv(x, KERNEL[..., :1]),
    "divide": lambda x, y: x / positive(y),
    "divide_function": lambda x, y: ops.divide(x, positive(y)),
    "divide_integers": lambda x, y: whole(x) / 2,
    "divide_no_nan": lambda x, y: ops.divide_no_nan(x, y),
    "dot": lambda x, y: ops.dot(x, KERNEL[0, 0]),
    "dsplit": lambda x, y: ops.dsplit(x, 2)[1],
    "dstack": lambda x, y: ops.dstack([x, y]),
    "einsum": lambda x, y: ops.einsum("bhwc,bhvc->bhwv", x, y),
    "elu": lambda x, y: ops.elu(x),
    "elu_alpha": lambda x, y: ops.elu(x, 0.5),
    "equal": lambda x, y: ops.equal(whole(x), 1),
    "erf": lambda x, y: ops.erf(x),
    "erfc": lambda x, y: ops.erfc(x),
    "erfinv": lambda x, y: ops.erfinv(ops.tanh(x)),
    "exp": lambda x, y: ops.exp(x),
    "expand_dims": lambda x, y: ops.expand_dims(x, 1),
    "expand_dims_twice": lambda x, y: ops.expand_dims(x, (1, 3)),
    "expm1": lambda x, y: ops.expm1(x),
    "extract_patches": lambda x, y: ops.image.extract_patches(x, 3, 2, padding="same"),
    "fabs": lambda x, y: ops.fabs(x),
    "flip": lambda x, y: ops.flip(x, axis=1),
    "flip_twice": lambda x, y: ops.flip(x, axis=(1, 2)),
    "fliplr": lambda x, y: ops.fliplr(x),
    "flipud": lambda x, y: ops.flipud(x),
    "floor": lambda x, y: ops.floor(x * 3.0),
    "floor_divide": lambda x, y: x // positive(y),
    "gelu": lambda x, y: ops.gelu(x),
    "gelu_exact": lambda x, y: ops.gelu(x, approximate=False),
    "getitem": lambda x, y: x[:, 1:, ::2, -1],
    "getitem_new_axis": lambda x, y: x[:, None, 2],
    "getitem_reversed": lambda x, y: x[..., ::-1],
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= 0.1,
    "hard_sigmoid": lambda x, y: ops.hard_sigmoid(x),
    "hard_silu": lambda x, y: ops.hard_silu(x),
    "hard_tanh": lambda x, y: ops.hard_tanh(x * 2.0),
    "hsplit": lambda x, y: ops.hsplit(x, 2)[1],
    "hstack": lambda x, y: ops.hstack([x, y]),
    "hsv_to_rgb": lambda x, y: ops.image.hsv_to_rgb(ops.sigmoid(x[..., :3])),
    "isfinite": lambda x, y: ops.isfinite(x / y),
    "isinf": lambda x, y: ops.isinf(x),
    "isnan": lambda x, y: ops.isnan(ops.sqrt(x)),
    "leaky_relu": lambda x, y: ops.leaky_relu(x, 0.3),
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "log": lambda x, y: ops.log(positive(x)),
    "log1p": lambda x, y: ops.log1p(positive(x)),
    "log_sigmoid": lambda x, y: ops.log_sigmoid(x),
    "log_softmax": lambda x, y: ops.log_softmax(x, axis=1),
    "logical_and": lambda x, y: ops.logical_and(x > 0, y > 0),
    "logical_not": lambda x, y: ops.logical_not(x > 0),
    "logical_or": lambda x, y: ops.logical_or(x > 0, y > 0),
    "logical_xor": lambda x, y: ops.logical_xor(x > 0, y > 0),
    "logsumexp": lambda x, y: ops.logsumexp(x, axis=1),
    "matmul": lambda x, y: ops.matmul(x, KERNEL[0, 0]),
    "matmul_tensors": lambda x, y: ops.matmul(x, ops.transpose(y, (0, 1, 3, 2))),
    "max": lambda x, y: ops.max(x, axis=1, keepdims=True),
    "max_pool": lambda x, y: ops.max_pool(x, 2),
    "max_pool_1d": lambda x, y: ops.max_pool(x[:, 0], 2),
    "maximum": lambda x, y: ops.maximum(x, y),
    "maximum_number": lambda x, y: ops.maximum(x, 0.1),
    "mean": lambda x, y: ops.mean(x, axis=[1, 2]),
    "mean_of_integers": lambda x, y: ops.mean(whole(x), axis=1),
    "min": lambda x, y: ops.min(x, axis=1),
    "minimum": lambda x, y: ops.minimum(x, 0.1),
    "mod": lambda x, y: ops.mod(x, positive(y)),
    "moments": lambda x, y: ops.moments(x, axes=[1, 2])[1],
    "moveaxis": lambda x, y: ops.moveaxis(x, -1, 1),
    "moveaxis_twice": lambda x, y: ops.moveaxis(x, (1, 2), (2, 3)),
    "multiply": lambda x, y: x * y,
    "multiply_float64": lambda x, y: x * np.array([1.0, 2.0, 3.0, 4.0]),
    "negative": lambda x, y: -x,
    "norm": lambda x, y: ops.norm(x, axis=-1),
    "normalize": lambda x, y: ops.normalize(x),
    "not_equal": lambda x, y: ops.not_equal(x, y),
    "one_hot": lambda x, y: ops.one_hot(ops.argmax(x, -1), 4),
    "ones_like": lambda x, y: x + ops.ones_like(x),
    "pad": lambda x, y: ops.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
    "pad_constant": lambda x, y: ops.pad(
        x, [[0, 0], [1, 0], [0, 2], [0, 0]], constant_values=1.5
    ),
    "pad_images": lambda x, y: ops.image.pad_images(
        x, 1, 2, target_height=12, target_width=13
    ),
    "pad_reflected": lambda x, y: ops.pad(
        x, [[0, 0], [1, 1], [2, 2], [0, 0]], mode="reflect"
    ),
    "pad_symmetric": lambda x, y: ops.pad(
        x, [[0, 0], [1, 1], [2, 2], [0, 0]], mode="symmetric"
    ),
    "power": lambda x, y: ops.power(positive(x), 2.5),
    "prod": lambda x, y: ops.prod(x, axis=-1),
    "ravel": lambda x, y: ops.ravel(x),
    "reciprocal": lambda x, y: ops.reciprocal(positive(x)),
    "relu": lambda x, y: ops.relu(x),
    "relu6": lambda x, y: ops.relu6(x * 9.0),
    "relu_with_options": lambda x, y: keras3.activations.relu(x, 0.1, 0.5, 0.2),
    "repeat": lambda x, y: ops.repeat(x, [1, 2, 1, 3], axis=-1),
    "reshape": lambda x, y: ops.reshape(x, (-1, 4, 16, 4)),
    "resize": lambda x, y: ops.image.resize(x, (5, 12)),
    "resize_antialiased": lambda x, y: ops.image.resize(x, (4, 4), antialias=True),
    "resize_bicubic": lambda x, y: ops.image.resize(x, (9, 9), interpolation="bicubic"),
    "rgb_to_grayscale": lambda x, y: ops.image.rgb_to_grayscale(x[..., :3]),
    "rgb_to_hsv": lambda x, y: ops.image.rgb_to_hsv(ops.sigmoid(x[..., :3])),
    "roll": lambda x, y: ops.roll(x, 2, axis=1),
    "round": lambda x, y: ops.round(x * 3.0),
    "rsqrt": lambda x, y: ops.rsqrt(positive(x)),
    "sinc": lambda x, y: ops.sinc(x),
    "soft_shrink": lambda x, y: ops.soft_shrink(x, 0.2),
    "sparse_plus": lambda x, y: ops.sparse_plus(x),
    "sparse_sigmoid": lambda x, y: ops.sparse_sigmoid(x),
    "squareplus": lambda x, y: ops.squareplus(x),
    "tanh_shrink": lambda x, y: ops.tanh_shrink(x),
    "threshold": lambda x, y: ops.threshold(x, 0.1, -0.5),
    "exp2": lambda x, y: ops.exp2(x),
    "hard_shrink": lambda x, y: ops.hard_shrink(x, 0.2),
    "log10": lambda x, y: ops.log10(positive(x)),
    "log2": lambda x, y: ops.log2(positive(x)),
    "selu": lambda x, y: ops.selu(x),
    "separable_conv": lambda x, y: ops.separable_conv(
        x, KERNEL[..., :1], KERNEL[:1, :1]
    ),
    "sigmoid": lambda x, y: ops.sigmoid(x),
    "sign": lambda x, y: ops.sign(x),
    "silu": lambda x, y: ops.silu(x),
    "sin": lambda x, y: ops.sin(x),
    "sinh": lambda x, y: ops.sinh(x),
    "slice": lambda x, y: ops.slice(x, (0, 1, 2, 0), (1, 4, 3, 2)),
    "softmax": lambda x, y: ops.softmax(x, axis=1),
    "softplus": lambda x, y: ops.softplus(x),
    "softsign": lambda x, y: ops.softsign(x),
    "space_to_depth": lambda x, y: ops.space_to_depth(x, 2),
    "split": lambda x, y: ops.split(x, 2, axis=-1)[1],
    "split_at_indices": lambda x, y: ops.split(x, [1, 3], axis=-1)[1],
    "sqrt": lambda x, y: ops.sqrt(positive(x)),
    "sqrt_of_integers": lambda x, y: ops.sqrt(ops.abs(whole(x))),
    "square": lambda x, y: ops.square(x),
    "squeeze": lambda x, y: ops.squeeze(x[:, :1], 1),
    "stack": lambda x, y: ops.stack([x, y], axis=2),
    "std": lambda x, y: ops.std(x, axis=1),
    "stop_gradient": lambda x, y: ops.stop_gradient(x),
    "subtract": lambda x, y: x - y,
    "subtract_from_number": lambda x, y: 1 - x,
    "sum": lambda x, y: ops.sum(x, axis=[1, 2]),
    "sum_of_booleans": lambda x, y: ops.sum(x > 0, axis=1),
    "swapaxes": lambda x, y: ops.swapaxes(x, 1, -1),
    "take": lambda x, y: ops.take(x, [2, 0, -1], axis=-1),
    "take_at_tensor": lambda x, y: ops.take(x, ops.argmax(y[0, 0], -1), axis=1),
    "take_one": lambda x, y: ops.take(x, 1, axis=1),
    "tan": lambda x, y: ops.tan(x),
    "tanh": lambda x, y: ops.tanh(x),
    "tensordot": lambda x, y: ops.tensordot(x, KERNEL[0, 0], axes=[[3], [0]]),
    "tile": lambda x, y: ops.tile(x, [1, 2, 1, 3]),
    "tile_last": lambda x, y: ops.tile(x, 2),
    "top_k": lambda x, y: ops.top_k(x, 2)[1],
    "transpose": lambda x, y: ops.transpose(x, (0, 2, 3, 1)),
    "tril": lambda x, y: ops.tril(x),
    "triu": lambda x, y: ops.triu(x),
    "unstack": lambda x, y: ops.unstack(x, axis=-1)[2],
    "var": lambda x, y: ops.var(x, axis=1),
    "vsplit": lambda x, y: ops.vsplit(x, 2)[1],
    "vstack": lambda x, y: ops.vstack([x, y]),
    "where": lambda x, y: ops.where(x > y, x, 0.0),
    "zeros_like": lambda x, y: x + ops.zeros_like(x),
}


def model_of(function):
    inputs = keras3.Input((8, 8, 4)), keras3.Input((8, 8, 4))
    return keras3.Model(inputs, function(*inputs))


def layers_of(model):
    return [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]


@pytest.mark.parametrize("case", CASES)
def test_twins_of_operations_are_recorded_functions_with_their_names(case, tmp_path):
    model = model_of(CASES[case])
    twin = tf_lsq.from_keras3(model)
    known = (OpLambda, SlicingOpLambda, UnaryFunction, Einsum)
    for layer in layers_of(twin):
        assert not isinstance(layer, Keras3Layer), layer.reason
        others = ("hard_", "re_lu", "sparse_sigmoid")
        assert isinstance(layer, known) or layer.name.startswith(others), layer.name
    named = {layer.name for layer in twin.layers}
    assert {operation.name for operation in model.operations} <= named
    path = tmp_path / "twin.keras"
    twin.save(path)
    x = [np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 4)) for _ in range(2)]
    x = [value.astype(np.float32) for value in x]
    found, expected = (
        np.asarray(tf.nest.flatten(one(x))[0], np.float64)
        for one in (keras.models.load_model(path), model)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_every_row_has_a_case():
    used = set()
    for function in CASES.values():
        operations = model_of(function).operations
        used |= {type(operation).__name__ for operation in operations}
    assert not set(twins.ROWS) - used


# Operations without a TensorFlow function of their own.
ONLY_IN_KERAS3 = {
    "diff": lambda x, y: ops.diff(x, axis=1),
    "einsum_of_kernel": lambda x, y: ops.einsum("bhwc,cd->bhwd", x, KERNEL[0, 0]),
    "fft": lambda x, y: ops.fft((x, y))[0],
    "meshgrid": lambda x, y: ops.meshgrid(x[0, 0, :, 0], y[0, :, 0, 0])[0],
    "norm": lambda x, y: ops.norm(x, ord=1, axis=-1),
    "round": lambda x, y: ops.round(x, 1),
    "sort": lambda x, y: ops.sort(x, axis=-1),
}


@pytest.mark.parametrize("case", ONLY_IN_KERAS3)
def test_other_operations_are_run_by_keras_3(case, tmp_path):
    model = model_of(ONLY_IN_KERAS3[case])
    twin = tf_lsq.from_keras3(model)
    [layer] = [x for x in layers_of(twin) if isinstance(x, Keras3Layer)]
    assert layer.name == model.operations[-1].name
    assert layer.keras3_class_name == type(model.operations[-1]).__name__
    assert layer.reason
    path = tmp_path / "twin.keras"
    twin.save(path)
    x = [np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 4)) for _ in range(2)]
    x = [value.astype(np.float32) for value in x]
    np.testing.assert_allclose(keras.models.load_model(path)(x), twin(x), atol=1e-6)
