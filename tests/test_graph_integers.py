"""Integers stay integers: ids, indices and class numbers have no step."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.file import from_bytes

layers = keras.layers
layers3 = keras3.layers
EIGHT = {"weight_bits": 8, "activation_bits": 8}


def exported(model, x, path, **options):
    """Calibrates, compares with the float model, exports; returns the file's graph."""
    student = tf_lsq.quantize_model(model, **EIGHT, **options)
    tf_lsq.calibrate(student, x)
    found, expected = student.predict(x, verbose=0), model.predict(x, verbose=0)
    assert tiny.largest_difference(found, expected) < 0.05
    report = tflite_export.export_model(student, path, data=x, verbose=False)
    assert not any(one.twin_differences for one in report.verification.outputs.values())
    tflite_export.verify_tflite(path, student, x, verbose=False)
    return from_bytes(path.read_bytes())


def types(graph):
    ends = [*graph.inputs.values(), *graph.outputs.values()]
    return [graph.tensors[name].dtype for name in ends]


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_ids_of_an_embedding_in_float_are_not_quantized(dtype, rng, tmp_path):
    ids = layers.Input((12,), dtype=dtype, name="ids")
    table = keras.initializers.RandomNormal(seed=0)
    x = layers.Embedding(1000, 8, embeddings_initializer=table, name="emb")(ids)
    x = layers.GlobalMaxPooling1D()(layers.Conv1D(8, 3, activation="relu")(x))
    model = keras.Model(ids, layers.Dense(3)(x))
    x = rng.integers(0, 1000, (16, 12)).astype(dtype)
    graph = exported(model, x, tmp_path / "m.tflite", overrides={"emb": "float"})
    assert types(graph) == [dtype, "int8"]


def test_types_of_ends_concern_only_quantized_ones(rng, tmp_path):
    image, kind = layers.Input((8, 8, 3)), layers.Input((1,), dtype="int32")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(image))
    y = layers.Flatten()(layers.Embedding(50, 4, name="emb")(kind))
    model = keras.Model([image, kind], layers.Dense(3)(layers.Concatenate()([x, y])))
    x = [rng.uniform(size=(16, 8, 8, 3)), rng.integers(0, 50, (16, 1))]
    student = tf_lsq.quantize_model(model, overrides={"emb": "float"})
    tf_lsq.calibrate(student, x)
    path = tmp_path / "m.tflite"
    tflite_export.export_model(
        student, path, input_type="uint8", output_type="float32", data=x, verbose=False
    )
    assert types(from_bytes(path.read_bytes())) == ["uint8", "int32", "float32"]
    tflite_export.verify_tflite(path, student, x, verbose=False)


def head(function, **options):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="map")(inputs)
    return keras.Model(inputs, function(x))


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda x: tf.argmax(x, -1), "int32"),
        (lambda x: tf.argmax(x, 1, tf.int32), "int32"),
        (lambda x: tf.expand_dims(tf.argmax(x[..., :2], -1), -1), "int64"),
    ],
)
def test_argmax_is_exact(function, dtype, rng, tmp_path):
    model = head(function)
    x = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
    student = tf_lsq.quantize_model(model, **EIGHT)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "m.tflite"
    report = tflite_export.export_model(student, path, data=x, verbose=False)
    [output] = report.verification.outputs.values()
    assert output.agreements == output.num_rows == model.predict(x, verbose=0).size
    assert types(from_bytes(path.read_bytes()))[-1] == dtype
    assert not report.float_layers
    same = student.predict(x, verbose=0) == model.predict(x, verbose=0)
    assert same.mean() > 0.9


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: tf.cast(tf.argmax(x, -1), tf.float32), ["tf.cast"]),
        (lambda x: tf.cast(x * 255.0, tf.uint8), ["tf.cast"]),
        (lambda x: tf.cast(x > 0.5, tf.float32), ["tf.math.greater", "tf.cast"]),
        (lambda x: tf.math.top_k(layers.Flatten()(x), 5).indices, ["tf.math.top_k"]),
    ],
)
def test_other_functions_of_integers_are_named_and_stay_in_float(
    function, names, rng, tmp_path
):
    keras.backend.clear_session()
    model = head(function)
    with pytest.raises(ValueError, match="cannot be quantized exactly") as error:
        tf_lsq.quantize_model(model)
    named = [layer.name for layer in model.layers if layer.name.startswith(names[-1])]
    assert all(f"'{name}': 'float'" in str(error.value) for name in named)
    x = rng.uniform(size=(8, 8, 8, 3)).astype(np.float32)
    student = tf_lsq.quantize_model(
        model, **EIGHT, overrides={f"{name}.*": "float" for name in names}
    )
    tf_lsq.calibrate(student, x)
    path = tmp_path / "m.tflite"
    report = tflite_export.export_model(student, path, data=x, verbose=False)
    tflite_export.verify_tflite(path, student, x, verbose=False)
    # LiteRT 2.3 cannot give an output of TOPK_V2 to `CompiledModel`.
    refused = report.verification.compiled_refusal
    assert bool(refused) == ("tf.math.top_k" in names)
    assert not refused or f"CompiledModel        refuses it: {refused}" in str(report)


