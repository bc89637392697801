"""Quantized models in Keras: first values, loops, saving, freezing, decay."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training import is_calibrated, quantization_points, wrapped_layers
from tf_lsq.training.biases import restore_biases


@pytest.fixture
def model(rng):
    return tiny.randomize(tiny.residual(), rng)


@pytest.fixture
def data(rng):
    x = rng.uniform(0, 1, (64, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 5, 64)


def compiled(student, optimizer="sgd"):
    student.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return student


def test_kernel_steps_start_at_the_papers_value(model):
    student = tf_lsq.quantize_model(model, step_init="lsq")
    for wrapper in wrapped_layers(student):
        q_max = 127 if wrapper.quantizer.num_bits == 8 else 7
        expected = 2 * np.abs(wrapper.kernel.numpy()).mean() / np.sqrt(q_max)
        np.testing.assert_allclose(wrapper.step, expected, rtol=1e-5)


def test_the_first_batch_sets_the_activation_steps(model, data):
    student = compiled(tf_lsq.quantize_model(model))
    assert not is_calibrated(student)
    student.train_on_batch(*data)
    assert is_calibrated(student)
    [point] = [p for p in quantization_points(student) if p.name == "quantize_image"]
    assert float(point.step) == pytest.approx(data[0].max() / 255, rel=0.05)
    assert point.integer_range.q_min == 0


@pytest.mark.parametrize("kind", ["arrays", "dataset", "generator", "sequence"])
def test_fit_initialises_from_any_kind_of_data(kind, model, data):
    student = compiled(tf_lsq.quantize_model(model))
    x, y = data
    if kind == "arrays":
        student.fit(x, y, verbose=0)
    elif kind == "dataset":
        student.fit(tf.data.Dataset.from_tensor_slices(data).batch(32), verbose=0)
    elif kind == "generator":
        pairs = ((x[i : i + 16], y[i : i + 16]) for i in (0, 16, 32, 48))
        history = student.fit(pairs, steps_per_epoch=4, verbose=0)
        assert len(history.history["loss"]) == 1
    else:

        class Batches(keras.utils.Sequence):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return x[index * 32 : index * 32 + 32], y[index * 32 : index * 32 + 32]

        student.fit(Batches(), verbose=0)
    assert is_calibrated(student)


@pytest.mark.parametrize("compiled_loop", [False, True])
def test_gradient_tape_loops_initialise_and_reach_every_variable(
    compiled_loop, model, data
):
    student = tf_lsq.quantize_model(model)
    optimizer = keras.optimizers.SGD(0.01)

    def step(x, y):
        with tf.GradientTape() as tape:
            scores = student(x, training=True)
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(y, scores)
            )
        gradients = tape.gradient(loss, student.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, student.trainable_variables, strict=True)
        )
        return gradients

    step = tf.function(step) if compiled_loop else step
    for _ in range(2):
        gradients = step(*map(tf.constant, data))
    assert is_calibrated(student)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    steps = [v for v in student.trainable_variables if v.name.endswith("_step:0")]
    assert len(steps) == len(wrapped_layers(student)) + len(
        quantization_points(student)
    )
    assert all((v.numpy() != 1.0).all() for v in steps)


def test_the_initialising_pass_leaves_batch_norm_statistics(model, data):
    student = compiled(tf_lsq.quantize_model(model), keras.optimizers.SGD(0.0))
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
    student = compiled(tf_lsq.quantize_model(model))
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


def test_the_students_first_outputs_are_close_to_the_floats(model, data):
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    tf_lsq.calibrate(student, data)
    difference = student.predict(data[0], verbose=0) - model.predict(data[0], verbose=0)
    assert np.abs(difference).max() < 0.05


def test_the_float_model_is_left_alone(model):
    before = model.get_weights()
    tf_lsq.quantize_model(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_layers_do_not_train(model, data):
    for layer in model.layers[:-1]:
        layer.trainable = False
    student = compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(0.1))
    tf_lsq.calibrate(student, data)
    names = {v.name for v in student.trainable_variables}
    assert names == {
        "quant_scores_linear/kernel:0",
        "quant_scores_linear/bias:0",
        "quant_scores_linear/kernel_step:0",
        "quantize_scores_linear/activation_step:0",
    }
    before = {v.name: v.numpy() for v in student.weights}
    student.range_watch = None
    student.fit(*data, verbose=0)
    for variable in student.weights:
        same = np.array_equal(variable.numpy(), before[variable.name])
        assert same == (variable.name not in names or "unit" in variable.name)


def test_regularisers_act_on_float_kernels_and_not_on_steps(rng):
    layer = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.layers.Input((4,)), layer])
    student = tf_lsq.quantize_model(model)
    [loss] = student.losses
    np.testing.assert_allclose(loss, 0.1 * np.square(layer.kernel).sum(), rtol=1e-6)


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_an_optimizers_weight_decay_leaves_steps_out(name, model, data):
    optimizer = getattr(keras.optimizers, name)(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["beta"])
    student = compiled(tf_lsq.quantize_model(model), optimizer)
    tf_lsq.calibrate(student, data)
    optimizer.build(student.trainable_variables)
    decayed = [v for v in student.trainable_variables if optimizer._use_weight_decay(v)]
    names = [v.name for v in decayed]
    assert not [n for n in names if n.endswith("_step:0") or "beta" in n]
    assert [n for n in names if "kernel:0" in n]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
def test_steps_stay_positive_at_any_learning_rate(optimizer, model, data):
    student = compiled(
        tf_lsq.quantize_model(model, weight_bits=2, activation_bits=2, step_clip=None),
        getattr(keras.optimizers, optimizer)(10.0),
    )
    with pytest.warns(UserWarning, match=r"from 1/10 to 10 times.*`qu.*Lower"):
        student.fit(*data, epochs=2, verbose=0)
    assert all((step > 0).all() for step in tf_lsq.steps(student).values())


def test_adam_moves_a_small_step_by_a_share_of_itself():
    layer = keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.layers.Input((4,)), layer])
    layer.kernel.assign(1e-3 * np.eye(4))
    student = tf_lsq.quantize_model(model, first_last_bits=4)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    student.compile(keras.optimizers.Adam(1e-3), "mse")
    tf_lsq.calibrate(student, x)
    before = tf_lsq.steps(student)
    student.range_watch = None  # The kernel doubles in one update.
    student.fit(x, x, batch_size=32, epochs=1, verbose=0)
    for name, step in tf_lsq.steps(student).items():
        assert abs(step / before[name] - 1) < 1.1e-3


LOAD = """
import sys, warnings, numpy as np, tf_lsq
from tf_keras.models import load_model
folder, kind = sys.argv[1:]
x = np.load(folder + "/x.npy"); y = np.load(folder + "/y.npy")
model = load_model(folder + "/model" + kind)
assert type(model) is tf_lsq.LSQModel
np.save(folder + "/outputs.npy", model(x).numpy())
iterations = int(model.optimizer.iterations)
model.fit(x, y, shuffle=False, verbose=0)
np.savez(folder + "/weights.npz", *model.get_weights(), iterations=iterations)
"""


def test_a_saved_model_of_tensorflow_is_refused(model, data, tmp_path):
    student = compiled(tf_lsq.quantize_model(model), "sgd")
    tf_lsq.calibrate(student, data[0])
    for name, options in [("folder", {}), ("x.keras", {"save_format": "tf"})]:
        with pytest.raises(ValueError, match=r"\.keras.*model\.export\(folder\)"):
            student.save(tmp_path / name, **options)
        assert not (tmp_path / name).exists()
    student.export(tmp_path / "exported")
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(data[0]), student(data[0]), atol=1e-5)


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_saved_models_load_and_resume_in_a_process_that_imports_tf_lsq(
    kind, model, data, tmp_path
):
    student = compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(1e-2))
    student.fit(*data, epochs=2, verbose=0)
    student.save(str(tmp_path / f"model{kind}"))
    np.save(tmp_path / "x.npy", data[0])
    np.save(tmp_path / "y.npy", data[1])
    subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), kind], check=True, timeout=300
    )
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), student(data[0]))
    student.fit(*data, shuffle=False, verbose=0)
    found = np.load(tmp_path / "weights.npz")
    assert found["iterations"] == 4
    for number, weight in enumerate(student.get_weights()):
        # Threads may add in another order; state that was lost would show far more.
        np.testing.assert_allclose(found[f"arr_{number}"], weight, rtol=1e-3, atol=1e-5)


def test_checkpoints_restore_weights_and_optimizer(model, data, tmp_path):
    student = compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(1e-2))
    student.fit(*data, verbose=0)
    student.save_weights(str(tmp_path / "weights"))
    other = compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(1e-2))
    other.load_weights(str(tmp_path / "weights"))
    np.testing.assert_array_equal(other(data[0]), student(data[0]))
    assert tf_lsq.steps(other) == tf_lsq.steps(student)
    tf.train.Checkpoint(student).write(str(tmp_path / "checkpoint"))
    third = tf_lsq.quantize_model(model)
    tf.train.Checkpoint(third).read(str(tmp_path / "checkpoint")).expect_partial()
    np.testing.assert_array_equal(third(data[0]), student(data[0]))


def test_fit_ends_with_biases_that_the_file_can_hold(data, rng, tmp_path):
    import tflite_export

    student = tf_lsq.quantize_model(
        tiny.randomize(tiny.pre_activation(), rng), weight_bits=2, activation_bits=2
    )
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    before = tflite_export.verify_tflite(path, student, data[0], verbose=False)
    old = student.predict(data[0], verbose=0)
    student.compile(keras.optimizers.SGD(0.0), "mse")
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 1.0  # Nothing but the rounding may change anything.
    student.fit(data[0], old, verbose=0)
    tflite_export.export_model(student, path)
    after = tflite_export.verify_tflite(path, student, data[0], verbose=False)
    assert after.off_by_one < 0.1 * before.off_by_one
    assert after.max_code_difference <= before.max_code_difference


def test_rounding_biases_moves_them_by_half_a_unit_at_most(model, data):
    from tf_lsq.graph import folding, fusing

    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, data)

    def biases():
        nodes = fusing.analyze(student).nodes
        return {
            node.name: (folding.affine_part(node)[1], folding.bias_unit(node))
            for node in nodes
            if node.properties.matmul
        }

    before = biases()
    tf_lsq.round_biases(student)
    for name, (bias, unit) in biases().items():
        assert np.abs(bias - before[name][0]).max() <= 0.5001 * unit.max()
        codes = bias / unit
        np.testing.assert_allclose(codes, np.rint(codes), atol=0.02)


def trained_biases(student, data, fits, epochs):
    """The biases after several calls of `fit`, at a rate that no rounding survives."""
    keras.utils.set_random_seed(5)
    student.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "mse")
    tf_lsq.calibrate(student, data[0])
    student.range_watch = None
    target = student.predict(data[0], verbose=0) + 0.1
    for _ in range(fits):
        student.fit(data[0], target, epochs=epochs, shuffle=False, verbose=0)
    return np.concatenate(
        [
            np.ravel(v)
            for v in student.trainable_variables
            if "bias" in v.name or "beta" in v.name
        ]
    )


def test_a_loop_of_fit_trains_as_one_fit(model, data):
    students = [tf_lsq.quantize_model(model, weight_bits=2) for _ in range(3)]
    students[2].rounds_biases = False
    loop, once, unrounded = (
        trained_biases(student, data, fits, epochs)
        for student, (fits, epochs) in zip(
            students, [(6, 1), (1, 6), (1, 6)], strict=True
        )
    )
    np.testing.assert_array_equal(loop, once)
    assert (once != unrounded).any()


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_a_loaded_model_knows_its_biases_before_they_were_rounded(
    kind, model, data, tmp_path
):
    student = tf_lsq.quantize_model(model, weight_bits=2)
    trained_biases(student, data, 1, 1)
    student.save(tmp_path / f"model{kind}")
    loaded = keras.models.load_model(tmp_path / f"model{kind}")
    found = []
    for one in (student, loaded):
        rounded = one.get_weights()
        restore_biases(one)
        found.append(one.get_weights())
        assert any((a != b).any() for a, b in zip(rounded, found[-1], strict=True))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_biases_that_were_changed_after_rounding_are_left_alone(model, data):
    student = tf_lsq.quantize_model(model, weight_bits=2)
    trained_biases(student, data, 1, 1)
    student.set_weights([w + 1 for w in student.get_weights()])
    before = student.get_weights()
    restore_biases(student)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# --- First batches and steps that say what is wrong ---------------------------------


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("way", ["fit", "train_on_batch", "calibrate"])
def test_a_constant_first_batch_is_refused(value, way, model, data):
    student = compiled(tf_lsq.quantize_model(model))
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


def test_a_first_batch_with_nan_names_the_points_it_reaches(model, data):
    student = compiled(tf_lsq.quantize_model(model))
    x = data[0].copy()
    x[3, 2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite.*quantize_image.*quantize_scores"):
        student.fit(x, data[1], verbose=0)
    assert not is_calibrated(student)
    student.fit(*data, verbose=0)


def test_tensors_of_zeros_in_the_first_batch_are_named(model, data):
    norm = model.layers[2]
    norm.gamma.assign(tf.zeros_like(norm.gamma))
    norm.beta.assign(-tf.ones_like(norm.beta))  # The ReLU behind it gives zeros.
    student = compiled(tf_lsq.quantize_model(model))
    with pytest.warns(UserWarning, match=r"only zeros.*quantize_re_lu"):
        student.fit(*data, verbose=0)
    assert is_calibrated(student)


def test_a_step_of_nan_ends_a_training_of_the_plain_form(model, data):
    student = compiled(tf_lsq.quantize_model(model))
    tf_lsq.calibrate(student, data)
    student.use_plain_op()
    [point] = [p for p in quantization_points(student) if p.name == "quantize_re_lu"]

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                point.step_variables["step"].assign(np.nan)

    with pytest.raises(RuntimeError, match=r"diverged.*\['quantize_re_lu'\].*lower"):
        student.fit(*data, epochs=4, verbose=0, callbacks=Spoil())
    assert int(student.optimizer.iterations) == 4  # Two epochs of two batches.


def test_a_sign_that_changes_reaches_traced_functions(data):
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


def test_a_sign_that_is_restored_inside_of_fit_leaves_fit_running(data):
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


def test_terminate_on_nan_ends_fit_as_in_keras(model, data):
    student = compiled(tf_lsq.quantize_model(model))
    tf_lsq.calibrate(student, data)
    student.use_plain_op()
    [point] = [p for p in quantization_points(student) if p.name == "quantize_re_lu"]
    point.step_variables["step"].assign(np.nan)
    callback = keras.callbacks.TerminateOnNaN()
    history = student.fit(*data, epochs=3, verbose=0, callbacks=[callback])
    assert len(history.history["loss"]) == 1


def test_a_refused_calibration_keeps_the_steps(model, data):
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, data)
    before = tf_lsq.steps(student)
    for wrong in (np.zeros_like(data[0]), np.full_like(data[0], np.nan)):
        with pytest.raises(ValueError):
            tf_lsq.calibrate(student, wrong)
    assert tf_lsq.steps(student) == before


def test_one_black_image_is_a_batch(model, data):
    x = data[0].copy()
    x[0] = 0.0
    student = compiled(tf_lsq.quantize_model(model))
    with pytest.warns(UserWarning, match=r"only zeros.*quantize_image"):
        student.fit(x[:4], data[1][:4], batch_size=1, shuffle=False, verbose=0)


def test_a_creator_of_datasets_needs_calibration(model, data):
    student = compiled(tf_lsq.quantize_model(model))
    creator = keras.utils.experimental.DatasetCreator(lambda context: None)
    with pytest.raises(RuntimeError, match=r"DatasetCreator.*calibrate"):
        student.fit(creator, steps_per_epoch=1, verbose=0)


# --- Batch norm statistics of the final weights ------------------------------------


def test_reestimated_statistics_are_the_means_over_the_batches(model, data):
    student = compiled(tf_lsq.quantize_model(model, overrides={"conv2d_1": 2}))
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


def test_reestimated_statistics_of_a_shared_batch_norm_are_of_all_its_calls(rng):
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
def test_the_callback_measures_at_the_end_of_fit(kind, model, data):
    measured = data
    if kind == "dataset":
        measured = tf.data.Dataset.from_tensor_slices(data).batch(32).repeat()
    x, y = data
    one, other = (compiled(tf_lsq.quantize_model(model)) for _ in range(2))
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


def test_a_training_that_diverged_is_named(model, data):
    x, labels = data
    student = compiled(tf_lsq.quantize_model(model))
    tf_lsq.calibrate(student, x)
    point = student.get_layer("quantize_image")
    point.step_variables["step"].assign(float("nan"))
    for call in (
        lambda: student.fit(x, labels, verbose=0),
        lambda: student.train_on_batch(x, labels),
        lambda: student.evaluate(x, labels, verbose=0),
        lambda: student.predict(x, verbose=0),
    ):
        with pytest.raises(RuntimeError, match=r"diverged.*quantize_image.*lower"):
            call()
