"""Quantized models in Keras: loops, saving, freezing layers, weight decay."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras, tfmot
from tf_lsq.training import is_calibrated, quantization_points, wrapped_layers


@pytest.mark.parametrize("kind", ["arrays", "dataset", "generator", "sequence"])
def test_fit_initialises_from_any_kind_of_data(kind, model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
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


def test_the_float_model_is_left_alone(model):
    before = model.get_weights()
    tf_lsq.quantize_model(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_layers_do_not_train(model, data):
    for layer in model.layers[:-1]:
        layer.trainable = False
    student = tiny.compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(0.1))
    tf_lsq.calibrate(student, data)
    names = {v.name for v in student.trainable_variables}
    assert names == {
        "scores/kernel:0",
        "scores/bias:0",
        "scores/kernel_step:0",
        "quantize_scores/activation_step:0",
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
def test_weight_decay_does_not_apply_to_steps(name, model, data):
    optimizer = getattr(keras.optimizers, name)(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["beta"])
    student = tiny.compiled(tf_lsq.quantize_model(model), optimizer)
    tf_lsq.calibrate(student, data)
    optimizer.build(student.trainable_variables)
    decayed = [v for v in student.trainable_variables if optimizer._use_weight_decay(v)]
    names = [v.name for v in decayed]
    assert not [n for n in names if n.endswith("_step:0") or "beta" in n]
    assert [n for n in names if "kernel:0" in n]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
def test_steps_stay_positive_at_any_learning_rate(optimizer, model, data):
    student = tiny.compiled(
        tf_lsq.quantize_model(model, weight_bits=2, activation_bits=2, step_clip=None),
        getattr(keras.optimizers, optimizer)(10.0),
    )
    with pytest.warns(UserWarning, match=r"from 1/10 to 10 times.*`qu.*Lower"):
        student.fit(*data, epochs=2, verbose=0)
    assert all((step > 0).all() for step in tf_lsq.steps(student).values())


def test_adam_moves_a_small_step_by_a_fraction_of_itself():
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


def test_saving_in_the_savedmodel_format_is_refused(model, data, tmp_path):
    student = tiny.compiled(tf_lsq.quantize_model(model), "sgd")
    tf_lsq.calibrate(student, data[0])
    for name, options in [("folder", {}), ("x.keras", {"save_format": "tf"})]:
        with pytest.raises(ValueError, match=r"\.keras.*tflite_export\.export_model"):
            student.save(tmp_path / name, **options)
        assert not (tmp_path / name).exists()
    with pytest.raises(ValueError, match="a plain model for serving"):
        student.export(tmp_path / "exported")
    tf_lsq.to_float(student).export(tmp_path / "exported")
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(data[0]), student(data[0]), atol=1e-5)


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_saved_models_load_and_resume_in_a_process_that_imports_tf_lsq(
    kind, model, data, tmp_path
):
    # Without a large epsilon, Adam turns rounding errors of gradients into updates.
    optimizer = keras.optimizers.Adam(1e-2, epsilon=1e-2)
    student = tiny.compiled(tf_lsq.quantize_model(model), optimizer)
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
        # Threads may add in a different order; lost state would differ far more.
        np.testing.assert_allclose(found[f"arr_{number}"], weight, rtol=1e-3, atol=1e-5)


def test_checkpoints_restore_weights_and_optimizer(model, data, tmp_path):
    student = tiny.compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(1e-2))
    student.fit(*data, verbose=0)
    student.save_weights(str(tmp_path / "weights"))
    other = tiny.compiled(tf_lsq.quantize_model(model), keras.optimizers.Adam(1e-2))
    other.load_weights(str(tmp_path / "weights"))
    np.testing.assert_array_equal(other(data[0]), student(data[0]))
    assert tf_lsq.steps(other) == tf_lsq.steps(student)
    tf.train.Checkpoint(student).write(str(tmp_path / "checkpoint"))
    third = tf_lsq.quantize_model(model)
    tf.train.Checkpoint(third).read(str(tmp_path / "checkpoint")).expect_partial()
    np.testing.assert_array_equal(third(data[0]), student(data[0]))


def test_a_nan_step_stops_training_in_the_plain_form(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    tf_lsq.calibrate(student, data)
    student.use_plain_op()
    [point] = [p for p in quantization_points(student) if p.name == "re_lu"]

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                point.step_variables["step"].assign(np.nan)

    with pytest.raises(RuntimeError, match=r"diverged.*\['re_lu'\].*lower"):
        student.fit(*data, epochs=4, verbose=0, callbacks=Spoil())
    assert int(student.optimizer.iterations) == 4  # Two epochs of two batches.


def test_terminate_on_nan_ends_fit_as_in_keras(model, data):
    student = tiny.compiled(tf_lsq.quantize_model(model))
    tf_lsq.calibrate(student, data)
    student.use_plain_op()
    [point] = [p for p in quantization_points(student) if p.name == "re_lu"]
    point.step_variables["step"].assign(np.nan)
    callback = keras.callbacks.TerminateOnNaN()
    history = student.fit(*data, epochs=3, verbose=0, callbacks=[callback])
    assert len(history.history["loss"]) == 1


def test_layers_that_diverged_are_named(model, data):
    x, labels = data
    student = tiny.compiled(tf_lsq.quantize_model(model))
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


def test_models_wrapped_by_tfmot_are_told_what_to_do(model):
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    with pytest.raises(ValueError, match=r"call `quantize_apply\(model, tf_lsq"):
        tf_lsq.quantize_model(annotated)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(tiny.pre_activation())
    with pytest.raises(ValueError, match="strip_pruning") as error:
        tf_lsq.quantize_model(pruned)
    assert "float with `overrides`. Received" in str(error.value)
    tf_lsq.quantize_model(tfmot.sparsity.keras.strip_pruning(pruned))
