"""LSQ+: learned offsets, their gradients, initial values, and exact zero points."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from harness import tiny
from hypothesis import given
from hypothesis import strategies as st

import tf_lsq
import tflite_export
from tf_lsq import lsq
from tf_lsq._compat import keras
from tf_lsq.lsq import lsq_plus
from tf_lsq.training import quantization_points
from tflite_export.freezing import reader

layers = keras.layers


def reference(x, step, offset, bits, upstream):
    """Values and gradients of x, step and offset in float64."""
    x, upstream = (np.asarray(a, np.float64) for a in (x, upstream))
    levels = 2**bits - 1
    q_min = np.clip(np.rint(offset / step), 1 - levels, 0)
    v = x / step
    codes = np.rint(np.clip(v, q_min, q_min + levels))
    end = 1 + 2.0**-22
    inside = (v >= q_min * end) & (v <= (q_min + levels) * end)
    per_value = np.where(inside, codes - v, codes - q_min)
    return (
        codes * step,
        upstream * inside,
        (upstream * per_value).sum(),
        (upstream * ~inside).sum(),
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("offset", [-7.3, -0.6, 0.0, 1.0, -1000.0])
def test_lsq_plus_values_and_gradients_match_float64(bits, offset, rng):
    step, scale = 2.0**-3, 0.25
    x = rng.normal(0, 4, 500).astype(np.float32)
    upstream = rng.normal(size=500).astype(np.float32)
    values = [tf.constant(v, tf.float32) for v in (x, step, offset)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        y = lsq_plus.fake_quantize(*values, bits, gradient_scale=scale)
        total = tf.reduce_sum(y * upstream)
    found = [y, *tape.gradient(total, values)]
    expected = reference(x, step, offset, bits, upstream)
    np.testing.assert_array_equal(found[0], expected[0].astype(np.float32))
    np.testing.assert_array_equal(found[1], expected[1].astype(np.float32))
    np.testing.assert_allclose(found[2], scale * expected[2], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[3], scale * expected[3], rtol=1e-5, atol=1e-4)


@given(
    st.floats(-100, 100, width=32),
    st.floats(0.0625, 8, width=32),
    st.integers(2, 8),
)
def test_the_range_has_all_levels_and_contains_0_and_1(offset, step, bits):
    found = lsq_plus.offset_range(tf.constant(offset), tf.constant(step), bits)
    assert float(found.q_max - found.q_min) == 2**bits - 1
    assert found.q_min <= 0 and found.q_max >= 1
    assert float(found.q_min) == round(float(found.q_min))


def test_an_unsigned_tensor_is_quantized_as_in_lsq(rng):
    x = rng.uniform(0, 3, 200).astype(np.float32)
    step = tf.constant(0.2)
    expected = lsq.fake_quantize(x, step, lsq.activation_range(4, signed=False))
    found = lsq_plus.fake_quantize(x, step, tf.constant(0.0), 4)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_initial_values_beat_signed_ranges_on_swish(bits, rng):
    x = tf.nn.silu(rng.normal(0, 2, 20000).astype(np.float32))

    def error(values):
        return float(tf.reduce_mean(tf.square(values - x)))

    signed = lsq.activation_range(bits, signed=True)
    symmetric = error(lsq.fake_quantize(x, lsq.initial_step(x, signed), signed))
    errors = {
        method: error(
            lsq_plus.fake_quantize(
                x, *lsq_plus.initial_values(x, bits, method=method), bits
            )
        )
        for method in ("mse", "max")
    }
    assert errors["mse"] <= errors["max"]
    assert errors["mse"] < 0.8 * symmetric


def test_initial_values_account_for_all_channels(rng, monkeypatch):
    """The tensors have more values than the sample that is searched."""
    scales = np.geomspace(0.01, 4, 32).astype(np.float32)
    x = tf.nn.silu(rng.normal(0, 2, (16, 16, 16, 32)).astype(np.float32))

    def error(x):
        found = lsq_plus.fake_quantize(x, *lsq_plus.initial_values(x, 4), 4)
        return float(tf.reduce_mean(tf.square(found - x)))

    tensors = [x * order for order in (scales, scales[::-1], np.roll(scales, 16))]
    errors = [error(x) for x in tensors]
    monkeypatch.setattr(lsq_plus, "_SAMPLE", 1 << 20)
    assert errors == pytest.approx([error(x) for x in tensors], rel=0.02)


def test_max_initial_values_cover_the_whole_range():
    x = tf.constant([-1.0, 0.0, 2.0])
    step, offset = lsq_plus.initial_values(x, 4, method="max")
    np.testing.assert_allclose([step, offset], [3 / 15, -1.0], rtol=1e-6)
    step, offset = lsq_plus.initial_values(tf.zeros(9), 4)
    np.testing.assert_allclose([step, offset], [1 / 15, 0.0])


def test_learned_offset_moves_under_sgd_as_if_it_were_the_variable():
    """The variable is a share of the range: SGD as in the paper, Adam in proportion."""
    unit, width = 0.02, 0.02 * 15
    factor = tf.Variable(-0.5)
    with tf.GradientTape() as tape:
        offset = lsq_plus.learned_offset(factor, tf.constant(unit), 4)
        loss = 3.0 * offset
    gradient = tape.gradient(loss, factor)
    moved = (factor - 0.1 * gradient) * width
    np.testing.assert_allclose(moved, -0.5 * width - 0.1 * 3.0, rtol=1e-6)


# --- In models -----------------------------------------------------------------------


def mobile(shape=(8, 8, 3)):
    """Swish, hard swish and a linear bottleneck with a shortcut."""
    inputs = layers.Input(shape, name="image")

    def conv(x, filters, size, strides=1):
        x = layers.Conv2D(filters, size, strides, "same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    x = layers.Activation("swish")(conv(inputs, 8, 3))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    y = y * tf.nn.relu6(y + 3.0) * (1.0 / 6.0)
    x = layers.Add()([x, conv(y, 8, 1)])
    x = conv(layers.Activation("swish")(conv(x, 16, 3, 2)), 8, 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="mobile")


@pytest.fixture
def data(rng):
    x = rng.uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 5, 64)


def trained(rng, data, bits, **options):
    model = tiny.randomize(mobile(), rng)
    student = tf_lsq.quantize_model(
        model,
        weight_bits=bits,
        activation_bits=bits,
        asymmetric_activations=True,
        **options,
    )
    student.compile(keras.optimizers.Adam(1e-3), tf_lsq.CrossEntropy(True))
    student.fit(*data, epochs=2, verbose=0)
    return student


def offsets(student):
    """Layer name -> smallest integer, for the points that learn it."""
    return {
        point.name: int(point.integer_range.q_min)
        for point in quantization_points(student)
        if point.quantizer.asymmetric
    }


@pytest.mark.parametrize(
    "bits", [8, 2, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (4, 3))]
)
def test_the_offset_is_the_files_zero_point(bits, rng, data, tmp_path):
    student = trained(rng, data, bits)
    found = offsets(student)
    assert len(set(found.values())) > 1  # Not the same signed range for all.
    q_min = found["quantize_image"]
    [point] = [p for p in quantization_points(student) if p.name == "quantize_image"]
    for storage in ("int8", "packed"):
        path = tmp_path / f"{storage}.tflite"
        tf_lsq.round_biases(student, storage)
        tflite_export.export_model(student, path, storage=storage, verbose=False)
        report = tflite_export.verify_tflite(path, student, data, verbose=False)
        assert report.max_code_difference <= 1
        assert report.off_by_one < 0.02
        shown = str(tflite_export.inspect_tflite(path))
        assert f"8 bits {'signed' if q_min == -128 else f'from {q_min}'}" in shown
        [end] = Interpreter(str(path)).get_input_details()
        scale, zero_point = end["quantization"]
        assert scale == pytest.approx(float(point.step))
        assert zero_point == 127 - int(point.integer_range.q_max)


def beginning_at_zero(rng):
    """A 2-bit swish with negative values, but no negative integer in its range."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Activation("swish", name="swish")(layers.Conv2D(8, 3)(inputs))
    x = layers.Conv2D(8, 3)(x)
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    student = tf_lsq.quantize_model(
        tiny.randomize(keras.Model(inputs, x), rng),
        weight_bits=2,
        activation_bits=2,
        asymmetric_activations=True,
    )
    x = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    assert 0 in [offsets(student)[name] for name in offsets(student) if "swish" in name]
    return student, x


