"""TensorFlow functions on Keras tensors: each row of the table, exact in the file."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from harness.bit_widths import with_bits

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph.functions import table
from tflite_export import verification
from tflite_export.runtimes import this_machine

layers = keras.layers
BUILTIN = this_machine().with_kernels("builtin")

_CONSTANTS = np.random.default_rng(1)
POSITIONS = _CONSTANTS.normal(size=(8, 8, 6)).astype(np.float32)
CHANNELS = np.float32([1, 2, 3, -1, -2, -3])
LATER = np.where(np.tri(8, 6) > 0, 0, -1e9).astype(np.float32)[None]
KERNEL = _CONSTANTS.normal(0, 0.2, (3, 3, 6, 12)).astype(np.float32)
BLUR = np.tile(np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]])[..., None, None], (6, 1))
BLUR /= 16

# Functions of x and y, both of shape [batch, 8, 8, 6].
CASES = {
    "elu": lambda x, y: tf.nn.elu(x) + y,
    "gelu": lambda x, y: tf.nn.gelu(x),
    "gelu_approximate": lambda x, y: tf.nn.gelu(x, approximate=True),
    "exp": lambda x, y: tf.exp(x),
    "log": lambda x, y: tf.math.log(layers.Rescaling(1.0, 0.5)(tf.nn.relu(x))),
    "log_of_sum": lambda x, y: tf.math.log(tf.nn.relu(x) + 0.5),
    "softplus": lambda x, y: tf.math.softplus(x),
    "square_root": lambda x, y: tf.nn.relu(x) ** 0.5 - y,
    "reciprocal": lambda x, y: 1.0 / (tf.nn.relu(x) + 0.5),
    "table_then_relu": lambda x, y: tf.nn.relu(tf.sin(x)) + y,
    "tables_joined": lambda x, y: tf.concat([tf.math.erf(x), tf.nn.selu(y)], -1),
    "abs": lambda x, y: tf.abs(x) - y,
    "add": lambda x, y: x + y,
    "add_constant": lambda x, y: 0.5 + x,
    "add_channels": lambda x, y: x + np.float32([1, 2, 3, -1, -2, -3]),
    "subtract": lambda x, y: x - y,
    "subtract_constant": lambda x, y: 1.0 - x,
    "multiply": lambda x, y: x * y,
    "multiply_constant": lambda x, y: x * -0.3,
    "divide": lambda x, y: x / 6.0,
    "negative": lambda x, y: -x,
    "square": lambda x, y: tf.square(x),
    "maximum_constant": lambda x, y: tf.maximum(x, -0.5),
    "maximum_above_zero": lambda x, y: tf.maximum(0.5, x),
    "minimum_constant": lambda x, y: tf.minimum(x, 1.0),
    "minimum_below_zero": lambda x, y: tf.minimum(x, -0.25),
    "minimum_of_maximum": lambda x, y: tf.minimum(tf.maximum(x, 0.0), 6.0),
    "clip_around_zero": lambda x, y: tf.clip_by_value(x, -1.0, 1.0) + y,
    "clip_above_zero": lambda x, y: tf.clip_by_value(x, 0.2, 1.5),
    "clip_after_pool": lambda x, y: tf.clip_by_value(
        tf.nn.max_pool2d(x, 2, 2, "VALID"), -0.7, 0.8
    ),
    "clip_then_concat": lambda x, y: tf.concat(
        [tf.clip_by_value(x, -0.5, 1.0), y], axis=-1
    ),
    "clip_twice_read": lambda x, y: x * tf.clip_by_value(x, 0.0, 1.0),
    "keras_clip": lambda x, y: keras.backend.clip(x, -2, 0.5),
    "keras_relu": lambda x, y: keras.backend.relu(x, alpha=0.1, max_value=1.0),
    "relu_max_value": lambda x, y: keras.activations.relu(x, max_value=1.0),
    "keras_hard_sigmoid": lambda x, y: x * keras.activations.hard_sigmoid(y),
    "crelu": lambda x, y: tf.nn.crelu(x),
    "reduce_sum": lambda x, y: x + tf.reduce_sum(y, [1, 2], keepdims=True),
    "reduce_min": lambda x, y: x + tf.reduce_min(y, axis=[1, 3], keepdims=True),
    "reduce_mean_of_channels": lambda x, y: x * keras.backend.mean(y, -1, True),
    "scalar_mul": lambda x, y: tf.scalar_mul(0.5, x) + tf.realdiv(y, 2.0),
    "add_positions": lambda x, y: x + POSITIONS,
    "subtract_positions": lambda x, y: tf.nn.relu(x - POSITIONS[tf.newaxis]),
    "subtract_from_positions": lambda x, y: POSITIONS - x,
    "multiply_positions": lambda x, y: x * POSITIONS,
    "divide_rows": lambda x, y: x / np.linspace(1, 2, 8, dtype="f")[:, None, None],
    "multiply_to_channels": lambda x, y: x[..., :1] * CHANNELS + y,
    "bias_add": lambda x, y: tf.nn.relu(tf.nn.bias_add(x, CHANNELS)),
    "keras_bias_add": lambda x, y: keras.backend.bias_add(x, POSITIONS),
    "batch_normalization": lambda x, y: tf.nn.batch_normalization(
        x, 0.1 * CHANNELS, CHANNELS**2, None, CHANNELS[::-1].copy(), 1e-3
    ),
    "squared_difference": lambda x, y: tf.math.squared_difference(x, y),
    "squared_distance": lambda x, y: tf.math.squared_difference(x, 0.5),
    "power": lambda x, y: x**2 + tf.pow(y, 3),
    "convolution": lambda x, y: tf.nn.convolution(x, KERNEL, 2, "SAME"),
    "conv2d_padded": lambda x, y: tf.nn.conv2d(
        x, KERNEL, 1, [[0, 0], [1, 0], [2, 1], [0, 0]], dilations=2
    ),
    "conv2d_of_single_channels": lambda x, y: tf.nn.conv2d(
        x, KERNEL[:, :, :1], 1, "VALID"
    ),
    "conv2d_of_single_channels_and_uneven_strides": lambda x, y: tf.nn.conv2d(
        x, KERNEL[:, :, :1], [1, 2, 1, 1], "SAME"
    ),
    "conv2d_of_groups": lambda x, y: tf.nn.conv2d(x, KERNEL[:, :, :2], 2, "SAME"),
    "keras_conv2d": lambda x, y: keras.backend.conv2d(x, KERNEL, padding="same"),
    "blur": lambda x, y: tf.nn.depthwise_conv2d(x, BLUR, [1, 2, 2, 1], "SAME"),
    "separable_conv2d": lambda x, y: tf.nn.separable_conv2d(
        x, BLUR, KERNEL[:1, :1], [1, 1, 1, 1], "SAME"
    ),
    "matmul": lambda x, y: tf.matmul(x, KERNEL[0, 0]),
    "matmul_transposed": lambda x, y: tf.matmul(x, KERNEL[0, 0].T, transpose_b=True),
    "tensordot": lambda x, y: tf.tensordot(x, KERNEL[0, 0], 1),
    "einsum": lambda x, y: tf.einsum("bhwi,io->bhwo", x, KERNEL[0, 0]),
    "matmul_of_two": lambda x, y: tf.matmul(x, y, transpose_b=True),
    "einsum_of_two": lambda x, y: tf.einsum("bhwi,bhvi->bvhw", x, y),
    "masked_softmax": lambda x, y: tf.nn.softmax(x + LATER),
    "where": lambda x, y: tf.nn.softmax(tf.where(LATER == 0, x, -1e9)),
    "scaled_softmax": lambda x, y: tf.nn.softmax(x / 3.0),
    "maximum": lambda x, y: tf.maximum(x, y),
    "maximum_zero": lambda x, y: tf.maximum(x, 0.0),
    "minimum": lambda x, y: tf.minimum(x, y),
    "clip": lambda x, y: tf.clip_by_value(x, 0.0, 6.0),
    "add_n": lambda x, y: tf.add_n([x, y, x]),
    "relu": lambda x, y: tf.nn.relu(x),
    "relu6": lambda x, y: tf.nn.relu6(x),
    "leaky_relu": lambda x, y: tf.nn.leaky_relu(x, 0.1),
    "sigmoid": lambda x, y: tf.sigmoid(x) * y,
    "tanh": lambda x, y: tf.tanh(x),
    "silu": lambda x, y: tf.nn.silu(x),
    "softmax": lambda x, y: tf.nn.softmax(x),
    "hard_swish": lambda x, y: x * tf.nn.relu6(x + 3.0) / 6.0,
    "hard_sigmoid": lambda x, y: x * (tf.nn.relu6(x + 3.0) * (1 / 6)),
    "cast": lambda x, y: tf.cast(x, tf.float32) + tf.identity(y),
    "reshape": lambda x, y: tf.reshape(x, [-1, 4, 16, 6]),
    "reshape_by_shape": lambda x, y: tf.reshape(x, [tf.shape(x)[0], 4, 16, 6]),
    "squeeze": lambda x, y: tf.squeeze(tf.expand_dims(x, 1), 1),
    "transpose": lambda x, y: tf.transpose(x, [0, 3, 1, 2]),
    "concat": lambda x, y: tf.concat([x, y], axis=-1),
    "pad": lambda x, y: tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
    "pad_lowest": lambda x, y: layers.MaxPooling2D(3, 2)(
        tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    ),
    # Not directly before a convolution: with oneDNN, TensorFlow fuses the two and loses
    # the channels.
    "pad_channels": lambda x, y: tf.nn.relu(
        tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 3]])
    ),
    "reduce_mean": lambda x, y: x * tf.reduce_mean(y, [1, 2], keepdims=True),
    "reduce_max": lambda x, y: x + tf.reduce_max(y, axis=-1, keepdims=True),
    "slice": lambda x, y: x[:, 1:-1:2, :7],
    "slice_ellipsis": lambda x, y: x[..., 2:5],
    "index": lambda x, y: x[:, 3][:, tf.newaxis],
    "split": lambda x, y: tf.add(*tf.split(x, 2, axis=-1)),
    "split_sizes": lambda x, y: tf.split(x, [1, 3, -1], axis=2)[1],
    "resize": lambda x, y: tf.image.resize(x, (12, 5), "nearest"),
    "resize_bilinear": lambda x, y: tf.image.resize(x, (16, 16)),
    "l2_normalize": lambda x, y: tf.math.l2_normalize(x, -1),
    "max_pool2d": lambda x, y: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "avg_pool2d": lambda x, y: tf.nn.avg_pool2d(x, 3, [2, 1], "SAME"),
}
# Functions that move values, by the number of axes of x and y, see `SHAPES`.
MOVING = {
    4: {
        "flatten": lambda x, y: tf.reshape(
            tf.reshape(x, [tf.shape(x)[0], -1]), [-1, 8, 48]
        ),
        "reshape_by_sizes": lambda x, y: tf.reshape(
            x, [-1, tf.shape(x)[1] * tf.shape(y)[2], tf.shape(x)[-1]]
        ),
        "batch_flatten": lambda x, y: tf.reshape(
            keras.backend.batch_flatten(x), [-1, 8, 48]
        ),
        "stack": lambda x, y: tf.stack([x, y], axis=1),
        "stack_last": lambda x, y: tf.stack([x, y], axis=-1),
        "unstack": lambda x, y: tf.add(*tf.unstack(x, axis=1)[2:4]),
        "bgr": lambda x, y: tf.stack(tf.unstack(x, axis=-1)[::-1], axis=-1),
        "shuffle": lambda x, y: tf.concat(tf.split(x, 3, axis=-1)[::-1], axis=-1),
        "concat_zeros": lambda x, y: tf.concat([tf.zeros_like(x), x, x * 0], axis=-1),
        "zeros_like": lambda x, y: tf.concat([x, y, tf.zeros_like(x)], axis=1),
        "stop_gradient": lambda x, y: tf.ensure_shape(tf.stop_gradient(x), y.shape) + y,
        "reflect": lambda x, y: tf.pad(x, [[0, 0], [3, 1], [0, 2], [2, 0]], "REFLECT"),
        "symmetric": lambda x, y: tf.pad(
            x, [[0, 0], [3, 1], [0, 2], [2, 0]], "SYMMETRIC"
        ),
        "pad_constant": lambda x, y: tf.pad(
            x, [[0, 0], [1, 0], [0, 2], [0, 0]], constant_values=-0.7
        ),
        "matrix_transpose": lambda x, y: tf.linalg.matrix_transpose(x),
        "slice_backwards": lambda x, y: x[:, ::-1, 6:1:-2, ::-1],
        "tf_slice": lambda x, y: tf.slice(x, [0, 1, 2, 0], [-1, 3, -1, 5]),
        "tf_slice_by_sizes": lambda x, y: tf.reshape(
            tf.slice(x, [0, 1, 2, 0], [tf.shape(x)[0], 3, -1, 5]), [-1, 3, 30]
        ),
        "tf_strided_slice": lambda x, y: tf.strided_slice(
            x, [0, 7, 1, 2], [0, 0, 5, 0], [1, -2, 2, 1], begin_mask=1, end_mask=9
        ),
        "gather": lambda x, y: tf.gather(x, [5, 0, 0, 3, 2, 4, 1], axis=-1),
        "gather_ranges": lambda x, y: tf.gather(x, [4, 5, 0, 1, 2], axis=3),
        "gather_matrix": lambda x, y: tf.gather(x, [[0, 1], [2, 1]], axis=2),
        "reverse": lambda x, y: tf.reverse(x, [1, -1]),
        "tile": lambda x, y: tf.tile(x, [1, 2, 1, 6]),
        "broadcast_to": lambda x, y: tf.broadcast_to(x[:, :1], tf.shape(y)) * y,
        "repeat": lambda x, y: tf.repeat(
            tf.repeat(x, 2, axis=1), [1, 0, 2, 1, 3, 0], -1
        ),
        "repeat_elements": lambda x, y: keras.backend.repeat_elements(x, 3, 2),
        "roll": lambda x, y: tf.roll(x, [3, -1], [1, 3]),
        "max_pool": lambda x, y: tf.nn.max_pool(x, [1, 2, 3, 1], 2, "SAME"),
        "avg_pool": lambda x, y: tf.nn.avg_pool(x, 2, 2, "VALID"),
        "v1_pools": lambda x, y: (
            tf.compat.v1.nn.max_pool(x, 2, 1, "SAME")
            + tf.compat.v1.nn.avg_pool(y, [1, 3, 3, 1], [1, 1, 1, 1], "SAME")
        ),
        "pool": lambda x, y: (
            tf.nn.pool(x, [3, 2], "AVG", [2, 2], "SAME")
            - tf.nn.pool(y, [2, 2], "MAX", [2, 2])
        ),
        "depth_to_space": lambda x, y: tf.nn.depth_to_space(tf.concat([x, y], -1), 2),
        "explicit_padding": lambda x, y: tf.nn.max_pool2d(
            tf.nn.relu(x), 3, 2, [[0, 0], [1, 1], [0, 1], [0, 0]]
        ),
        "concat_batch_of_zeros": lambda x, y: tf.concat(
            [x, tf.zeros([tf.shape(y)[0], 8, 8, 2])], axis=-1
        ),
        "smart_resize": lambda x, y: keras.preprocessing.image.smart_resize(x, (4, 6)),
        "space_to_depth": lambda x, y: tf.nn.space_to_depth(x, 2),
        "extract_patches": lambda x, y: tf.image.extract_patches(
            x, [1, 3, 3, 1], [1, 3, 3, 1], [1, 1, 1, 1], "VALID"
        ),
        "flips": lambda x, y: tf.image.flip_left_right(x) - tf.image.flip_up_down(y),
        "image_transpose": lambda x, y: tf.image.transpose(x),
        "rotations": lambda x, y: (
            tf.image.rot90(x) + tf.image.rot90(y, 2) - tf.image.rot90(x, 3)
        ),
        "central_crop": lambda x, y: tf.image.central_crop(x, 0.6),
        "boxes": lambda x, y: tf.image.pad_to_bounding_box(
            tf.image.crop_to_bounding_box(x, 1, 2, 5, 4), 2, 1, 9, 5
        ),
        "crop_or_pad": lambda x, y: tf.image.resize_with_crop_or_pad(x, 5, 11),
        "resize_with_pad": lambda x, y: tf.image.resize_with_pad(x, 12, 9),
        "resize_enum": lambda x, y: tf.image.resize(
            x, (5, 12), tf.image.ResizeMethod.NEAREST_NEIGHBOR
        ),
        "resize_v1": lambda x, y: tf.compat.v1.image.resize_images(x, (16, 12)),
        "resize_v1_nearest": lambda x, y: tf.compat.v1.image.resize(
            x, (5, 13), tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR
        ),
        "resize_v1_corners": lambda x, y: tf.compat.v1.image.resize_bilinear(
            x, tf.shape(y)[1:3] * 2, align_corners=True
        ),
        "resize_v1_centers": lambda x, y: tf.compat.v1.image.resize_bilinear(
            x, (11, 16), half_pixel_centers=True
        ),
        "resize_v1_nearest_corners": lambda x, y: (
            tf.compat.v1.image.resize_nearest_neighbor(x, (5, 14), align_corners=True)
        ),
        "resize_images": lambda x, y: keras.backend.resize_images(
            x, 2, 3, "channels_last"
        ),
    },
    2: {
        "slices": lambda x, y: x[:, 2:300:3] + y[:, -101:-1][:, ::-1],
        "reshape": lambda x, y: tf.expand_dims(tf.reshape(x, [-1, 24, 16]), 2),
        "concat": lambda x, y: tf.concat([x, y, tf.zeros_like(x)], axis=1),
        "stack": lambda x, y: (
            tf.stack([x, y], axis=1)
            + tf.linalg.matrix_transpose(tf.stack([x, y], axis=-1))
        ),
        "gather": lambda x, y: tf.gather(x, [380, 0, 0, 3, 3, 7], axis=1),
        "repeat": lambda x, y: tf.roll(tf.repeat(x, 2, axis=1), 9, axis=1),
        "tile": lambda x, y: tf.reshape(tf.tile(x, [1, 2]), [tf.shape(x)[0], 12, 64]),
        "pads": lambda x, y: tf.pad(
            tf.pad(x, [[0, 0], [3, 1]], "REFLECT"),
            [[0, 0], [0, 2]],
            constant_values=0.3,
        ),
    },
    3: {
        "slices": lambda x, y: x[:, 2::3, ::-1] + y[:, :-2:3],
        "index": lambda x, y: x[:, 3] - y[:, tf.newaxis, 5, :][:, 0],
        "split": lambda x, y: tf.add(*tf.split(x, [20, 20, -1], axis=1)[:2]),
        "unstack": lambda x, y: tf.stack(tf.unstack(x, axis=2)[:3], axis=1),
        "concat": lambda x, y: tf.concat([x, y], axis=1),
        "stack": lambda x, y: tf.stack([x, y, x], axis=2),
        "gather": lambda x, y: tf.gather(x, [60, 0, 0, 3, 3, 7], axis=1),
        "tile": lambda x, y: tf.tile(x[:, :2], [1, 32, 1]) * y,
        "repeat": lambda x, y: tf.repeat(x, 2, axis=-1),
        "pads": lambda x, y: tf.pad(
            tf.pad(tf.nn.relu6(x), [[0, 0], [3, 1], [0, 2]], "SYMMETRIC"),
            [[0, 0], [0, 2], [1, 0]],
            constant_values=0.3,
        ),
        "zeros": lambda x, y: tf.pad(x, [[0, 0], [3, 1], [0, 2]]),
        "transpose": lambda x, y: tf.transpose(x, [0, 2, 1]),
        "max_pool": lambda x, y: tf.nn.max_pool(x, 3, 2, "SAME"),
        "max_pool1d": lambda x, y: tf.nn.max_pool1d(x, [1, 2, 1], 3, "VALID"),
        "avg_pools": lambda x, y: (
            tf.nn.avg_pool1d(x, 3, 2, "SAME") + tf.nn.avg_pool(y, 3, 2, "SAME")
        ),
    },
    5: {
        "slices": lambda x, y: x[:, ::-1, 1:-1:2, :7, 2:5] - y[:, :, :1, 1:, 5:2:-1],
        "index": lambda x, y: x[:, 1] - y[..., 3, tf.newaxis][:, 0],
        "split": lambda x, y: tf.add(*tf.split(x, 2, axis=2)),
        "unstack": lambda x, y: tf.stack(tf.unstack(x, axis=4)[1:4], axis=2),
        "concat": lambda x, y: tf.concat([x, y], axis=2),
        "stack": lambda x, y: tf.reshape(tf.stack([x, y], axis=3), [-1, 4, 8, 24]),
        "gather": lambda x, y: tf.gather(x, [2, 0, 0, 3, 3, 1], axis=2),
        "tile": lambda x, y: tf.tile(x[:, :1], [1, 2, 1, 1, 1]) + y,
        "repeat": lambda x, y: tf.repeat(x, 2, axis=-1),
        "reflect": lambda x, y: tf.pad(
            x, [[0, 0], [1, 0], [0, 2], [1, 1], [2, 0]], "REFLECT"
        ),
        "constant": lambda x, y: tf.pad(
            x, [[0, 0], [1, 0], [0, 2], [1, 1], [2, 0]], constant_values=0.3
        ),
        "zeros": lambda x, y: tf.pad(x, [[0, 0], [1, 0], [0, 2], [1, 1], [2, 0]]),
        "zeros_like": lambda x, y: tf.concat([x, y, tf.zeros_like(x)], axis=4),
        "transpose": lambda x, y: tf.transpose(x, [0, 4, 2, 3, 1]),
        "squeeze": lambda x, y: tf.squeeze(x[:, :1, :, 3:4], [1, 3]),
    },
}
# Functions that compute values, for x and y with any number of axes.
VALUES = {
    "scaling": lambda x, y: tf.sigmoid(x) * 2.0 - 0.5,
    "add_channels": lambda x, y: tf.nn.relu(x + np.resize(CHANNELS, x.shape[-1])),
    "add_positions": lambda x, y: x + np.resize(POSITIONS, x.shape[1:]),
    "multiply_positions": lambda x, y: x * np.resize(POSITIONS, x.shape[1:]),
    "batch_norm": lambda x, y: layers.BatchNormalization()(tf.nn.relu(x)),
    "matmul": lambda x, y: tf.matmul(x, np.resize(KERNEL, (x.shape[-1], 12))),
    "leaky_relu": lambda x, y: tf.nn.leaky_relu(x, 0.1),
    "elu": lambda x, y: tf.nn.elu(x),
    "abs": lambda x, y: tf.abs(x),
    "softmax": lambda x, y: tf.nn.softmax(x),
    "clip": lambda x, y: tf.clip_by_value(x, -1.0, 1.0),
    "relu_max_value": lambda x, y: keras.activations.relu(x, max_value=1.0),
    "square": lambda x, y: tf.square(x),
    "reduce_sum": lambda x, y: x + tf.reduce_sum(y, -1, keepdims=True),
    "reduce_min": lambda x, y: x + tf.reduce_min(y, -1, keepdims=True),
    "reduce_mean": lambda x, y: x * tf.reduce_mean(y, -1, keepdims=True),
}
SMOOTH = {
    "gelu": lambda x, y: tf.nn.gelu(x),
    "exp": lambda x, y: tf.exp(tf.tanh(x)),
    "log": lambda x, y: tf.math.log(tf.nn.relu(x) + 0.5),
    "softplus": lambda x, y: tf.math.softplus(x),
}
# Functions that become tables, for x and y with 4 axes.
TABLES = {
    **{
        name: lambda x, y, name=name: getattr(tf.math, name)(x)
        for name in (
            "asinh atan bessel_i0 cos erf erfc expm1 log_sigmoid sigmoid sin"
        ).split()
    },
    **{
        name: lambda x, y, name=name: getattr(tf.math, name)(tf.tanh(x))
        for name in "acos asin cosh sinh tan".split()
    },
    **{
        name: lambda x, y, name=name: getattr(tf.math, name)(0.7 * tf.tanh(x))
        for name in "atanh erfinv".split()
    },
    **{
        name: lambda x, y, name=name: getattr(tf.math, name)(tf.nn.relu(x) + 1.0)
        for name in (
            "acosh digamma lgamma log1p reciprocal reciprocal_no_nan rsqrt sqrt"
        ).split()
    },
    "ndtri": lambda x, y: tf.math.ndtri(0.3 * tf.tanh(x) + 0.5),
    "sign": lambda x, y: tf.sign(tf.nn.relu(x) + 0.5),
    "softsign": lambda x, y: tf.nn.softsign(x),
    "selu": lambda x, y: tf.nn.selu(x),
    "mish": lambda x, y: keras.activations.mish(x),
    "silu": lambda x, y: tf.nn.silu(x, 1.7),
    "leaky_relu": lambda x, y: tf.nn.leaky_relu(x, -0.3),
    "power": lambda x, y: tf.nn.tanh(x) ** 4,
    "power_of_constant": lambda x, y: 2.0**x,
    "quotient": lambda x, y: 3.0 / (tf.square(y) + 1.0),
    "relu_from": lambda x, y: layers.ReLU(2.0, 0.1, 0.2)(x),
}
SHAPES = {2: (384,), 3: (64, 6), 4: (8, 8, 6), 5: (2, 4, 8, 6)}
# Squares and powers have rare peaks. The steps with the smallest squared error clip
# them.
SQUARES = {"squared_distance", "values_4_axes", "tables_0"}
BRANCHES = 8  # How many of these functions a model has.
# Name -> functions of a model, and the number of axes of x and y.
MODELS = {name: ([function], 4) for name, function in CASES.items()} | {
    f"moving_{rank}_axes_{first // BRANCHES}": (functions[first:][:BRANCHES], rank)
    for rank, named in MOVING.items()
    for functions in [list(named.values())]
    for first in range(0, len(functions), BRANCHES)
}
MODELS |= {f"values_{rank}_axes": (list(VALUES.values()), rank) for rank in SHAPES}
MODELS |= {f"smooth_{rank}_axes": (list(SMOOTH.values()), rank) for rank in SHAPES}
MODELS |= {
    f"tables_{first // BRANCHES}": (list(TABLES.values())[first:][:BRANCHES], 4)
    for first in range(0, len(TABLES), BRANCHES)
}
MODELS["conv1d"] = (
    [
        lambda x, y: tf.nn.conv1d(x, KERNEL[0], 2, "SAME"),
        lambda x, y: tf.nn.conv1d(x, KERNEL[0, :, :1], 1, "SAME"),
    ],
    3,
)


def model_of(*functions, rank=4):
    """A model with one output for each function."""
    inputs = layers.Input((8, 8, 4))
    outputs = [branch(inputs, function, rank) for function in functions]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


def branch(inputs, function, rank):
    x = layers.Conv2D(6, 3, padding="same")(inputs)
    y = layers.Conv2D(6, 3, padding="same")(inputs)
    if rank != 4:
        x, y = (layers.Reshape(SHAPES[rank])(part) for part in (x, y))
    z = function(x, y)
    z = layers.Conv2D(4, 1)(z) if len(z.shape) == 4 else z
    return layers.Dense(3)(layers.Flatten()(z))


@pytest.mark.parametrize(
    ("case", "bits"), with_bits(MODELS, only_eight=set(MODELS) - set(CASES))
)
def test_files_of_functions_compute_the_trained_integers(case, bits, rng, tmp_path):
    functions, rank = MODELS[case]
    model = tiny.randomize(model_of(*functions, rank=rank), rng)
    options = {"step_init": "max"} if case in SQUARES else {}
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, **options
    )
    x = rng.normal(0, 1, (32, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    if bits == 8:
        found, expected = (one(x, training=False) for one in (student, model))
        assert tiny.largest_difference(found, expected) < 0.05
    path = tmp_path / "model.tflite"
    assert not tflite_export.export_model(student, path).float_layers
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    differences = {p.name: (p.kind, p.twin_differences) for p in found.points}
    assert not [item for item in differences.items() if item[1][1]]
    assert not sum(p.off_by_one for p in found.points if p.kind == "table")
    if bits == 4:
        assert not builtin_differences(student, x)


def builtin_differences(student, x):
    """Names of tensors that the twin computes differently without XNNPACK."""
    built = tiny.built(student)
    codes = verification.probe_codes(built.graph, built.frozen, [x], "builtin")
    differences = verification.twin_differences(built.frozen, codes, BUILTIN)
    return [name for name, count in differences.items() if count]


def without_gradient(student, x):
    """Names of the trainable weights that get no gradient."""
    weights = student.trainable_weights
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(student(x, training=True))
        loss = tf.add_n([tf.reduce_mean(output**2) for output in outputs])
    gradients = zip(weights, tape.gradient(loss, weights), strict=True)
    return [weight.name for weight, gradient in gradients if gradient is None]


def test_moved_values_are_trained_and_saved(rng, tmp_path):
    names = "gather slice_backwards reflect pad_constant depth_to_space space_to_depth"
    names = [*names.split(), "resize_v1", "zeros_like"]
    model = model_of(*(MOVING[4][name] for name in names))
    student, x = tiny.student_of(model, rng, (8, 8, 8, 4), weight_bits=4)
    assert not without_gradient(student, x)
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    for found, expected in zip(loaded(x), student(x), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_gradients_are_stopped(rng):
    inputs = layers.Input((8, 8, 4))
    stopped = layers.Conv2D(6, 3, name="stopped")(inputs)
    trained = layers.Conv2D(6, 3, name="trained")(inputs)
    model = keras.Model(inputs, tf.stop_gradient(stopped) + trained)
    student, x = tiny.student_of(model, rng, (8, 8, 8, 4))
    names = [weight.name for weight in student.trainable_weights]
    missing = without_gradient(student, x)
    assert missing == [name for name in names if "stopped" in name] != []


def test_every_function_has_a_case():
    used = {"math.argmax"}  # Its output is an integer: test_graph_integers.py.
    for functions, rank in MODELS.values():
        for layer in model_of(*functions, rank=rank).layers:
            used.add(getattr(layer, "symbol", None))
    rows = {symbols: set(symbols) & used for symbols in table._ROWS}
    assert not [symbols for symbols, found in rows.items() if not found]


def test_a_written_out_hard_sigmoid_is_one_operator(rng, tmp_path):
    student = tf_lsq.quantize_model(model_of(CASES["hard_sigmoid"]))
    tf_lsq.calibrate(student, rng.normal(size=(8, 8, 8, 4)))
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert report.operators["DEPTHWISE_CONV_2D"] == 1
    assert "ADD" not in report.operators and "RELU6" not in report.operators


REFUSED = {
    "only max pooling may read": lambda x, y: layers.MaxPooling2D(3, 2)(
        tf.pad(x, [[0, 0], [2, 2], [1, 1], [0, 0]], constant_values=-np.inf)
    ),
    "strides of a depthwise convolution must be equal, received (1, 2)": lambda x, y: (
        tf.nn.separable_conv2d(x, BLUR, KERNEL[:1, :1], [1, 1, 2, 1], "SAME")
    ),
    "must have the same number of axes, received 4 and 3": lambda x, y: x - y[:, 0],
    "tf.math.cumsum": lambda x, y: tf.cumsum(x, 1),
    "division by a tensor": lambda x, y: x / (y * y + 1.0),
    "the same for every example": lambda x, y: x + np.ones((2, 8, 8, 6), np.float32),
    "a divisor must not be 0": lambda x, y: x / 0.0,
    "the exponent must be one number": lambda x, y: x ** np.float32([1, 2] * 3),
    "the base must be positive": lambda x, y: (-2.0) ** x,
    "the numerator must be one number": lambda x, y: CHANNELS / x,
    "must be the kernel, and not the input": lambda x, y: tf.matmul(
        POSITIONS[..., 0], x
    ),
    "transpose_a must be False": lambda x, y: tf.matmul(
        x, POSITIONS[..., 0], transpose_a=True
    ),
    "the kernel must be one matrix": lambda x, y: tf.matmul(x, POSITIONS[:, :6]),
    "axes must be 1": lambda x, y: tf.tensordot(x, POSITIONS[0], 2)[
        ..., tf.newaxis, tf.newaxis
    ],
    "two computed matrices": lambda x, y: tf.matmul(x, tf.reshape(y, [-1, 6, 64])),
    "every axis must be named once": lambda x, y: tf.einsum("bhwi,bhvi->bhw", x, y),
    "the batch must be the first axis": lambda x, y: tf.transpose(
        tf.einsum("bhwi,bhvi->hbwv", x, y), [1, 0, 2, 3]
    ),
    "with its result": lambda x, y: tf.einsum("bhwi,bhvi", x, y),
    "only a softmax may read": lambda x, y: tf.nn.relu(x + LATER),
    "the other value must be a large negative number": lambda x, y: tf.where(
        LATER == 0, x, 0.0
    ),
    "must multiply the last axis": lambda x, y: tf.einsum(
        "bhwi,hi->bhwi", x, POSITIONS[0]
    ),
    "a limit must be one number": lambda x, y: tf.maximum(x, np.arange(6.0)),
    "must be below the upper one": lambda x, y: tf.clip_by_value(x, 1.0, -1.0),
    "axis must be -1": lambda x, y: tf.nn.softmax(x, axis=1),
    "batch axis must stay first": lambda x, y: tf.transpose(
        tf.transpose(x, [1, 0, 2, 3]), [1, 0, 2, 3]
    ),
    "value that the tensor can have, -100000 to 100000": lambda x, y: tf.pad(
        x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=-1e9
    ),
    "value that the tensor can have, 0 to 100000, received -1": lambda x, y: tf.pad(
        tf.nn.relu(x), [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=-1.0
    ),
    "value that the tensor can have, 0 to 6, received 7": lambda x, y: tf.pad(
        tf.nn.relu6(x)[:, 2:], [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=7.0
    ),
    "value that the tensor can have, -0.5 to 2": lambda x, y: tf.pad(
        tf.clip_by_value(x, -0.5, 2.0), [[0, 0], [1, 1], [0, 0], [0, 0]], "CONSTANT", 3
    ),
    "value that the tensor can have, -1 to 0.992188": lambda x, y: tf.pad(
        tf.tanh(x), [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=1.5
    ),
    "batch axis cannot be padded": lambda x, y: tf.pad(x, [[1, 0]] + [[0, 0]] * 3),
    "keep the batch axis first and whole": lambda x, y: tf.reshape(
        tf.reshape(x, [-1, 4, 8, 6]), [-1, 8, 8, 6]
    ),
    "received [16, 48] from [2, 8, 8, 6]": lambda x, y: tf.reshape(
        tf.reshape(x, [tf.shape(x)[0] * 8, 48]), [-1, 8, 8, 6]
    ),
    "batch axis cannot be repeated": lambda x, y: tf.tile(x, [2, 1, 1, 1]),
    "axis must not be the batch axis": lambda x, y: tf.reverse(x, [0]),
    "batch axis must stay first and whole in a slice": lambda x, y: x[1:],
    "batch axis and the number of axes must stay": lambda x, y: tf.broadcast_to(
        tf.reduce_mean(x, 1), tf.shape(y)
    ),
    "slices must not be empty": lambda x, y: tf.concat([x, y[:, 3:3]], axis=1),
    "depends on the batch size": lambda x, y: tf.reshape(
        x[:, : tf.shape(x)[0]], [-1, 8, 48]
    ),
    "the model computes an argument": lambda x, y: tf.gather(
        x, tf.argmax(y[:, 0, 0]), axis=1
    ),
    "it must select slices of a tensor": lambda x, y: tf.gather(
        tf.ones([9, 6]), tf.cast(x, tf.int32)
    ),
    "axis must be given, because a batch of one": lambda x, y: tf.reshape(
        tf.squeeze(x), [-1, 8, 8, 6]
    ),
    "constants cannot be stacked": lambda x, y: tf.stack(
        [x[:, 0], tf.ones([1, 8, 6])], axis=1
    ),
    "constants other than zeros": lambda x, y: tf.concat(
        [x, tf.ones([tf.shape(x)[0], 8, 8, 2])], axis=-1
    ),
    "it must read images": lambda x, y: tf.image.flip_left_right(x[:, 0]),
    "patches must be square and not overlap": lambda x, y: tf.image.extract_patches(
        x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID"
    ),
    "images and sequences can be pooled": lambda x, y: tf.nn.max_pool(
        x[:, tf.newaxis], 2, 2, "SAME"
    ),
    "where values can be negative": lambda x, y: tf.nn.max_pool2d(
        x, 2, 2, [[0, 0], [1, 1], [1, 1], [0, 0]]
    ),
    "antialias": lambda x, y: tf.image.resize(x, (4, 4), antialias=True),
    "excluding the batch": lambda x, y: tf.reduce_mean(x) + y,
    "method must be": lambda x, y: tf.image.resize(x, (4, 4), "area"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_functions_without_an_integer_form_are_named(message):
    with pytest.raises(ValueError) as error:
        tf_lsq.quantize_model(model_of(REFUSED[message]))
    assert message in str(error.value)
    assert "`tf." in str(error.value)
