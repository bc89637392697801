"""Re-estimation of batch norm statistics for the final weights."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras


def test_reestimated_statistics_are_the_means_over_the_batches(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model, overrides={"conv2d_1": 2}))
    student.fit(*data, verbose=0)
    [first, frozen, last] = [
        la for la in student.layers if isinstance(la, keras.layers.BatchNormalization)
    ]
    frozen.trainable = False
    kept = [*frozen.get_weights(), *tf_lsq.steps(student).values()]
    inside = keras.Model(student.inputs, first.input)
    batches = [data[0][:32], data[0][32:]]
    values = [inside(x).numpy().reshape(-1, 8).astype(np.float64) for x in batches]
    before = last.moving_mean.numpy()
    tf_lsq.reestimate_batch_norm(student, data)
    mean = np.mean([v.mean(axis=0) for v in values], axis=0)
    variance = np.mean([v.var(axis=0, ddof=1) for v in values], axis=0)
    np.testing.assert_allclose(first.moving_mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first.moving_variance, variance, rtol=1e-4)
    assert not np.allclose(last.moving_mean, before)
    assert first.momentum == last.momentum == 0.99
    found = [*frozen.get_weights(), *tf_lsq.steps(student).values()]
    for one, other in zip(found, kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_reestimated_statistics_of_a_shared_batch_norm_cover_all_its_calls(rng):
    inputs = keras.layers.Input((6, 6, 3))
    conv, norm = keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()
    both = [norm(conv(x)) for x in (inputs, keras.layers.MaxPool2D(2)(inputs))]
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in both]
    student = tf_lsq.quantize_model(keras.Model(inputs, keras.layers.Add()(pooled)))
    x = rng.normal(size=(64, 6, 6, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    [norm] = [
        la for la in student.layers if isinstance(la, keras.layers.BatchNormalization)
    ]
    arriving = [norm.get_input_at(call) for call in range(len(norm.inbound_nodes))]
    inside = keras.Model(student.inputs, arriving)
    means = [
        np.mean(values, axis=(0, 1, 2), dtype=np.float64)
        for batch in (x[:32], x[32:])
        for values in inside(batch)
    ]
    assert len(means) == 4
    tf_lsq.reestimate_batch_norm(student, x)
    np.testing.assert_allclose(norm.moving_mean, np.mean(means, axis=0), rtol=1e-4)
    assert norm.momentum == 0.99


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_the_callback_reestimates_at_the_end_of_fit(kind, model, data):
    measured = data
    if kind == "dataset":
        measured = tf.data.Dataset.from_tensor_slices(data).batch(32).repeat()
    x, y = data
    one, other = (tiny.compiled(tf_lsq.quantize_model(model)) for _ in range(2))
    for start in (0, 32):
        one.train_on_batch(x[start : start + 32], y[start : start + 32])
    tf_lsq.reestimate_batch_norm(one, x[:32])
    callback = tf_lsq.BatchNormReestimation(measured, num_batches=1)
    other.fit(x, y, verbose=0, shuffle=False, callbacks=[callback])
    for found, expected in zip(other.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_reestimation_refuses_what_it_cannot_use(model, data):
    student = tf_lsq.quantize_model(model)
    with pytest.raises(RuntimeError, match="must be trained or calibrated"):
        tf_lsq.reestimate_batch_norm(student, data)
    tf_lsq.calibrate(student, data)
    with pytest.raises(ValueError, match="at least one batch"):
        tf_lsq.reestimate_batch_norm(student, tf.data.Dataset.range(0).batch(1))
    with pytest.raises(ValueError, match="`num_batches` must be at least 1"):
        tf_lsq.BatchNormReestimation(data, num_batches=0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        tf_lsq.BatchNormReestimation(data, batch_size=0)
