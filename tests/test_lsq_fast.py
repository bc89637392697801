"""The fast form of the operator, compared with the plain form and float64."""

from __future__ import annotations

import types

import numpy as np
import pytest
import tensorflow as tf
from harness import reference, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lsq_plain import RANGES

import tf_lsq
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.layers import LSQWrapper, QuantizationPoint, borrowed_sums, loans
from tf_lsq.layers.loans import find_loans
from tf_lsq.lsq import fast
from tf_lsq.training import quantization_points

layers = keras.layers


def run(module, x, step, integer_range, upstream, scale=1.0):
    x, step = tf.constant(x), tf.constant(step)
    with tf.GradientTape() as tape:
        tape.watch([x, step])
        y = module.fake_quantize(x, step, integer_range, gradient_scale=scale)
    dx, dstep = tape.gradient(y, [x, step], output_gradients=tf.constant(upstream))
    return y.numpy(), dx.numpy(), dstep.numpy()


def near(v, integer_range):
    """Marks quotients that are within float32 rounding of a tie or a bound."""
    room = 4 * np.spacing(np.float32(np.abs(v) + 1))
    tie = np.abs(v - np.floor(v) - 0.5) <= room
    bounds = np.float32([integer_range.q_min, integer_range.q_max])
    return tie | (np.abs(v[..., None] - bounds) <= room[..., None]).any(-1)


@pytest.mark.parametrize("integer_range", RANGES, ids=str)
@pytest.mark.parametrize("step", [0.25, 0.1037, 3.3e-5, 811.0])
def test_the_fast_form_matches_float64_per_tensor(integer_range, step, rng):
    step = np.float32(step)
    low, high = integer_range.q_min - 3, integer_range.q_max + 3
    x = rng.uniform(low, high, (600, 256)).astype(np.float32) * step
    upstream = rng.normal(size=x.shape).astype(np.float32)
    y, dx, dstep = run(fast, x, step, integer_range, upstream, 0.125)
    codes, inside, per_value = reference.lsq(
        x, step, integer_range.q_min, integer_range.q_max
    )
    clear = ~near(x / step, integer_range)
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(np.rint(y / step)[clear], codes[clear])
    assert np.abs(np.rint(y / step) - codes).max() <= 1
    np.testing.assert_allclose(y, np.rint(y / step) * step, rtol=3e-7)
    np.testing.assert_array_equal(dx[clear], (upstream * inside)[clear])
    terms = 0.125 * upstream.astype(np.float64) * per_value
    # A tie that rounds the other way changes the sum by one term.
    others = np.abs(upstream[~clear]).sum() * 0.125 * integer_range.q_max
    size = np.sqrt(np.square(terms).sum())
    np.testing.assert_allclose(dstep, terms.sum(), atol=1e-4 * size + others)


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("step", [2.0**-9, 0.1037, 3.3e-7])
def test_both_forms_match_float64_beyond_8_bits(bits, signed, step, rng):
    """A code of 16 bits has 8 bits of a float32 left: few values are near a tie."""
    integers, step = lsq.activation_range(bits, signed=signed), np.float32(step)
    x = rng.uniform(integers.q_min - 3, integers.q_max + 3, (600, 256))
    x = (x * step).astype(np.float32)
    codes, inside, per_value = reference.lsq(x, step, integers.q_min, integers.q_max)
    clear = ~near(x / step, integers)
    assert clear.mean() > 0.96
    upstream = rng.normal(size=x.shape).astype(np.float32)
    size = np.sqrt(np.square(upstream * per_value).sum())
    for module in (fast, lsq):
        y, dx, dstep = run(module, x, step, integers, upstream)
        found = np.rint(y / step)
        np.testing.assert_array_equal(found[clear], codes[clear])
        assert np.abs(found - codes).max() <= 1
        assert found.min() >= integers.q_min and found.max() <= integers.q_max
        np.testing.assert_allclose(y, found * step, rtol=3e-7)
        np.testing.assert_array_equal(dx[clear], (upstream * inside)[clear])
        rounded = np.abs(upstream[~clear]).sum()  # Ties that round the other way.
        expected = (upstream.astype(np.float64) * per_value).sum()
        np.testing.assert_allclose(dstep, expected, atol=1e-3 * size + rounded)


