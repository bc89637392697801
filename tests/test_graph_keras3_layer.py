"""`Keras3Layer`: a Keras 3 layer that runs inside a tf_keras model."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import Keras3Layer

layers3 = keras3.layers
ops = keras3.ops


@keras3.saving.register_keras_serializable("tests")
class Own(layers3.Layer):
    """Weights of each kind, a regularizer, a constraint, a loss and random numbers."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dropout = layers3.Dropout(0.5)
        self.norm = layers3.BatchNormalization(name="norm")

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units),
            name="kernel",
            regularizer="l2",
            constraint="non_neg",
        )
        self.norm.build((None, self.units))
        super().build(shape)

    def call(self, x, training=None):
        x = ops.matmul(x, self.kernel)
        self.add_loss(0.5 * ops.mean(ops.abs(x)))
        return self.norm(self.dropout(x, training=training), training=training)


def model3(**options):
    inputs = keras3.Input((4,))
    return keras3.Model(inputs, Own(3, name="own", **options)(inputs))


@pytest.fixture
def x(rng):
    return rng.uniform(0, 1, (8, 4)).astype(np.float32)


def test_it_has_the_weights_of_the_layer_and_its_output(x):
    model = model3()
    layer = tf_lsq.from_keras3(model).get_layer("own")
    assert isinstance(layer, Keras3Layer)
    assert layer.keras3_class_name == "Own"
    names = {weight.name: weight for weight in layer.weights}
    trained = {name for name, weight in names.items() if weight.trainable}
    assert trained == {
        "own/kernel:0",
        "own/norm/gamma:0",
        "own/norm/beta:0",
    }
    own = model.get_layer("own")
    np.testing.assert_array_equal(names["own/kernel:0"], own.kernel)
    np.testing.assert_array_equal(layer(x), model(x))


