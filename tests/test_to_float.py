"""`to_float`: a plain model with the numbers of a student."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from harness.keras3 import examples, student

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training import quantization_points


@pytest.mark.parametrize("build", [tiny.residual, tiny.pre_activation])
@pytest.mark.parametrize(
    "options",
    [
        {"weight_bits": 2, "activation_bits": 3},
        {"per_channel": True, "asymmetric_activations": True},
    ],
)
def test_it_computes_what_the_student_computes(build, options, rng, tmp_path):
    model = tiny.randomize(build(), rng)
    model, x = tiny.student_of(model, rng, **options)
    expected = model.predict(x, verbose=0)
    plain = tf_lsq.to_float(model)
    assert not quantization_points(plain)
    assert plain.output_names == model.output_names
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, atol=1e-5)
    plain.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-5)
    plain.export(tmp_path / "saved")
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    served = saved.serve(x)
    np.testing.assert_allclose(served, expected, atol=1e-5)
    for layer in plain.layers:
        if hasattr(layer, "kernel"):
            codes = layer.kernel.numpy() / tf_lsq.steps(model)[layer.name]
            np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)


def test_masks_stay(rng, tmp_path):
    inputs = keras.layers.Input((8, 6))
    x = keras.layers.Dense(8)(inputs)
    attend = keras.layers.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, attend(x, x, use_causal_mask=True))
    model, x = tiny.student_of(model, rng, (4, 8, 6))
    plain, unrounded = (
        tf_lsq.to_float(model, quantize_activations=rounded)
        for rounded in (True, False)
    )
    np.testing.assert_allclose(plain(x), model(x), atol=1e-5)
    plain.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-5)
    later = np.concatenate([x[:, :4], 0 * x[:, 4:]], axis=1)  # Seen by later tokens.
    for one in (plain, unrounded):
        np.testing.assert_allclose(one(x)[:, :4], one(later)[:, :4], atol=1e-6)


def test_activations_may_stay_unrounded(rng):
    model = tiny.randomize(tiny.residual(), rng)
    model, x = tiny.student_of(model, rng, weight_bits=8, activation_bits=2)
    found, expected = (
        tf_lsq.to_float(model, quantize_activations=rounded).predict(x, verbose=0)
        for rounded in (False, True)
    )
    assert np.abs(found - expected).max() > 0.001
    assert np.isfinite(found).all()


def test_students_of_keras_3_give_models_of_keras_3(tmp_path):
    model = student()
    x, _ = examples()
    with pytest.raises(RuntimeError, match="trained or calibrated"):
        tf_lsq.to_float(model)
    tf_lsq.calibrate(model, x)
    plain = tf_lsq.to_float(model)
    assert isinstance(plain, keras3.Model)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, atol=1e-6)
    plain.save(tmp_path / "plain.keras")
    loaded = keras3.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-6)
    plain.export(tmp_path / "saved")
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    served = saved.serve(x)
    np.testing.assert_allclose(served, expected, atol=1e-6)
    with pytest.raises(ValueError, match="must be a quantized model"):
        tf_lsq.to_float(plain)