@pytest.mark.parametrize("integer_range", RANGES[:7], ids=str)
@pytest.mark.parametrize("step_shape", [(1, 1, 1, 6), (1, 1, 5, 6)], ids=str)
def test_both_forms_match_per_channel(integer_range, step_shape, rng):
    step = rng.uniform(0.05, 0.5, step_shape).astype(np.float32)
    low, high = integer_range.q_min - 3, integer_range.q_max + 3
    x = rng.uniform(low, high, (3, 3, 5, 6)).astype(np.float32) * step
    x.flat[:3] = 0.0, step.flat[1] * low, step.flat[2] * high
    upstream = rng.normal(size=x.shape).astype(np.float32)
    assert fast.is_supported(tf.constant(x), tf.constant(step), integer_range)
    y, dx, dstep = run(fast, x, step, integer_range, upstream)
    expected = run(lsq, x, step, integer_range, upstream)
    # Both forms use the same quotient, so codes and mask are equal everywhere.
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(dx, expected[1])
    assert dstep.shape == step_shape
    np.testing.assert_allclose(dstep, expected[2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("module", [lsq, fast])
@pytest.mark.parametrize("integer_range", RANGES, ids=str)
def test_the_last_grid_points_are_inside(module, integer_range, rng):
    """Regardless of how the step, computed from the maximum, was rounded."""
    one = np.ones(1, np.float32)
    for end in (integer_range.q_min, integer_range.q_max):
        for largest in rng.uniform(0.01, 100, 4).astype(np.float32):
            step = largest / np.float32(abs(end) or 1)
            x = np.sign(np.float32(end)) * largest * one
            _, dx, dstep = run(module, x, step, integer_range, one)
            assert dx == (1.0 if end else 0.0)  # A ReLU has no gradient at 0.
            assert abs(dstep) <= 1e-6 * max(abs(end), 1)


@pytest.mark.parametrize("module", [lsq, fast])
@pytest.mark.parametrize("integer_range", RANGES, ids=str)
def test_values_beyond_the_last_grid_points_count_as_clipped(module, integer_range):
    one = np.ones(1, np.float32)
    for end in (integer_range.q_min, integer_range.q_max):
        beyond = np.copysign(1e-5, end or -1) * max(abs(end), 1)
        x = np.float32(0.5 * (end + beyond)) * one
        _, dx, dstep = run(module, x, np.float32(0.5), integer_range, one)
        assert dx == 0.0
        assert dstep == end


def test_is_supported_rejects_other_step_shapes_and_dtypes():
    x, integer_range = tf.zeros((3, 3, 5, 6)), lsq.weight_range(4)

    def supported(step_shape, integer_range=integer_range, dtype=tf.float32):
        return fast.is_supported(x, tf.ones(step_shape, dtype), integer_range)

    assert supported(()) and supported((1, 1, 1, 6)) and supported((1, 1, 5, 6))
    assert not supported((1, 1, 5, 1)) and not supported((1, 3, 1, 6))
    assert not supported((), dtype=tf.float64)
    unknown = lsq.IntegerRange(tf.constant(-8.0), tf.constant(7.0))
    assert not supported((), unknown)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
    st.floats(2.0**-10, 10.0, width=32),
    st.sampled_from(RANGES),
)
def test_the_fast_form_keeps_the_properties_of_lsq(numbers, step, integer_range):
    x, step = tf.constant(numbers, tf.float32), tf.constant(step, tf.float32)
    y = fast.fake_quantize(x, step, integer_range)
    codes = np.rint(y / step)
    assert np.abs(codes - lsq.quantize(x, step, integer_range)).max() <= 1
    assert codes.min() >= integer_range.q_min and codes.max() <= integer_range.q_max
    # Quantizing twice changes nothing, in either form.
    np.testing.assert_array_equal(lsq.quantize(y, step, integer_range), codes)
    again = fast.fake_quantize(y, step, integer_range)
    np.testing.assert_array_equal(np.rint(again / step), codes)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_16_bit_values_are_computed_in_float32(dtype, rng):
    x = tf.constant(rng.normal(size=(40, 64)), dtype)
    upstream = tf.constant(rng.normal(size=(40, 64)), dtype)
    found = run(fast, x, 0.2, lsq.weight_range(4), upstream)
    expected = run(lsq, x, 0.2, lsq.weight_range(4), upstream)
    assert found[0].dtype == found[1].dtype == dtype.as_numpy_dtype
    assert found[2].dtype == np.float32
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-4)


