"""Calls of the operations of Keras 3 that need hints."""

from __future__ import annotations

import keras as keras3
import numpy as np

from .calls import Call
from .hints_shared import FLAGS, on, values
from .operands import IDS, IMAGE, RGB, SEQUENCE, VECTOR, VOLUME, Operand

ops = keras3.ops
UNIT = IMAGE.within("unit")
LABEL = Operand((), "ids")
SQUARE = SEQUENCE.of(4, 4)
LARGE = RGB.of(12, 12, 3)
SEGMENTS = np.array([0, 0, 1, 1, 1, 2, 2, 2])


def _positive(x):
    """Returns symmetric positive matrices."""
    return 4.0 * ops.eye(4) + 0.1 * (x + ops.swapaxes(x, 1, 2))


def _segments() -> list[Call]:
    """Returns calls of a function of segments of one vector of each example."""
    return on(
        VECTOR,
        vector=lambda f, x: ops.transpose(
            f(ops.transpose(x, (1, 0)), SEGMENTS, 3), (1, 0)
        ),
    )


PLAIN: dict[str, list[Call]] = {
    "argmax": on(VECTOR, classes=lambda f, x: f(x, -1))
    + on(IMAGE, channels=lambda f, x: f(x, -1)),
    "argpartition": on(VECTOR, vector=lambda f, x: f(x, 3)),
    "array_split": on(IMAGE, three=lambda f, x: f(x, 3, axis=-1)),
    "associative_scan": on(SEQUENCE, sum=lambda f, x: f(lambda a, b: a + b, x, axis=1)),
    "average": on(IMAGE, weighted=lambda f, x: f(x, -1, values(8) + 2)),
    "average_pool": on(
        IMAGE,
        valid=lambda f, x: f(x, 2, 2),
        same=lambda f, x: f(x, 3, 2, "same"),
    )
    + on(SEQUENCE, sequence=lambda f, x: f(x, 2, 2)),
    "max_pool": on(
        IMAGE,
        valid=lambda f, x: f(x, 2, 2),
        same=lambda f, x: f(x, 3, 2, "same"),
    )
    + on(VOLUME, volume=lambda f, x: f(x, 2, 2)),
    "adaptive_average_pool": on(IMAGE, image=lambda f, x: f(x, (2, 3))),
    "adaptive_max_pool": on(IMAGE, image=lambda f, x: f(x, (2, 3))),
    "batch_normalization": on(
        IMAGE,
        constants=lambda f, x: f(
            x, values(8), 1.5 + values(8), -1, values(8), values(8) + 2
        ),
    ),
    "cond": on(
        IMAGE, sum=lambda f, x: f(ops.sum(x) > 0, lambda: x + 1.0, lambda: x - 1.0)
    ),
    "switch": on(IMAGE, one=lambda f, x: f(1, [ops.relu, ops.tanh], x)),
    "conv": on(
        IMAGE,
        same=lambda f, x: f(x, values(3, 3, 8, 4), padding="same"),
        strides=lambda f, x: f(x, values(3, 3, 8, 4), 2),
    )
    + on(SEQUENCE, sequence=lambda f, x: f(x, values(3, 8, 4))),
    "conv_transpose": on(
        IMAGE, kernel=lambda f, x: f(x, values(2, 2, 4, 8), 2, "same")
    ),
    "depthwise_conv": on(IMAGE, kernel=lambda f, x: f(x, values(3, 3, 8, 1))),
    "separable_conv": on(
        IMAGE, kernels=lambda f, x: f(x, values(3, 3, 8, 1), values(1, 1, 8, 4))
    ),
    "cross": on((VECTOR.of(3), VECTOR.of(3)), vectors=lambda f, x, y: f(x, y)),
    "diagonal": on(SQUARE, matrix=lambda f, x: f(x, 0, 1, 2)),
    "trace": on(SQUARE, matrix=lambda f, x: f(x, 0, 1, 2)),
    "digitize": on(IMAGE, bins=lambda f, x: f(x, np.array([-1.0, 0.0, 1.0]))),
    "dot": on(VECTOR, constant=lambda f, x: f(x, values(8, 5))),
    "inner": on(VECTOR, constant=lambda f, x: f(x, values(5, 8))),
    "dsplit": on(SEQUENCE, two=lambda f, x: f(x, 2)),
    "hsplit": on(VECTOR, two=lambda f, x: f(x, 2)),
    "dot_product_attention": on(
        (IMAGE, IMAGE, IMAGE), heads=lambda f, q, k, v: f(q, k, v)
    ),
    "extract_sequences": on(SEQUENCE.of(4, 16), windows=lambda f, x: f(x, 8, 4)),
    "fold": on(SEQUENCE.of(8, 9), image=lambda f, x: f(x, (4, 4), 2)),
    "unfold": on(IMAGE, image=lambda f, x: f(x, 2)),
    "fori_loop": on(IMAGE, three=lambda f, x: f(0, 3, lambda i, y: y * 0.5, x)),
    "full": on(IMAGE, added=lambda f, x: x + f((8,), 0.5)),
    "ones": on(IMAGE, added=lambda f, x: x + f((8,))),
    "zeros": on(IMAGE, added=lambda f, x: x + f((8,))),
    "arange": on(IMAGE, added=lambda f, x: x + f(8, dtype="float32")),
    "eye": on(SQUARE, added=lambda f, x: x + f(4)),
    "get_item": on(IMAGE, index=lambda f, x: f(x, (slice(None), 2))),
    "in_top_k": on((LABEL, VECTOR), vector=lambda f, ids, x: f(ids, x, 3)),
    "kron": on(SEQUENCE, constant=lambda f, x: f(x, values(1, 2, 2))),
    "linspace": on(VECTOR, between=lambda f, x: f(x, x + 1.0, 4, axis=-1)),
    "map": on(IMAGE, relu=lambda f, x: f(ops.relu, x)),
    "vectorized_map": on(IMAGE, relu=lambda f, x: f(ops.relu, x)),
    "vectorize": on(IMAGE, relu=lambda f, x: f(ops.relu)(x)),
    "meshgrid": on(VECTOR, added=lambda f, x: x + f(values(8), values(2))[0][0]),
    "moments": on(IMAGE, image=lambda f, x: f(x, [1, 2], keepdims=True)),
    "moveaxis": on(IMAGE, channels=lambda f, x: f(x, -1, 1)),
    "swapaxes": on(IMAGE, image=lambda f, x: f(x, 1, 3)),
    "multi_hot": on(IDS, ids=lambda f, x: f(x, 8)),
    "norm": on(IMAGE, channels=lambda f, x: f(x, axis=-1, keepdims=True)),
    "normalize": on(IMAGE, channels=lambda f, x: f(x, -1)),
    "pad": on(
        IMAGE,
        zeros=lambda f, x: f(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
        ones=lambda f, x: f(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1.0),
        reflect=lambda f, x: f(x, ((0, 0), (1, 2), (0, 1), (0, 0)), "reflect"),
        symmetric=lambda f, x: f(x, ((0, 0), (1, 2), (0, 1), (0, 0)), "symmetric"),
    ),
    "quantile": on(SEQUENCE, half=lambda f, x: f(x, 0.5, axis=1)),
    "rearrange": on(SEQUENCE, swapped=lambda f, x: f(x, "b t c -> b c t")),
    "rot90": on(IMAGE, image=lambda f, x: f(x, axes=(1, 2))),
    "scan": on(
        SEQUENCE,
        sum=lambda f, x: ops.transpose(
            f(
                lambda c, y: (c + y, c + y),
                ops.zeros_like(x[:, 0]),
                ops.transpose(x, (1, 0, 2)),
            )[1],
            (1, 0, 2),
        ),
    ),
    "searchsorted": on(VECTOR, constant=lambda f, x: f(ops.array([-1.0, 0.0, 1.0]), x)),
    **{f"segment_{name}": _segments() for name in ("max", "min", "sum", "prod")},
    "select": on(
        (FLAGS, IMAGE, IMAGE), tensors=lambda f, flags, x, y: f([flags], [x], y)
    ),
    "shape": on(IMAGE, scaled=lambda f, x: x * float(f(x)[1])),
    "size": on(IMAGE, scaled=lambda f, x: x * ops.cast(f(x[0]), "float32")),
    "softmax": on(IMAGE, channels=lambda f, x: f(x), rows=lambda f, x: f(x, axis=1))
    + on(VECTOR, vector=lambda f, x: f(x)),
    "sparse_categorical_crossentropy": on(
        (LABEL, VECTOR),
        vector=lambda f, x, y: f(x, ops.softmax(y)),
        logits=lambda f, x, y: f(x, y, from_logits=True),
    ),
    "split": on(
        IMAGE,
        even=lambda f, x: f(x, 2, axis=-1),
        indices=lambda f, x: f(x, [2, 5], axis=-1),
    ),
    "stft": on(SEQUENCE.of(2, 64), sequence=lambda f, x: f(x, 16, 8, 16)),
    "take": on(
        IMAGE,
        channels=lambda f, x: f(x, [2, 0, 1], axis=-1),
        rows=lambda f, x: f(x, [3, 0], axis=1),
    )
    + on(IDS, table=lambda f, x: f(values(8, 4), x, axis=0)),
    "take_along_axis": on(
        (SEQUENCE, IDS.of(6, 8)), tensors=lambda f, x, ids: f(x, ids % 6, axis=1)
    ),
    "threshold": on(IMAGE, zero=lambda f, x: f(x, 0.2, 0.0)),
    "view_as_complex": on(IMAGE.of(6, 6, 2), pairs=lambda f, x: f(x)),
    **{
        name: on(SQUARE, matrix=lambda f, x: f(_positive(x)))
        for name in (
            "cholesky cholesky_inverse det eigh inv logdet slogdet lu_factor pinv "
            "matrix_rank qr svd"
        ).split()
    },
    "solve": on((SQUARE, SQUARE), matrices=lambda f, x, y: f(_positive(x), y)),
    "solve_triangular": on(
        (SQUARE, SQUARE), matrices=lambda f, x, y: f(_positive(x), y)
    ),
    "gelu": on(IMAGE, default=lambda f, x: f(x), exact=lambda f, x: f(x, False)),
}

IMAGES: dict[str, list[Call]] = {
    "resize": on(
        IMAGE,
        **{
            method: lambda f, x, method=method: f(x, (4, 9), method)
            for method in "bilinear nearest bicubic lanczos3 lanczos5".split()
        },
        antialias=lambda f, x: f(x, (4, 9), antialias=True),
        cropped=lambda f, x: f(x, (4, 9), crop_to_aspect_ratio=True),
    ),
    "affine_transform": on(
        RGB, image=lambda f, x: f(x, np.array([1.0, 0.1, 0, 0, 0.9, 0, 0, 0]))
    ),
    "crop_images": on(
        IMAGE, box=lambda f, x: f(x, 1, 2, target_height=4, target_width=3)
    ),
    "pad_images": on(
        IMAGE, box=lambda f, x: f(x, 1, 2, target_height=9, target_width=9)
    ),
    "gaussian_blur": on(RGB, image=lambda f, x: f(x)),
    "extract_patches": on(IMAGE, image=lambda f, x: f(x, 2)),
    "extract_patches_3d": on(VOLUME, volume=lambda f, x: f(x, 2)),
    "ssim": on((LARGE, LARGE), images=lambda f, x, y: f(x, y, 1.0)),
    "sobel_edges": on(RGB, image=lambda f, x: f(x)),
    "perspective_transform": on(
        RGB,
        image=lambda f, x: f(
            x,
            np.array([[0.0, 0.0], [0.0, 5.0], [5.0, 0.0], [5.0, 5.0]]),
            np.array([[0.0, 1.0], [0.0, 5.0], [5.0, 0.0], [4.0, 5.0]]),
        ),
    ),
}

ACTIVATIONS: dict[str, list[Call]] = {
    "relu": on(
        IMAGE,
        default=lambda f, x: f(x),
        six=lambda f, x: f(x, max_value=6.0),
        two=lambda f, x: f(x, max_value=2.0),
        leaky=lambda f, x: f(x, negative_slope=0.1),
        threshold=lambda f, x: f(x, threshold=0.5),
    ),
}
HINTS = {
    **{f"keras.ops.{name}": calls for name, calls in PLAIN.items()},
    **{f"keras.ops.image.{name}": calls for name, calls in IMAGES.items()},
    **{f"keras.activations.{name}": calls for name, calls in ACTIVATIONS.items()},
}
