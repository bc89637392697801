"""Training from random weights, with new heads and with heads of zeros."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from sklearn.datasets import load_digits

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training import quantization_points
from tf_lsq.training.range_watch import MANY, clipped_share

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:1024]
    return (x / 16).astype(np.float32).reshape(-1, 8, 8, 1)[order], y[order]


def network(**head):
    inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = layers.Dense(32, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, **head)(x))


def final_loss(model, digits, epochs=5, rate=2e-3):
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(rate), LOSS)
    model.fit(*digits, epochs=epochs, verbose=0)
    return model.evaluate(*digits, verbose=0)


@pytest.mark.parametrize("head", [{}, {"kernel_initializer": "zeros"}])
def test_training_from_random_weights_reaches_the_float_loss(head, digits):
    keras.utils.set_random_seed(0)
    model = network(**head)
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    left_alone = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    with warnings.catch_warnings():
        # The head gives zeros until its first update, which must not cause a warning.
        warnings.simplefilter("error")
        found = final_loss(student, digits)
    expected = final_loss(model, digits)
    assert found < 1.1 * expected
    if not head:
        tf_lsq.calibrate(left_alone, digits[0][:32])
        left_alone.range_watch = None
        assert final_loss(left_alone, digits) > 1.5 * expected


def test_the_range_of_a_new_head_on_a_trained_body_is_followed(digits):
    keras.utils.set_random_seed(0)
    body = network()
    final_loss(body, digits)
    outputs = layers.Dense(10, name="new")(body.layers[-2].output)
    model = keras.Model(body.inputs, outputs)
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    found = final_loss(student, digits, rate=1e-2)
    assert found < 1.1 * final_loss(model, digits, rate=1e-2)


@pytest.mark.parametrize("norm", [False, True])
def test_training_from_a_trained_network_is_left_alone(norm, digits):
    """Weights are the same, bit for bit, as without any range check."""
    keras.utils.set_random_seed(0)
    model = network()
    if norm:
        inputs = layers.Input((8, 8, 1))
        x = layers.Conv2D(8, 3, use_bias=False)(inputs)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    final_loss(model, digits, epochs=8)
    found = []
    for watched in (True, False):
        student = tf_lsq.quantize_model(model)
        tf_lsq.calibrate(student, digits[0])
        if not watched:
            student.range_watch = None
        keras.utils.set_random_seed(0)
        student.compile(keras.optimizers.SGD(1e-3, momentum=0.9), LOSS)
        student.fit(*digits, epochs=2, verbose=0)
        found.append(student.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_range_check_changes_nothing_but_steps(digits):
    keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1))
    x = layers.Dropout(0.5)(tiny.conv_bn_relu(inputs, 6))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    final_loss(model, digits)
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, digits[0])
    student.range_watch.follow()  # Batch norm statistics differ in training.
    before = student.get_weights()
    states = [layer for layer in student.layers if isinstance(layer, layers.Dropout)]
    assert states
    tf.random.set_seed(1)
    student.range_watch.follow()
    shares = student.range_watch.clipped_shares
    drawn = tf.random.uniform([4])
    tf.random.set_seed(1)
    np.testing.assert_array_equal(drawn, tf.random.uniform([4]))
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    learned = {p.name for p in quantization_points(student) if p.step_variables}
    assert learned < set(shares)


def test_range_checks_become_less_frequent():
    student = tf_lsq.quantize_model(
        keras.Sequential([layers.Dense(3, input_shape=(4,))])
    )
    tf_lsq.calibrate(student, np.random.default_rng(0).normal(size=(64, 4)))
    watch, looks = student.range_watch, []
    for update in range(1, 1000):
        if watch.count(1):
            looks.append(update)
    assert looks[:8] == [1, 2, 3, 4, 5, 6, 8, 10]
    assert len(looks) < 35
    # Short epochs: all of the first 8, then one in seven.
    begun = [n for n in range(50) if watch.begin_epoch(15 * n, 15)]
    assert begun == [*range(1, 9), 14, 20, 27, 34, 40, 47]
    assert all(watch.begin_epoch(500 * n, 500) for n in range(1, 50))


@pytest.mark.parametrize("asymmetric", [False, True])
def test_steps_are_reset_if_values_outgrow_their_range(asymmetric):
    rng = np.random.default_rng(0)
    model = keras.Sequential([layers.Dense(8, input_shape=(4,), name="dense")])
    student = tf_lsq.quantize_model(
        model, weight_bits=8, asymmetric_activations=asymmetric
    )
    x = rng.normal(size=(64, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    before = tf_lsq.steps(student)
    dense = student.get_layer("dense")
    dense.kernel.assign(3 * dense.kernel)
    assert clipped_share(dense, dense.kernel) > MANY
    changed = {layer.name for layer in student.range_watch.follow()}
    after = tf_lsq.steps(student)
    grown = {n for n in before if after[n] > 1.5 * before[n]}
    assert grown == changed == {"dense", student.layers[-1].name}
    assert max(student.range_watch.clipped_shares.values()) < 0.1


def test_clipped_layers_are_named_only_once(digits):
    student = tf_lsq.quantize_model(network())
    student.compile(keras.optimizers.SGD(0.0), LOSS)
    tf_lsq.calibrate(student, digits[0])
    for point in quantization_points(student)[1:]:
        point.step_variables["step"].assign(0.2)
    with pytest.warns(UserWarning, match=r"20 %.*`quantize_.*%\)"):
        student.fit(*digits, epochs=3, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student.fit(*digits, verbose=0)


def test_steps_far_from_their_initial_value_are_named_only_once(digits):
    student = tf_lsq.quantize_model(network())
    student.compile(keras.optimizers.SGD(0.0), LOSS)
    tf_lsq.calibrate(student, digits[0])
    [wrapper, *_] = [layer for layer in student.layers if "conv" in layer.name]
    wrapper.step_variables["step"].assign(30.0)
    with pytest.warns(UserWarning, match=rf"`{wrapper.name}` \(30 times\)") as caught:
        student.fit(*digits, epochs=3, verbose=0)
    assert len([w for w in caught if "10 times" in str(w.message)]) == 1


def test_steps_that_have_trained_for_long_are_left_alone(digits):
    student = tf_lsq.quantize_model(network())
    tf_lsq.calibrate(student, digits[0])
    dense = student.layers[-2]
    dense.kernel.assign(3 * dense.kernel)
    watch = student.range_watch
    watch.count(2000)
    assert watch.follow() == []
    assert watch.clipped_shares[dense.name] > 0.1


def test_channels_that_have_not_grown_keep_their_steps():
    rng = np.random.default_rng(0)
    model = keras.Sequential([layers.Dense(4, input_shape=(8,), name="dense")])
    student = tf_lsq.quantize_model(model, weight_bits=8, per_channel=True)
    tf_lsq.calibrate(student, rng.normal(size=(64, 8)))
    dense = student.get_layer("dense")
    dense.step_variables["step"].assign([[0.9, 0.9, 0.9, 0.9]])
    dense.kernel.assign(dense.kernel * [[1.0, 3.0, 1.0, 1.0]])
    assert dense in student.range_watch.follow()
    factors = dense.step_variables["step"].numpy()
    np.testing.assert_allclose(factors, [[0.9, 1.0, 0.9, 0.9]], rtol=1e-6)


def test_a_loaded_step_is_not_mistaken_for_one_initialised_from_zeros(digits):
    model = network(kernel_initializer="zeros")
    student = tf_lsq.quantize_model(model)
    with pytest.warns(UserWarning, match="only zeros"):
        tf_lsq.calibrate(student, digits[0])
    trained = tf_lsq.quantize_model(model)
    final_loss(trained, digits, epochs=1)
    student.set_weights(trained.get_weights())
    head = student.layers[-2]
    head.step_variables["step"].assign(2.0)  # So that nothing is clipped.
    before = head.step.numpy()
    student.range_watch.follow()
    assert head.step.numpy() == before


def test_a_frozen_layer_keeps_its_step(digits):
    student = tf_lsq.quantize_model(network(kernel_initializer="zeros"))
    with pytest.warns(UserWarning, match="only zeros"):
        tf_lsq.calibrate(student, digits[0])
    head, point = student.layers[-2:]
    head.kernel.assign(tf.ones_like(head.kernel))
    head.trainable = False
    before = head.step.numpy()
    changed = student.range_watch.follow()
    assert point in changed and head not in changed
    assert head.step.numpy() == before
    head.trainable = True
    assert head in student.range_watch.follow()


def test_a_custom_loop_follows_ranges_after_calibration(digits):
    student = tf_lsq.quantize_model(network(), weight_bits=8)
    with pytest.raises(RuntimeError, match=r"`tf_lsq.calibrate\(model, data\)` first"):
        student.follow_ranges()
    tf_lsq.calibrate(student, digits[0])
    optimizer = tf_lsq.prepare_optimizer(keras.optimizers.Adam(0.01))
    optimizer.build(student.trainable_variables)
    for moment in optimizer._momentums:
        moment.assign(tf.ones_like(moment))
    student.layers[-2].kernel.assign(3 * student.layers[-2].kernel)
    before = tf_lsq.steps(student)
    student.follow_ranges(optimizer)
    changed = {n for n, step in tf_lsq.steps(student).items() if step != before[n]}
    assert changed
    reset = {
        variable.name
        for variable, moment in zip(
            student.trainable_variables, optimizer._momentums, strict=True
        )
        if not moment.numpy().any()
    }
    assert len(reset) == len(changed) and all("_step" in name for name in reset)