@pytest.fixture
def trained(rng):
    """A network that was trained for one step, and its batch."""
    model = tiny.randomize(tiny.residual(), rng)
    x = rng.normal(size=(32, 8, 8, 3)).astype(np.float32)
    labels = rng.integers(0, 5, 32)
    student = tf_lsq.quantize_model(model)
    student.compile("sgd", "sparse_categorical_crossentropy")
    student.fit(x, labels, verbose=0)
    return student, x, labels


def step_gradients(student, x, labels):
    """Returns the gradients of activation steps by name: computed, and in float64.

    Both are relative to the root of the sum of squares of their terms, which cancel.
    """
    exact, squares, calls = {}, {}, []

    def recording(original):
        def fake_quantize(values, step, integer_range, *, gradient_scale=1.0, **kw):
            name = calls[-1]

            @tf.custom_gradient
            def record(y):
                def gradient(upstream):
                    _, _, per_value = reference.lsq(
                        values.numpy(),
                        step.numpy(),
                        integer_range.q_min,
                        integer_range.q_max,
                    )
                    terms = upstream.numpy().astype(np.float64) * per_value
                    terms *= gradient_scale
                    exact[name] = exact.get(name, 0.0) + terms.sum()
                    squares[name] = squares.get(name, 0.0) + (terms**2).sum()
                    return upstream

                return y, gradient

            kw["gradient_scale"] = gradient_scale
            return record(original(values, step, integer_range, **kw))

        return fake_quantize

    def named(original):
        def call(layer, *args, **kwargs):
            calls.append(layer.name)
            return original(layer, *args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module in (fast, lsq):
            recorder = recording(module.fake_quantize)
            patch.setattr(module, "fake_quantize", recorder)
        for cls in (QuantizationPoint, LSQWrapper):
            patch.setattr(cls, "call", named(cls.call))
        learned = [p for p in quantization_points(student) if p.step_variables]
        with tf.GradientTape() as tape:
            value = keras.losses.sparse_categorical_crossentropy(
                labels, student(x, training=True)
            )
        factors = [point.step_variables["step"] for point in learned]
        gradients = tape.gradient(value, factors)
    found = {
        point.name: float(gradient) * float(point.step_variables["unit"])
        for point, gradient in zip(learned, gradients, strict=True)
    }
    sizes = {name: max(squares[name] ** 0.5, 1e-30) for name in found}
    return (
        {name: found[name] / size for name, size in sizes.items()},
        {name: exact[name] / size for name, size in sizes.items()},
    )


def test_step_gradients_of_a_training_network_match_float64(trained, monkeypatch):
    """Within 1e-3 of float64 in the fast form, within 1e-5 in the plain one."""
    student, x, labels = trained
    lent = find_loans(student)
    assert sum(bool(loan.kernels) for loan in lent) > 2
    assert sum(loan.batch_norm is not None for loan in lent) > 2
    found, expected = step_gradients(student, x, labels)
    assert len(found) > 5
    for name in found:
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
    with monkeypatch.context() as patch:
        patch.setattr(loans, "find_loans", lambda model: [])
        found, expected = step_gradients(student, x, labels)
    for name in found:
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
    student.use_plain_op()
    assert not find_loans(student)
    found, expected = step_gradients(student, x, labels)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], 1e-5, err_msg=name)


