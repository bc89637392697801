"""Calls of the layer classes that need arguments or inputs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .calls import Call
from .discovery import FRAMEWORKS
from .hints_shared import on
from .operands import IDS, IMAGE, RGB, SEQUENCE, VECTOR, VOLUME, Operand

CUBE = Operand((2, 2, 2, 4))


def made(operand: Operand, **settings: dict[str, Any]) -> list[Call]:
    """Returns calls of a layer created with settings; labels are their names."""
    return on(
        operand,
        **{
            label: lambda c, x, kwargs=kwargs: c(**kwargs)(x)
            for label, kwargs in settings.items()
        },
    )


def sibling(layer_class: type, name: str) -> Any:
    """Returns another layer class of the same Keras."""
    package = layer_class.__module__.partition(".")[0]
    return getattr(FRAMEWORKS[package].layers, name)


def wrapped(name: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Returns a call of a wrapper around another layer."""
    return lambda c, x: c(sibling(c, name)(*args, **kwargs))(x)


def _convolutions() -> dict[str, list[Call]]:
    """Returns calls of layers with kernels."""
    conv = {"filters": 4, "kernel_size": 3}
    plain = {
        "default": conv,
        "same": {**conv, "padding": "same", "strides": 2},
        "dilated": {**conv, "padding": "same", "dilation_rate": 2},
        "activation": {**conv, "activation": "relu"},
    }
    grouped = {
        "groups": {**conv, "groups": 2},
        "depthwise": {**conv, "groups": 8, "filters": 8},
    }
    transposed = {
        "default": conv,
        "same": {**conv, "padding": "same", "strides": 2},
        "output_padding": {**conv, "strides": 2, "output_padding": 1},
    }
    depthwise = {"default": {"kernel_size": 3, "depth_multiplier": 2}}
    two = {"default": {"filters": 4, "kernel_size": 2}}
    return {
        "Conv1D": made(
            SEQUENCE, **plain, **grouped, causal={**conv, "padding": "causal"}
        ),
        "Conv2D": made(IMAGE, **plain, **grouped),
        "Conv3D": made(VOLUME, **two),
        "Conv1DTranspose": made(SEQUENCE, **transposed),
        "Conv2DTranspose": made(IMAGE, **transposed),
        "Conv3DTranspose": made(VOLUME, **two),
        "DepthwiseConv1D": made(SEQUENCE, **depthwise),
        "DepthwiseConv2D": made(IMAGE, **depthwise),
        "SeparableConv1D": made(SEQUENCE, default=conv),
        "SeparableConv2D": made(IMAGE, default=conv),
        "ConvLSTM1D": made(IMAGE, **two),
        "ConvLSTM2D": made(VOLUME, **two),
        "ConvLSTM3D": made(Operand((2, 2, 2, 2, 4)), **two),
        "LocallyConnected1D": made(SEQUENCE, **two),
        "LocallyConnected2D": made(IMAGE, **two),
        "Dense": [
            *made(
                VECTOR,
                vector={"units": 4},
                softmax={"units": 4, "activation": "softmax"},
            ),
            *made(SEQUENCE, sequence={"units": 4}),
            *made(IMAGE, image={"units": 4, "activation": "tanh"}),
            *made(VOLUME, volume={"units": 4}),
        ],
        "EinsumDense": made(
            SEQUENCE,
            default={"equation": "abc,cd->abd", "output_shape": (None, 4)},
            bias={
                "equation": "abc,cd->abd",
                "output_shape": (None, 4),
                "bias_axes": "d",
            },
        ),
    }


ACTIVATIONS = (
    "elu exponential gelu hard_sigmoid linear mish relu selu sigmoid softmax softplus "
    "softsign swish tanh relu6 silu leaky_relu log_softmax celu hard_silu hard_swish "
    "hard_tanh hard_shrink soft_shrink tanh_shrink squareplus sparse_plus "
    "sparse_sigmoid sparsemax glu log_sigmoid"
).split()

