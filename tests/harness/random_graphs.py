"""Random networks of supported layers, as hypothesis strategies and as models.

A network is drawn as plain data (`Recipe`), so that a failing one is printed in full
and can be kept as a named case.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness import tiny
from tf_lsq._compat import keras

layers = keras.layers
LARGEST = 12  # Height and width of the input.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A network: steps that are applied to the tensors computed so far."""

    shape: tuple[int, int, int]
    steps: tuple[tuple, ...]
    head: tuple
    bits: tuple[int, int, int]
    per_channel: bool
    storage: str
    seed: int


def steps():
    """One step: its name and its settings; the first number selects its input."""
    source = st.integers(0, 3)
    filters = st.integers(1, 9)
    size = st.sampled_from([1, 2, 3])
    padding = st.sampled_from(["same", "valid"])
    stride = st.sampled_from([1, 1, 2])
    activation = st.sampled_from([None, "relu", "relu6", "tanh", "sigmoid", "swish"])
    return st.one_of(
        st.tuples(
            st.just("conv"), source, filters, size, padding, stride, st.booleans(),
            activation,
        ),
        st.tuples(
            st.just("depthwise"), source, st.integers(1, 2), size, padding, stride,
            st.booleans(), activation,
        ),
        st.tuples(st.just("separable"), source, filters, size, activation),
        st.tuples(st.just("transposed"), source, filters, size, padding, stride),
        st.tuples(st.just("norm"), source, activation),
        st.tuples(st.just("max_pool"), source, size, padding, stride),
        st.tuples(st.just("average_pool"), source, size, padding, stride),
        st.tuples(st.just("pad"), source, st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("up"), source, st.sampled_from(["nearest", "bilinear"])),
        st.tuples(st.just("leaky"), source, st.booleans()),
        st.tuples(
            st.just("join"), source, st.integers(0, 3),
            st.sampled_from(["add", "subtract", "multiply", "maximum", "concat"]),
            st.booleans(),
        ),
        st.tuples(
            st.just("gate"), source, st.sampled_from(["sigmoid", "hard_sigmoid"]),
        ),
    )  # fmt: skip


def recipes():
    """Whole networks."""
    bits = st.sampled_from([2, 3, 4, 5, 8])
    return st.builds(
        Recipe,
        shape=st.tuples(
            st.integers(4, LARGEST), st.integers(4, LARGEST), st.integers(1, 4)
        ),
        steps=st.lists(steps(), min_size=1, max_size=8).map(tuple),
        head=st.tuples(
            st.sampled_from(["mean", "flatten", "max"]),
            st.integers(2, 6),
            st.sampled_from([None, "softmax", "sigmoid"]),
        ),
        bits=st.tuples(bits, bits, bits),
        per_channel=st.booleans(),
        storage=st.sampled_from(["int8", "packed", "auto"]),
        seed=st.integers(0, 999),
    )


def build(recipe):
    """Returns the Keras model of a recipe, with random weights."""
    keras.backend.clear_session()
    inputs = layers.Input(recipe.shape, name="image")
    tensors = [layers.Conv2D(4, 3, padding="same", name="stem")(inputs)]
    for step in recipe.steps:
        name, source, *settings = step
        x = tensors[-1 - source % len(tensors)]
        tensors.append(_STEPS[name](x, tensors, *settings))
    x = _HEADS[recipe.head[0]]()(tensors[-1])
    outputs = layers.Dense(recipe.head[1], activation=recipe.head[2], name="scores")(x)
    model = keras.Model(inputs, outputs, name="random")
    rng = np.random.default_rng(recipe.seed)
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if "kernel" in weight.name or "alpha" in weight.name:
                weight.assign(rng.normal(0, 0.4, weight.shape))
    return tiny.randomize(model, rng)


def _activate(x, activation):
    return (
        x
        if activation is None
        else layers.Activation(_OWN.get(activation, activation))(x)
    )


_OWN = {"relu6": keras.activations.relu}


