"""Calls of the functions of TensorFlow and of tf_keras' backend that need hints."""

from __future__ import annotations

import tensorflow as tf

from .calls import Call
from .hints_shared import FLAGS, on, values
from .operands import IDS, IMAGE, RGB, SEQUENCE, VECTOR, VOLUME, Operand

UNIT = IMAGE.within("unit")
LABEL = Operand((), "ids")
MATRIX = SEQUENCE.of(4, 4)
LARGE = RGB.of(12, 12, 3)
SAME = [1, 1, 1, 1]

SHAPES: dict[str, list[Call]] = {
    "tf.pad": on(
        IMAGE,
        zeros=lambda f, x: f(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
        ones=lambda f, x: f(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=1.0),
        reflect=lambda f, x: f(x, [[0, 0], [1, 2], [0, 1], [0, 0]], "REFLECT"),
        symmetric=lambda f, x: f(x, [[0, 0], [1, 2], [0, 1], [0, 0]], "SYMMETRIC"),
    )
    + on(VOLUME, volume=lambda f, x: f(x, [[0, 0], [0, 0], [1, 1], [0, 0], [0, 0]])),
    "tf.gather": on(
        IMAGE,
        channels=lambda f, x: f(x, [2, 0, 1], axis=-1),
        rows=lambda f, x: f(x, [3, 0], axis=1),
    )
    + on(IDS, table=lambda f, x: f(values(8, 4), x))
    + on(
        (SEQUENCE, IDS), tensors=lambda f, x, ids: f(x, ids % 6, axis=1, batch_dims=1)
    ),
    "tf.gather_nd": on(
        (SEQUENCE, IDS.of(3, 1)), tensors=lambda f, x, ids: f(x, ids % 6, batch_dims=1)
    ),
    "tf.batch_to_space": on(
        IMAGE,
        returned=lambda f, x: f(
            tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), [2, 2], [[0, 0], [0, 0]]
        ),
    ),
    "tf.space_to_batch": on(
        IMAGE,
        returned=lambda f, x: tf.batch_to_space(
            f(x, [2, 2], [[0, 0], [0, 0]]), [2, 2], [[0, 0], [0, 0]]
        ),
    ),
    "tf.bitcast": on(IMAGE, integer=lambda f, x: f(x, tf.int32)),
    "tf.broadcast_to": on(
        IMAGE.of(1, 1, 8),
        image=lambda f, x: f(x, tf.stack([tf.shape(x)[0], 6, 6, 8])),
    ),
    "tf.clip_by_norm": on(IMAGE, channels=lambda f, x: f(x, 1.0, axes=[3])),
    "tf.ensure_shape": on(IMAGE, same=lambda f, x: f(x, (None, 6, 6, 8))),
    "tf.fill": on(VECTOR, like=lambda f, x: x + f([tf.shape(x)[0], 8], 0.5)),
    "tf.map_fn": on(IMAGE, relu=lambda f, x: f(tf.nn.relu, x)),
    "tf.vectorized_map": on(IMAGE, relu=lambda f, x: f(tf.nn.relu, x)),
    "tf.meshgrid": on(VECTOR, added=lambda f, x: x[:, None] + f([1.0, 2.0], x[0])[0]),
    "tf.norm": on(IMAGE, channels=lambda f, x: f(x, axis=-1, keepdims=True)),
    "tf.ones": on(VECTOR, like=lambda f, x: x + f([tf.shape(x)[0], 8])),
    "tf.zeros": on(VECTOR, like=lambda f, x: x + f([tf.shape(x)[0], 8])),
    "tf.rank": on(VECTOR, scaled=lambda f, x: x * tf.cast(f(x), tf.float32)),
    "tf.shape": on(IMAGE, scaled=lambda f, x: x * tf.cast(f(x)[1], tf.float32)),
    "tf.size": on(
        IMAGE,
        divided=lambda f, x: x * tf.cast(f(x) / tf.shape(x)[0], tf.float32),
    ),
    "tf.range": on(
        IMAGE, positions=lambda f, x: x + f(tf.cast(tf.shape(x)[3], tf.float32))
    ),
    "tf.reverse": on(
        IMAGE, channels=lambda f, x: f(x, [-1]), rows=lambda f, x: f(x, [1])
    ),
    "tf.reverse_sequence": on(
        (SEQUENCE, LABEL), lengths=lambda f, x, y: f(x, y % 6, seq_axis=1)
    ),
    "tf.scalar_mul": on(IMAGE, constant=lambda f, x: f(2.0, x)),
    "tf.searchsorted": on(VECTOR, constant=lambda f, x: f([-1.0, 0.0, 1.0], x[0])),
    "tf.sequence_mask": on(LABEL, lengths=lambda f, x: f(x, 8)),
    "tf.sort": on(VECTOR, vector=lambda f, x: f(x)),
    "tf.argmax": on(VECTOR, classes=lambda f, x: f(x, -1))
    + on(IMAGE, channels=lambda f, x: f(x, -1, output_type=tf.int32)),
    "tf.strided_slice": on(
        IMAGE,
        window=lambda f, x: f(
            x, [0, 1, 0], [0, 5, 6], [1, 2, 1], begin_mask=1, end_mask=1
        ),
    ),
    "tf.tensor_scatter_nd_update": on(
        VECTOR, column=lambda f, x: f(x, [[0]], tf.zeros((1, 8)))
    ),
    "tf.math.polyval": on(IMAGE, cubic=lambda f, x: f([0.1, 0.2, -0.3], x)),
    "tf.math.polygamma": on(
        (IMAGE.within("above_one"),), one=lambda f, x: f(tf.ones_like(x), x)
    ),
    "tf.math.cumprod": on(IMAGE, channels=lambda f, x: f(x, -1)),
    "tf.cumsum": on(
        SEQUENCE, time=lambda f, x: f(x, 1), reverse=lambda f, x: f(x, 1, True, True)
    ),
    "tf.math.bincount": on(
        IDS, ids=lambda f, x: f(x, axis=-1, minlength=8, maxlength=8)
    ),
    "tf.cond": on(
        IMAGE,
        sum=lambda f, x: f(tf.reduce_sum(x) > 0, lambda: x + 1.0, lambda: x - 1.0),
    ),
    "tf.while_loop": on(
        IMAGE,
        three=lambda f, x: f(lambda i, y: i < 3, lambda i, y: (i + 1, y * 0.5), [0, x])[
            1
        ],
    ),
    "tf.linspace": on(VECTOR, between=lambda f, x: f(x, x + 1.0, 4, axis=-1)),
    "tf.complex": on((VECTOR, VECTOR), parts=lambda f, x, y: f(x, y)),
    "tf.clip_by_global_norm": on(VECTOR, one=lambda f, x: f([x], 1.0)[0]),
    "tf.dynamic_stitch": on(VECTOR, one=lambda f, x: f([tf.range(16)], [x])),
    "tf.eye": on(SEQUENCE.of(8, 8), added=lambda f, x: x + f(8)),
    "tf.reduce_all": on(FLAGS, image=lambda f, x: f(x, [1, 2])),
    "tf.reduce_any": on(FLAGS, image=lambda f, x: f(x, [1, 2])),
    "tf.matrix_square_root": on(
        MATRIX, matrix=lambda f, x: f(tf.eye(4) * 4.0 + 0.1 * x)
    ),
}

