"""The gradient of every variable of every kind of layer, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from harness.gradient_reference import Errors, errors
from test_conformance import CASES, between, branches, flat, same_conv

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.graph import layer_table
from tf_lsq.layers import QUANTIZED_WEIGHTS
from tf_lsq.layers.loans import find_loans
from tf_lsq.layers.quantize_configs import QuantizedWeight
from tf_lsq.training import wrapped_layers

layers = keras.layers
BITS = (8, 4, 2)
WORST = 1e-3
# float16 rounds each gradient between layers to 11 bits; short sums keep that error.
WORST_16_BIT = 3e-2


def siamese():
    """One network on two inputs."""
    left, right = layers.Input((8, 8, 4)), layers.Input((8, 8, 4))
    conv, norm = layers.Conv2D(6, 3), layers.BatchNormalization()
    one, other = (layers.ReLU()(norm(conv(x))) for x in (left, right))
    x = layers.Flatten()(layers.Subtract()([one, other]))
    return keras.Model([left, right], layers.Dense(3)(x))


def two_outputs():
    """A tensor read by two layers, one of which is an output."""
    inputs = layers.Input((8, 8, 4))
    x = tiny.conv_bn_relu(inputs, 6)
    y = layers.Conv2D(3, 3, name="map")(x)
    x = layers.Dense(3, name="score")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, [x, y])


def pre_activation():
    """Standalone batch norms and a residual connection."""
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, padding="same")(inputs)
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same")(y)])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def frozen(student):
    """Some kernels, batch norms and points that do not train."""
    for layer in student.layers[2:-3:2]:
        layer.trainable = False


def frozen_inside(student):
    """Wrapped layers that do not train, while their steps do."""
    for wrapper in wrapped_layers(student):
        wrapper.layer.trainable = False


PRELU = between(
    same_conv(), lambda: layers.PReLU("uniform", shared_axes=[1, 2]), same_conv()
)
VARIANTS = {
    "siamese": (siamese, {}),
    "two outputs": (two_outputs, {}),
    "pre-activation": (pre_activation, {}),
    "frozen parts": (pre_activation, {"prepare": frozen}),
    "frozen layers in wrappers": (pre_activation, {"prepare": frozen_inside}),
    "PReLU between convolutions": (PRELU, {}),
    "concatenation of branches": (branches(layers.Concatenate, 3), {}),
    **{
        f"per channel, {name}": (build, {"per_channel": True})
        for name, build in {
            "pre-activation": pre_activation,
            "separable": CASES["separable"][1],
            "transposed": CASES["transposed_conv"][1],
            "dense": flat(lambda: layers.Dense(7, activation="relu")),
        }.items()
    },
    **{
        f"offsets, {name}": (build, {"asymmetric_activations": True})
        for name, build in {
            "pre-activation": pre_activation,
            "swish": CASES["swish"][1],
            "PReLU": PRELU,
        }.items()
    },
    **{
        f"inference, {name}": (build, {"training": False})
        for name, build in {"pre-activation": pre_activation}.items()
    },
    **{
        f"{bits} bits": (pre_activation, {"bits": bits})
        for bits in (2, 3, 4, 5, 6, 7, 8)
    },
    "mixed_float16": (pre_activation, {"policy": "mixed_float16"}),
}


def inputs_of(model, rng):
    """White pixels, and others that are clipped once steps have moved."""
    if any(isinstance(layer, layers.Embedding) for layer in model.layers):
        return tiny.random_inputs(model, rng, 16)
    x = [
        np.minimum(rng.normal(0, 1, (16, *shape.shape[1:])), 1.5).astype(np.float32)
        for shape in model.inputs
    ]
    return x if len(x) > 1 else x[0]


def measured(
    build,
    bits,
    *,
    prepare=None,
    training=True,
    policy="float32",
    **options,
):
    """The largest errors of a model with random weights and moved steps.

    For the default form of the operator and for the plain one.
    """
    rng = np.random.default_rng(0)
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = tiny.randomize(build(), rng)
        student = tf_lsq.quantize_model(
            model, weight_bits=bits, activation_bits=bits, **options
        )
        x = inputs_of(model, rng)
        tf_lsq.calibrate(student, x if isinstance(x, np.ndarray) else tuple([x]))
        for variable in student.trainable_variables:
            if "_step" in variable.name or "_offset" in variable.name:
                moved = variable * rng.uniform(0.7, 1.0, variable.shape)
                kept = variable.constraint
                variable.assign(moved if kept is None else kept(moved))
        if prepare is not None:
            prepare(student)
        found = []
        for plain in (False, True):
            student.use_plain_op(plain)
            found.append(errors(student, x, rng, training=training))
        return found
    finally:
        keras.mixed_precision.set_global_policy("float32")


def row(build, bits=None, **options):
    return lambda width: measured(build, bits or width, **options)


ROWS = {
    **{case: row(build) for case, (_, build) in CASES.items()},
    **{name: row(build, **options) for name, (build, options) in VARIANTS.items()},
}


def limit(name):
    return WORST_16_BIT if "float16" in name else WORST


def check(name, bits):
    default, plain = ROWS[name](bits)
    assert max(default.steps, default.weights) <= limit(name)
    assert max(plain.steps, plain.weights) <= limit(name)


@pytest.mark.parametrize("name", ROWS)
def test_gradients_match_float64(name):
    """Tests each row at one width, in turn; the slow suite tests all widths."""
    check(name, BITS[list(ROWS).index(name) % len(BITS)])


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", ROWS)
def test_gradients_match_float64_at_every_width(name, bits):
    check(name, bits)


def test_every_layer_has_a_row():
    assert {layer for layer, _ in CASES.values()} == layer_table.PUBLIC_LAYERS
    assert set(CASES) <= set(ROWS)


def test_a_wrong_loan_is_detected(monkeypatch):
    """Treats a PReLU's output as linear in its input."""
    row = QuantizedWeight("alpha", (-1,), bilinear=True)
    monkeypatch.setitem(QUANTIZED_WEIGHTS, layers.PReLU, row)
    default, plain = measured(PRELU, 8)
    assert default.steps > 10 * WORST > plain.steps


