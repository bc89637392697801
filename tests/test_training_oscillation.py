"""The callback that tracks weights oscillating between codes, and freezes them."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training import wrapped_layers
from tf_lsq.training.oscillation import CodeTracker

layers = keras.layers


class Codes(keras.callbacks.Callback):
    """Records the codes of every kernel after every batch."""

    def __init__(self, student):
        super().__init__()
        self.wrappers = wrapped_layers(student)
        self.found = {w.name: [w.codes().numpy()] for w in self.wrappers}

    def on_train_batch_end(self, batch, logs=None):
        for wrapper in self.wrappers:
            self.found[wrapper.name].append(wrapper.codes().numpy())


def reference(sequence, momentum, limits):
    """Algorithm 1 of Nagel et al., weight by weight, in float64.

    Returns frequencies, which weights are frozen, and the codes after every batch.
    """
    first = sequence[0].astype(float)
    frequency, average, codes = np.zeros(first.shape), first.copy(), first.copy()
    last, frozen = np.zeros(first.shape), np.zeros(first.shape, bool)
    kept = [first]
    for new, limit in zip(sequence[1:], limits, strict=True):
        for i in np.ndindex(first.shape):
            code = codes[i] if frozen[i] else new[i]
            direction = np.sign(code - codes[i])
            oscillates = direction != 0 and direction == -last[i]
            frequency[i] = momentum * oscillates + (1 - momentum) * frequency[i]
            if direction != 0:
                last[i] = direction
            if frequency[i] > limit and not frozen[i]:
                frozen[i], code = True, np.rint(average[i])
            codes[i] = code
            average[i] = momentum * code + (1 - momentum) * average[i]
        kept.append(codes.copy())
    return frequency, frozen, kept


def trainable(bits=2):
    """A model whose weights oscillate at this learning rate."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((6,), name="features")
    x = layers.Dense(8, activation="relu", name="first")(inputs)
    x = layers.Dense(16, activation="relu", name="middle")(x)
    x = layers.Dense(16, activation="relu", name="other")(x)
    model = keras.Model(inputs, layers.Dense(3, name="last")(x), name="network")
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=8)
    student.compile(keras.optimizers.SGD(0.1), "mse")
    return student


@pytest.fixture
def data(rng):
    return rng.normal(size=(96, 6)).astype(np.float32), rng.normal(size=(96, 3))


def test_a_change_opposite_to_the_last_one_is_an_oscillation():
    tracker = CodeTracker(tf.constant([0.0, 0.0, -8.0]), 0.1)
    found = []
    for codes in ([1, 1, 7], [1, 2, 7], [0, 3, -8], [1, 3, -8]):
        tracker.update(tf.constant(codes, tf.float32), math.inf)
        found.append(tracker.frequency.numpy())
    # By hand: the first oscillates in batches 3 and 4, the last in batch 3.
    np.testing.assert_allclose(
        found, [[0, 0, 0], [0, 0, 0], [0.1, 0, 0.1], [0.19, 0, 0.09]], atol=1e-7
    )


def test_eight_bit_codes_do_not_overflow():
    tracker = CodeTracker(tf.constant([-127.0]), 0.5)
    for code in (127.0, -127.0):
        tracker.update(tf.constant([code]), math.inf)
    assert tracker.frequency.numpy() == [0.5]


@pytest.mark.parametrize("limit", ["none", "constant", "falling"])
def test_the_tracker_implements_algorithm_1(limit, rng):
    count = 60
    limits = {
        "none": np.full(count, np.inf),
        "constant": np.full(count, 0.35),
        "falling": np.linspace(0.6, 0.12, count),
    }[limit]
    # Some weights change rarely, others often.
    busy = rng.uniform(0.02, 0.9, (5, 7))
    walk = rng.integers(-1, 2, (count + 1, 5, 7)) * (rng.random((61, 5, 7)) < busy)
    sequence = np.clip(walk[0] + walk, -2, 1)
    tracker = CodeTracker(tf.constant(sequence[0], tf.float32), 0.1)
    frequency, frozen, kept = reference(sequence, 0.1, limits)
    for codes, now, expected in zip(sequence[1:], limits, kept[1:], strict=True):
        tracker.update(tf.constant(codes, tf.float32), tf.constant(now, tf.float32))
        np.testing.assert_array_equal(tracker.codes, expected)
    np.testing.assert_allclose(tracker.frequency, frequency, atol=1e-6)
    np.testing.assert_array_equal(tracker.frozen, frozen)
    assert frozen.any() == (limit != "none")
    assert not frozen.all()


