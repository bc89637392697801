"""Every supported layer is quantized and exported, and computes the trained codes.

`verify_tflite` fails on a code that is off by more than one, on any weight code
that differs, and on any float tensor. Here the models are single layers between
two convolutions, with random weights, at 8, 4 and 2 bits.
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
from tf_lsq.graph import layer_table
from tf_lsq.graph.norm_layers import RMSNormalization

layers = keras.layers
SHAPE = (8, 8, 4)


def between(*middle):
    """A model with layers between two convolutions."""

    def build():
        inputs = layers.Input(SHAPE)
        x = layers.Conv2D(6, 3, padding="same", name="first")(inputs)
        for make in middle:
            x = make()(x)
        x = layers.Conv2D(4, 1, name="low_bit")(x)
        x = layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(3, name="last")(x))

    return build


def branches(join, count=2, keep=False):
    """A model that joins convolutions; `keep`: without another one after them."""

    def build():
        inputs = layers.Input(SHAPE)
        stem = tiny.conv_bn_relu(inputs, 6)
        parts = [layers.Conv2D(6, 3, padding="same")(stem) for _ in range(count - 1)]
        x = join()([stem, *parts])
        x = x if keep else tiny.conv_bn_relu(x, 4)
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))

    return build


def with_pooled(join):
    """A model that joins an image with its mean, which has fewer axes."""

    def build():
        inputs = layers.Input(SHAPE)
        x = tiny.conv_bn_relu(inputs, 6)
        mean = layers.Dense(6)(layers.GlobalAveragePooling2D()(x))
        x = tiny.conv_bn_relu(join()([mean, x]), 4)
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))

    return build


def flat(*middle):
    """A model of dense layers."""

    def build():
        inputs = layers.Input((12,))
        x = layers.Dense(8, name="first")(inputs)
        for make in middle:
            x = make()(x)
        x = layers.Dense(6, name="low_bit")(x)
        return keras.Model(inputs, layers.Dense(3, name="last")(x))

    return build


def pooled(make):
    """A model in which global pooling feeds the low-bit layers."""

    def build():
        inputs = layers.Input(SHAPE)
        x = tiny.conv_bn_relu(inputs, 6)
        x = layers.Conv2D(6, 3, activation="relu")(x)
        x = make()(x)
        x = layers.Flatten()(x)
        x = layers.Dense(5, activation="relu")(x)
        return keras.Model(inputs, layers.Dense(3)(x))

    return build


def sequence(*middle):
    """A model with layers between two 1D convolutions."""

    def build():
        inputs = layers.Input((16, 4))
        x = layers.Conv1D(6, 3, padding="same", name="first")(inputs)
        for make in middle:
            x = make()(x)
        x = layers.Conv1D(4, 1, name="low_bit")(x)
        return keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(x)))

    return build


def volumes(make):
    """A model with a layer of 3D images between two convolutions."""
    return between(
        lambda: layers.Reshape((4, 2, 8, 6)), make, lambda: layers.Reshape((3, -1, 6))
    )


def functional(function, shape=SHAPE):
    """A model with a function of tensors between two convolutions."""
    return between(lambda: function)


def preprocessed(make):
    """A model whose first layer preprocesses its input."""

    def build():
        inputs = layers.Input(SHAPE)
        x = tiny.conv_bn_relu(make()(inputs), 6)
        x = tiny.conv_bn_relu(x, 4)
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))

    return build


def attentive(attend, **options):
    """A model with attention between three sequences."""

    def build():
        inputs = layers.Input((12, 6))
        parts = [layers.Dense(6, name=name)(inputs) for name in ("query", "value")]
        outputs = [*parts, layers.Dense(5)(inputs)]
        found = attend(*outputs, **options)
        ends = [layers.Flatten()(part) for part in tf.nest.flatten(found)]
        x = layers.Concatenate()(ends) if len(ends) > 1 else ends[0]
        return keras.Model(inputs, layers.Dense(3, name="last")(x))

    return build


def attend(query, value, key, use_scale=False, **call):
    """Attention without heads, in which the queries are the keys."""
    return layers.Attention(use_scale=use_scale)([query, value, query], **call)


def attend_with_heads(query, value, key, **options):
    """Attention with heads, and keys with other channels than the values."""
    names = ("use_causal_mask", "attention_mask", "return_attention_scores")
    call = {name: options.pop(name) for name in names if name in options}
    return layers.MultiHeadAttention(2, 4, **options)(query, value, key, **call)


def einsum(equation, shape, bias_axes=None, **options):
    return lambda: layers.EinsumDense(
        equation, shape, bias_axes=bias_axes, bias_initializer="normal", **options
    )


def looked_up(dtype, size=2):
    """A model of rows of a table, chosen by whole numbers."""

    def build():
        ids = layers.Input((10,), dtype=dtype)
        x = layers.Embedding(4, size, embeddings_initializer="normal")(ids)
        x = layers.Dense(6, name="low_bit")(x)
        return keras.Model(ids, layers.Dense(3)(layers.Flatten()(x)))

    return build


def same_conv(**kwargs):
    return lambda: layers.Conv2D(6, 3, padding="same", **kwargs)


def activation(name):
    return lambda: layers.Activation(name)


NEAR = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))[None] < 4
BN, RELU = layers.BatchNormalization, layers.ReLU
CASES = {
    "conv": (layers.Conv2D, between(same_conv())),
    "conv_relu": (layers.Conv2D, between(same_conv(activation="relu"))),
    "conv_relu6": (layers.Conv2D, between(same_conv(activation=layers.ReLU(6.0)))),
    "conv_softmax": (layers.Conv2D, between(same_conv(activation="softmax"))),
    "conv_valid_strides": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(5, (3, 2), strides=2, use_bias=False)),
    ),
    "conv_dilated": (layers.Conv2D, between(same_conv(dilation_rate=2))),
    "conv_bn": (BN, between(same_conv(), BN)),
    "conv_bn_relu": (BN, between(same_conv(), BN, RELU)),
    "conv_bn_no_scale": (BN, between(same_conv(), lambda: BN(scale=False), RELU)),
    "conv_bn_no_center": (BN, between(same_conv(), lambda: BN(center=False))),
    "conv_relu_bn": (BN, between(same_conv(activation="relu"), BN)),
    "bn_alone": (BN, between(layers.MaxPooling2D, BN, RELU)),
    "dense": (layers.Dense, flat(lambda: layers.Dense(7))),
    "dense_relu": (layers.Dense, flat(lambda: layers.Dense(7, activation="relu"))),
    "dense_bn_relu": (BN, flat(lambda: layers.Dense(7), BN, RELU)),
    "dense_relu_bn": (BN, flat(lambda: layers.Dense(7, activation="relu"), BN)),
    "dense_on_images": (
        layers.Dense,
        between(lambda: layers.Dense(5, activation="relu")),
    ),
    "dense_softmax": (layers.Softmax, flat(lambda: layers.Dense(7), layers.Softmax)),
    "depthwise": (
        layers.DepthwiseConv2D,
        between(lambda: layers.DepthwiseConv2D(3), BN, lambda: RELU(6.0)),
    ),
    "depthwise_multiplier": (
        layers.DepthwiseConv2D,
        between(lambda: layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2)),
    ),
    "separable": (
        layers.SeparableConv2D,
        between(lambda: layers.SeparableConv2D(5, 3, padding="same"), BN, RELU),
    ),
    "separable_relu": (
        layers.SeparableConv2D,
        between(
            lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu")
        ),
    ),
    "relu": (RELU, between(same_conv(), RELU)),
    "relu6": (RELU, between(same_conv(), lambda: RELU(6.0))),
    "relu_max_value": (RELU, between(same_conv(), lambda: RELU(1.0))),
    "relu_max_value_behind_pool": (
        RELU,
        between(same_conv(), layers.MaxPooling2D, lambda: RELU(20.0)),
    ),
    "relu_max_value_and_slope": (
        RELU,
        between(same_conv(), lambda: RELU(1.0, negative_slope=0.1)),
    ),
    "conv_relu_max_value": (RELU, between(same_conv(activation=RELU(1.0)))),
    "relu_behind_pool": (RELU, between(same_conv(), layers.MaxPooling2D, RELU)),
    "relu6_behind_pool": (
        RELU,
        between(same_conv(), layers.MaxPooling2D, lambda: RELU(6.0)),
    ),
    "activation": (
        layers.Activation,
        between(same_conv(), BN, lambda: layers.Activation("relu")),
    ),
    "softmax": (layers.Softmax, between(same_conv(), layers.Softmax)),
    "add": (layers.Add, branches(layers.Add)),
    "add_of_three": (layers.Add, branches(layers.Add, 3)),
    "concat": (layers.Concatenate, branches(layers.Concatenate)),
    "concat_of_seven": (layers.Concatenate, branches(layers.Concatenate, 7)),
    "concat_height": (
        layers.Concatenate,
        branches(lambda: layers.Concatenate(axis=1)),
    ),
    "max_pool": (
        layers.MaxPooling2D,
        between(same_conv(), RELU, lambda: layers.MaxPooling2D(3, 2, "same")),
    ),
    "max_pool_one": (
        layers.MaxPooling2D,
        between(same_conv(), lambda: layers.MaxPooling2D(1, 2)),
    ),
    "average_pool": (
        layers.AveragePooling2D,
        between(same_conv(), RELU, lambda: layers.AveragePooling2D(3, 2, "same")),
    ),
    "average_pool_signed": (
        layers.AveragePooling2D,
        between(same_conv(), layers.AveragePooling2D),
    ),
    "global_average": (
        layers.GlobalAveragePooling2D,
        pooled(layers.GlobalAveragePooling2D),
    ),
    "global_average_keepdims": (
        layers.GlobalAveragePooling2D,
        pooled(lambda: layers.GlobalAveragePooling2D(keepdims=True)),
    ),
    "global_max": (layers.GlobalMaxPooling2D, pooled(layers.GlobalMaxPooling2D)),
    "flatten": (layers.Flatten, pooled(layers.Flatten)),
    "reshape": (layers.Reshape, between(lambda: layers.Reshape((4, 16, 6)))),
    "zero_padding": (
        layers.ZeroPadding2D,
        between(same_conv(), RELU, lambda: layers.ZeroPadding2D(((1, 0), (2, 1)))),
    ),
    "dropout": (layers.Dropout, between(same_conv(), lambda: layers.Dropout(0.5))),
    "spatial_dropout": (
        layers.SpatialDropout2D,
        between(same_conv(), lambda: layers.SpatialDropout2D(0.5)),
    ),
    "gaussian_noise": (
        layers.GaussianNoise,
        between(same_conv(), lambda: layers.GaussianNoise(0.5)),
    ),
    "gaussian_dropout": (
        layers.GaussianDropout,
        between(same_conv(), lambda: layers.GaussianDropout(0.5)),
    ),
    "activity_regularization": (
        layers.ActivityRegularization,
        between(same_conv(), layers.ActivityRegularization),
    ),
    "conv1d": (layers.Conv1D, sequence(lambda: layers.Conv1D(5, 3, 2), BN, RELU)),
    "conv1d_causal": (
        layers.Conv1D,
        sequence(
            lambda: layers.Conv1D(
                5, 3, padding="causal", dilation_rate=2, activation="relu"
            )
        ),
    ),
    "depthwise1d": (
        layers.DepthwiseConv1D,
        sequence(lambda: layers.DepthwiseConv1D(3, 2, "same"), BN, RELU),
    ),
    "separable1d": (
        layers.SeparableConv1D,
        sequence(lambda: layers.SeparableConv1D(5, 3, padding="same"), BN, RELU),
    ),
    "bn1d_alone": (BN, sequence(layers.MaxPooling1D, BN, RELU)),
    "max_pool1d": (layers.MaxPooling1D, sequence(RELU, layers.MaxPooling1D)),
    "average_pool1d": (
        layers.AveragePooling1D,
        sequence(lambda: layers.AveragePooling1D(3, 2, "same")),
    ),
    "global_average1d": (
        layers.GlobalAveragePooling1D,
        sequence(lambda: layers.GlobalAveragePooling1D(keepdims=True)),
    ),
    "global_max1d": (
        layers.GlobalMaxPooling1D,
        sequence(lambda: layers.GlobalMaxPooling1D(keepdims=True)),
    ),
    "up_sampling1d": (layers.UpSampling1D, sequence(layers.UpSampling1D)),
    "cropping1d": (layers.Cropping1D, sequence(lambda: layers.Cropping1D((2, 1)))),
    "zero_padding1d": (
        layers.ZeroPadding1D,
        sequence(lambda: layers.ZeroPadding1D((2, 1))),
    ),
    "spatial_dropout1d": (
        layers.SpatialDropout1D,
        sequence(lambda: layers.SpatialDropout1D(0.5)),
    ),
    "conv_groups": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(12, 3, 2, groups=6, use_bias=False), BN, RELU),
    ),
    "conv_two_groups": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(8, 3, padding="same", groups=2), BN, RELU),
    ),
    "conv_groups_of_two": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(6, (3, 2), 2, groups=3, activation="relu6")),
    ),
    "conv_four_groups_dilated": (
        layers.Conv2D,
        between(
            lambda: layers.Conv2D(8, 1, activation="relu"),
            lambda: layers.Conv2D(
                12, 3, padding="same", dilation_rate=2, groups=4, use_bias=False
            ),
            BN,
        ),
    ),
    "conv_1x1_groups": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(9, 1, groups=3, use_bias=False), BN, RELU),
    ),
    "conv_1x1_groups_strides": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(4, 1, (1, 2), groups=2, activation="relu")),
    ),
    "conv_single_channels_uneven_strides": (
        layers.Conv2D,
        between(lambda: layers.Conv2D(12, 3, (2, 1), groups=6, activation="relu")),
    ),
    "conv1d_two_groups": (
        layers.Conv1D,
        sequence(
            lambda: layers.Conv1D(8, 3, padding="causal", groups=2, dilation_rate=2),
            BN,
            RELU,
        ),
    ),
    "conv1d_groups": (
        layers.Conv1D,
        sequence(
            lambda: layers.Conv1D(
                12, 3, padding="causal", groups=6, dilation_rate=2, activation="relu"
            )
        ),
    ),
    "transposed_conv1d": (
        layers.Conv1DTranspose,
        sequence(lambda: layers.Conv1DTranspose(5, 3, 2, "same"), BN, RELU),
    ),
    "transposed_conv1d_output_padding": (
        layers.Conv1DTranspose,
        sequence(lambda: layers.Conv1DTranspose(5, 4, 3, output_padding=2)),
    ),
    "transposed_conv_output_padding": (
        layers.Conv2DTranspose,
        between(lambda: layers.Conv2DTranspose(5, 4, 3, "same", output_padding=(2, 1))),
    ),
    "transposed_conv": (
        layers.Conv2DTranspose,
        between(lambda: layers.Conv2DTranspose(5, 3, 2, "same"), BN, RELU),
    ),
    "transposed_conv_valid": (
        layers.Conv2DTranspose,
        between(lambda: layers.Conv2DTranspose(5, (2, 3), 2, activation="relu6")),
    ),
    "up_sampling": (layers.UpSampling2D, between(same_conv(), layers.UpSampling2D)),
    "up_sampling_bilinear": (
        layers.UpSampling2D,
        between(RELU, lambda: layers.UpSampling2D((2, 3), interpolation="bilinear")),
    ),
    "resizing": (layers.Resizing, between(lambda: layers.Resizing(5, 12))),
    "cropping": (
        layers.Cropping2D,
        between(same_conv(), lambda: layers.Cropping2D(((1, 2), (0, 3)))),
    ),
    "center_crop": (layers.CenterCrop, between(lambda: layers.CenterCrop(5, 6))),
    "cropping3d": (
        layers.Cropping3D,
        volumes(lambda: layers.Cropping3D(((1, 0), (0, 1), (3, 1)))),
    ),
    "zero_padding3d": (
        layers.ZeroPadding3D,
        volumes(lambda: layers.ZeroPadding3D(((1, 0), (0, 2), (3, 1)))),
    ),
    "up_sampling3d": (
        layers.UpSampling3D,
        volumes(lambda: layers.UpSampling3D((1, 2, 3))),
    ),
    "repeat_vector": (layers.RepeatVector, flat(lambda: layers.RepeatVector(3))),
    "permute": (layers.Permute, between(lambda: layers.Permute((2, 3, 1)))),
    "dot": (
        layers.Dot,
        branches(lambda: layers.Dot((1, 2), name="product"), keep=True),
    ),
    "attention": (layers.Attention, attentive(attend)),
    "attention_scale": (layers.Attention, attentive(attend, use_scale=True)),
    "attention_causal": (
        layers.Attention,
        attentive(attend, use_causal_mask=True, return_attention_scores=True),
    ),
    "multi_head": (layers.MultiHeadAttention, attentive(attend_with_heads)),
    "multi_head_causal": (
        layers.MultiHeadAttention,
        attentive(attend_with_heads, use_causal_mask=True, dropout=0.1),
    ),
    "multi_head_mask": (
        layers.MultiHeadAttention,
        attentive(attend_with_heads, attention_mask=NEAR, use_bias=False),
    ),
    "multi_head_scores": (
        layers.MultiHeadAttention,
        attentive(
            attend_with_heads,
            return_attention_scores=True,
            value_dim=5,
            output_shape=7,
        ),
    ),
    "multi_head_on_images": (
        layers.MultiHeadAttention,
        between(lambda: lambda x: layers.MultiHeadAttention(2, 3)(x, x)),
    ),
    "multi_head_on_rows": (
        layers.MultiHeadAttention,
        between(
            lambda: (
                lambda x: layers.MultiHeadAttention(2, 3, attention_axes=2)(
                    x, x, use_causal_mask=False
                )
            )
        ),
    ),
    "einsum_dense": (
        layers.EinsumDense,
        sequence(einsum("abc,cd->abd", (None, 5), "d", activation="relu")),
    ),
    "einsum_dense_heads": (
        layers.EinsumDense,
        between(
            einsum("abcd,def->abcef", (8, 8, 2, 3), "ef"),
            lambda: layers.Reshape((8, 8, 6)),
        ),
    ),
    "einsum_dense_tokens": (
        layers.EinsumDense,
        sequence(einsum("abc,bd->acd", (6, 5), "c", activation="gelu")),
    ),
    "einsum_dense_softmax": (
        layers.EinsumDense,
        sequence(
            einsum("abc,cde->abed", (16, 2, 3), "ed", activation="softmax"),
            lambda: layers.Reshape((16, 6)),
        ),
    ),
    "embedding": (layers.Embedding, looked_up("int32")),
    "embedding_of_floats": (layers.Embedding, looked_up("float32", 4)),
    "subtract": (layers.Subtract, branches(layers.Subtract)),
    "multiply": (layers.Multiply, branches(layers.Multiply)),
    "add_of_fewer_axes": (layers.Add, with_pooled(layers.Add)),
    "subtract_of_fewer_axes": (layers.Subtract, with_pooled(layers.Subtract)),
    "multiply_of_fewer_axes": (layers.Multiply, with_pooled(layers.Multiply)),
    "maximum_of_fewer_axes": (layers.Maximum, with_pooled(layers.Maximum)),
    "average_of_fewer_axes": (layers.Average, with_pooled(layers.Average)),
    "multiply_of_three": (layers.Multiply, branches(layers.Multiply, 3)),
    "average": (layers.Average, branches(layers.Average, 3)),
    "maximum": (layers.Maximum, branches(layers.Maximum, 3)),
    "minimum": (layers.Minimum, branches(layers.Minimum)),
    "leaky_relu": (layers.LeakyReLU, between(same_conv(), layers.LeakyReLU)),
    "conv_leaky_relu": (
        layers.LeakyReLU,
        between(same_conv(activation=layers.LeakyReLU(0.1))),
    ),
    "prelu": (
        layers.PReLU,
        between(same_conv(), lambda: layers.PReLU("uniform", shared_axes=[1, 2])),
    ),
    "elu": (layers.ELU, between(same_conv(activation="elu"), BN, layers.ELU)),
    "elu_alpha": (layers.ELU, between(same_conv(), BN, lambda: layers.ELU(0.5))),
    "leaky_relu_negative": (
        layers.LeakyReLU,
        between(same_conv(activation=layers.LeakyReLU(-0.2))),
    ),
    "thresholded_relu": (
        layers.ThresholdedReLU,
        between(same_conv(), lambda: layers.ThresholdedReLU(0.3)),
    ),
    "relu_threshold": (RELU, between(same_conv(), lambda: RELU(2.0, 0.1, 0.3))),
    **{
        f"conv_{name}": (layers.Activation, between(same_conv(activation=name)))
        for name in "gelu mish selu softplus softsign".split()
    },
    "exponential": (
        layers.Activation,
        between(same_conv(activation="tanh"), activation("exponential")),
    ),
    "gelu": (layers.Activation, flat(lambda: layers.Dense(7), activation("gelu"))),
    "sigmoid": (layers.Activation, between(same_conv(activation="sigmoid"))),
    "tanh": (layers.Activation, between(same_conv(), BN, activation("tanh"))),
    "swish": (layers.Activation, between(same_conv(), BN, activation("swish"))),
    "hard_sigmoid": (layers.Activation, between(same_conv(activation="hard_sigmoid"))),
    "layer_norm": (
        layers.LayerNormalization,
        between(same_conv(), layers.LayerNormalization),
    ),
    "group_norm": (
        layers.GroupNormalization,
        between(same_conv(), lambda: layers.GroupNormalization(3), RELU),
    ),
    "unit_norm": (layers.UnitNormalization, between(layers.UnitNormalization)),
    "rms_norm": (RMSNormalization, sequence(RMSNormalization)),
    "rescaling": (layers.Rescaling, preprocessed(lambda: layers.Rescaling(0.5, -1.0))),
    "rescaling_inside": (
        layers.Rescaling,
        between(layers.MaxPooling2D, lambda: layers.Rescaling([1, -2, 3, 0, 2, 1.0])),
    ),
    "normalization": (
        layers.Normalization,
        preprocessed(
            lambda: layers.Normalization(
                mean=[0.1, -0.2, 0.3, 0], variance=[1.0, 2, 3, 4]
            )
        ),
    ),
    **{
        f"random_{name}": (layer, preprocessed(lambda layer=layer: layer(0.1)))
        for name, layer in {
            "rotation": layers.RandomRotation,
            "zoom": layers.RandomZoom,
            "contrast": layers.RandomContrast,
            "brightness": layers.RandomBrightness,
        }.items()
    },
    "random_flip": (layers.RandomFlip, preprocessed(layers.RandomFlip)),
    "random_translation": (
        layers.RandomTranslation,
        preprocessed(lambda: layers.RandomTranslation(0.1, 0.1)),
    ),
}


def quantized(build, rng, **options):
    model = tiny.randomize(build(), rng)
    student = tf_lsq.quantize_model(model, **options)
    x = tiny.random_inputs(model, rng)
    tf_lsq.calibrate(student, x)
    return model, student, x


@pytest.mark.parametrize(("case", "bits"), with_bits(CASES))
def test_file_computes_the_trained_integers(case, bits, rng, tmp_path):
    model, student, x = quantized(
        CASES[case][1], rng, weight_bits=bits, activation_bits=bits
    )
    if bits == 8:
        found, expected = (one(x, training=False) for one in (student, model))
        assert tiny.largest_difference(found, expected) < 0.05
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert not report.float_layers
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    assert found.points
    differences = {p.name: (p.kind, p.twin_differences) for p in found.points}
    assert not [item for item in differences.items() if item[1][1]]


@pytest.mark.parametrize("case", ["conv_bn_relu", "separable", "dense_bn_relu", "add"])
def test_per_channel_steps_are_exported_exactly(case, rng, tmp_path):
    _, student, x = quantized(CASES[case][1], rng, per_channel=True)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("case", ["leaky_relu", "conv_leaky_relu", "prelu"])
def test_leaky_relus_round_once(case, asymmetric, rng, tmp_path):
    options = {"weight_bits": 4, "activation_bits": 4}
    _, student, x = quantized(
        CASES[case][1], rng, **options, asymmetric_activations=asymmetric
    )
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    [point] = [point for point in found.points if point.kind == "prelu"]
    assert point.num_codes > 1000
    assert point.off_by_one < 1e-3 * point.num_codes


def test_every_supported_layer_has_a_case():
    covered = {layer for layer, _ in CASES.values()}
    assert covered == layer_table.PUBLIC_LAYERS