def test_a_prelu_lends_nothing():
    student = tf_lsq.quantize_model(PRELU())
    tf_lsq.calibrate(student, np.random.default_rng(0).normal(size=(8, 8, 8, 4)))
    lenders = {kernel.layer for loan in find_loans(student) for kernel in loan.kernels}
    assert lenders
    assert not [layer for layer in lenders if isinstance(layer, layers.PReLU)]


def table(lines: list[tuple[str, int, Errors, Errors]]) -> str:
    """The page that `gradient_reference.py` writes."""
    worst: dict[str, list[float]] = {}
    for name, _, default, plain in lines:
        numbers = [default.steps, plain.steps, default.weights, plain.weights]
        worst[name] = np.maximum(worst.get(name, [0.0] * 4), numbers).tolist()
    rows = [
        f"| {name} | {' | '.join(f'{number:.1e}' for number in numbers)} |"
        for name, numbers in worst.items()
    ]
    of_all = np.max([n for name, n in worst.items() if "float16" not in name], axis=0)
    return HEADER.format(
        tensorflow=tf.__version__,
        worst=", ".join(f"{number:.1e}" for number in of_all),
        rows="\n".join(rows),
    )


HEADER = """# Gradients compared with float64

Every kind of layer between others, with random weights, at 8, 4 and 2 bits, with steps
at 0.7 to 1 times their first value so that values are rounded and clipped: the gradient
of every variable compared with the equations of the paper in NumPy float64. The table
shows the largest error at any width, of steps and offsets (relative to the root of the
sum of squares of the terms of their sum) and of all other variables (relative to the
largest value of the gradient, or of all gradients if it is 0, as for a bias before a
batch norm), with the default and the plain implementation of the operator. Generated by

    PYTHONPATH=tests python -m harness.gradient_reference

with TensorFlow {tensorflow}. Worst of all rows in float32: {worst}.
Under mixed_float16, gradients between layers have 11 bits, and no implementation can
do better.

| layer | steps, default | steps, plain | others, default | others, plain |
|---|---|---|---|---|
{rows}
"""