def loans_by_name(student):
    return {
        loan.point.name: (
            sorted(layer.name for layer in loan.kernels),
            loan.batch_norm and loan.batch_norm.name,
        )
        for loan in find_loans(student)
    }


def branched(**options):
    """Returns a calibrated network: conv, batch norm, ReLU, and two convs after it."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="norm", scale=options.pop("gamma", True))(x)
    x = layers.ReLU(name="relu")(x)
    left = layers.Conv2D(8, 3, name="left", **options)(x)
    right = layers.Conv2D(8, 3, name="right")(x)
    student = tf_lsq.quantize_model(keras.Model(inputs, [left, right]))
    tf_lsq.calibrate(student, np.random.default_rng(0).uniform(size=(2, 8, 8, 3)))
    return student


def test_all_kernels_that_read_a_tensor_lend_their_sums():
    student = branched()
    loans = loans_by_name(student)
    assert loans["relu"] == (["left", "right"], "norm")
    assert loans["quantize_image"] == (["stem"], None)


def test_incomplete_sums_are_not_borrowed():
    assert loans_by_name(branched(gamma=False))["relu"][1] is None
    frozen = branched(trainable=False)
    assert loans_by_name(frozen)["relu"] == ([], "norm")
    # A reader that is not a kernel.
    student = branched()
    student.add_loss(tf.reduce_mean(student.get_layer("relu").output))
    assert loans_by_name(student)["relu"] == ([], "norm")
    # The tensor is an output as well.
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, name="stem", activation="relu")(inputs)
    student = tf_lsq.quantize_model(
        keras.Model(inputs, [x, layers.Conv2D(4, 3, name="head")(x)])
    )
    tf_lsq.calibrate(student, np.random.default_rng(0).uniform(size=(2, 8, 8, 3)))
    assert "quantize_stem" not in loans_by_name(student)


def test_a_layer_that_is_used_twice_lends_nothing():
    inputs = layers.Input((8, 8, 3), name="image")
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    norm = layers.BatchNormalization(name="norm")
    x = layers.ReLU(name="first")(norm(conv(inputs)))
    x = layers.ReLU(name="second")(norm(conv(x)))
    student = tf_lsq.quantize_model(keras.Model(inputs, x))
    tf_lsq.calibrate(student, np.random.default_rng(0).uniform(size=(2, 8, 8, 3)))
    assert not loans_by_name(student)


def test_replicas_and_mixed_precision_borrow_no_sums(trained, monkeypatch):
    student, _, _ = trained
    point = next(loan.point for loan in find_loans(student) if loan.kernels)
    with borrowed_sums(student):
        assert not point.own_sums.outputs
    with monkeypatch.context() as patch:
        two = types.SimpleNamespace(num_replicas_in_sync=2)
        patch.setattr(tf.distribute, "get_strategy", lambda: two)
        with borrowed_sums(student):
            assert point.own_sums.outputs
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        assert not find_loans(branched())
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_failed_call_leaves_layers_unchanged(trained):
    student, x, _ = trained
    with pytest.raises(ValueError, match=r"incompatible|expected"):
        student(x[:, :5, :, :2], training=True)
    for layer in student.layers:
        if isinstance(layer, QuantizationPoint):
            assert layer.own_sums == fast.OwnSums()
        if isinstance(layer, LSQWrapper):
            assert layer.lends_to is None
        if isinstance(layer, layers.BatchNormalization):
            assert isinstance(layer.gamma, tf.Variable)


@pytest.mark.parametrize("step_init", ["mse", "lsq", "max"])
def test_a_point_that_replaces_a_relu6_never_exceeds_6(step_init, rng):
    inputs = layers.Input((4,), name="features")
    x = layers.ReLU(6.0, name="relu6")(layers.Dense(4, name="dense")(inputs))
    x = layers.Dense(2, name="head")(layers.Dense(3, name="middle")(x))
    model = keras.Model(inputs, x)
    student = tf_lsq.quantize_model(model, step_init=step_init)
    assert layers.ReLU not in map(type, student.layers)
    tf_lsq.calibrate(student, 1000 * rng.normal(size=(64, 4)).astype(np.float32))
    point = student.get_layer("relu6")
    assert float(point.step) * 15 <= 6.000001
    point.step_variables["step"].assign(50.0)  # As an optimizer may do.
    np.testing.assert_allclose(point.step, 6 / 15, rtol=1e-6)
    values = tf.constant([[-1.0, 2.9, 6.1, 400.0]])
    with tf.GradientTape() as tape:
        tape.watch(values)
        y = point(values)
    np.testing.assert_allclose(y, [[0.0, 2.8, 6.0, 6.0]], rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(y, values), [[0, 1, 0, 0]])


@pytest.mark.parametrize("choice", ["plain", "xla"])
def test_every_form_trains_alike(choice, rng):
    model = tiny.randomize(tiny.residual(), rng)
    x = rng.normal(size=(32, 8, 8, 3)).astype(np.float32)
    labels = rng.integers(0, 5, 32)

    def trained(choice):
        student = tf_lsq.quantize_model(model)
        student.use_plain_op(choice == "plain")
        student.compile(
            keras.optimizers.SGD(1e-3, momentum=0.9),
            "sparse_categorical_crossentropy",
            jit_compile=choice == "xla",
        )
        tf_lsq.calibrate(student, x)
        student.range_watch = None  # Its decisions may depend on rounding.
        student.fit(x, labels, batch_size=16, shuffle=False, verbose=0)
        return student

    expected, found = trained("fast"), trained(choice)
    assert all(
        layer.plain_op == (choice != "fast")
        for layer in found.layers
        if hasattr(layer, "plain_op")
    )
    steps = tf_lsq.steps(found)
    for name, step in tf_lsq.steps(expected).items():
        np.testing.assert_allclose(steps[name], step, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found(x), expected(x), atol=2e-3)


def test_the_error_for_second_order_gradients_names_the_plain_form(rng):
    student = tf_lsq.quantize_model(
        keras.Sequential([keras.layers.Dense(3, input_shape=(4,))]), per_channel=True
    )
    x = tf.constant(rng.normal(size=(8, 4)), tf.float32)
    tf_lsq.calibrate(student, x)

    def penalty():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(tf.square(student(x, training=True)))
            value = tf.reduce_sum(tf.square(inner.gradient(total, x)))
        return outer.gradient(value, student.trainable_variables)

    for call in (penalty, tf.function(penalty)):
        with pytest.raises(Exception, match=r"Call `student.use_plain_op\(\)`"):
            call()
    student.use_plain_op()
    assert any(g is not None for g in penalty())


def test_no_digits_are_lost_to_tensor_float_32(rng, monkeypatch):
    """Checks, without a GPU, which ops the traced gradients would run on one."""
    model = keras.Sequential(
        [
            keras.layers.Conv2D(
                4, 3, strides=2, use_bias=False, input_shape=(64, 64, 16)
            ),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(4, 3, strides=4),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    student = tf_lsq.quantize_model(model)
    # Large enough for chunked sums, which are computed as matrix products.
    x = tf.constant(rng.normal(size=(8, 64, 64, 16)), tf.float32)
    tf_lsq.calibrate(student, x)
    steps = [v for v in student.trainable_variables if "_step" in v.name]

    def products():
        """The number of one-row matrix products, and the gradients."""

        @tf.function
        def gradients():
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(tf.square(student(x, training=True)))
            return tape.gradient(total, steps)

        graph = gradients.get_concrete_function().graph
        rows = [op for op in graph.get_operations() if op.type == "MatMul"]
        return sum(1 in op.outputs[0].shape[:1] for op in rows), gradients()

    count, expected = products()
    assert count > 0 and find_loans(student)
    devices = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind=None: devices("CPU")
    )
    assert not fast.matmul_keeps_digits()
    count, found = products()
    assert count == 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        assert fast.matmul_keeps_digits()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)