BACKEND: dict[str, list[Call]] = {
    "tf_keras.backend.bias_add": on(IMAGE, constant=lambda f, x: f(x, values(8))),
    "tf_keras.backend.conv1d": on(SEQUENCE, kernel=lambda f, x: f(x, values(3, 8, 4))),
    "tf_keras.backend.conv2d": on(IMAGE, kernel=lambda f, x: f(x, values(3, 3, 8, 4))),
    "tf_keras.backend.conv3d": on(
        VOLUME, kernel=lambda f, x: f(x, values(2, 2, 2, 8, 4))
    ),
    "tf_keras.backend.conv2d_transpose": on(
        IMAGE,
        kernel=lambda f, x: f(
            x, values(2, 2, 4, 8), (tf.shape(x)[0], 12, 12, 4), (2, 2)
        ),
    ),
    "tf_keras.backend.depthwise_conv2d": on(
        IMAGE, kernel=lambda f, x: f(x, values(3, 3, 8, 1))
    ),
    "tf_keras.backend.separable_conv2d": on(
        IMAGE, kernels=lambda f, x: f(x, values(3, 3, 8, 1), values(1, 1, 8, 4))
    ),
    "tf_keras.backend.pool2d": on(
        IMAGE,
        max=lambda f, x: f(x, (2, 2), (2, 2)),
        average=lambda f, x: f(x, (2, 2), (2, 2), pool_mode="avg"),
    ),
    "tf_keras.backend.pool3d": on(VOLUME, max=lambda f, x: f(x, (2, 2, 2), (2, 2, 2))),
    "tf_keras.backend.resize_images": on(
        IMAGE,
        nearest=lambda f, x: f(x, 2, 2, "channels_last"),
        bilinear=lambda f, x: f(x, 2, 2, "channels_last", "bilinear"),
    ),
    "tf_keras.backend.resize_volumes": on(
        VOLUME, two=lambda f, x: f(x, 2, 2, 2, "channels_last")
    ),
    "tf_keras.backend.dot": on(
        IMAGE, constant=lambda f, x: f(x, tf.constant(values(8, 5)))
    ),
    "tf_keras.backend.batch_dot": on(
        (SEQUENCE, SEQUENCE), axes=lambda f, x, y: f(x, y, axes=(2, 2))
    ),
    "tf_keras.backend.batch_normalization": on(
        IMAGE,
        constants=lambda f, x: f(
            x, values(8), 1.5 + values(8), values(8), values(8) + 2
        ),
    ),
    "tf_keras.backend.arange": on(
        IMAGE, added=lambda f, x: x + f(0, 8, dtype="float32")
    ),
    "tf_keras.backend.shape": on(
        IMAGE, scaled=lambda f, x: x * tf.cast(f(x)[1], tf.float32)
    ),
    "tf_keras.backend.switch": on(
        (FLAGS, IMAGE, IMAGE), tensors=lambda f, flags, x, y: f(flags, x, y)
    ),
    "tf_keras.backend.rnn": on(
        SEQUENCE,
        sum=lambda f, x: f(
            lambda step, states: (step + states[0], [step + states[0]]),
            x,
            [tf.zeros_like(x[:, 0])],
            unroll=True,
        )[1],
    ),
    "tf_keras.backend.map_fn": on(IMAGE, relu=lambda f, x: f(tf.nn.relu, x)),
    "tf_keras.backend.relu": on(
        IMAGE,
        default=lambda f, x: f(x),
        six=lambda f, x: f(x, max_value=6.0),
        two=lambda f, x: f(x, max_value=2.0),
        leaky=lambda f, x: f(x, alpha=0.1),
        threshold=lambda f, x: f(x, threshold=0.5),
    ),
    "tf_keras.activations.relu": on(
        IMAGE,
        default=lambda f, x: f(x),
        six=lambda f, x: f(x, max_value=6.0),
        two=lambda f, x: f(x, max_value=2.0),
        leaky=lambda f, x: f(x, alpha=0.1),
        threshold=lambda f, x: f(x, threshold=0.5),
    ),
    "tf_keras.backend.sparse_categorical_crossentropy": on(
        (LABEL, VECTOR),
        vector=lambda f, x, y: f(x, tf.nn.softmax(y)),
        sigmoid=lambda f, x, y: f(x, tf.sigmoid(y)),
        logits=lambda f, x, y: f(x, y, from_logits=True),
    ),
    "tf_keras.backend.spatial_3d_padding": on(VOLUME, one=lambda f, x: f(x)),
}

HINTS = {**SHAPES, **BACKEND}
