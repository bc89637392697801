"""The paper's recipe: values, L2 in the gradient, logits or probabilities."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training.losses import output_kinds

layers = keras.layers


@pytest.mark.parametrize(
    ("bits", "rate", "decay"),
    [(8, 1e-3, 1e-4), (4, 1e-2, 1e-4), (3, 1e-2, 0.5e-4), (2, 1e-2, 0.25e-4)],
)
def test_recipe_values_match_the_paper(bits, rate, decay):
    optimizer = tf_lsq.recipe(bits, 100)["optimizer"]
    schedule = optimizer._learning_rate
    for step in (0, 25, 50, 100):
        expected = rate * (1 + np.cos(np.pi * step / 100)) / 2
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-9)
    assert (optimizer.momentum, optimizer.l2) == (0.9, decay)
    assert optimizer.weight_decay is None


def test_every_recipe_value_can_be_overridden():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = tf_lsq.recipe(
        4, 100, learning_rate=schedule, momentum=0.5, weight_decay=0.3
    )["optimizer"]
    assert (optimizer.momentum, optimizer.l2) == (0.5, 0.3)
    assert optimizer._learning_rate is schedule
    constant = tf_lsq.recipe(4, 100, learning_rate=0.2, schedule="constant")
    assert float(constant["optimizer"].learning_rate) == pytest.approx(0.2)
    steps = tf_lsq.recipe(4, 90, schedule="step")["optimizer"]._learning_rate
    rates = [float(steps(step)) for step in (20, 21, 41, 61, 81)]
    np.testing.assert_allclose(rates, [1e-2, 1e-3, 1e-4, 1e-5, 1e-6], rtol=1e-5)
    assert tf_lsq.recipe(4, 9, from_logits=False)["loss"].from_logits is False


def test_the_finetune_and_adam_variants_have_their_own_values():
    short = tf_lsq.recipe(2, 200, variant="finetune")["optimizer"]
    assert short.l2 == 0.0
    rates = [float(short._learning_rate(step)) for step in (0, 5, 10, 105, 200)]
    np.testing.assert_allclose(rates, [0, 5e-3, 1e-2, 5e-3, 0], atol=1e-6)
    adam = tf_lsq.recipe(2, 200, variant="adam")["optimizer"]
    assert isinstance(adam, keras.optimizers.AdamW)
    # As much per step as the paper's SGD: rate * l2 / (1 - momentum).
    assert 1e-3 * adam.weight_decay == pytest.approx(1e-2 * 0.25e-4 / 0.1)
    adam = tf_lsq.recipe(8, 200, variant="adam")["optimizer"]
    assert 1e-3 * adam.weight_decay == pytest.approx(1e-3 * 1e-4 / 0.1)


def test_adam_decays_kernels_only(data):
    student = tf_lsq.quantize_model(tiny.residual())
    student.compile(**tf_lsq.recipe(4, 10, variant="adam"))
    student.optimizer.build(student.trainable_variables)
    for variable in student.trainable_variables:
        decayed = bool(student.optimizer._use_weight_decay(variable))
        assert decayed == variable.name.endswith("kernel:0"), variable.name


@pytest.mark.parametrize("kind", [".keras", ".h5"])
@pytest.mark.parametrize("variant", ["paper", "adam"])
def test_a_loaded_model_continues_training_exactly(variant, kind, data, tmp_path):
    student = tf_lsq.quantize_model(tiny.residual())
    # A decay strong enough to be noticed if it acted on biases or batch norms.
    student.compile(**tf_lsq.recipe(4, 100, variant=variant, weight_decay=0.5))
    student.fit(*data, verbose=0)
    path = tmp_path / f"student{kind}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
        student.save(path)
    loaded = keras.models.load_model(path)
    student.range_watch = None  # A loaded model has none.
    for model in (student, loaded):
        model.fit(*data, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(student.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight_bits": 1},
        {"steps": 0},
        {"steps": 10.5},
        {"variant": "fast"},
        {"schedule": "linear"},
        {"variant": "finetune", "schedule": "step"},
        {"weight_decay": -1.0},
    ],
)
def test_recipe_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"Received: .*="):
        tf_lsq.recipe(**{"weight_bits": 4, "steps": 10} | wrong)
    with pytest.raises(ValueError, match="step_clip"):
        tf_lsq.recipe(4, 10, step_clip=0.0)
    with pytest.raises(ValueError, match="replaces `weight_decay`"):
        tf_lsq.SGDWithL2(0.1, l2=0.1, weight_decay=0.1)


# --- L2 in the gradient -------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
def test_l2_goes_through_the_momentum_for_kernels_only(nesterov, rng):
    names = ("a/kernel", "a/depthwise_kernel", "a/bias", "a/gamma", "a/beta")
    start = rng.normal(size=(len(names), 3))
    variables = [
        tf.Variable(v, name=name, dtype=tf.float32)
        for v, name in zip(start, names, strict=True)
    ]
    optimizer = tf_lsq.SGDWithL2(0.1, l2=0.3, momentum=0.9, nesterov=nesterov)
    expected, momentum = start.astype(np.float64), np.zeros_like(start)
    decayed = np.array([[0.3], [0.3], [0], [0], [0]])
    for _ in range(6):
        gradients = rng.normal(size=start.shape)
        pairs = zip(gradients.astype(np.float32), variables, strict=True)
        optimizer.apply_gradients([(tf.constant(g), v) for g, v in pairs])
        total = gradients + decayed * expected
        momentum = 0.9 * momentum - 0.1 * total
        expected += (0.9 * momentum - 0.1 * total) if nesterov else momentum
    np.testing.assert_allclose([v.numpy() for v in variables], expected, rtol=1e-5)


def test_l2_equals_a_regulariser_and_not_keras_weight_decay(data):
    """The optimizer acts like `0.5 * l2 * sum(kernel^2)` in the loss."""

    def trained(optimizer, l2=0.0):
        keras.utils.set_random_seed(1)
        inputs = layers.Input((8, 8, 3))
        regularizer = keras.regularizers.L2(l2 / 2)
        x = layers.Conv2D(4, 3, kernel_regularizer=regularizer)(inputs)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(5, kernel_regularizer=regularizer)(x))
        student = tf_lsq.quantize_model(model, step_clip=None)
        student.compile(optimizer, tf_lsq.CrossEntropy())
        student.fit(*data, epochs=3, batch_size=32, shuffle=False, verbose=0)
        return student.get_weights()

    sgd = keras.optimizers.SGD
    found = trained(tf_lsq.SGDWithL2(0.05, l2=0.1, momentum=0.9))
    expected = trained(sgd(0.05, momentum=0.9), l2=0.1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)
    decoupled = trained(sgd(0.05, momentum=0.9, weight_decay=0.1))
    differences = [np.abs(a - b).max() for a, b in zip(decoupled, found, strict=True)]
    assert max(differences) > 0.01


def test_the_optimizer_is_saved_with_the_model(data, tmp_path):
    student = tf_lsq.quantize_model(tiny.residual())
    student.compile(**tf_lsq.recipe(3, 10))
    student.fit(*data, verbose=0)
    student.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.l2 == 0.5e-4
    assert loaded.loss.from_logits is False
    assert loaded.evaluate(*data, verbose=0) == student.evaluate(*data, verbose=0)


# --- Logits or probabilities --------------------------------------------------------


def ending(build):
    inputs = layers.Input((4,))
    return keras.Model(inputs, build(layers.Dense(3, name="scores")(inputs)))


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda x: x, "logits"),
        (layers.Softmax(), "probabilities"),
        (
            lambda x: layers.Reshape((3,))(layers.Activation("softmax")(x)),
            "probabilities",
        ),
        (tf.nn.softmax, "probabilities"),
        (layers.Dense(3, activation="softmax"), "probabilities"),
        (layers.Activation("sigmoid"), "sigmoid"),
        (lambda x: keras.Sequential([layers.Softmax()])(x), "probabilities"),
        (lambda x: layers.Average()([layers.Softmax()(x), x]), "unknown"),
        (layers.Activation("hard_sigmoid"), "sigmoid"),
    ],
)
def test_the_kind_of_outputs_is_inferred_from_the_graph(build, kind):
    model = ending(build)
    assert list(output_kinds(model).values()) == [kind]
    assert list(output_kinds(tf_lsq.quantize_model(model)).values()) == [kind]


def test_an_unknown_last_layer_gives_unknown_outputs():
    model = ending(layers.Lambda(tf.math.erf))
    assert list(output_kinds(model).values()) == ["unknown"]


@pytest.mark.parametrize("end", ["logits", "probabilities"])
@pytest.mark.parametrize("labels", ["numbers", "column", "one-hot"])
def test_compile_configures_the_loss_for_its_outputs(end, labels, rng):
    model = ending(layers.Softmax() if end == "probabilities" else (lambda x: x))
    student = tf_lsq.quantize_model(model)
    x, y = rng.normal(size=(16, 4)).astype(np.float32), rng.integers(0, 3, 16)
    tf_lsq.calibrate(student, x)
    student.compile(**tf_lsq.recipe(4, 10))
    shapes = {"numbers": y, "column": y[:, None], "one-hot": np.eye(3)[y]}
    found = student.evaluate(x, shapes[labels], verbose=0)
    scores = student.predict(x, verbose=0).astype(np.float64)
    p = scores if end == "probabilities" else np.exp(scores)
    p = p / p.sum(axis=-1, keepdims=True)
    assert found == pytest.approx(-np.log(p[np.arange(16), y]).mean(), rel=1e-5)


def test_losses_of_several_outputs_are_configured_separately():
    inputs = layers.Input((4,))
    x = layers.Dense(3, name="a")(inputs)
    ends = {"first": layers.Softmax(name="b")(x), "second": x}
    student = tf_lsq.quantize_model(keras.Model(inputs, ends))
    student.compile("sgd", tf_lsq.CrossEntropy())
    assert {k: v.from_logits for k, v in student.loss.items()} == {
        "first": False,
        "second": True,
    }
    student.compile("sgd", {"first": tf_lsq.CrossEntropy(), "second": "mse"})
    assert student.loss["first"].from_logits is False
    student = tf_lsq.quantize_model(keras.Model(inputs, list(ends.values())))
    student.compile("sgd", [tf_lsq.CrossEntropy(), tf_lsq.CrossEntropy(True)])
    assert [one.from_logits for one in student.loss] == [False, True]


def test_losses_of_missing_outputs_are_named():
    inputs = layers.Input((4,))
    ends = [layers.Dense(3, name=name)(inputs) for name in ("a", "b")]
    student = tf_lsq.quantize_model(keras.Model(inputs, ends))
    with pytest.raises(ValueError, match=r"names of outputs.*Received: \['c'\]"):
        student.compile("sgd", {"c": tf_lsq.CrossEntropy()})
    with pytest.raises(ValueError, match=r"one loss per output.*Received: 1"):
        student.compile("sgd", [tf_lsq.CrossEntropy()])


def test_numpy_numbers_are_accepted():
    steps = np.int64(100)
    optimizer = tf_lsq.recipe(4, steps, learning_rate=np.float32(0.5))["optimizer"]
    assert float(optimizer._learning_rate(50)) == pytest.approx(0.25)


def test_a_cross_entropy_is_refused_if_from_logits_cannot_be_inferred():
    with pytest.raises(ValueError, match="from_logits=None"):
        tf_lsq.CrossEntropy()([1], [[0.0, 1.0]])
    student = tf_lsq.quantize_model(ending(layers.Activation("sigmoid")))
    with pytest.raises(
        ValueError, match="`activation`, whose last operator is sigmoid"
    ):
        student.compile(**tf_lsq.recipe(4, 10))


def test_labels_of_unknown_shape_are_refused(data):
    student = tf_lsq.quantize_model(tiny.residual())
    student.compile(**tf_lsq.recipe(4, 10))
    x, y = data
    spec = tf.TensorSpec((None, 8, 8, 3)), tf.TensorSpec((None, None))
    labels = np.eye(5, dtype=np.float32)[y]
    unknown = tf.data.Dataset.from_generator(
        lambda: iter([(x, labels)]), output_signature=spec
    )
    with pytest.raises(ValueError, match="Labels must have a known last axis"):
        student.fit(unknown, verbose=0)


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (layers.UpSampling2D(2, interpolation="bilinear"), "probabilities"),
        (layers.AveragePooling2D(2), "probabilities"),
        (layers.GlobalAveragePooling2D(), "unknown"),
    ],
)
def test_means_of_probabilities_are_not_logits(last, kind):
    inputs = layers.Input((4, 4, 3))
    x = layers.Softmax()(layers.Conv2D(5, 1)(inputs))
    assert list(output_kinds(keras.Model(inputs, last(x))).values()) == [kind]
    difference = layers.Subtract()([x, layers.Conv2D(5, 1)(inputs)])
    assert list(output_kinds(keras.Model(inputs, difference)).values()) == ["unknown"]