def _small(x, size):
    """A window no larger than the image."""
    return min(size, x.shape[1], x.shape[2])


def _channels(x, size):
    """A second channel where oneDNN would fail: a depthwise kernel of one number."""
    return layers.Concatenate()([x, x]) if size == x.shape[-1] == 1 else x


def _conv(x, _, filters, size, padding, stride, norm, activation):
    size = _small(x, size)
    x = layers.Conv2D(filters, size, stride, padding, use_bias=not norm)(x)
    x = layers.BatchNormalization()(x) if norm else x
    return layers.ReLU(6.0)(x) if activation == "relu6" else _activate(x, activation)


def _depthwise(x, _, multiplier, size, padding, stride, norm, activation):
    size = _small(x, size)
    x = _channels(x, size)
    x = layers.DepthwiseConv2D(size, stride, padding, multiplier, use_bias=not norm)(x)
    x = layers.BatchNormalization()(x) if norm else x
    return layers.ReLU(6.0)(x) if activation == "relu6" else _activate(x, activation)


def _separable(x, _, filters, size, activation):
    size = _small(x, size)
    x = _channels(x, size)
    x = layers.SeparableConv2D(filters, size, padding="same")(x)
    return _activate(x, activation if activation != "relu6" else "relu")


def _transposed(x, _, filters, size, padding, stride):
    if x.shape[1] > LARGEST:
        stride = 1
    return layers.Conv2DTranspose(filters, _small(x, size), stride, padding)(x)


def _norm(x, _, activation):
    x = layers.BatchNormalization()(x)
    return _activate(x, activation if activation != "relu6" else "relu")


def _pool(make):
    def pool(x, _, size, padding, stride):
        return make(_small(x, size), stride, padding)(x)

    return pool


def _pad(x, _, rows, columns):
    return layers.ZeroPadding2D((rows, columns))(x)


def _up(x, _, method):
    if x.shape[1] > LARGEST:
        return x
    return layers.UpSampling2D(2, interpolation=method)(x)


def _leaky(x, _, trained):
    return layers.PReLU(shared_axes=[1, 2])(x) if trained else layers.LeakyReLU(0.2)(x)


def _join(x, tensors, other, kind, relu):
    y = tensors[-1 - other % len(tensors)]
    if x is y:
        y = layers.Conv2D(x.shape[-1], 1)(y)
    if x.shape[1:3] != y.shape[1:3]:
        y = layers.Resizing(x.shape[1], x.shape[2], interpolation="nearest")(y)
    if kind != "concat" and x.shape[-1] != y.shape[-1]:
        y = layers.Conv2D(x.shape[-1], 1)(y)
    x = _JOINS[kind]()([x, y])
    return layers.ReLU()(x) if relu else x


def _gate(x, _, activation):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Dense(x.shape[-1], activation=activation)(gate)
    return layers.Multiply()([x, gate])


_JOINS = {
    "add": layers.Add,
    "subtract": layers.Subtract,
    "multiply": layers.Multiply,
    "maximum": layers.Maximum,
    "concat": layers.Concatenate,
}
_STEPS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "separable": _separable,
    "transposed": _transposed,
    "norm": _norm,
    "max_pool": _pool(layers.MaxPooling2D),
    "average_pool": _pool(layers.AveragePooling2D),
    "pad": _pad,
    "up": _up,
    "leaky": _leaky,
    "join": _join,
    "gate": _gate,
}
_HEADS = {
    "mean": layers.GlobalAveragePooling2D,
    "flatten": layers.Flatten,
    "max": layers.GlobalMaxPooling2D,
}


def drawn(number: int) -> Recipe:
    """The random network of a seed."""
    found: list[Recipe] = []

    @seed(number)
    @settings(
        max_examples=5,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(recipe=recipes())
    def draw(recipe: Recipe) -> None:
        found.append(recipe)

    draw()
    return found[-1]  # The first ones are the simplest.