PLAIN: dict[str, list[Call]] = {
    "Activation": made(IMAGE, **{name: {"activation": name} for name in ACTIVATIONS}),
    "ReLU": made(
        IMAGE,
        default={},
        six={"max_value": 6.0},
        two={"max_value": 2.0},
        leaky={"negative_slope": 0.1},
        threshold={"threshold": 0.5},
    )
    + made(VOLUME, volume={}),
    "LeakyReLU": made(IMAGE, default={}) + made(VOLUME, volume={}),
    "PReLU": made(IMAGE, default={}, shared={"shared_axes": [1, 2]}),
    "Softmax": made(IMAGE, channels={}, rows={"axis": 1})
    + made(VECTOR, vector={})
    + on((SEQUENCE, SEQUENCE.within("flags")), mask=lambda c, x, y: c()(x, y)),
    "BatchNormalization": made(IMAGE, default={}, axis={"axis": 1})
    + made(VECTOR, vector={})
    + made(VOLUME, volume={}),
    "LayerNormalization": made(IMAGE, default={}, image={"axis": [1, 2, 3]})
    + made(VECTOR, vector={}),
    "GroupNormalization": made(IMAGE, default={"groups": 2}),
    "SpectralNormalization": on(IMAGE, conv=wrapped("Conv2D", 4, 3)),
    "Normalization": made(
        IMAGE,
        given={"mean": 0.5, "variance": 2.0},
        channels={"mean": [0.1] * 8, "variance": [1.0 + i for i in range(8)]},
    ),
    "Rescaling": made(IMAGE, default={"scale": 0.5, "offset": -1.0})
    + made(VOLUME, volume={"scale": 0.5}),
    "Resizing": made(
        IMAGE,
        bilinear={"height": 4, "width": 9},
        **{
            name: {"height": 4, "width": 9, "interpolation": name}
            for name in ("nearest", "bicubic", "area", "lanczos3")
        },
        cropped={"height": 4, "width": 9, "crop_to_aspect_ratio": True},
    ),
    "CenterCrop": made(
        IMAGE, smaller={"height": 4, "width": 3}, larger={"height": 9, "width": 9}
    ),
    "UpSampling2D": made(
        IMAGE,
        nearest={},
        bilinear={"interpolation": "bilinear"},
        bicubic={"interpolation": "bicubic"},
    ),
    "UpSampling3D": made(VOLUME, two={}),
    "MaxPooling2D": made(IMAGE, default={}, same={"pool_size": 3, "padding": "same"}),
    "AveragePooling2D": made(
        IMAGE, default={}, same={"pool_size": 3, "padding": "same"}
    ),
    "GlobalAveragePooling2D": made(IMAGE, default={}, keepdims={"keepdims": True}),
    "AdaptiveAveragePooling2D": made(IMAGE, default={"output_size": (2, 3)}),
    "AdaptiveMaxPooling2D": made(IMAGE, default={"output_size": (2, 3)}),
    "Reshape": made(
        IMAGE,
        image={"target_shape": (3, 12, 8)},
        flat={"target_shape": (-1,)},
        volume={"target_shape": (6, 6, 2, 4)},
    ),
    "Permute": made(IMAGE, image={"dims": (3, 1, 2)}),
    "RepeatVector": made(VECTOR, three={"n": 3}),
    "Concatenate": on(
        (IMAGE, IMAGE),
        channels=lambda c, x, y: c()([x, y]),
        rows=lambda c, x, y: c(axis=1)([x, y]),
    ),
    "Dot": on(
        (SEQUENCE, SEQUENCE),
        axes=lambda c, x, y: c(axes=2)([x, y]),
        normalized=lambda c, x, y: c(axes=2, normalize=True)([x, y]),
    ),
    "Attention": on((SEQUENCE, SEQUENCE), default=lambda c, x, y: c()([x, y])),
    "AdditiveAttention": on((SEQUENCE, SEQUENCE), default=lambda c, x, y: c()([x, y])),
    "MultiHeadAttention": on(
        SEQUENCE,
        self=lambda c, x: c(2, 4)(x, x),
        causal=lambda c, x: c(2, 4)(x, x, use_causal_mask=True),
    ),
    "GroupQueryAttention": on(SEQUENCE, self=lambda c, x: c(4, 4, 2)(x, x)),
    "Embedding": on(IDS, ids=lambda c, x: c(8, 4)(x)),
    "ReversibleEmbedding": on(IDS, ids=lambda c, x: c(8, 4)(x)),
    "CategoryEncoding": on(
        IDS,
        multi_hot=lambda c, x: c(8)(x),
        count=lambda c, x: c(8, output_mode="count")(x),
    ),
    "Discretization": on(
        VECTOR, bins=lambda c, x: c(bin_boundaries=[-1.0, 0.0, 1.0])(x)
    ),
    "IntegerLookup": on(IDS, table=lambda c, x: c(vocabulary=[1, 2, 3])(x)),
    "Hashing": on(IDS, ids=lambda c, x: c(8)(x)),
    "HashedCrossing": on((IDS, IDS), ids=lambda c, x, y: c(8)((x, y))),
    "Masking": made(SEQUENCE, default={}),
    "Lambda": on(
        IMAGE,
        relu=lambda c, x: c(lambda t: 0.5 * t + 1.0)(x),
    ),
    **{
        name: made(
            SEQUENCE,
            default={"units": 4},
            sequences={"units": 4, "return_sequences": True},
            states={"units": 4, "return_state": True},
            backwards={"units": 4, "go_backwards": True},
            unrolled={"units": 4, "unroll": True},
            activation={"units": 4, "activation": "relu"},
        )
        for name in ("SimpleRNN", "LSTM", "GRU")
    },
    "RNN": on(SEQUENCE, cell=wrapped("LSTMCell", 4)),
    **{
        name: on((VECTOR, VECTOR.of(4)), cell=lambda c, x, y: c(4)(x, [y]))
        for name in ("SimpleRNNCell", "GRUCell")
    },
    "LSTMCell": on(
        (VECTOR, VECTOR.of(4), VECTOR.of(4)),
        cell=lambda c, x, *states: c(4)(x, list(states)),
    ),
    "StackedRNNCells": on(
        (VECTOR, VECTOR.of(4)),
        cell=lambda c, x, y: c([sibling(c, "GRUCell")(4)])(x, [y]),
    ),
    "Bidirectional": on(
        SEQUENCE,
        lstm=wrapped("LSTM", 4),
        sequences=wrapped("GRU", 4, return_sequences=True),
    ),
    "TimeDistributed": on(SEQUENCE, dense=wrapped("Dense", 4))
    + on(VOLUME, conv=wrapped("Conv2D", 4, 2)),
    "Wrapper": on(IMAGE, conv=wrapped("Conv2D", 4, 2)),
    "MelSpectrogram": on(
        VECTOR.of(64),
        signal=lambda c, x: c(16, 8, sampling_rate=64, num_mel_bins=4, max_freq=32)(x),
    ),
    "STFTSpectrogram": on(
        SEQUENCE.of(64, 1),
        signal=lambda c, x: c(frame_length=16, frame_step=8, fft_length=16)(x),
    ),
    "RandomCrop": made(RGB, default={"height": 4, "width": 4}),
    "Pipeline": on(IMAGE, two=lambda c, x: c([sibling(c, "Rescaling")(0.5)])(x)),
    **{
        name: made(VOLUME, default={"data_format": "channels_last"})
        for name in ("GlobalAveragePooling3D", "GlobalMaxPooling3D")
    },
    "Add": on((IMAGE, IMAGE), two=lambda c, x, y: c()([x, y]))
    + on((IMAGE, IMAGE.of(1, 1, 8)), broadcast=lambda c, x, y: c()([x, y]))
    + on((VOLUME, VOLUME), volumes=lambda c, x, y: c()([x, y])),
    "Subtract": on((IMAGE, IMAGE), two=lambda c, x, y: c()([x, y])),
    "Multiply": on((IMAGE, IMAGE), two=lambda c, x, y: c()([x, y]))
    + on((IMAGE, IMAGE.of(1, 1, 8)), broadcast=lambda c, x, y: c()([x, y])),
    **{
        name: made(RGB, default={"value_range": (0.0, 1.0)})
        for name in "AugMix AutoContrast Equalization RandAugment".split()
    },
}

_ALL = {**PLAIN, **_convolutions()}
HINTS = {
    f"{framework}.layers.{name}": calls
    for framework in FRAMEWORKS
    for name, calls in _ALL.items()
}
