"""`from_keras3` compares a twin with its model, and names the first difference."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
from tf_lsq.graph import expansions
from tf_lsq.graph.keras3 import differences, settings, twins

layers3 = keras3.layers
ops = keras3.ops


def nested(end):
    """A model inside a model, with an operation in it."""
    inner_input = keras3.Input((8,))
    inner = keras3.Model(inner_input, end(layers3.Dense(4)(inner_input)), name="inner")
    inputs = keras3.Input((8,))
    x = layers3.Dense(8, activation="relu")(inputs)
    return keras3.Model(inputs, layers3.Softmax()(inner(x)))


def test_the_operation_that_differs_is_named(monkeypatch):
    wrong = {**twins.ROWS, "Tanh": twins.ROWS["Sigmoid"]}
    monkeypatch.setattr(twins, "ROWS", wrong)
    with pytest.raises(
        ValueError, match=r"`inner/tanh\w*` \(Tanh\).*output differs by"
    ):
        tf_lsq.from_keras3(nested(lambda x: ops.abs(ops.tanh(x))))


def test_an_activation_that_differs_slightly_is_found(monkeypatch):
    plain = {**settings._ACTIVATIONS, "gelu": lambda x: tf.nn.gelu(x, True)}
    monkeypatch.setattr(settings, "_ACTIVATIONS", plain)
    model = nested(layers3.Dense(4, activation="gelu", name="gelu"))
    with pytest.raises(ValueError, match=r"`inner/gelu` \(Dense\)"):
        tf_lsq.from_keras3(model)


def eager_only(function):
    """A row that is right in the model, and computes something else when it is run."""
    return lambda record, x: (
        function(x) if isinstance(x, tf.Tensor) else record(tf.tanh, x)
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (eager_only(lambda x: x[:, :1]), "has the shape"),
        (eager_only(lambda x: tf.reshape(x, [3, 5])), "it fails: "),
    ],
)
def test_other_differences_are_described(row, message, monkeypatch):
    monkeypatch.setattr(twins, "ROWS", {"Tanh": row})
    inputs = keras3.Input((4,))
    with pytest.raises(ValueError, match=message):
        tf_lsq.from_keras3(keras3.Model(inputs, ops.tanh(inputs)))


def test_connections_that_differ_are_named(monkeypatch):
    def swapped(record, x, y):
        return record(tf.subtract, *((x, y) if isinstance(x, tf.Tensor) else (y, x)))

    monkeypatch.setitem(twins.ROWS, "Subtract", swapped)
    inputs = keras3.Input((4,))
    x = ops.subtract(layers3.Dense(4)(inputs), inputs)
    model = keras3.Model(inputs, layers3.Dense(2)(ops.tanh(x)))
    with pytest.raises(ValueError, match="`subtract"):
        tf_lsq.from_keras3(model)


def test_a_model_that_amplifies_rounding_is_accepted(rng):
    inputs = keras3.Input((4, 4, 3))
    norm = layers3.BatchNormalization()
    x = ops.sigmoid(norm(layers3.Conv2D(16, 3, padding="same")(inputs)))
    for _ in range(40):  # Each map doubles a difference.
        x = 4.0 * x * (1.0 - x)
    model = keras3.Model(inputs, x)
    norm.set_weights([rng.uniform(0.5, 1.5, 16) for _ in norm.weights])
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    twin = tf_lsq.from_keras3(model)
    assert np.abs(twin(x) - np.asarray(model(x))).max() > 0.1


def test_a_model_that_draws_random_numbers_in_inference_is_accepted(rng):
    class Sampling(layers3.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed = keras3.random.SeedGenerator(1)

        def call(self, x):
            return x + keras3.random.normal(ops.shape(x), seed=self.seed)

    inputs = keras3.Input((4,))
    x = Sampling()(layers3.Dense(4)(inputs))
    model = keras3.Model(inputs, layers3.Dense(2)(x))
    state = np.asarray(model.layers[2].seed.state)
    twin = tf_lsq.from_keras3(model)
    assert len(twin.layers) == len(model.layers)
    np.testing.assert_array_equal(model.layers[2].seed.state, state)


def test_a_difference_behind_random_numbers_and_infinities_is_found(monkeypatch):
    wrong = {**twins.ROWS, "Tanh": twins.ROWS["Sigmoid"]}
    monkeypatch.setattr(twins, "ROWS", wrong)
    for end in (lambda x: x / 0.0, lambda x: ops.log(ops.relu(-ops.abs(x)))):
        with pytest.raises(ValueError, match="Tanh"):
            tf_lsq.from_keras3(nested(lambda x, end=end: ops.tanh(end(x))))


@pytest.mark.parametrize("size", [None, 40])
def test_axes_of_unknown_size_get_one_that_the_model_accepts(size):
    inputs = keras3.Input((None, None, 3))
    x = layers3.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = layers3.UpSampling2D(2)(layers3.Conv2D(3, 3, padding="same")(x))
    x = layers3.Add()([x, inputs])
    x = layers3.Conv2D(2, size or 3)(x)
    tf_lsq.from_keras3(keras3.Model(inputs, x))


def test_a_model_that_needs_other_numbers_is_compared_on_an_example(rng):
    inputs = keras3.Input((3, 3), name="matrix")
    model = keras3.Model({"matrix": inputs}, ops.cholesky(inputs))
    with pytest.raises(ValueError, match=r"example=batch.*`cholesky"):
        tf_lsq.from_keras3(model)
    example = {"matrix": 2 * np.eye(3, dtype=np.float32)[None]}
    twin = tf_lsq.from_keras3(model, example=example)
    np.testing.assert_allclose(twin(example), model(example))


def test_the_model_and_the_random_state_are_left_alone():
    inputs = keras3.Input(batch_shape=(2, 6, 4))
    x = layers3.LSTM(3, stateful=True, return_sequences=True)(inputs)
    model = keras3.Model(inputs, layers3.BatchNormalization()(x))
    before = [np.asarray(weight) for weight in model.variables]
    tf_lsq.from_keras3(model)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("found", "expected", "differs"),
    [
        ([1.0, 2.0], [1.0, 2.0001], False),
        ([1.0, 2.0], [1.0, 2.001], True),
        ([np.nan, 1.0], [np.nan, 1.0], False),
        ([np.inf, 1.0], [-np.inf, 1.0], True),
        ([np.nan, 1.0], [0.0, 1.0], True),
        ([1, 2], [1, 3], True),
        ([True], [True], False),
        ([], [], False),
        ([1j], [1j + 1], True),
    ],
)
def test_differences_of_tensors(found, expected, differs):
    arrays = [np.asarray(values) for values in (found, expected)]
    arrays = [a.astype(np.float32) if a.dtype == float else a for a in arrays]
    problem = differences.compare(arrays[:1], arrays[1:], 1e-4)
    assert (problem is not None) == differs


# --- Registered layers -------------------------------------------------------


class Gated(layers3.Layer):
    def build(self, shape):
        self.gate = layers3.Dense(shape[-1], activation="sigmoid", name="gate")
        self.gate.build(shape)
        super().build(shape)

    def call(self, x):
        return x * self.gate(x)


@pytest.fixture
def gated():
    """A model with a custom layer; what is registered is forgotten afterwards."""
    inputs = keras3.Input((4,))
    x = Gated(name="gated")(layers3.Dense(4)(inputs))
    yield keras3.Model(inputs, layers3.Dense(2)(x))
    expansions.EXPANSIONS.pop(Gated, None)


def test_a_registered_layer_is_translated_in_place(gated, rng):
    @tf_lsq.register_layer(Gated)
    def expand(layer):
        x = keras3.Input(layer.gate.kernel.shape[:1])
        return keras3.Model(x, x * layer.gate(x))

    twin = tf_lsq.from_keras3(gated)
    inner = twin.get_layer("gated")
    np.testing.assert_array_equal(
        inner.get_layer("gate").get_weights()[0], gated.layers[2].gate.kernel
    )
    student = tf_lsq.quantize_model(gated, weight_bits=8, activation_bits=8)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    expected = np.asarray(gated(x))
    assert np.abs(student(x) - expected).max() < 0.05 * np.abs(expected).max()


def test_a_layer_may_decompose_into_layers_of_tf_keras(gated):
    from tf_lsq._compat import keras

    @tf_lsq.register_layer(Gated)
    def expand(layer):
        x = keras.Input(layer.gate.kernel.shape[:1])
        dense = keras.layers.Dense(4, activation="sigmoid")
        gate = dense(x)
        dense.set_weights([np.asarray(weight) for weight in layer.gate.weights])
        return keras.Model(x, keras.layers.Multiply()([x, gate]))

    assert isinstance(tf_lsq.from_keras3(gated).get_layer("gated"), keras.Model)


def test_a_wrong_decomposition_is_refused(gated):
    @tf_lsq.register_layer(Gated)
    def expand(layer):
        x = keras3.Input(layer.gate.kernel.shape[:1])
        return keras3.Model(x, layer.gate(x))

    with pytest.raises(ValueError, match=r"`gated` .*registered for Gated"):
        tf_lsq.from_keras3(gated)


def test_a_decomposition_must_be_a_model(gated):
    tf_lsq.register_layer(Gated)(lambda layer: None)
    with pytest.raises(TypeError, match="registered for Gated must return"):
        tf_lsq.from_keras3(gated)


def test_what_can_be_registered():
    with pytest.raises(TypeError, match="must be a subclass"):
        tf_lsq.register_layer(int)
    with pytest.raises(ValueError, match="already supported"):
        tf_lsq.register_layer(layers3.Conv2D)
    with pytest.raises(ValueError, match="already supported"):
        tf_lsq.register_layer(layers3.RMSNormalization)
    assert callable(tf_lsq.register_layer(layers3.RandAugment))
