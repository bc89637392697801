"""Initial values of steps, and first batches that cannot provide them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training import is_calibrated, quantization_points, wrapped_layers


def test_kernel_steps_start_at_the_papers_value(model):
    student = tf_lsq.quantize_model(model, step_init="lsq")
    for wrapper in wrapped_layers(student):
        q_max = 127 if wrapper.quantizer.num_bits == 8 else 7
        expected = 2 * np.abs(wrapper.kernel.numpy()).mean() / np.sqrt(q_max)
        np.testing.assert_allclose(wrapper.step, expected, rtol=1e-5)


def test_the_first_batch_sets_the_activation_steps(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    assert not is_calibrated(student)
    student.train_on_batch(*data)
    assert is_calibrated(student)
    [point] = [p for p in quantization_points(student) if p.name == "quantize_image"]
    assert float(point.step) == pytest.approx(data[0].max() / 255, rel=0.05)
    assert point.integer_range.q_min == 0


def test_calibration_leaves_batch_norm_statistics_unchanged(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model), keras.optimizers.SGD(0.0))
    before = [v.numpy() for v in student.weights if "moving" in v.name]
    tf_lsq.calibrate(student, data)
    after = [v.numpy() for v in student.weights if "moving" in v.name]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["x", "pair", "dataset_x", "dataset_pair"])
def test_calibrate_takes_every_kind_of_data(kind, model, data):
    student = tf_lsq.quantize_model(model)
    slices = tf.data.Dataset.from_tensor_slices
    kinds = {
        "x": data[0],
        "pair": data,
        "dataset_x": slices(data[0]).batch(10),
        "dataset_pair": slices(data).batch(10),
    }
    tf_lsq.calibrate(student, kinds[kind])
    expected = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(expected, data[0])
    assert tf_lsq.steps(student) == tf_lsq.steps(expected)


def test_a_model_without_steps_refuses_to_predict(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    for call in (student.predict, student.evaluate, student):
        with pytest.raises(RuntimeError, match="calibrate"):
            call(data[0])
    function = tf.function(student)
    with pytest.raises(tf.errors.InvalidArgumentError, match="calibrate"):
        function(data[0])


def test_calibrate_refuses_what_it_cannot_use(model, data):
    with pytest.raises(ValueError, match="no quantization points"):
        tf_lsq.calibrate(model, data)
    student = tf_lsq.quantize_model(model)
    with pytest.raises(ValueError, match="num_examples"):
        tf_lsq.calibrate(student, data, num_examples=0)
    with pytest.raises(TypeError, match=r"tf\.data\.Dataset"):
        tf_lsq.calibrate(student, "images")


def test_the_calibrated_outputs_are_close_to_the_float_models(model, data):
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    tf_lsq.calibrate(student, data)
    difference = student.predict(data[0], verbose=0) - model.predict(data[0], verbose=0)
    assert np.abs(difference).max() < 0.05


def regression(values):
    """A model whose output is its input, and its input: `values`."""
    inputs = keras.Input(values.shape[1:])
    outputs = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="map")(inputs)
    return keras.Model(inputs, outputs), values


def peaks(rng):
    """Maps with one high value each: one in a hundred thousand."""
    values = rng.normal(0, 0.01, (64, 40, 40, 1))
    values[:, 5, 5] = rng.uniform(1, 1.2, (64, 1))
    return regression(values.astype(np.float32))


def far_from_zero(rng):
    """Values whose spread is small compared with their mean."""
    return regression(rng.uniform(20, 30, (64, 4, 4, 1)).astype(np.float32))


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("step_init", ["mse", "lsq", "max"])
@pytest.mark.parametrize("build", [peaks, far_from_zero])
def test_steps_of_outputs_cover_the_data(build, step_init, asymmetric, rng):
    model, x = build(rng)
    student = tf_lsq.quantize_model(
        model, step_init=step_init, asymmetric_activations=asymmetric
    )
    tf_lsq.calibrate(student, x)
    [_, point] = quantization_points(student)
    arriving = keras.Model(student.inputs, point.input)(x).numpy()
    step = float(point.step)
    assert np.abs(student(x) - arriving).max() <= 0.501 * step
    low, high = min(arriving.min(), 0), arriving.max()
    needed = (high - low) / 255 if asymmetric else max(high / 127, -low / 128)
    assert step == pytest.approx(needed, rel=1e-3)


@pytest.mark.parametrize("step_init", ["mse", "lsq"])
def test_a_calibrated_regression_is_as_exact_as_its_grid(step_init, rng):
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(30))
    model = keras.Model(inputs, outputs(inputs))
    x = rng.normal(0, 3, (256, 8)).astype(np.float32)
    student = tf_lsq.quantize_model(
        model, weight_bits=8, activation_bits=8, step_init=step_init
    )
    tf_lsq.calibrate(student, x)
    expected = model.predict_on_batch(x)
    difference = tiny.largest_difference(student.predict_on_batch(x), expected)
    # Half a step of 127 to the largest value, and the rounding of the input.
    assert difference < 0.05
    assert float(quantization_points(student)[-1].step) == pytest.approx(
        expected.max() / 127, rel=0.02
    )


def test_only_points_of_outputs_cover_everything(rng):
    """Through reshapes and concatenations too; fixed grids stay as they are."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4, name="inner")(inputs)
    flat = keras.layers.Reshape((2, 2))(keras.layers.Dense(4, name="flat")(x))
    parts = [keras.layers.Dense(3, name=name)(x) for name in ("left", "right")]
    joined = keras.layers.Concatenate(name="joined")(parts)
    scores = keras.layers.Softmax()(keras.layers.Dense(2, name="logits")(x))
    student = tf_lsq.quantize_model(keras.Model(inputs, [flat, joined, scores]))
    found = {
        p.name for p in quantization_points(student) if p.quantizer.step_init == "max"
    }
    assert found == {"quantize_flat", "quantize_joined"}


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("way", ["fit", "train_on_batch", "calibrate"])
def test_a_constant_first_batch_is_refused(value, way, model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    x = np.full_like(data[0], value)
    call = {
        "fit": lambda: student.fit(x, data[1], verbose=0),
        "train_on_batch": lambda: student.train_on_batch(x, data[1]),
        "calibrate": lambda: tf_lsq.calibrate(student, x),
    }[way]
    with pytest.raises(ValueError, match=rf"real data.*\[{value}\] everywhere"):
        call()
    student.fit(*data, verbose=0)
    assert is_calibrated(student)


def test_a_first_batch_with_nan_names_where_it_arises(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    x = data[0].copy()
    x[3, 2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite.*at: `image` \(and at \d+ points"):
        student.fit(x, data[1], verbose=0)
    assert not is_calibrated(student)
    student.fit(*data, verbose=0)


def test_tensors_of_zeros_in_the_first_batch_are_named(model, data):
    norm = model.layers[2]
    norm.gamma.assign(tf.zeros_like(norm.gamma))
    norm.beta.assign(-tf.ones_like(norm.beta))  # The ReLU after it gives zeros.
    student = tiny.compiled(tf_lsq.quantize_model(model))
    with pytest.warns(UserWarning, match=r"only zeros.*quantize_re_lu"):
        student.fit(*data, verbose=0)
    assert is_calibrated(student)


def test_a_refused_calibration_keeps_the_steps(model, data):
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, data)
    before = tf_lsq.steps(student)
    for wrong in (np.zeros_like(data[0]), np.full_like(data[0], np.nan)):
        with pytest.raises(ValueError):
            tf_lsq.calibrate(student, wrong)
    assert tf_lsq.steps(student) == before


def test_a_batch_of_one_black_image_is_accepted_with_a_warning(model, data):
    x = data[0].copy()
    x[0] = 0.0
    student = tiny.compiled(tf_lsq.quantize_model(model))
    with pytest.warns(UserWarning, match=r"only zeros.*quantize_image"):
        student.fit(x[:4], data[1][:4], batch_size=1, shuffle=False, verbose=0)


def test_a_dataset_creator_needs_calibration(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    creator = keras.utils.experimental.DatasetCreator(lambda context: None)
    with pytest.raises(RuntimeError, match=r"DatasetCreator.*calibrate"):
        student.fit(creator, steps_per_epoch=1, verbose=0)


def test_a_changed_sign_reaches_traced_functions(data):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    student = tf_lsq.quantize_model(model)
    signed = data[0].reshape(-1, 4)[:64] - 0.5
    tf_lsq.calibrate(student, np.abs(signed))
    student.predict(signed, verbose=0)
    tf_lsq.calibrate(student, signed)
    for predicted in (
        student.predict(signed, verbose=0),
        student.predict_on_batch(signed),
    ):
        np.testing.assert_allclose(predicted, student(signed), atol=1e-6)


def test_restoring_a_sign_during_fit_does_not_stop_it(data):
    inputs = keras.Input((4,))
    student = tf_lsq.quantize_model(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    student.compile("sgd", "mse")
    x, y = data[0].reshape(-1, 4)[:64] - 0.5, np.zeros((64, 3), np.float32)
    tf_lsq.calibrate(student, x)
    signed = student.get_weights()
    tf_lsq.calibrate(student, np.abs(x))
    restore = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: student.set_weights(signed)
    )
    history = student.fit(
        *(x, y), validation_data=(x, y), epochs=3, verbose=0, callbacks=[restore]
    ).history
    assert len(history["val_loss"]) == 3
    assert student.evaluate(x, y, verbose=0) == pytest.approx(
        np.square(student(x)).mean(), rel=1e-5
    )
