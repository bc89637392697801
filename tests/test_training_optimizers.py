"""Optimizers of every class update steps separately from weights."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import _legacy_slots, _slots, keras, reset_slots
from tf_lsq.training import quantization_points
from tf_lsq.training.learned_steps import trained_variables

layers = keras.layers
legacy = keras.optimizers.legacy
NAMES = ("a/kernel_step", "a/activation_step", "a/activation_offset", "a/bias")
OPTIMIZERS = {
    "SGD": keras.optimizers.SGD,
    "SGDWithL2": lambda rate, **kwargs: tf_lsq.SGDWithL2(rate, l2=0.5, **kwargs),
    "legacy SGD": legacy.SGD,
    "loss scale": lambda rate, **kwargs: keras.mixed_precision.LossScaleOptimizer(
        keras.optimizers.SGD(rate, **kwargs)
    ),
}


def moved(optimizer, gradients):
    """How far variables move if they start at 1."""
    variables = [tf.Variable(1.0, name=name) for name in NAMES]
    pairs = zip(map(tf.constant, gradients), variables, strict=True)
    optimizer.apply_gradients(list(pairs))
    return [1.0 - float(v) for v in variables]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("clip", "largest"), [(1.0, 1.0), (0.25, 0.25), (None, 9.0)])
def test_updates_of_steps_and_offsets_are_bounded(name, clip, largest):
    optimizer = tf_lsq.prepare_optimizer(OPTIMIZERS[name](0.01), clip)
    found = moved(optimizer, [9.0, -9.0, 9.0, 9.0])
    expected = [0.01 * largest, -0.01 * largest, 0.01 * largest, 0.09]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_high_learning_rates_move_steps_no_further(name):
    schedules = keras.optimizers.schedules
    schedule = schedules.PiecewiseConstantDecay([0], [0.001, 0.4])
    optimizer = tf_lsq.prepare_optimizer(OPTIMIZERS[name](schedule), 0.5)
    variables = [tf.Variable(1.0, name=name) for name in NAMES]
    for expected in (0.0005, 0.005):
        before = [float(v) for v in variables]
        optimizer.apply_gradients([(tf.constant(9.0), v) for v in variables])
        found = [b - float(v) for b, v in zip(before, variables, strict=True)]
        np.testing.assert_allclose(found[:3], expected, rtol=1e-4)
    assert found[3] == pytest.approx(3.6, rel=1e-4)
    # Gradients within the bound are not reduced.
    optimizer = tf_lsq.prepare_optimizer(OPTIMIZERS[name](0.1))
    assert moved(optimizer, [0.05] * 4)[0] == pytest.approx(0.005, rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clipping", ["global_clipnorm", "clipnorm", "clipvalue"])
def test_clipping_acts_on_weights_as_if_there_were_no_steps(name, clipping):
    def prepared():
        optimizer = OPTIMIZERS[name](0.01, **{clipping: 0.5})
        return tf_lsq.prepare_optimizer(optimizer)

    found = moved(prepared(), [0.9, 50.0, 0.0, 0.4])
    np.testing.assert_allclose(found, [0.009, 0.01, 0.0, 0.004], rtol=1e-4, atol=1e-7)
    assert moved(prepared(), [0.9, 50.0, 0.0, 4.0])[3] == pytest.approx(0.005, rel=1e-4)


def test_a_prepared_optimizer_can_be_rebuilt_and_released():
    optimizer = tf_lsq.prepare_optimizer(keras.optimizers.SGD(0.1))
    restored = keras.optimizers.SGD.from_config(optimizer.get_config())
    assert moved(restored, [9.0] * 4)[0] == pytest.approx(0.9)
    tf_lsq.prepare_optimizer(optimizer, None)
    assert moved(optimizer, [9.0] * 4)[0] == pytest.approx(0.9)


def test_an_optimizer_that_was_given_a_bound_keeps_it():
    for clip, largest in ((0.25, 0.25), (None, 9.0), ("model", 1.0)):
        optimizer = tf_lsq.recipe(4, 10, step_clip=clip, schedule="constant")
        optimizer = tf_lsq.prepare_optimizer(optimizer["optimizer"])
        found = moved(optimizer, [9.0, -9.0, 9.0, 9.0])
        assert found[0] == pytest.approx(0.01 * largest)


@pytest.mark.parametrize("wrong", [0.0, -1.0, "high", True])
def test_invalid_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="`step_clip` must be a positive number"):
        tf_lsq.prepare_optimizer(keras.optimizers.SGD(0.1), wrong)
    with pytest.raises(ValueError, match="`step_clip` must be a positive number"):
        tf_lsq.quantize_model(tiny.residual(), step_clip=wrong)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 64)


def trained_factors(student):
    variables = student.trainable_variables
    return {v.name: v.numpy() for v in variables if "_step" in v.name}


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_the_model_owns_the_bound_and_is_saved_with_it(kind, data, tmp_path):
    student = tf_lsq.quantize_model(tiny.residual(), step_clip=0.5)
    student.rounds_biases = False
    student.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    student.fit(*data, verbose=0)
    student.save(tmp_path / f"student{kind}")
    loaded = keras.models.load_model(tmp_path / f"student{kind}")
    assert loaded.step_clip == 0.5 and not loaded.rounds_biases
    recipe = tf_lsq.recipe(4, 10)
    loaded.compile(**recipe)
    assert loaded.step_clip == 0.5
    loaded.compile(**tf_lsq.recipe(4, 10, step_clip=None))
    assert loaded.step_clip is None


def test_steps_move_by_the_bound_at_most(data):
    huge = keras.losses.MeanSquaredError()
    for clip in (0.5, None):
        student = tf_lsq.quantize_model(tiny.residual(), step_clip=clip)
        student.compile(keras.optimizers.SGD(1e-3), lambda y, p: 1e6 * huge(0.0 * p, p))
        tf_lsq.calibrate(student, data[0])
        student.range_watch = None
        student.train_on_batch(*data)
        moves = [abs(f - 1).max() for f in trained_factors(student).values()]
        assert (max(moves) <= 0.5e-3 * (1 + 1e-3)) == (clip is not None)
        assert max(moves) >= 0.49e-3


def test_a_loss_scale_does_not_change_what_is_bounded(data):
    """The bound must apply to gradients without the scale."""
    found = {}
    for policy in ("float32", "mixed_float16"):
        keras.mixed_precision.set_global_policy(policy)
        try:
            keras.utils.set_random_seed(0)
            student = tf_lsq.quantize_model(tiny.residual())
            loss = keras.losses.SparseCategoricalCrossentropy()
            optimizer = keras.optimizers.SGD(0.01)
            if policy != "float32":
                optimizer = keras.mixed_precision.LossScaleOptimizer(
                    optimizer, initial_scale=2.0**8
                )
            student.compile(optimizer, loss, loss_weights=30.0)
            tf_lsq.calibrate(student, data[0])
            student.range_watch = None
            student.train_on_batch(*data)
            moves = [np.ravel(f - 1) for f in trained_factors(student).values()]
            found[policy] = 100 * np.concatenate(moves)
        finally:
            keras.mixed_precision.set_global_policy("float32")
    one, other = found.values()
    at_bound = np.abs(one) > 0.9
    assert 0 < at_bound.sum() < len(one)
    assert np.abs(other).max() <= 1 + 1e-6
    np.testing.assert_allclose(other[at_bound], one[at_bound], rtol=0.2)
    # If the scale were included, every gradient would be at the bound.
    assert np.abs(other[~at_bound]).max() < 0.9


def test_global_clipnorm_updates_weights_as_if_there_were_no_steps(data):
    """Compares with the same training in which no step is trained."""
    found = []
    for frozen in (False, True):
        keras.utils.set_random_seed(0)
        student = tf_lsq.quantize_model(tiny.residual(), weight_bits=8)
        tf_lsq.calibrate(student, data[0])
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1e-3)
        variables = student.trainable_variables
        if frozen:
            variables = [v for v in variables if "_step" not in v.name]
        student.compile(optimizer, "sparse_categorical_crossentropy")
        with tf.GradientTape() as tape:
            value = keras.losses.sparse_categorical_crossentropy(
                data[1], student(data[0], training=True)
            )
        pairs = zip(tape.gradient(value, variables), variables, strict=True)
        before = {v.name: v.numpy() for v in variables}
        student.optimizer.apply_gradients(pairs)
        changes = [(v.name, v.numpy() - before[v.name]) for v in variables]
        found.append([change for name, change in changes if "_step" not in name])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-8)
    norm = np.sqrt(sum((change**2).sum() for change in found[1]))
    assert norm == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True),
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.25),
        lambda: legacy.Adam(0.01),
        lambda: legacy.Adagrad(0.01, initial_accumulator_value=0.25),
    ],
)
def test_calibrate_resets_the_optimizer_state_of_steps(make, data):
    student = tf_lsq.quantize_model(tiny.residual())
    student.compile(make(), "sparse_categorical_crossentropy")
    student.fit(0.1 * data[0], data[1], epochs=3, verbose=0)
    optimizer = student.optimizer
    slots_of = _legacy_slots if isinstance(optimizer, legacy.Optimizer) else _slots
    learned = trained_variables(p for p in quantization_points(student))

    def slots(variables):
        found = [(v, *slot) for v in variables for slot in slots_of(optimizer, v)]
        assert found
        return [
            slot.numpy() - (variable.numpy() if "average" in name else 0.0)
            for variable, name, slot in found
        ]

    others = [v for v in student.trainable_variables if "_step" not in v.name]
    kept = slots(others)
    assert any(slot != first_slot(optimizer) for slot in slots(learned))
    tf_lsq.calibrate(student, data[0])
    assert set(slots(learned)) == {first_slot(optimizer)}
    for one, other in zip(kept, slots(others), strict=True):
        np.testing.assert_array_equal(one, other)


def first_slot(optimizer):
    return 0.25 if "Adagrad" in type(optimizer).__name__ else 0.0


def test_slots_are_reset_to_the_optimizers_initial_values():
    variables = [tf.Variable(1.0, name=name) for name in NAMES]
    optimizer = keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.25)
    optimizer.apply_gradients([(tf.constant(3.0), v) for v in variables])
    reset_slots(optimizer, variables[:1])
    found = [float(slot) for slot in optimizer._accumulators]
    assert found == [0.25, 9.25, 9.25, 9.25]


def test_the_factor_of_a_capped_step_does_not_wind_up():
    inputs = layers.Input((8, 8, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(8, 3)(inputs))
    outputs = layers.Dense(1)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    model.layers[1].kernel.assign(model.layers[1].kernel * 40)
    student = tf_lsq.quantize_model(model)
    student.compile(keras.optimizers.Adam(1e-2), "mse")
    x = np.random.default_rng(0).uniform(0, 1, (32, 8, 8, 3)).astype(np.float32)
    student.fit(x, np.full((32, 1), 60.0), epochs=100, verbose=0)
    [point] = [p for p in quantization_points(student) if p.quantizer.max_value]
    factor, unit = (float(point.step_variables[n]) for n in ("step", "unit"))
    assert factor * unit <= point.quantizer._max_step() * (1 + 1e-6)
    assert [v.name for v in trained_variables([point])] == [
        point.step_variables["step"].name
    ]
