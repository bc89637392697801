"""`Distiller` for a student of Keras 3."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
from harness.keras3 import check_export, examples, network, student, tf_keras_student

import tf_lsq

X, Y = examples()


def distiller(one, teacher=None, **options):
    teacher = teacher or network()
    if not isinstance(one, keras3.Model):
        teacher = tf_lsq.from_keras3(teacher)
    return tf_lsq.Distiller(one, teacher, **options)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 3.0, "distillation_weight": 0.2}]
)
def test_it_trains_like_that_of_a_tf_keras_student(options):
    found = []
    for one in (student(), tf_keras_student()):
        model = distiller(one, **options)
        model.compile(**tf_lsq.recipe(4, 8), metrics=["accuracy"])
        history = model.fit(
            X,
            Y,
            batch_size=24,
            epochs=2,
            shuffle=False,
            sample_weight=np.linspace(0.5, 2, len(X)),
            verbose=0,
        )
        found.append(history.history)
    assert set(found[0]) == set(found[1])
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=1e-4)


def test_it_is_a_keras_3_model_that_is_saved_with_its_teacher(tmp_path):
    model = distiller(student())
    assert isinstance(model, keras3.Model)
    assert isinstance(model, type(tf_lsq.keras3.Distiller(model.student, network())))
    loss = keras3.losses.SparseCategoricalCrossentropy()
    model.compile(keras3.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    model.fit(
        X,
        Y,
        validation_data=(X, Y),
        callbacks=[keras3.callbacks.EarlyStopping()],
        verbose=0,
    )
    model.save(tmp_path / "distiller.keras")
    loaded = keras3.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    found, expected = (
        one.evaluate(X, Y, verbose=0, return_dict=True) for one in (loaded, model)
    )
    assert found == pytest.approx(expected)
    check_export(model.student, tmp_path / "model.tflite", X)
    assert tf_lsq.steps(model) == tf_lsq.steps(model.student)


def test_losses_without_labels_and_with_several_outputs():
    inputs = keras3.Input((8, 8, 3))
    x = keras3.layers.GlobalAveragePooling2D()(keras3.layers.Conv2D(4, 3)(inputs))
    a = keras3.layers.Dense(3, activation="softmax", name="a")(x)
    b = keras3.layers.Dense(2, name="b")(x)
    teacher = keras3.Model(inputs, [a, b])
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
    model = tf_lsq.Distiller(
        tf_lsq.quantize_model(teacher), teacher, distillation_weight=1.0
    )
    model.compile("adam")
    assert model.fit(data, verbose=0).history["distillation_loss"][0] >= 0
    model = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    with pytest.raises(ValueError, match="A `loss` for the labels is needed"):
        model.compile("adam")
    losses = {"a": "sparse_categorical_crossentropy", "b": "mse"}
    model.compile("adam", losses, loss_weights={"a": 1.0, "b": 0.1})
    labels = {"a": np.arange(32) % 3, "b": np.zeros((32, 2))}
    assert np.isfinite(model.fit(data, labels, verbose=0).history["loss"]).all()


def both(teacher):
    """Distillers of the student of either Keras."""
    twin = tf_lsq.from_keras3(teacher)
    yield tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    yield tf_lsq.Distiller(tf_lsq.quantize_model(twin), twin)


def test_regularizers_and_uneven_batches_count_as_in_tf_keras():
    found = []
    for model in both(network(kernel_regularizer=keras3.regularizers.L2(0.1))):
        model.compile("sgd", "sparse_categorical_crossentropy")
        history = model.fit(X[:40], Y[:40], batch_size=32, shuffle=False, verbose=0)
        found.append(history.history)
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=1e-4)


def test_weights_of_outputs_in_a_dict_act_on_both_losses():
    inputs = keras3.Input((8, 8, 3))
    x = keras3.layers.GlobalAveragePooling2D()(keras3.layers.Conv2D(4, 3)(inputs))
    a = keras3.layers.Dense(3, activation="softmax", name="zz")(x)
    b = keras3.layers.Dense(2, name="aa")(x)
    teacher = keras3.Model(inputs, {"kind": a, "age": b})
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
    labels = {"kind": np.arange(32) % 3, "age": np.zeros((32, 2))}
    found = []
    for model in both(teacher):
        model.compile(
            "sgd",
            {"kind": "sparse_categorical_crossentropy", "age": "mse"},
            loss_weights={"kind": 1.0, "age": 3.0},
        )
        fit = model.fit(data, labels, shuffle=False, verbose=0)
        found.append([fit.history[n][0] for n in ("loss", "distillation_loss")])
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_losses_of_the_users_own_are_refused():
    class Mine(keras3.losses.CategoricalCrossentropy):
        pass

    with pytest.raises(ValueError, match="must have a loss that defines how to distil"):
        distiller(student()).compile("sgd", Mine())
