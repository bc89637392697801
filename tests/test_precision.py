"""Mixed precision and XLA: other kernels train the same."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
import tflite_export
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.lsq import fast
from tf_lsq.training import quantization_points, wrapped_layers

layers = keras.layers
# Policy -> the relative rounding error of its 16-bit type.
POLICIES = {"mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}


@pytest.fixture(params=POLICIES)
def policy(request):
    logging.getLogger("tf_keras").setLevel(logging.ERROR)
    keras.mixed_precision.set_global_policy(request.param)
    yield keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def data(rng):
    x = rng.uniform(0, 1, (32, 6, 6, 3)).astype(np.float32)
    return x, rng.integers(0, 4, 32)


def network():
    inputs = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(4, dtype="float32", name="head")(x))


def compiled(student, optimizer="adam", **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(optimizer, loss, **options)
    return student


def trained(data, *, plain=False, **options):
    """The model after the first training steps, and their losses."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    # With the paper's initial steps, no value lies exactly on the bound of a range.
    student = tf_lsq.quantize_model(network(), step_init="lsq")
    compiled(student, keras.optimizers.Adam(1e-2), **options)
    student.use_plain_op(plain)
    losses = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
    )
    student.fit(*data, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    return student, losses


# --- Mixed precision -----------------------------------------------------------


@pytest.mark.parametrize("quantize", [lsq.fake_quantize, fast.fake_quantize])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("step_shape", [(), (1, 8)])
def test_gradients_of_16_bit_values_match_float32(
    quantize, bits, step_shape, policy, rng
):
    dtype = policy.compute_dtype
    values, upstream = (tf.cast(rng.normal(size=(64, 8)), dtype) for _ in range(2))
    step = tf.fill(step_shape, 1.5 / 2 ** (bits - 1))
    found = []
    for kind in (dtype, "float32"):
        x, weight = tf.cast(values, kind), tf.cast(upstream, kind)
        with tf.GradientTape() as tape:
            tape.watch([x, step])
            y = quantize(x, step, lsq.weight_range(bits), gradient_scale=0.1)
            assert y.dtype == kind
            loss = tf.reduce_sum(tf.cast(y, "float32") * tf.cast(weight, "float32"))
        of_x, of_step = tape.gradient(loss, [x, step])
        assert of_x.dtype == kind and of_step.dtype == "float32"
        found.append([tf.cast(y, "float32"), tf.cast(of_x, "float32"), of_step])
    for (one, other), tolerance in zip(
        zip(*found, strict=True), (POLICIES[policy.name], 0, 1e-6), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=tolerance)


def test_kernels_and_inputs_have_the_codes_that_are_exported(policy, rng):
    inputs = layers.Input((32,), name="features")
    model = keras.Model(inputs, layers.Dense(32, use_bias=False, name="dense")(inputs))
    student = tf_lsq.quantize_model(model)
    x = rng.uniform(-1, 1, (64, 32)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    [wrapper] = wrapped_layers(student)
    point = student.get_layer("quantize_features")
    kernel = tf.cast(wrapper(tf.eye(32)), tf.float32)
    np.testing.assert_array_equal(tf.round(kernel / wrapper.step), wrapper.codes())
    codes = lsq.quantize(x, point.step, point.integer_range)
    np.testing.assert_array_equal(tf.round(point(tf.constant(x)) / point.step), codes)


def test_layers_compute_in_the_dtype_of_the_float_model(policy):
    model = network()
    keras.mixed_precision.set_global_policy("float32")
    student = tf_lsq.quantize_model(model)
    expected = {"stem": policy.compute_dtype, "conv": policy.compute_dtype}
    found = {w.layer.name: w.compute_dtype for w in wrapped_layers(student)}
    assert found.pop("head") == "float32"
    assert found == expected
    assert student.output.dtype == tf.float32
    again = keras.Model.from_config(student.get_config())
    assert [w.dtype_policy.name for w in wrapped_layers(again)] == [
        w.dtype_policy.name for w in wrapped_layers(student)
    ]


def test_mixed_precision_training_learns_what_float32_learns(policy, data, tmp_path):
    student, losses = trained(data)
    scaled = isinstance(student.optimizer, keras.mixed_precision.LossScaleOptimizer)
    assert scaled == (policy.name == "mixed_float16")
    assert all(v.dtype == tf.float32 for v in student.weights)
    factors = [v for v in student.trainable_variables if v.name.endswith("_step:0")]
    assert len(factors) == len(quantization_points(student)) + len(
        wrapped_layers(student)
    )
    assert all((factor.numpy() != 1.0).all() for factor in factors)
    student.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(student.optimizer)
    np.testing.assert_array_equal(loaded(data[0]), student(data[0]))
    for one, other in zip(
        loaded.optimizer.variables, student.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(one, other)
    keras.mixed_precision.set_global_policy("float32")
    expected, expected_losses = trained(data)
    assert losses == pytest.approx(expected_losses, rel=0.01)
    assert tf_lsq.steps(student) == pytest.approx(tf_lsq.steps(expected), rel=0.05)


def test_a_model_trained_in_mixed_precision_is_exported(policy, data, tmp_path):
    inputs = layers.Input((6, 6, 3), name="image")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    x = layers.LayerNormalization(name="in_float")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="swish")(x)
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))
    x = layers.Dense(4, dtype="float32")(x)
    student = tf_lsq.quantize_model(
        keras.Model(inputs, x), overrides={"in_float": "float"}
    )
    compiled(student).fit(*data, verbose=0)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, verbose=False)
    assert "CAST" not in str(report)
    found = tflite_export.verify_tflite(path, student, data[0], verbose=False)
    assert found.off_by_one < 0.02


def test_16_bit_outputs_are_distilled_in_float32(policy, data):
    def losses():
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        inputs = layers.Input((6, 6, 3))
        x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(inputs))
        teacher = keras.Model(inputs, layers.Dense(4)(x))
        student = tf_lsq.quantize_model(teacher, weight_bits=2, activation_bits=2)
        distiller = tf_lsq.Distiller(student, teacher)
        distiller.compile(**tf_lsq.recipe(2, 8))
        tf_lsq.calibrate(student, data)
        assert distiller(data[0]).dtype == teacher.compute_dtype
        logs = distiller.fit(*data, batch_size=8, shuffle=False, verbose=0).history
        return {name: value[0] for name, value in logs.items()}

    found = losses()
    keras.mixed_precision.set_global_policy("float32")
    expected = losses()
    rounding = POLICIES[policy.name]
    for name, loss in expected.items():
        assert found[name] == pytest.approx(loss, rel=50 * rounding, abs=10 * rounding)


# --- XLA -------------------------------------------------------------------------


def xla_compiles():
    try:
        tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))
    except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError, ValueError):
        return False
    return True


def test_xla_learns_what_eager_execution_learns(data):
    if not xla_compiles():
        pytest.skip("this TensorFlow has no XLA compiler for the CPU")
    eager, eager_losses = trained(data, plain=True, run_eagerly=True)
    compiled_by_xla, losses = trained(data, jit_compile=True)
    assert compiled_by_xla.jit_compile
    assert losses == pytest.approx(eager_losses, rel=1e-5)
    found, expected = tf_lsq.steps(compiled_by_xla), tf_lsq.steps(eager)
    assert found == pytest.approx(expected, rel=1e-4)
