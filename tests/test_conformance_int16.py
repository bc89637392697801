"""Points of more than 8 bits: every operator in int16 computes the trained integers.

As in `test_conformance`, with a sum of 16 bits before the layers under test. Layers
named "wide..." have 16 bits themselves: in their output, or in their input if they have
a kernel.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from harness.bit_widths import with_bits

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.runtimes import this_machine
from tflite_export.verification import probe_codes, twin_differences

layers = keras.layers
SHAPE = (8, 8, 4)
BUILTIN = this_machine().with_kernels("builtin")
CHANNELS = np.float32([1, 2, 3, -1, -2, -3])
POSITIONS = np.random.default_rng(1).normal(size=(8, 8, 6)).astype(np.float32)


def after_sum(function):
    """A model with a function of a 16-bit sum, and of a tensor of fewer bits."""

    def build():
        inputs = layers.Input(SHAPE)
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name="x")(inputs)
        y = layers.Conv2D(6, 3, padding="same", name="y")(x)
        z = function(layers.Add(name="sum")([x, y]), y)
        z = layers.Conv2D(4, 1, activation="relu")(z) if len(z.shape) == 4 else z
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(z)))

    return build


def wide(layer, *args, **kwargs):
    """A layer with 16 bits."""
    return layer(*args, name="wide", **kwargs)


def chain(s, y):
    """Layers that move 16-bit codes, then a sum of them."""
    s = layers.MaxPooling2D(3, 1, "same")(s)
    s = layers.Permute((3, 1, 2))(layers.Reshape((16, 4, 6))(s))
    s = layers.ZeroPadding2D(((1, 0), (0, 1)))(s)
    s = layers.Cropping2D(((0, 1), (1, 0)))(s)
    return wide(layers.Add)([layers.Reshape((8, 8, 6))(s), y])


def gathered(s, y):
    """Channels in another order; rows backwards."""
    return tf.gather(s, [5, 0, 0, 3, 2, 1, 4], axis=3)[:, ::-1]


BN = layers.BatchNormalization
CASES = {
    "sum": lambda s, y: s,
    "relu": lambda s, y: layers.ReLU()(s),
    "relu6": lambda s, y: wide(layers.ReLU, 6.0)(layers.MaxPooling2D()(s)),
    "add": lambda s, y: wide(layers.Add)([s, y]),
    "add_of_three": lambda s, y: wide(layers.Add)([y, s, y]),
    "add_to_8_bits": lambda s, y: layers.Add()([s, y]),
    "add_to_4_bits": lambda s, y: layers.Add(name="narrow")([s, y]),
    "add_of_fewer_axes": lambda s, y: wide(layers.Add)(
        [layers.GlobalAveragePooling2D()(y), s]
    ),
    "subtract": lambda s, y: wide(layers.Subtract)([y, s]),
    "multiply": lambda s, y: wide(layers.Multiply)([s, y]),
    "multiply_of_fewer_axes": lambda s, y: layers.Multiply()(
        [s, layers.GlobalAveragePooling2D()(s)]
    ),
    "average": lambda s, y: wide(layers.Average)([s, y]),
    "maximum": lambda s, y: wide(layers.Maximum)([s, y]),
    "concat": lambda s, y: wide(layers.Concatenate)([y, s, layers.ReLU()(y)]),
    "square": lambda s, y: tf.square(s),
    "abs": lambda s, y: tf.abs(s),
    "add_positions": lambda s, y: s + POSITIONS,
    "multiply_positions": lambda s, y: s * POSITIONS,
    "add_channels": lambda s, y: s + CHANNELS,
    "leaky_relu": lambda s, y: wide(layers.LeakyReLU)(s),
    "prelu": lambda s, y: wide(layers.PReLU, "uniform", shared_axes=[1, 2])(s),
    "clip": lambda s, y: tf.clip_by_value(layers.MaxPooling2D()(s), -0.5, 0.7),
    "batch_norm": lambda s, y: wide(BN)(layers.MaxPooling2D()(s)),
    "mean": lambda s, y: wide(layers.GlobalAveragePooling2D)(s),
    "mean_of_channels": lambda s, y: wide(layers.Multiply)(
        [s, tf.reduce_mean(s, -1, keepdims=True)]
    ),
    "reduce_sum": lambda s, y: s * tf.reduce_sum(s, [1, 2], keepdims=True),
    "reduce_max": lambda s, y: s - tf.reduce_max(s, [1, 2], keepdims=True),
    "reduce_min": lambda s, y: s - tf.reduce_min(s, [1, 2], keepdims=True),
    "average_pool": lambda s, y: layers.AveragePooling2D(3, 2, "same")(s),
    "up_sampling": lambda s, y: layers.UpSampling2D()(s),
    "chain": chain,
    "gather": gathered,
    "pad_mirror": lambda s, y: tf.pad(s, [[0, 0], [1, 2], [1, 0], [0, 0]], "REFLECT"),
    "pad_constant": lambda s, y: tf.pad(
        s, [[0, 0], [1, 2], [1, 0], [0, 0]], constant_values=0.3
    ),
    "zeros": lambda s, y: layers.Add()([s, tf.zeros_like(s)]),
    "conv": lambda s, y: wide(layers.Conv2D, 5, 3, activation="relu")(s),
    # The concatenation's grid is that of the convolution, whose input has 8 bits.
    "conv_to_16_bits": lambda s, y: wide(layers.Concatenate)(
        [layers.Conv2D(6, 1)(y), s]
    ),
    "pointwise": lambda s, y: wide(layers.Conv2D, 5, 1)(s),
    "conv1d": lambda s, y: wide(layers.Conv1D, 5, 3)(layers.Reshape((64, 6))(s)),
    "conv_groups": lambda s, y: wide(layers.Conv2D, 6, 3, groups=6)(s),
    "transposed_conv": lambda s, y: wide(layers.Conv2DTranspose, 5, 3, 2, "same")(s),
    "convs": lambda s, y: layers.Conv2D(5, 1, name="wide_2")(
        wide(layers.Conv2D, 5, 3, activation="relu")(s)
    ),
    "depthwise": lambda s, y: BN()(wide(layers.DepthwiseConv2D, 3)(s)),
    "dense": lambda s, y: wide(layers.Dense, 7)(layers.Flatten()(s)),
    "dense_on_images": lambda s, y: wide(layers.Dense, 7, activation="relu")(s),
    # Computed in int8, from points of 8 bits.
    "sigmoid": lambda s, y: layers.Multiply()([s, tf.sigmoid(s)]),
    "tanh": lambda s, y: layers.Activation("tanh")(s),
    "elu": lambda s, y: layers.ELU()(s),
    "softmax": lambda s, y: layers.Softmax()(s),
    "bilinear": lambda s, y: layers.UpSampling2D(2, interpolation="bilinear")(s),
    "depth_to_space": lambda s, y: tf.nn.space_to_depth(s, 2),
    "hard_sigmoid": lambda s, y: layers.Activation("hard_sigmoid")(s),
}


def overrides_of(model, bits):
    """16 bits for the sum and what is called wide."""
    chosen = {"sum": 16}
    for layer in model.layers:
        if layer.name.startswith("wide"):
            kernel = hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")
            chosen[layer.name] = (bits, 16) if kernel else 16
        if layer.name == "narrow":
            chosen["narrow"] = 4
    return chosen


def quantized(build, rng, bits, **options):
    model = tiny.randomize(build(), rng)
    student = tf_lsq.quantize_model(
        model,
        weight_bits=bits,
        activation_bits=bits,
        overrides=overrides_of(model, bits),
        **options,
    )
    x = rng.normal(0, 1, (64, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    return model, student, x


@pytest.mark.filterwarnings("ignore:These tensors use less")
@pytest.mark.parametrize(("case", "bits"), with_bits(CASES))
def test_int16_files_compute_the_trained_integers(case, bits, rng, tmp_path):
    model, student, x = quantized(after_sum(CASES[case]), rng, bits)
    if bits == 8:
        found, expected = (one(x, training=False) for one in (student, model))
        assert tiny.largest_difference(found, expected) < 0.05
    path = tmp_path / "model.tflite"
    for storage in ("int8",) if bits == 8 else ("int8", "packed"):
        tflite_export.export_model(student, path, storage=storage)
        found = tflite_export.verify_tflite(path, student, x, verbose=False)
        assert found.equal_codes == found.weight_codes > 0
        differences = {p.name: (p.kind, p.twin_differences) for p in found.points}
        assert not [item for item in differences.items() if item[1][1]]
        built = tiny.built(student, storage)
        assert any(t.dtype == "int16" for t in built.graph.tensors.values())
        codes = probe_codes(built.graph, built.frozen, [x], kernels="builtin")
        different = twin_differences(built.frozen, codes, BUILTIN)
        assert not any(different.values()), different