def test_training_changes_its_weights_and_not_those_of_keras_3(x):
    model = model3()
    before = [np.asarray(weight) for weight in model.weights]
    twin = tf_lsq.from_keras3(model)
    first = twin.get_weights()
    twin.compile(keras.optimizers.SGD(5.0), "mse")
    twin.fit(x, np.ones((8, 3), np.float32), verbose=0)
    assert all(
        np.any(old != new) for old, new in zip(first, twin.get_weights(), strict=True)
    )
    assert np.all(twin.get_weights()[0] >= 0)  # The constraint.
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_losses_are_those_of_the_layer(x):
    model = model3()
    twin = tf_lsq.from_keras3(model)
    twin(x)
    kernel = np.asarray(model.weights[0])
    expected = 0.5 * np.abs(x @ kernel).mean() + 0.01 * np.square(kernel).sum()
    assert sum(map(float, twin.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_frozen_layer_keeps_its_statistics(x):
    twin = tf_lsq.from_keras3(model3())
    twin.trainable = False
    names = [weight.name for weight in twin.weights]
    before = dict(zip(names, twin.get_weights(), strict=True))
    twin(x, training=True)
    for name, weight in zip(names, twin.get_weights(), strict=True):
        assert np.array_equal(weight, before[name]) == ("seed" not in name)


def test_layers_frozen_in_keras_3_can_be_trained_again():
    twin = tf_lsq.from_keras3(model3(trainable=False))
    assert not twin.trainable_weights
    twin.get_layer("own").trainable = True
    assert len(twin.trainable_weights) == 3


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_it_is_saved_and_loaded(suffix, x, tmp_path):
    twin = tf_lsq.from_keras3(model3())
    path = tmp_path / f"twin{suffix}"
    twin.save(path)
    np.testing.assert_array_equal(keras.models.load_model(path)(x), twin(x))


def test_a_class_that_is_not_registered_can_be_copied_and_loaded_in_a_scope(tmp_path):
    class Local(layers3.Layer):
        def call(self, x):
            return ops.sort(x)

    inputs = keras3.Input((4,))
    twin = tf_lsq.from_keras3(keras3.Model(inputs, Local(name="local")(inputs)))
    copy = keras.models.clone_model(twin)
    values = tf.constant([[2.0, 4.0, 3.0, 1.0]])
    np.testing.assert_array_equal(copy(values), [[1, 2, 3, 4]])
    path = tmp_path / "twin.keras"
    twin.save(path)
    with pytest.raises(ValueError, match=r"`local` .*custom_object_scope"):
        keras.models.load_model(path)
    with keras3.saving.custom_object_scope({"Local": Local}):
        loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(values), [[1, 2, 3, 4]])


def test_a_lambda_that_cannot_be_read_needs_safe_mode_off(tmp_path):
    inputs = keras3.Input((4,))
    function = layers3.Lambda(lambda x, mask: -x, name="function")
    twin = tf_lsq.from_keras3(keras3.Model(inputs, function(inputs)))
    path = tmp_path / "twin.keras"
    twin.save(path)
    with pytest.raises(ValueError, match=r"`function` .*safe_mode=False"):
        keras.models.load_model(path)
    loaded = keras.models.load_model(path, safe_mode=False)
    np.testing.assert_array_equal(loaded(tf.ones((1, 4))), -np.ones((1, 4)))


def test_a_class_without_a_configuration_is_exported_but_not_saved(tmp_path):
    class Unsaved(layers3.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def call(self, x):
            return self.function(x)

    inputs = keras3.Input((4,))
    x = Unsaved(ops.sin, name="unsaved")(layers3.Dense(4)(inputs))
    student = tf_lsq.quantize_model(
        keras3.Model(inputs, x), overrides={"unsaved": "float"}
    )
    data = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path, verbose=False)
    tflite_export.verify_tflite(path, student, data, verbose=False)
    for one, name in [
        (student, "model.keras"),
        (student.student, "model.keras"),
        (student.student, "model.h5"),
    ]:
        with pytest.raises(ValueError, match=r"`unsaved` .*saved\. .*get_config"):
            one.save(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_layers_with_several_inputs_outputs_and_constants(tmp_path):
    @keras3.saving.register_keras_serializable("tests")
    class Mixed(layers3.Layer):
        def call(self, x, pair, scale=1.0):
            return {"sum": x + scale * pair["a"], "difference": x - pair["b"]}

        def compute_output_spec(self, x, pair, scale=1.0):
            spec = keras3.KerasTensor(x.shape)
            return {"sum": spec, "difference": keras3.KerasTensor(x.shape)}

    x, y = keras3.Input((3,)), keras3.Input((3,))
    outputs = Mixed(name="mixed")(x, {"a": y, "b": ops.abs(y)}, scale=3.0)
    model = keras3.Model([x, y], outputs)
    twin = tf_lsq.from_keras3(model)
    path = tmp_path / "twin.keras"
    twin.save(path)
    values = [tf.constant([[1.0, -2.0, 3.0]]), tf.constant([[-1.0, 1.0, 2.0]])]
    for one in (twin, keras.models.load_model(path)):
        found = one(values)
        for name, expected in model(values).items():
            np.testing.assert_array_equal(found[name], expected)


def test_masks_reach_the_layer_and_leave_it(rng):
    class Passing(layers3.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True

        def call(self, x, mask=None):
            return x * ops.cast(mask, x.dtype)[..., None] + 1.0

    inputs = keras3.Input((5,), dtype="int32")
    x = Passing()(layers3.Embedding(10, 4, mask_zero=True)(inputs))
    model = keras3.Model(inputs, layers3.GlobalAveragePooling1D()(x))
    ids = np.array([[1, 2, 0, 3, 0]])
    np.testing.assert_allclose(tf_lsq.from_keras3(model)(ids), model(ids), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_it_computes_in_the_types_of_the_layer(policy, x):
    model = model3(dtype=policy)
    layer = tf_lsq.from_keras3(model).get_layer("own")
    assert layer.compute_dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in layer.trainable_weights} == {tf.float32}
    np.testing.assert_array_equal(layer(x), model(x))


def test_it_converts_and_stays_in_float(rng, tmp_path):
    inputs = keras3.Input((8, 8, 4))
    x = layers3.Conv2D(4, 3)(inputs)
    x = layers3.AdaptiveAveragePooling2D(3, name="pool")(x)
    model = keras3.Model(inputs, layers3.Conv2D(2, 3)(x))
    student = tf_lsq.quantize_model(
        model, weight_bits=8, activation_bits=8, overrides={"pool": "float"}
    )
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    expected = np.asarray(model(x))
    error = np.abs(student(x) - expected).max()
    assert error < 0.05 * np.abs(expected).max()
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert list(report.float_layers) == ["pool"]
    tflite_export.verify_tflite(path, student, x, verbose=False)
    saved = tmp_path / "student.keras"
    student.save(saved)
    np.testing.assert_array_equal(keras3.saving.load_model(saved)(x), student(x))


def test_another_backend_is_refused_by_name_with_the_remedy(monkeypatch):
    inner = keras3.Sequential(
        [keras3.Input((4, 2)), layers3.AdaptiveAveragePooling1D(2, name="pool")],
        name="inner",
    )
    inputs = keras3.Input((4, 2))
    model = keras3.Model(inputs, ops.sort(inner(inputs)))
    monkeypatch.setattr(keras3.config, "backend", lambda: "jax")
    with pytest.raises(ValueError) as error:
        tf_lsq.from_keras3(model)
    for text in (
        "`inner/pool` (AdaptiveAveragePooling1D)",
        "`sort",
        "KERAS_BACKEND=tensorflow",
    ):
        assert text in str(error.value)