def test_frequencies_match_the_codes_during_training(data, tmp_path):
    student = trainable()
    tf_lsq.calibrate(student, data[0])
    codes = Codes(student)
    callback = tf_lsq.OscillationTracking(
        momentum=0.1, threshold=0.05, log_kernels=True
    )
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = student.fit(
        *data,
        batch_size=8,
        epochs=3,
        verbose=0,
        callbacks=[codes, callback, logger],
    ).history
    assert set(callback.frequencies()) == {"middle", "other"}
    above = []
    for name, found in callback.frequencies().items():
        sequence = np.array(codes.found[name])
        expected, _, _ = reference(sequence, 0.1, np.full(len(sequence) - 1, np.inf))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        share = callback.history["oscillating"][name][-1]
        assert share == history[f"oscillating/{name}"][-1] == (expected > 0.05).mean()
        above.append(np.ravel(expected > 0.05))
    assert callback.history["epoch"] == [0, 1, 2]
    assert 0 < history["oscillating"][-1] == np.concatenate(above).mean() < 1
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["oscillating"]) for r in rows] == history["oscillating"]


@pytest.mark.parametrize("held", [False, True])
def test_frozen_weights_keep_their_codes(held, data):
    student = trainable()
    tf_lsq.calibrate(student, data[0])
    trained = tiny.Holder(student) if held else student
    trained.compile(keras.optimizers.SGD(0.1), "mse")
    callback = tf_lsq.OscillationTracking(momentum=0.1, freeze_above=0.12)
    codes = Codes(student)
    moments = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: moments.append(callback.frozen())
    )
    history = trained.fit(
        *data, batch_size=4, epochs=4, verbose=0, callbacks=[callback, codes, note]
    ).history
    for name, frozen in callback.frozen().items():
        assert 0.02 < frozen.mean() < 1
        assert callback.history["frozen"][name][-1] == frozen.mean()
        sequence = np.array(codes.found[name][1:])
        when = np.array([moment[name] for moment in moments])
        kept = np.where(when[:-1], sequence[1:] == sequence[:-1], True)
        assert kept.all()
        # They moved before they were frozen.
        assert (sequence[1:] != sequence[:-1])[:, frozen].any()
        layer = student.get_layer(name)
        on_grid = layer.step.numpy() * sequence[-1]
        np.testing.assert_allclose(
            layer.kernel.numpy()[frozen], on_grid[frozen], rtol=1e-6
        )
        assert np.abs(layer.kernel.numpy() - on_grid)[~frozen].max() > 1e-3
    assert history["frozen"][-1] > history["frozen"][0]


def test_frozen_weights_keep_their_codes_if_keras_averages_weights(data):
    student = trainable()
    tf_lsq.calibrate(student, data[0])
    student.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "mse")
    callback = tf_lsq.OscillationTracking(momentum=0.1, freeze_above=0.12)
    codes = Codes(student)
    student.fit(*data, batch_size=4, epochs=4, verbose=0, callbacks=[callback, codes])
    for name, frozen in callback.frozen().items():
        assert frozen.any()
        layer = student.get_layer(name)
        held = codes.found[name][-1][frozen]
        np.testing.assert_array_equal(layer.codes().numpy()[frozen], held)
        np.testing.assert_allclose(
            layer.kernel.numpy()[frozen], layer.step.numpy() * held, rtol=1e-6
        )


def test_training_without_freezing_is_the_same_with_the_callback(data):
    weights = []
    for callbacks in ([], [tf_lsq.OscillationTracking()]):
        student = trainable()
        student.fit(*data, batch_size=16, verbose=0, callbacks=callbacks)
        weights.append(student.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_pair_of_limits_gives_a_cosine_schedule():
    callback = tf_lsq.OscillationTracking(freeze_above=(0.2, 0.04))
    callback.set_params({"epochs": 4, "steps": 5})
    found = []
    for epoch in range(4):
        callback._epoch = epoch
        found += [callback._limit(batch) for batch in range(5)]
    share = np.arange(1, 21) / 20
    np.testing.assert_allclose(found, 0.12 + 0.08 * np.cos(np.pi * share))
    assert found[-1] == pytest.approx(0.04)


def test_oscillation_tracking_refuses_what_it_cannot_use(data):
    for name, value in (("momentum", 0.0), ("threshold", 1.0)):
        with pytest.raises(ValueError, match=f"`{name}` must be between 0 and 1"):
            tf_lsq.OscillationTracking(**{name: value})
    for limits in (0.0, 1.5, (0.1, 0.2), (0.1, 0.05, 0.01)):
        with pytest.raises(ValueError, match="`freeze_above` must be"):
            tf_lsq.OscillationTracking(freeze_above=limits)
    student = trainable(bits=8)
    callback = tf_lsq.OscillationTracking()
    with pytest.raises(ValueError, match=r"at most 4 bits.*'middle': 8"):
        student.fit(*data, verbose=0, callbacks=[callback])
    student = trainable()
    student.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(ValueError, match=r"steps_per_execution=1.*Received: 2"):
        student.fit(*data, verbose=0, callbacks=[callback])
    student = trainable()
    falling = tf_lsq.OscillationTracking(freeze_above=(0.1, 0.01))
    pairs = (batch for batch in [data])
    with pytest.raises(ValueError, match="known number of batches"):
        student.fit(pairs, verbose=0, callbacks=[falling])
