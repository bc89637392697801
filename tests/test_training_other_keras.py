"""Objects of one Keras for a model of the other: exact, or refused."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tf_keras
from harness.keras3 import examples, student, tf_keras_student

from tf_lsq.keras3.objects import as_keras3
from tf_lsq.training import as_tf_keras

X, Y = examples()
# Name -> settings that differ from the defaults.
OPTIMIZERS = {
    "SGD": {"learning_rate": 0.02, "momentum": 0.9, "nesterov": True},
    "Adam": {"learning_rate": 0.01, "beta_1": 0.8, "global_clipnorm": 1.0},
    "AdamW": {"weight_decay": 0.1},
    "RMSprop": {"rho": 0.8, "momentum": 0.5},
    "Adagrad": {"initial_accumulator_value": 0.2},
    "Adamax": {"clipvalue": 0.5},
    "Nadam": {"use_ema": True, "ema_momentum": 0.9},
    "Ftrl": {"l1_regularization_strength": 0.1},
}
LOSSES = {
    "SparseCategoricalCrossentropy": {"from_logits": True},
    "CategoricalCrossentropy": {"label_smoothing": 0.1},
    "BinaryCrossentropy": {"from_logits": True},
    "MeanSquaredError": {"reduction": "sum"},
    "Huber": {"delta": 0.5},
    "KLDivergence": {},
    "CosineSimilarity": {"axis": 1},
}
BOTH = [(keras3, tf_keras, as_tf_keras), (tf_keras, keras3, as_keras3)]


@pytest.mark.parametrize(("source", "target", "translated"), BOTH)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_keep_their_settings(name, source, target, translated):
    found = translated(getattr(source.optimizers, name)(**OPTIMIZERS[name]))
    assert type(found) is getattr(target.optimizers, name)
    config = found.get_config()
    for setting, value in OPTIMIZERS[name].items():
        assert config[setting] == pytest.approx(value)


@pytest.mark.parametrize(("source", "target", "translated"), BOTH)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_compute_the_same(name, source, target, translated, rng):
    loss = getattr(source.losses, name)(**LOSSES[name])
    found = translated(loss)
    assert type(found) is getattr(target.losses, name)
    scores = rng.uniform(0.1, 0.9, (8, 4)).astype(np.float32)
    labels = np.eye(4, dtype=np.float32)[Y[:8]]
    labels = Y[:8] if name.startswith("Sparse") else labels
    weights = np.linspace(0.1, 2, 8).astype(np.float32)
    for arguments in ((labels, scores), (labels, scores, weights)):
        np.testing.assert_allclose(found(*arguments), loss(*arguments), rtol=1e-5)


@pytest.mark.parametrize(("source", "target", "translated"), BOTH)
def test_schedules_metrics_functions_and_structures(source, target, translated):
    schedule = source.optimizers.schedules.CosineDecay(0.1, 20, warmup_steps=5)
    optimizer = translated(source.optimizers.SGD(schedule))
    rates = [float(one(7)) for one in (schedule, optimizer._learning_rate)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)
    metrics = [source.metrics.SparseTopKCategoricalAccuracy(2), "accuracy"]
    found = translated({"a": metrics, "b": source.losses.mean_squared_error})
    assert isinstance(found["a"][0], target.metrics.SparseTopKCategoricalAccuracy)
    assert found["a"][0].get_config()["k"] == 2
    assert found["a"][1] == "accuracy"
    assert found["b"] is target.losses.mean_squared_error
    own = target.optimizers.SGD()
    assert translated([own, None, len]) == [own, None, len]


@pytest.mark.parametrize(("source", "target", "translated"), BOTH)
def test_what_has_no_equal_is_refused_in_one_sentence(source, target, translated):
    class Mine(source.metrics.Mean):
        pass

    with pytest.raises(ValueError, match=r"Received: Mine of the other Keras"):
        translated([Mine()])
    used = source.optimizers.SGD()
    used.iterations.assign(3)
    with pytest.raises(ValueError, match=r"SGD .*has been used before"):
        translated(used)
    wrapped = source.metrics.MeanMetricWrapper(source.losses.mean_squared_error)
    with pytest.raises(ValueError, match="MeanMetricWrapper"):
        translated(wrapped)


def test_settings_that_only_one_keras_has_are_refused():
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        as_tf_keras(keras3.optimizers.SGD(gradient_accumulation_steps=2))
    with pytest.raises(ValueError, match="SGD"):
        as_keras3(tf_keras.optimizers.legacy.SGD())


def test_students_train_with_objects_of_the_other_keras():
    weights = np.linspace(0.1, 2, len(X))
    found = []
    for make in (student, tf_keras_student):
        for library in (keras3, tf_keras):
            model = make()
            model.compile(
                library.optimizers.Adam(0.01),
                library.losses.SparseCategoricalCrossentropy(),
                metrics=[library.metrics.SparseCategoricalAccuracy()],
            )
            fit = model.fit(
                X, Y, batch_size=24, shuffle=False, sample_weight=weights, verbose=0
            )
            found.append(fit.history["loss"][0])
    np.testing.assert_allclose(found, found[0], rtol=1e-4)