def test_an_embedding_does_not_read_what_the_model_computes():
    inputs = layers.Input((8,))
    x = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Embedding(10, 4, name="emb")(x))
    with pytest.raises(ValueError, match="`emb`: it looks up rows by numbers"):
        tf_lsq.quantize_model(model, overrides={"emb": "float"})


def test_an_input_is_read_as_integers_or_as_values():
    ids = layers.Input((8,), dtype="int32", name="ids")
    x = layers.Flatten()(layers.Embedding(10, 4, name="emb")(ids))
    y = layers.Dense(4)(tf.cast(ids, tf.float32))
    model = keras.Model(ids, layers.Concatenate()([x, y]))
    with pytest.raises(ValueError, match=r"`ids`, which .'emb'. read as integers"):
        tf_lsq.quantize_model(model, overrides={"emb": "float"})


def test_masks_are_refused_by_name():
    ids = layers.Input((8,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True, name="emb")(ids)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    model = keras.Model(ids, layers.Dense(2)(x))
    with pytest.raises(ValueError, match=r"`pool`.*Keras mask"):
        tf_lsq.quantize_model(model, overrides={"emb": "float"})


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("sigmoid", keras.backend.sparse_categorical_crossentropy),
        ("sigmoid", keras.losses.categorical_focal_crossentropy),
        ("softmax", keras.backend.binary_crossentropy),
    ],
)
def test_logits_that_keras_hides_are_refused_and_can_be_passed(
    activation, function, rng, tmp_path
):
    sparse = "sparse" in function.__name__
    labels = layers.Input(() if sparse else (4,), dtype="int32" if sparse else None)
    images = layers.Input((8,))
    logits = layers.Dense(4)(images)
    x = layers.Activation(activation)(logits)
    bad, good = (
        keras.Model([labels, images], layers.Flatten()(loss))
        for loss in (
            function(labels, x)[..., None],
            function(labels, logits, from_logits=True)[..., None],
        )
    )
    name = next(n.name for n in bad.layers if "crossentropy" in n.name)
    for overrides in ({}, {name: "float"}):
        with pytest.raises(ValueError, match=f"`{name}`.*pass these logits"):
            tf_lsq.quantize_model(bad, **EIGHT, overrides=overrides)
    numbers = rng.integers(0, 4, 16)
    x = [
        numbers if sparse else np.eye(4, dtype=np.float32)[numbers],
        rng.normal(size=(16, 8)).astype(np.float32),
    ]
    np.testing.assert_allclose(bad.predict(x), good.predict(x), atol=1e-5)
    name = next(n.name for n in good.layers if "crossentropy" in n.name)
    student = tf_lsq.quantize_model(good, **EIGHT, overrides={name: "float"})
    tf_lsq.calibrate(student, x)
    expected = good.predict(x)
    error = np.abs(student.predict(x) - expected).max()
    assert error < 0.05 * np.ptp(expected)
    path = tmp_path / "m.tflite"
    tflite_export.export_model(student, path, data=x, verbose=False)
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_a_cross_entropy_reads_the_probabilities_of_a_function(rng):
    labels, images = layers.Input((4,)), layers.Input((4,))
    loss = keras.backend.categorical_crossentropy(labels, tf.sigmoid(images))
    model = keras.Model([labels, images], loss[:, None])
    name = next(n.name for n in model.layers if "crossentropy" in n.name)
    student = tf_lsq.quantize_model(model, **EIGHT, overrides={name: "float"})
    x = [np.eye(4, dtype=np.float32), rng.normal(size=(4, 4)).astype(np.float32)]
    tf_lsq.calibrate(student, x)
    np.testing.assert_allclose(student.predict(x), model.predict(x), atol=0.1)


def test_a_cross_entropy_of_keras_3_does_not_read_hidden_logits():
    labels, images = layers3.Input((), dtype="int32"), layers3.Input((4,))
    x = layers3.Activation("sigmoid", name="scores")(images)
    loss = keras3.ops.sparse_categorical_crossentropy(labels, x)
    model = keras3.Model([labels, images], keras3.ops.expand_dims(loss, -1))
    with pytest.raises(ValueError, match=r"in front of the sigmoid.*from_logits=True"):
        tf_lsq.quantize_model(model, overrides={".*crossentropy": "float"})
