"""A Keras 3 student under the habits of Keras 3 users: `fit` and all around it."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from harness.keras3 import (
    check_export,
    compiled,
    examples,
    network,
    student,
    tf_keras_student,
)

import tf_lsq
import tflite_export

layers = keras3.layers
X, Y = examples()
OPTIMIZERS = (
    *("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor"),
    *("Nadam", "Ftrl", "Lion", "Lamb", "Muon"),
)
CALLBACKS = {
    "early_stopping": lambda c, _: c.EarlyStopping("loss", restore_best_weights=True),
    "reduce_rate": lambda c, _: c.ReduceLROnPlateau("loss", patience=0, min_delta=9),
    "checkpoint": lambda c, path: c.ModelCheckpoint(path / "best.keras"),
    "checkpoint_of_weights": lambda c, path: c.ModelCheckpoint(
        path / "best.weights.h5", "loss", save_weights_only=True, save_best_only=True
    ),
    "csv": lambda c, path: c.CSVLogger(path / "log.csv"),
    "nan": lambda c, _: c.TerminateOnNaN(),
    "scheduler": lambda c, _: c.LearningRateScheduler(lambda epoch: 0.001),
    "lambda": lambda c, _: c.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    "backup": lambda c, path: c.BackupAndRestore(path / "backup"),
    "list": lambda c, _: c.CallbackList([c.History()]),
}


def first_fit(model, *data, **options):
    """Trains for two batches without shuffling; returns the history."""
    options = {"batch_size": 24, "shuffle": False, "verbose": 0, **options}
    return model.fit(*(data or (X, Y)), **options).history


class Batches(keras3.utils.PyDataset):
    """Two batches, as pairs of a type."""

    def __init__(self, kind=tuple):
        super().__init__()
        self.kind = kind

    def __len__(self):
        return 2

    def __getitem__(self, index):
        chosen = slice(24 * index, 24 * index + 24)
        return self.kind([X[chosen], Y[chosen]])


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y))


def generator(kind=tuple):
    while True:
        yield kind([X[:24], Y[:24]])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains_with_every_optimizer(name, tmp_path):
    if not hasattr(keras3.optimizers, name):
        pytest.skip(f"This Keras has no {name}.")
    model = compiled(student(), getattr(keras3.optimizers, name)(1e-3))
    before = model.get_weights()
    first_fit(model)
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(changed) > 10
    assert all((step > 0).all() for step in tf_lsq.steps(model).values())
    check_export(model, tmp_path / "model.tflite", X)


@pytest.mark.parametrize(
    "settings",
    [
        {"global_clipnorm": 1.0},
        {"clipnorm": 0.1},
        {"clipvalue": 0.1},
        {"weight_decay": 0.1},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_optimizers_of_both_kerases_train_the_same(settings):
    found = []
    for one, library in ((student(), keras3), (tf_keras_student(), tf_keras)):
        if library is tf_keras and "gradient_accumulation_steps" in settings:
            continue
        optimizer = library.optimizers.SGD(0.05, momentum=0.9, **settings)
        one.compile(optimizer, "sparse_categorical_crossentropy")
        first_fit(one, epochs=3)
        found.append({v.shape: v for v in map(np.asarray, one.get_weights())})
        steps = tf_lsq.steps(one)
    if len(found) == 1:
        assert all((step > 0).all() for step in steps.values())
        return
    for shape, values in found[0].items():
        np.testing.assert_allclose(values, found[1][shape], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CALLBACKS)
def test_callbacks_of_keras_3_work(case, tmp_path):
    model = compiled(student())
    callbacks = CALLBACKS[case](keras3.callbacks, tmp_path)
    if case == "list":
        callbacks.set_model(model)
    else:
        callbacks = [callbacks]
    history = first_fit(model, epochs=2, validation_split=0.5, callbacks=callbacks)
    assert {"loss", "val_loss"} <= set(history)


def test_callbacks_of_this_library_work(tmp_path):
    model = compiled(student())
    diagnostics = tf_lsq.Diagnostics(
        tmp_path / "logs",
        data=(X, Y),
        frequency=1,
        loss="sparse_categorical_crossentropy",
    )
    callbacks = [
        diagnostics,
        tf_lsq.OscillationTracking(max_bits=8),
        tf_lsq.BatchNormReestimation(X),
    ]
    first_fit(model, epochs=2, callbacks=callbacks)
    assert diagnostics.history["batch"] == [0, 1, 2, 3, 4]


def test_callbacks_of_the_other_keras_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"'EarlyStopping'\] of tf_keras.callbacks"):
        first_fit(
            compiled(student()), callbacks=[tf_keras.callbacks.EarlyStopping("loss")]
        )
    model = tf_keras_student()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"'EarlyStopping'\] of keras.callbacks"):
        first_fit(model, callbacks=[keras3.callbacks.EarlyStopping("loss")])


def test_a_missing_tensorboard_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = compiled(student())
    callback = keras3.callbacks.TensorBoard(tmp_path)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        first_fit(model, callbacks=[callback])


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_weight": np.linspace(0.1, 3, len(X))},
        {"class_weight": {0: 3.0, 1: 0.5, 2: 1.0, 3: 2.0}},
        {"validation_data": (X, Y, np.linspace(0.1, 3, len(X)))},
    ],
)
def test_losses_metrics_and_weights_equal_those_of_a_tf_keras_student(settings):
    histories, weights = [], []
    for one, library in ((student(), keras3), (tf_keras_student(), tf_keras)):
        one.compile(
            library.optimizers.SGD(0.05, momentum=0.9),
            library.losses.SparseCategoricalCrossentropy(),
            metrics=[library.metrics.SparseCategoricalAccuracy()],
            weighted_metrics=["accuracy"],
        )
        histories.append(first_fit(one, epochs=3, **settings))
        weights.append({v.shape: np.asarray(v) for v in one.weights})
    assert set(histories[0]) == set(histories[1])
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-4)
    for shape, values in weights[0].items():
        np.testing.assert_allclose(values, weights[1][shape], rtol=1e-3, atol=1e-5)


def test_metrics_of_the_users_own_work():
    class Calls(keras3.metrics.Metric):
        def __init__(self):
            super().__init__(name="calls")
            self.count = self.add_weight(name="count", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.count.assign_add(1.0)

        def result(self):
            return self.count

    model = compiled(student(), metrics=[Calls(), "accuracy"])
    assert first_fit(model)["calls"] == [2.0]


@pytest.mark.parametrize("kind", [tuple, list])
def test_it_trains_on_sequences_and_generators(kind):
    for one in (student(), tf_keras_student()):
        one.compile("sgd", "sparse_categorical_crossentropy")
        one.fit(Batches(kind), verbose=0)
        one.fit(generator(kind), steps_per_epoch=2, shuffle=False, verbose=0)
        one.fit(X.tolist(), Y.tolist(), batch_size=24, verbose=0)
        one.evaluate(Batches(kind), verbose=0)
        one.predict(Batches(), verbose=0)
    model = compiled(student())
    data = dataset().batch(24)
    model.fit(data, validation_data=Batches(), shuffle=False, verbose=0)


class Endless(keras3.utils.PyDataset):
    """Batches without an end, as lists."""

    num_batches = None

    def __getitem__(self, index):
        return [X[:24], Y[:24]]


def test_data_without_an_end_are_read_as_far_as_needed():
    for one in (student(), tf_keras_student()):
        tf_lsq.calibrate(one, generator(list))
        tf_lsq.reestimate_batch_norm(one, generator(), num_batches=2)
    model = compiled(student())
    tf_lsq.calibrate(model, Endless())
    model.fit(Endless(), steps_per_epoch=2, shuffle=False, verbose=0)


def test_lists_of_numbers_are_taken_everywhere():
    x, y = X.tolist(), Y.tolist()
    for one in (student(), tf_keras_student()):
        one.compile("sgd", "sparse_categorical_crossentropy")
        one.fit(x, y, validation_data=(x, y), verbose=0)
        one.fit(X, Y, 24, 1, 0, None, 0.0, (X, Y))
        found = one.evaluate(x, y, verbose=0)
        assert found == pytest.approx(one.evaluate(X, Y, verbose=0))


def test_empty_and_unbatched_datasets_are_refused():
    for one in (student(), tf_keras_student()):
        one.compile("sgd", "sparse_categorical_crossentropy")
        with pytest.raises(ValueError, match="at least one batch"):
            one.fit(dataset().batch(24).take(0), verbose=0)
        with pytest.raises(ValueError, match=r"unbatched dataset.*dataset\.batch"):
            one.fit(dataset(), verbose=0)
        with pytest.raises(ValueError, match=r"unbatched dataset.*dataset\.batch"):
            tf_lsq.calibrate(one, dataset())


def test_it_is_saved_and_loaded_with_its_optimizer(tmp_path):
    model = compiled(student(), metrics=["accuracy"])
    first_fit(model)
    model.save(tmp_path / "student.keras")
    loaded = keras3.saving.load_model(tmp_path / "student.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert int(loaded.optimizer.iterations) == 2
    found, expected = (first_fit(one)["loss"] for one in (loaded, model))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    model.save_weights(tmp_path / "w.weights.h5")
    other = student()
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(other.predict(X), model.predict(X))


NEW_PROCESS = """
import sys
from pathlib import Path
import keras, numpy as np
import tf_lsq, tflite_export
folder = sys.argv[1]
x, y = np.load(folder + "/x.npy"), np.load(folder + "/y.npy")
student = keras.saving.load_model(folder + "/student.keras")
student.fit(x, y, shuffle=False, batch_size=24, verbose=0)
report = tflite_export.export_model(student, folder + "/m.tflite", data=(x, y))
assert report.verification.equal_codes == report.verification.weight_codes
tflite_export.verify_tflite(folder + "/m.tflite", student, x)
np.save(folder + "/outputs.npy", student.predict(x, verbose=0))
"""


def test_a_training_goes_on_in_a_new_process(tmp_path):
    optimizer = keras3.optimizers.SGD(0.01, momentum=0.9)
    model = compiled(student(), optimizer)
    first_fit(model)
    model.save(tmp_path / "student.keras")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    subprocess.run(
        [sys.executable, "-c", NEW_PROCESS, str(tmp_path)], check=True, timeout=300
    )
    first_fit(model)
    found = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(found, model.predict(X, verbose=0), atol=1e-3)


def test_other_formats_name_the_exporter(tmp_path):
    model = student()
    for name in ("folder", "model.h5"):
        with pytest.raises(ValueError, match=r"as `\.keras`.*export_model"):
            model.save(tmp_path / name)


@pytest.mark.parametrize("make", [student, tf_keras_student])
def test_tensorflows_own_export_names_the_exporter(make, tmp_path):
    model = make()
    tf_lsq.calibrate(model, X)
    with pytest.raises(ValueError, match=r"^`\w+` is a quantized model.*export_model"):
        model.export(tmp_path / "saved")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    with pytest.raises(ValueError, match=r"^`\w+` is a quantized model.*export_model"):
        converter.convert()


def test_files_of_the_other_keras_are_refused(tmp_path):
    student().save(tmp_path / "keras3.keras")
    with pytest.raises(ValueError, match="must be loaded by Keras 3"):
        tf_keras.models.load_model(tmp_path / "keras3.keras")
    tf_keras_student().save(tmp_path / "tf_keras.keras")
    with pytest.raises(ValueError, match="must be loaded by tf_keras"):
        keras3.saving.load_model(tmp_path / "tf_keras.keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_of_keras_3_becomes_a_keras_3_student(suffix, tmp_path):
    path = tmp_path / f"float{suffix}"
    network().save(path)
    assert isinstance(tf_lsq.quantize_model(path), keras3.Model)


UNDER_JAX = """
import sys
import keras, tf_keras, tf_lsq, tflite_export
from harness.keras3 import examples, network
assert keras.backend.backend() == "jax"
x, y = examples()
model = network()
model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(x, y, verbose=0)
model.save(sys.argv[1] + "/float.keras")
student = tf_lsq.quantize_model(model)
assert isinstance(student, tf_keras.Model)
loss = keras.losses.SparseCategoricalCrossentropy()
student.compile(keras.optimizers.SGD(0.01), loss)
student.fit(x, y, verbose=0)
report = tflite_export.export_model(student, sys.argv[1] + "/m.tflite", data=x)
assert report.verification.equal_codes == report.verification.weight_codes > 0
student.save(sys.argv[1] + "/student.keras")
"""


def test_another_backend_gives_a_tf_keras_student(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", UNDER_JAX, str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, env=environment)
    loaded = tf_keras.models.load_model(tmp_path / "student.keras")
    assert np.isfinite(loaded.predict(X, verbose=0)).all()
    model = tf_lsq.quantize_model(tmp_path / "float.keras")
    assert isinstance(model, keras3.Model)


def test_a_custom_train_step_trains_it(tmp_path):
    class Trainer(keras3.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.mean = keras3.metrics.Mean(name="loss")

        def call(self, x, training=None):
            return self.inner(x, training=training)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                scores = self.inner(x, training=True)
                loss = keras3.losses.sparse_categorical_crossentropy(y, scores)
                loss = tf.reduce_mean(loss)
            variables = self.inner.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self.mean.update_state(loss)
            return {"loss": self.mean.result()}

    model = student()
    before = model.get_weights()
    trainer = Trainer(model)
    trainer.compile(tf_lsq.prepare_optimizer(keras3.optimizers.Adam(0.01)))
    trainer.fit(X, Y, batch_size=24, epochs=2, verbose=0)
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(changed) > 10
    tf_lsq.round_biases(model)
    check_export(model, tmp_path / "model.tflite", X)


def test_a_custom_loop_trains_it():
    model = student()
    tf_lsq.calibrate(model, X)
    optimizer = tf_lsq.prepare_optimizer(keras3.optimizers.SGD(0.05, momentum=0.9))
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            scores = model(X, training=True)
            loss = keras3.losses.sparse_categorical_crossentropy(Y, scores)
            loss = tf.reduce_mean(loss)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    losses = [float(step()) for _ in range(10)]
    model.follow_ranges(optimizer)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}],
)
def test_it_compiles_in_every_way(options):
    model = compiled(student(), **options)
    assert np.isfinite(first_fit(model)["loss"]).all()


def test_the_fast_operator_is_kept_where_xla_is_optional():
    assert not compiled(student(), jit_compile="auto").jit_compile


def test_mixed_precision_scales_the_loss(tmp_path):
    keras3.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras3.mixed_precision.set_global_policy("float32")
    model = tf_lsq.quantize_model(model)
    model.compile(keras3.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    assert isinstance(model.optimizer, keras3.optimizers.LossScaleOptimizer)
    assert np.isfinite(first_fit(model)["loss"]).all()
    check_export(model, tmp_path / "model.tflite", X)


def test_regularizers_are_part_of_the_loss():
    found = []
    for convert in (lambda model: model, tf_lsq.from_keras3):
        regularized = network(kernel_regularizer=keras3.regularizers.L2(0.1))
        model = tf_lsq.quantize_model(convert(regularized))
        model.compile("sgd", "sparse_categorical_crossentropy")
        found.append(first_fit(model)["loss"])
    assert found[0][0] > 1.6
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_calls_for_single_batches_work():
    model = compiled(student(), metrics=["accuracy"])
    for call in (model.predict, lambda x: model.evaluate(x, Y), model.predict_on_batch):
        with pytest.raises(RuntimeError, match="must be trained or calibrated"):
            call(X)
    model.train_on_batch(X, Y)
    tf_lsq.round_biases(model)
    model.reset_metrics()
    loss, accuracy = model.test_on_batch(X, Y)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), [loss, accuracy], 1e-4)
    np.testing.assert_allclose(model.predict_on_batch(X), model(X), atol=1e-5)


def test_a_diverging_training_names_the_layers():
    model = compiled(student(), keras3.optimizers.SGD(0.01))
    tf_lsq.calibrate(model, X)
    model.student.get_layer("relu_1").step_variables["step"].assign(np.nan)
    with pytest.raises(RuntimeError, match=r"diverged.*relu_1"):
        first_fit(model)


def test_dicts_of_inputs_and_outputs_work(tmp_path):
    image, vector = keras3.Input((8, 8, 3), name="a"), keras3.Input((5,), name="b")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    x = layers.Concatenate()([x, layers.Dense(4)(vector)])
    outputs = {
        "kind": layers.Dense(3, name="kind")(x),
        "age": layers.Dense(1, name="age", activation="sigmoid")(x),
    }
    model = keras3.Model({"a": image, "b": vector}, outputs)
    rng = np.random.default_rng(0)
    data = {
        "a": rng.uniform(size=(48, 8, 8, 3)).astype(np.float32),
        "b": rng.normal(size=(48, 5)).astype(np.float32),
    }
    labels = {"kind": Y % 3, "age": (Y % 2).astype(np.float32)[:, None]}
    model = tf_lsq.quantize_model(model)
    model.compile(
        "adam",
        {
            "kind": keras3.losses.SparseCategoricalCrossentropy(from_logits=True),
            "age": "binary_crossentropy",
        },
        loss_weights={"kind": 1.0, "age": 0.5},
        metrics={"kind": ["accuracy"], "age": [keras3.metrics.AUC()]},
    )
    first_fit(model, data, labels, epochs=2)
    expected = model.predict(data, verbose=0)
    assert set(expected) == {"kind", "age"}
    check_export(model, tmp_path / "model.tflite", data)
    twin = tflite_export.integer_twin(model)
    assert set(twin.predict(data, verbose=0)) == {"kind", "age"}
    model.save(tmp_path / "model.keras")
    loaded = keras3.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(data, verbose=0)["age"], expected["age"]
    )


def test_outputs_have_the_names_of_the_float_model():
    inputs = keras3.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    outputs = [layers.Dense(3, name="a")(x), layers.Dense(1, name="b")(x)]
    float_model = keras3.Model(inputs, outputs)
    model = tf_lsq.quantize_model(float_model)
    assert list(model.output_names) == list(float_model.output_names) == ["a", "b"]
    x = np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype(np.float32)
    labels = {"a": np.zeros((48, 3)), "b": np.zeros((48, 1))}
    model.compile("adam", {"a": "mse", "b": "mae"}, metrics={"b": ["mse"]})
    first_fit(model, x, labels)
    model.compile("adam", ["mse", "mae"])
    first_fit(model, x, [*labels.values()])


def test_every_function_takes_it(tmp_path):
    model = compiled(student(), metrics=["accuracy"])
    first_fit(model)
    path = tmp_path / "model.tflite"
    tf_lsq.calibrate(model, [X, Y])
    tf_lsq.reestimate_batch_norm(model, Batches())
    assert "conv_1" in tf_lsq.steps(model)
    assert tflite_export.check_model(model).operators
    assert tflite_export.check_model(network(), data=(X, Y)).operators
    assert tf_lsq.compare(network(), model, Batches()).layers
    suggestion = tflite_export.suggest_bits(
        network(), (X, Y), budget_bytes=20_000, verbose=False
    )
    assert suggestion.file_bytes <= 20_000
    check_export(model, path, X)
    tflite_export.verify_tflite(path, model, Batches(), verbose=False)
    batches = (batch for batch in [[X, Y]])
    tflite_export.verify_tflite(path, model, batches, verbose=False)
    twin = tflite_export.integer_twin(model)
    assert isinstance(twin, keras3.Model)
    twin.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    twin.evaluate(X, Y, verbose=0)
    with pytest.raises(ValueError, match="already quantized"):
        tf_lsq.quantize_model(model)


def test_it_trains_on_two_devices():
    model = compiled(student())
    expected = first_fit(model, epochs=2)["loss"]
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import tensorflow as tf\n"
        "[cpu] = tf.config.list_physical_devices('CPU')\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "from harness.keras3 import *\n"
        "strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])\n"
        "with strategy.scope():\n"
        "    model = compiled(student())\n"
        "x, y = examples()\n"
        "history = model.fit(x, y, batch_size=24, shuffle=False, epochs=2, verbose=0)\n"
        "check_export(model, sys.argv[1], x)\n"
        "print(history.history['loss'])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "/dev/null"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = eval(ran.stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_recipes_become_objects_of_keras_3(tmp_path):
    for variant in ("paper", "finetune", "adam"):
        model = student()
        model.compile(**tf_lsq.recipe(4, 8, variant=variant), metrics=["accuracy"])
        first_fit(model)
        assert isinstance(model.optimizer, keras3.optimizers.Optimizer)
        assert isinstance(model.loss, keras3.losses.Loss)
        model.save(tmp_path / "model.keras")
        loaded = keras3.saving.load_model(tmp_path / "model.keras")
        assert loaded.optimizer.get_config() == model.optimizer.get_config()
    arguments = tf_lsq.recipe(4, 8, student=model)
    assert isinstance(arguments["optimizer"], keras3.optimizers.Optimizer)


def test_the_script_of_the_readme_runs(tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    [script] = [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "ModelCheckpoint" in block
    ]
    assert "tf_keras" not in script
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras3, "tf_lsq": tf_lsq, "tflite_export": tflite_export}
    names |= {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    training, later = script.split("# Later", 1)
    exec(training, {**names, "model": network()})
    assert keras3.saving.load_model("best.keras").predict(X, verbose=0).shape == (48, 4)
    exec("# Later" + later, names)
    found = tflite_export.verify_tflite("model.tflite", names["student"], verbose=False)
    assert found.equal_codes == found.weight_codes


def test_an_interrupted_training_resumes(tmp_path):
    class Stop(keras3.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def trained(*callbacks):
        model = compiled(student())
        backup = keras3.callbacks.BackupAndRestore(tmp_path / "backup")
        history = first_fit(model, epochs=4, callbacks=[backup, *callbacks])
        return model, history

    with pytest.raises(KeyboardInterrupt):
        trained(Stop())
    model, history = trained()
    assert len(history["loss"]) == 2
    assert int(model.optimizer.iterations) == 8
    whole = compiled(student())
    expected = first_fit(whole, epochs=4)["loss"][2:]
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-3)
