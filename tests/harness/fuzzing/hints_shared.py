"""Calls of functions that TensorFlow and Keras call alike, by short name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .calls import Call
from .operands import IDS, IMAGE, RGB, SEQUENCE, VECTOR, VOLUME, Operand

FLAGS = IMAGE.within("flags")
BOXES = Operand((6, 4), "unit")


def on(
    operands: Operand | tuple[Operand, ...], **ways: Callable[..., Any]
) -> list[Call]:
    """Returns calls on the same operands; labels are the names of `ways`."""
    operands = operands if isinstance(operands, tuple) else (operands,)
    return [
        Call(label.replace("_", " ").strip(), operands, apply)
        for label, apply in ways.items()
    ]


def values(*shape: int) -> np.ndarray:
    """Returns constants between -1 and 1 without a pattern along any axis."""
    count = int(np.prod(shape))
    return np.cos(np.arange(1, count + 1) ** 1.5).reshape(shape).astype(np.float32)


def reductions(keepdims: str = "keepdims") -> list[Call]:
    """Returns calls of a function that reduces axes."""
    keep = {keepdims: True}
    return [
        *on(IMAGE, image=lambda f, x: f(x, axis=[1, 2])),
        *on(IMAGE, keepdims=lambda f, x: f(x, axis=-1, **keep)),
        *on(SEQUENCE, sequence=lambda f, x: f(x, axis=1)),
        *on(VOLUME, volume=lambda f, x: f(x, axis=(2, 3))),
        *on(VECTOR, vector=lambda f, x: f(x, axis=1, **keep)),
    ]


HINTS: dict[str, list[Call]] = {
    "operator.getitem": on(
        IMAGE,
        slice=lambda f, x: f(x, (slice(None), slice(1, -1), slice(None, None, 2))),
        index=lambda f, x: f(x, (slice(None), 2)),
        reverse=lambda f, x: f(x, (Ellipsis, slice(None, None, -1))),
        newaxis=lambda f, x: f(x, (slice(None), None)),
    ),
    "operator.matmul": [
        *on((SEQUENCE, SEQUENCE.of(8, 5)), tensors=lambda f, x, y: f(x, y)),
        *on(SEQUENCE, constant=lambda f, x: f(x, values(8, 5))),
    ],
    "operator.pow": [
        *on(IMAGE, square=lambda f, x: f(x, 2.0), cube=lambda f, x: f(x, 3.0)),
        *on(IMAGE.within("unit"), root=lambda f, x: f(x, 0.5)),
        *on(IMAGE, base=lambda f, x: f(2.0, x)),
        *on((IMAGE.within("unit"), IMAGE), tensors=lambda f, x, y: f(x, y)),
    ],
    "operator.truediv": [
        *on(IMAGE, constant=lambda f, x: f(x, 3.0)),
        *on((IMAGE, IMAGE.within("above_one")), tensors=lambda f, x, y: f(x, y)),
        *on(IMAGE.within("above_one"), reciprocal=lambda f, x: f(1.0, x)),
    ],
    "operator.mul": [
        *on(IMAGE, constant=lambda f, x: f(x, -0.3)),
        *on(IMAGE, positions=lambda f, x: f(x, values(6, 6, 1))),
        *on((IMAGE, IMAGE), tensors=lambda f, x, y: f(x, y)),
        *on((IMAGE, IMAGE.of(1, 1, 8)), broadcast=lambda f, x, y: f(x, y)),
        *on(VOLUME, volume=lambda f, x: f(x, 2.0)),
    ],
    "operator.add": [
        *on(IMAGE, constant=lambda f, x: f(0.5, x)),
        *on(IMAGE, positions=lambda f, x: f(x, values(6, 6, 8))),
        *on((IMAGE, IMAGE), tensors=lambda f, x, y: f(x, y)),
        *on((IMAGE, IMAGE.of(1, 1, 8)), broadcast=lambda f, x, y: f(x, y)),
        *on((IMAGE, VECTOR), ranks=lambda f, x, y: f(x[:, :, 0], y[:, None])),
        *on(VOLUME, volume=lambda f, x: f(x, values(8))),
    ],
    "operator.sub": [
        *on(IMAGE, constant=lambda f, x: f(1.0, x)),
        *on((IMAGE, IMAGE), tensors=lambda f, x, y: f(x, y)),
        *on((VECTOR, VECTOR), vectors=lambda f, x, y: f(x, y)),
    ],
    "operator.mod": on(IMAGE, constant=lambda f, x: f(x, 0.7)),
    "operator.floordiv": on(IMAGE, constant=lambda f, x: f(x, 0.7)),
    **{
        f"operator.{name}": [
            *on(IMAGE, constant=lambda f, x: f(x, 0.3)),
            *on((VECTOR, VECTOR), tensors=lambda f, x, y: f(x, y)),
        ]
        for name in ("lt", "le", "gt", "ge", "ne")
    },
    **{
        f"*.{name}": [
            *on(IMAGE, zero=lambda f, x: f(x, 0.0), constant=lambda f, x: f(x, 0.4)),
            *on((IMAGE, IMAGE), tensors=lambda f, x, y: f(x, y)),
            *on((VOLUME, VOLUME), volumes=lambda f, x, y: f(x, y)),
        ]
        for name in ("maximum", "minimum")
    },
    "*.add_n": on((IMAGE, IMAGE, IMAGE), three=lambda f, *xs: f(list(xs))),
    **{
        f"*.{name}": [
            *on((IMAGE, IMAGE), channels=lambda f, *xs: f(list(xs), axis=-1)),
            *on((SEQUENCE, SEQUENCE), time=lambda f, *xs: f(list(xs), axis=1)),
            *on((VOLUME, VOLUME), volume=lambda f, *xs: f(list(xs), axis=2)),
        ]
        for name in ("concat", "concatenate", "stack")
    },
    "*.unstack": [
        *on(IMAGE, rows=lambda f, x: f(x, axis=1), channels=lambda f, x: f(x, axis=3)),
    ],
    "*.clip_by_value": on(
        IMAGE,
        relu6=lambda f, x: f(x, 0.0, 6.0),
        symmetric=lambda f, x: f(x, -1.0, 1.0),
        above=lambda f, x: f(x, 0.2, 0.9),
    ),
    "*.clip": on(
        IMAGE,
        relu6=lambda f, x: f(x, 0.0, 6.0),
        symmetric=lambda f, x: f(x, -1.0, 1.0),
        above=lambda f, x: f(x, 0.2, 0.9),
    ),
    "*.cast": on(
        IMAGE,
        same=lambda f, x: f(x, "float32"),
        half=lambda f, x: f(x, "float16"),
        integer=lambda f, x: f(x, "int32"),
        flags=lambda f, x: f(x, "bool"),
    )
    + on(IDS, ids=lambda f, x: f(x, "float32")),
    "*.saturate_cast": on(IMAGE, integer=lambda f, x: f(x, "int32")),
    "*.reshape": [
        *on(IMAGE, image=lambda f, x: f(x, (-1, 3, 12, 8))),
        *on(IMAGE, flat=lambda f, x: f(x, (-1, 288))),
        *on(IMAGE, volume=lambda f, x: f(x, (-1, 6, 6, 2, 4))),
    ],
    "*.transpose": [
        *on(IMAGE, image=lambda f, x: f(x, (0, 3, 1, 2))),
        *on(VOLUME, volume=lambda f, x: f(x, (0, 1, 3, 2, 4))),
        *on(SEQUENCE, sequence=lambda f, x: f(x, (0, 2, 1))),
    ],
    "*.permute_dimensions": on(IMAGE, image=lambda f, x: f(x, (0, 2, 1, 3))),
    "*.squeeze": on(IMAGE.of(1, 6, 8), image=lambda f, x: f(x, axis=1)),
    "*.expand_dims": [
        *on(IMAGE, last=lambda f, x: f(x, axis=-1)),
        *on(VECTOR, first=lambda f, x: f(x, axis=1)),
    ],
    "*.tile": on(IMAGE, image=lambda f, x: f(x, (1, 2, 1, 3))),
    "*.repeat": on(
        IMAGE,
        rows=lambda f, x: f(x, 2, axis=1),
        channels=lambda f, x: f(x, 3, axis=-1),
    ),
    "*.repeat_elements": on(IMAGE, rows=lambda f, x: f(x, 2, 1)),
    "*.roll": on(IMAGE, rows=lambda f, x: f(x, 2, axis=1)),
    "*.split": on(
        IMAGE,
        even=lambda f, x: f(x, 2, axis=-1),
        sizes=lambda f, x: (
            f(x, [2, 5], axis=-1)
            if f.__module__.startswith("keras")
            else f(x, [2, 3, 3], axis=-1)
        ),
    ),
    "*.matmul": [
        *on((SEQUENCE, SEQUENCE.of(8, 5)), tensors=lambda f, x, y: f(x, y)),
        *on(SEQUENCE, constant=lambda f, x: f(x, values(8, 5))),
        *on(VECTOR, vector=lambda f, x: f(x, values(8, 5))),
    ],
    "*.einsum": [
        *on(SEQUENCE, dense=lambda f, x: f("btc,cd->btd", x, values(8, 5))),
        *on((SEQUENCE, SEQUENCE), scores=lambda f, *xs: f("bic,bjc->bij", *xs)),
    ],
    "*.tensordot": on(IMAGE, dense=lambda f, x: f(x, values(8, 5), axes=1)),
    "*.depth_to_space": on(IMAGE, two=lambda f, x: f(x, 2)),
    "*.space_to_depth": on(IMAGE, two=lambda f, x: f(x, 2), three=lambda f, x: f(x, 3)),
    "*.one_hot": on(IDS, ids=lambda f, x: f(x, 8)),
    "*.where": [
        *on(
            (FLAGS, IMAGE, IMAGE),
            tensors=lambda f, flags, x, y: f(flags, x, y),
        ),
        *on((FLAGS, IMAGE), constant=lambda f, flags, x: f(flags, x, 0.0)),
    ],
    "*.pow": [
        *on(IMAGE, square=lambda f, x: f(x, 2.0)),
        *on((IMAGE.within("unit"), IMAGE), tensors=lambda f, x, y: f(x, y)),
    ],
    **{
        f"*.{name}": [
            *on((IMAGE, IMAGE.within("above_one")), tensors=lambda f, x, y: f(x, y)),
            *on(IMAGE, constant=lambda f, x: f(x, 0.7)),
        ]
        for name in ("divide", "truediv", "realdiv", "true_divide", "divide_no_nan")
    },
    "*.top_k": on(VECTOR, vector=lambda f, x: f(x, 3)),
    "*.in_top_k": on(
        (Operand((), "ids"), VECTOR), vector=lambda f, ids, x: f(ids, x, 3)
    ),
    "*.leaky_relu": on(IMAGE, default=lambda f, x: f(x), slope=lambda f, x: f(x, 0.05)),
    "*.rgb_to_grayscale": on(RGB, image=lambda f, x: f(x)),
    "*.rgb_to_hsv": on(RGB, image=lambda f, x: f(x)),
    "*.hsv_to_rgb": on(RGB, image=lambda f, x: f(x)),
    **{f"*.reduce_{name}": reductions() for name in ("sum", "mean", "max", "min")},
    **{f"*.{name}": reductions() for name in ("sum", "mean", "max", "min")},
    "*.slice": on(IMAGE, window=lambda f, x: f(x, [0, 1, 2, 0], [-1, 3, 4, 5])),
}
