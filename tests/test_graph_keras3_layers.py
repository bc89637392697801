"""Layers of Keras 3 with settings, layers or functions inside them."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.graph import Keras3Layer

layers3 = keras3.layers
ops = keras3.ops


def on(layer, *shape, **options):
    """A model of one layer."""
    inputs = keras3.Input(shape, **options)
    return keras3.Model(inputs, layer(inputs))


def attending(layer, **options):
    """A model of one layer that attends to its own input."""
    inputs = keras3.Input((6, 4))
    return keras3.Model(inputs, layer(inputs, inputs, **options))


def masked(*layers):
    """A model of layers after an embedding that masks zeros."""
    inputs = keras3.Input((None,), dtype="int32")
    x = layers3.Embedding(10, 4, mask_zero=True)(inputs)
    for layer in layers:
        x = layer(x)
    return keras3.Model(inputs, x)


def adapted(axis, *shape):
    layer = layers3.Normalization(axis=axis)
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, *shape)))
    return on(layer, *shape)


def inner_model():
    return keras3.Sequential(
        [
            keras3.Input((8, 8, 2)),
            layers3.Conv2D(2, 3),
            layers3.BatchNormalization(),
            layers3.Dense(2),
            layers3.Flatten(),
        ]
    )


def lstm(**options):
    return on(layers3.LSTM(3, **options), 6, 4)


def gru(**options):
    return on(layers3.GRU(3, **options), 6, 4)


# What has a twin in tf_keras.
CASES = {
    "adapted": lambda: adapted(-1, 8, 4),
    "adapted_scalar": lambda: adapted(None, 5),
    "adapted_over_axes": lambda: adapted((1, 2), 5, 3),
    "attention": lambda: attending(layers3.MultiHeadAttention(2, 4)),
    "attention_causal": lambda: attending(
        layers3.MultiHeadAttention(2, 4), use_causal_mask=True
    ),
    "attention_by_name": lambda: attending_by_name(),
    "attention_scores": lambda: attending(
        layers3.MultiHeadAttention(2, 4), return_attention_scores=True
    ),
    "batch_norm": lambda: on(layers3.BatchNormalization(scale=False), 8, 4),
    "bidirectional": lambda: on(layers3.Bidirectional(layers3.LSTM(3)), 6, 4),
    "bidirectional_sequences": lambda: on(
        layers3.Bidirectional(
            layers3.GRU(3, return_sequences=True, recurrent_activation="hard_sigmoid"),
            merge_mode="sum",
        ),
        6,
        4,
    ),
    "bidirectional_two": lambda: on(
        layers3.Bidirectional(
            layers3.LSTM(3), backward_layer=layers3.GRU(3, go_backwards=True)
        ),
        6,
        4,
    ),
    "cell": lambda: on(
        layers3.RNN(layers3.LSTMCell(3, recurrent_activation="hard_sigmoid")), 6, 4
    ),
    "cells": lambda: on(layers3.RNN([layers3.LSTMCell(3), layers3.GRUCell(2)]), 6, 4),
    "center_crop": lambda: on(layers3.CenterCrop(5, 6), 8, 8, 3),
    "conv_3d": lambda: on(layers3.Conv3D(2, 3), 4, 8, 8, 2),
    "conv_lstm": lambda: on(layers3.ConvLSTM2D(2, 3), 4, 8, 8, 2),
    "einsum_dense": lambda: on(layers3.EinsumDense("abc,cd->abd", (None, 5)), 6, 4),
    "embedding": lambda: on(layers3.Embedding(10, 4), 5, dtype="int32"),
    "embedding_of_floats": lambda: on(layers3.Embedding(10, 4), 5),
    "group_norm": lambda: on(layers3.GroupNormalization(2), 8, 4),
    "grouped": lambda: on(layers3.Conv2D(4, 3, groups=2), 8, 8, 4),
    "gru": gru,
    "gru_hard_sigmoid": lambda: gru(recurrent_activation="hard_sigmoid"),
    "gru_hard_silu": lambda: gru(activation="hard_silu"),
    "gru_reset_before": lambda: gru(reset_after=False),
    "layer_norm": lambda: on(layers3.LayerNormalization(), 6, 4),
    "rms_norm": lambda: on(layers3.RMSNormalization(axis=(1, 2)), 6, 4),
    "lstm": lambda: lstm(return_sequences=True),
    "lstm_hard_sigmoid": lambda: lstm(recurrent_activation="hard_sigmoid"),
    "lstm_states": lambda: lstm(return_state=True),
    "masked_average": lambda: masked(layers3.GlobalAveragePooling1D()),
    "masked_lstm": lambda: masked(layers3.LSTM(3)),
    "mixed_float16": lambda: on(layers3.Conv2D(3, 3, dtype="mixed_float16"), 8, 8, 4),
    "policy": lambda: on(
        layers3.Dense(3, "gelu", dtype=keras3.DTypePolicy("mixed_bfloat16")), 5
    ),
    "random": lambda: on(
        keras3.Sequential(
            [
                keras3.Input((8, 8, 3)),
                layers3.RandomBrightness(0.1),
                layers3.RandomContrast(0.1),
                layers3.RandomFlip(),
                layers3.RandomRotation(0.1),
                layers3.RandomTranslation(0.1, 0.1),
                layers3.RandomZoom(0.1),
            ]
        ),
        8,
        8,
        3,
    ),
    "resizing": lambda: on(layers3.Resizing(5, 6), 8, 8, 3),
    "resizing_cropped": lambda: on(
        layers3.Resizing(5, 6, crop_to_aspect_ratio=True), 8, 8, 3
    ),
    "simple_rnn": lambda: on(layers3.SimpleRNN(3, activation="relu6"), 6, 4),
    "spectral_norm": lambda: on(
        layers3.SpectralNormalization(layers3.Conv2D(2, 3)), 8, 8, 4
    ),
    "time_distributed": lambda: on(
        layers3.TimeDistributed(layers3.Conv2D(2, 3, activation="hard_silu")),
        4,
        8,
        8,
        2,
    ),
    "time_distributed_model": lambda: on(
        layers3.TimeDistributed(inner_model()), 4, 8, 8, 2
    ),
    "unit_norm": lambda: on(layers3.UnitNormalization(), 6, 4),
}


def attending_by_name():
    inputs = keras3.Input((6, 4))
    layer = layers3.MultiHeadAttention(2, 4)
    return keras3.Model(inputs, layer(query=inputs, value=inputs, key=inputs))


def randomize(model, rng):
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(rng.uniform(0.2, 1, weight.shape))
    return model


def batch_for(model, rng):
    [tensor] = model.inputs
    shape = [2, *(size or 8 for size in tensor.shape[1:])]
    if "int" in tensor.dtype:
        return rng.integers(0, 10, shape)
    return rng.uniform(0, 1, shape).astype(np.float32)


def check_equal(model, twin, x, atol=1e-5):
    pairs = zip(
        tf.nest.flatten(twin(x, training=False)),
        tf.nest.flatten(model(x, training=False)),
        strict=True,
    )
    for found, expected in pairs:
        np.testing.assert_allclose(
            np.asarray(found, np.float32), np.asarray(expected, np.float32), atol=atol
        )


@pytest.mark.parametrize("case", CASES)
def test_twins_of_layers_compute_the_same_before_and_after_saving(case, rng, tmp_path):
    model = randomize(CASES[case](), rng)
    twin = tf_lsq.from_keras3(model)
    for layer in twin.layers:
        assert not isinstance(layer, Keras3Layer), layer.reason
    x = batch_for(model, rng)
    reduced = case in ("mixed_float16", "policy")
    check_equal(model, twin, x, 0.05 if reduced else 1e-5)
    path = tmp_path / "twin.keras"
    twin.save(path)
    check_equal(model, keras.models.load_model(path), x, 0.05 if reduced else 1e-5)


def half(x):
    return x * 0.5


# Functions, as an activation and in a Lambda -> layers of the twin.
FUNCTIONS = {
    "one": (half, 1),
    "two": (lambda x: ops.abs(x) + 1.0, 1),
    "tensorflow": (lambda x: tf.nn.relu6(x + 3.0) / 6.0, 1),
    "celu": (keras3.activations.celu, 1),
    "hard_silu": (keras3.activations.hard_silu, 2),
    "layer": (layers3.LeakyReLU(0.1, name="leaky"), 1),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_python_functions_are_read(case, rng):
    function, num_layers = FUNCTIONS[case]
    dense = layers3.Dense(3, activation=function, name="dense")
    model = randomize(on(dense, 4), rng)
    twin = tf_lsq.from_keras3(model)
    x = batch_for(model, rng)
    check_equal(model, twin, x)
    assert twin.get_layer("dense").get_weights()[0].shape == (4, 3)
    assert len(twin.layers) == 2 + num_layers
    if case in ("one", "two", "tensorflow"):
        model = on(layers3.Lambda(function, name="function"), 4)
        twin = tf_lsq.from_keras3(model)
        assert [layer.name for layer in twin.layers[1:]] == ["function"]
        check_equal(model, twin, x)


def test_a_layer_whose_settings_tf_keras_does_not_have_is_run_by_keras_3():
    cases = {
        "antialias": on(layers3.Resizing(5, 6, antialias=True), 8, 8, 3),
        "celu": lstm(activation="celu"),
        "vocabulary_size": on(
            layers3.IntegerLookup(vocabulary=[1, 2]), 5, dtype="int64"
        ),
        "no such layer": on(layers3.AdaptiveAveragePooling1D(3), 6, 4),
        "AdaptiveAveragePooling1D": on(
            layers3.TimeDistributed(layers3.AdaptiveAveragePooling1D(3)), 5, 6, 4
        ),
    }
    for reason, model in cases.items():
        layer = tf_lsq.from_keras3(model).layers[-1]
        assert isinstance(layer, Keras3Layer)
        assert reason in layer.reason


def test_wrapped_layers_keep_their_weights_apart(rng):
    model = randomize(on(layers3.TimeDistributed(inner_model()), 4, 8, 8, 2), rng)
    twin = tf_lsq.from_keras3(model)
    norm, norm3 = twin.layers[-1].layer.layers[2], model.layers[-1].layer.layers[1]
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(getattr(norm, name), getattr(norm3, name))