def test_negative_values_are_clipped_if_the_range_starts_at_zero(rng, tmp_path):
    student, x = beginning_at_zero(rng)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, data=x, verbose=False)
    report = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert report.max_code_difference <= 1


def test_the_verifier_refuses_integers_that_training_cannot_produce(
    rng, tmp_path, monkeypatch
):
    student, x = beginning_at_zero(rng)
    monkeypatch.setattr(reader, "clipped_grid", lambda *_, **__: None)
    path = tmp_path / "model.tflite"
    with pytest.raises(tflite_export.VerificationError, match=r"integers are -\d+\.\."):
        tflite_export.export_model(student, path, data=x, verbose=False)
    assert not path.exists()


def test_offsets_train_and_are_not_decayed(rng, data):
    student = tf_lsq.quantize_model(
        tiny.randomize(mobile(), rng), asymmetric_activations=True
    )
    tf_lsq.calibrate(student, data)
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.5)
    student.compile(optimizer, tf_lsq.CrossEntropy(True))
    names = [v.name for v in student.trainable_variables if "_offset" in v.name]
    assert len(names) == len(offsets(student)) > 5
    before = {v.name: v.numpy() for v in student.trainable_variables}
    student.fit(*data, epochs=3, verbose=0)
    after = {v.name: v.numpy() for v in student.trainable_variables}
    assert [n for n in names if before[n] != after[n]]
    decayed = filter(optimizer._use_weight_decay, student.trainable_variables)
    assert not {v.name for v in decayed} & set(names)


def test_asymmetric_models_are_saved_and_diagnosed(rng, data, tmp_path):
    student = trained(rng, data, 4)
    student.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data[0]), student(data[0]))
    assert offsets(loaded) == offsets(student)
    callback = tf_lsq.Diagnostics(data=data)
    loaded.fit(*data, verbose=0, callbacks=[callback])
    for name in offsets(loaded):
        num_codes = 2 ** loaded.get_layer(name).num_bits
        np.testing.assert_array_equal(callback.codes[name], range(num_codes))
        assert callback.history["counts"][name][-1].sum() > 0


def test_points_that_cannot_be_negative_keep_their_range(data):
    student = tf_lsq.quantize_model(tiny.residual(), asymmetric_activations=True)
    tf_lsq.calibrate(student, data)
    for point in quantization_points(student):
        assert point.quantizer.asymmetric == (point.quantizer.signed is True)
        if point.absorbed_relu:
            assert point.integer_range.q_min == 0


def test_symmetric_targets_refuse_offsets():
    with pytest.raises(ValueError, match=r"zero points of 0.*asymmetric_activations"):
        tf_lsq.quantize_model(mobile(), target="symmetric", asymmetric_activations=True)
    with pytest.raises(ValueError, match="must be signed"):
        tf_lsq.LSQActivationQuantizer(4, signed=False, asymmetric=True)
