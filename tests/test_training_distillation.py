"""The distiller: its loss and logs, and what it trains, saves and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

layers = keras.layers


@pytest.fixture
def teacher(rng):
    return tiny.randomize(tiny.residual(), rng)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def expected_distillation(teacher, student, temperature, logits=(True, True)):
    """T^2 KL(teacher || student) per example, in float64."""
    outputs = [np.asarray(o, np.float64) for o in (teacher, student)]
    t, s = (
        log_softmax((o if is_logits else np.log(o)) / temperature)
        for o, is_logits in zip(outputs, logits, strict=True)
    )
    return temperature**2 * (np.exp(t) * (t - s)).sum(axis=-1)


@pytest.mark.parametrize("logits", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_distillation_loss_matches_float64(logits, temperature, rng):
    outputs = [rng.normal(0, 2, (6, 5)) for _ in range(2)]
    outputs = [
        o if is_logits else np.exp(log_softmax(o))
        for o, is_logits in zip(outputs, logits, strict=True)
    ]
    loss = tf_lsq.DistillationLoss(
        temperature, teacher_from_logits=logits[0], from_logits=logits[1]
    )
    weights = np.arange(6.0)
    found = loss(*map(tf.constant, outputs), sample_weight=weights)
    expected = expected_distillation(*outputs, temperature, logits)
    assert float(found) == pytest.approx((weights * expected).mean(), rel=1e-6)


def test_the_distillation_gradient_is_that_of_cross_entropy_at_any_temperature(rng):
    teacher, student = (tf.constant(rng.normal(size=(4, 5))) for _ in range(2))
    for temperature in (1.0, 2.0):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = tf_lsq.DistillationLoss(temperature)(teacher, student)
        softened = [tf.nn.softmax(o / temperature) for o in (student, teacher)]
        expected = temperature * (softened[0] - softened[1]) / 4
        np.testing.assert_allclose(tape.gradient(loss, student), expected, rtol=1e-6)


def test_the_loss_of_sixteen_bit_outputs_is_computed_in_float32():
    scores = tf.constant([[0.0, 12.0]], tf.float16)
    found = tf_lsq.DistillationLoss()(scores, tf.zeros_like(scores))
    assert found.dtype == tf.float32
    expected = expected_distillation([[0, 12.0]], [[0, 0]], 1)
    assert float(found) == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate_reports_the_weighted_sum(weighted, teacher, data, rng):
    x, y = data
    weights = rng.uniform(0, 2, 64).astype(np.float32) if weighted else None
    student = tf_lsq.quantize_model(teacher, weight_bits=2, activation_bits=2)
    tf_lsq.calibrate(student, x)
    distiller = tf_lsq.Distiller(
        student, teacher, temperature=2.0, distillation_weight=0.3
    )
    distiller.compile(**tf_lsq.recipe(4, 10), metrics=["accuracy"])
    found = distiller.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    scores, goal = (m.predict(x, verbose=0) for m in (student, teacher))
    weights = np.ones(64) if weights is None else weights
    hard = -np.log(scores[np.arange(64), y].astype(np.float64))
    soft = expected_distillation(goal, scores, 2.0, (False, False))
    expected = {
        "student_loss": (weights * hard).mean(),
        "distillation_loss": (weights * soft).mean(),
        "accuracy": (scores.argmax(-1) == y).mean(),
    }
    expected["loss"] = (
        0.7 * expected["student_loss"] + 0.3 * expected["distillation_loss"]
    )
    assert found == pytest.approx(expected, rel=1e-4)
    assert list(found) == [
        "loss",
        "student_loss",
        "accuracy",
        "distillation_loss",
    ]


def test_a_distiller_without_distillation_trains_like_the_student(teacher, data):
    students = [tf_lsq.quantize_model(teacher) for _ in range(2)]
    models = [
        students[0],
        tf_lsq.Distiller(students[1], teacher, distillation_weight=0),
    ]
    for model in models:
        model.compile(**tf_lsq.recipe(4, 4))
        model.fit(*data, batch_size=32, epochs=2, shuffle=False, verbose=0)
    found = [student.get_weights() for student in students]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_regularisers_count_in_full(data):
    kernel = keras.regularizers.L2(0.1)
    teacher = keras.Sequential(
        [
            layers.Flatten(input_shape=(8, 8, 3)),
            layers.Dense(5, kernel_regularizer=kernel),
        ]
    )
    student = tf_lsq.quantize_model(teacher)
    tf_lsq.calibrate(student, data[0])
    distiller = tf_lsq.Distiller(student, teacher)
    distiller.compile("sgd", tf_lsq.CrossEntropy())
    found = distiller.evaluate(*data, verbose=0, return_dict=True)
    expected = 0.5 * (found["student_loss"] + found["distillation_loss"])
    expected += 0.1 * np.square(teacher.layers[-1].kernel.numpy()).sum()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_teacher_is_frozen_and_runs_in_inference_mode(data):
    inputs = layers.Input((8, 8, 3))
    x = tiny.conv_bn_relu(inputs)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    teacher = keras.Model(inputs, layers.Dense(5)(x))
    before = teacher.get_weights()
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    distiller.compile(**tf_lsq.recipe(4, 10))
    distiller.fit(*data, epochs=2, verbose=0)
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert teacher.trainable and all(layer.trainable for layer in teacher.layers)
    ids = {id(v) for v in distiller.weights}
    assert not ids & {id(v) for v in teacher.weights}
    assert ids == {id(v) for v in distiller.student.weights}
    one, other = (
        distiller.evaluate(*data, verbose=0, return_dict=True)["distillation_loss"]
        for _ in range(2)
    )
    assert one == other  # Active dropout would make them differ.


def test_a_student_learns_from_the_teacher_alone(teacher, data):
    distiller = tf_lsq.Distiller(
        tf_lsq.quantize_model(teacher, weight_bits=2, activation_bits=2),
        teacher,
        distillation_weight=1.0,
    )
    distiller.compile(keras.optimizers.Adam(1e-3))
    losses = distiller.fit(data[0], epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_fitting_a_distiller_does_all_that_fitting_the_student_does(teacher, data):
    student = tf_lsq.quantize_model(teacher)
    distiller = tf_lsq.Distiller(student, teacher)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    distiller.compile(optimizer, tf_lsq.CrossEntropy())
    callback = tf_lsq.BatchNormReestimation(data, num_batches=1)
    distiller.fit(*data, verbose=0, callbacks=[callback])
    assert all(step > 0 for step in tf_lsq.steps(student).values())
    decayed = [
        v.name for v in distiller.trainable_variables if optimizer._use_weight_decay(v)
    ]
    assert not [name for name in decayed if name.endswith("_step:0")]
    weights = student.get_weights()
    tf_lsq.round_biases(student)  # Nothing is left to round.
    for one, other in zip(weights, student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_student_is_exported_and_the_distiller_is_not(teacher, data, tmp_path):
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    distiller.compile(**tf_lsq.recipe(4, 10))
    distiller.fit(*data, verbose=0)
    np.testing.assert_array_equal(
        distiller.predict(data[0], verbose=0),
        distiller.student.predict(data[0], verbose=0),
    )
    path = tmp_path / "model.tflite"
    with pytest.raises((TypeError, ValueError), match=r"student"):
        tflite_export.export_model(distiller, path)
    assert not path.exists()
    tflite_export.export_model(distiller.student, path, verbose=False)
    tflite_export.verify_tflite(path, distiller.student, data[0], verbose=False)


def test_a_saved_distiller_resumes_where_it_stopped(teacher, data, tmp_path):
    distiller = tf_lsq.Distiller(
        tf_lsq.quantize_model(teacher), teacher, temperature=2.0, name="both"
    )
    distiller.compile(keras.optimizers.Adam(1e-2), tf_lsq.CrossEntropy())
    distiller.fit(*data, verbose=0)
    distiller.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras")
    assert (loaded.temperature, loaded.name) == (2.0, "both")
    np.testing.assert_array_equal(loaded.teacher(data[0]), teacher(data[0]))
    distiller.student.range_watch = None  # A loaded student has none.
    for model in (distiller, loaded):
        model.fit(*data, shuffle=False, verbose=0)
    for one, other in zip(distiller.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_losses_a_teacher_was_compiled_with_are_not_saved(teacher, data, tmp_path):
    def unknown_elsewhere(y_true, y_pred):
        return tf.reduce_mean(y_pred, axis=-1)

    teacher.compile("sgd", unknown_elsewhere)
    student = tf_lsq.quantize_model(teacher)
    student.compile("sgd", unknown_elsewhere)
    distiller = tf_lsq.Distiller(student, teacher)
    distiller.compile(**tf_lsq.recipe(4, 10))
    distiller.fit(*data, verbose=0)
    distiller.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras")
    np.testing.assert_array_equal(loaded.teacher(data[0]), teacher(data[0]))


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_both_losses_are_reduced_in_the_same_way(reduction, teacher, data):
    student = tf_lsq.quantize_model(teacher, weight_bits=2, activation_bits=2)
    tf_lsq.calibrate(student, data[0])
    distiller = tf_lsq.Distiller(student, teacher)
    distiller.compile("sgd", tf_lsq.CrossEntropy(reduction=reduction))
    found = distiller.evaluate(*data, verbose=0, return_dict=True, batch_size=64)
    outputs = [model.predict(data[0], verbose=0) for model in (teacher, student)]
    each = expected_distillation(*outputs, 1.0, (False, False))
    expected = each.sum() if reduction == "sum" else each.mean()
    assert found["distillation_loss"] == pytest.approx(expected, rel=1e-4)


def test_inputs_reach_the_student_unchanged(data):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = layers.Input((8, 8, 3))
        x = layers.Rescaling(1e-5, dtype="float32")(inputs)
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
        teacher = keras.Model(inputs, layers.Dense(5, dtype="float32")(x))
        student = tf_lsq.quantize_model(teacher)
        distiller = tf_lsq.Distiller(student, teacher)
        x = data[0] * 1e5  # More than float16 can hold.
        tf_lsq.calibrate(student, x)
        found = distiller.predict(x, verbose=0)
        np.testing.assert_array_equal(found, student.predict(x, verbose=0))
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_checkpoints_hold_the_student_only(teacher, data, tmp_path):
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    distiller.compile("adam", tf_lsq.CrossEntropy())
    distiller.fit(*data, verbose=0)
    distiller.save_weights(str(tmp_path / "weights"))
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "weights"))]
    assert names and not [
        name for name in names if "untracked" in name or "teacher" in name
    ]
    other = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    other.load_weights(str(tmp_path / "weights")).expect_partial()
    np.testing.assert_array_equal(
        other.predict(data[0], verbose=0), distiller.predict(data[0], verbose=0)
    )


def two_headed():
    inputs = layers.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(tiny.conv_bn_relu(inputs))
    ends = {"box": layers.Dense(4, name="b")(x), "label": layers.Dense(5, name="l")(x)}
    return keras.Model(inputs, ends)


def test_each_output_is_distilled_according_to_its_loss(data, rng):
    teacher = two_headed()
    x, y = data
    labels = {"label": y, "box": rng.normal(size=(64, 4)).astype(np.float32)}
    student = tf_lsq.quantize_model(teacher, weight_bits=2)
    distiller = tf_lsq.Distiller(student, teacher)
    distiller.compile(
        "sgd",
        {"label": tf_lsq.CrossEntropy(), "box": "mse"},
        loss_weights={"label": 1.0, "box": 10.0},
        metrics={"label": "accuracy"},
    )
    distiller.fit(x, labels, verbose=0)
    found = distiller.evaluate(x, labels, verbose=0, return_dict=True)
    scores, goal = (m.predict(x, verbose=0) for m in (student, teacher))
    soft = expected_distillation(goal["label"], scores["label"], 1.0).mean()
    box = np.square(scores["box"] - goal["box"]).mean()
    assert found["label_distillation_loss"] == pytest.approx(soft, rel=1e-3)
    assert found["box_distillation_loss"] == pytest.approx(box, rel=1e-3)
    assert found["distillation_loss"] == pytest.approx(soft + 10 * box, rel=1e-3)
    assert "label_accuracy" in found


@pytest.mark.parametrize("by", ["name", "position"])
def test_weights_per_output_apply_to_both_losses(by, data):
    inputs = layers.Input((8, 8, 3))
    x = layers.Flatten()(inputs)
    ends = [layers.Dense(5, name=name)(x) for name in ("zz", "aa")]
    teacher = keras.Model(inputs, ends)
    student = tf_lsq.quantize_model(teacher, weight_bits=2, first_last_bits=2)
    tf_lsq.calibrate(student, data[0])
    distiller = tf_lsq.Distiller(student, teacher)
    values = [0.5, 3.0]
    weights = [np.full(64, 2.0, np.float32), np.full(64, 5.0, np.float32)]
    if by == "name":
        values, weights = (
            dict(zip(distiller.output_names, v, strict=True)) for v in (values, weights)
        )
    distiller.compile("sgd", tf_lsq.CrossEntropy(), loss_weights=values)
    labels = [data[1], data[1]]
    if by == "name":
        labels = dict(zip(distiller.output_names, labels, strict=True))
    found = distiller.evaluate(
        data[0], labels, sample_weight=weights, verbose=0, return_dict=True
    )
    scores, goals = (m.predict(data[0], verbose=0) for m in (student, teacher))
    expected = sum(
        factor * expected_distillation(goal, score, 1.0).mean()
        for factor, goal, score in zip((0.5 * 2, 3 * 5), goals, scores, strict=True)
    )
    assert found["distillation_loss"] == pytest.approx(expected, rel=1e-4)


def test_subclassed_class_losses_are_distilled_and_custom_functions_refused(data):
    class Smooth(keras.losses.SparseCategoricalCrossentropy):
        pass

    teacher = tiny.pre_activation()
    student = tf_lsq.quantize_model(teacher, weight_bits=2)
    tf_lsq.calibrate(student, data[0])
    distiller = tf_lsq.Distiller(student, teacher)
    distiller.compile("sgd", Smooth(from_logits=True))
    found = distiller.evaluate(*data, verbose=0, return_dict=True)
    scores, goal = (m.predict(data[0], verbose=0) for m in (student, teacher))
    expected = expected_distillation(goal, scores, 1.0).mean()
    assert found["distillation_loss"] == pytest.approx(expected, rel=1e-3)

    def smooth(y, scores):
        return keras.losses.sparse_categorical_crossentropy(y, scores, True)

    with pytest.raises(ValueError, match=r"with the loss smooth"):
        distiller.compile("sgd", smooth)
    with pytest.raises(ValueError, match=r"one loss per output.*Received: 2"):
        distiller.compile("sgd", ["mse", "mse"])


def test_a_softmax_over_one_class_is_refused():
    for loss in (tf_lsq.DistillationLoss(), tf_lsq.CrossEntropy(True)):
        with pytest.raises(ValueError, match=r"two classes.*\(2, 1\)"):
            loss([[0.0], [1.0]], [[0.5], [2.0]])


def test_helpers_take_the_student_of_a_distiller(teacher, data):
    student = tf_lsq.quantize_model(teacher)
    distiller = tf_lsq.Distiller(student, teacher)
    tf_lsq.calibrate(distiller, data)
    assert tf_lsq.steps(distiller) == tf_lsq.steps(student) != {}
    tf_lsq.reestimate_batch_norm(distiller, data)


def test_the_teacher_may_be_a_keras_3_model(data):
    import keras as keras3

    inputs = keras3.Input((8, 8, 3))
    x = keras3.layers.Conv2D(4, 3, activation="relu")(inputs)
    teacher = keras3.Model(inputs, keras3.layers.Dense(5)(keras3.layers.Flatten()(x)))
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    distiller.compile(**tf_lsq.recipe(4, 10))
    distiller.fit(*data, verbose=0)
    np.testing.assert_allclose(
        distiller.teacher(data[0]), teacher(data[0]), rtol=1e-4, atol=1e-5
    )


def test_unsuitable_students_teachers_and_options_are_refused(teacher, data):
    student = tf_lsq.quantize_model(teacher)
    with pytest.raises(TypeError, match=r"quantize_model.*Received: Functional"):
        tf_lsq.Distiller(teacher, teacher)
    with pytest.raises(TypeError, match="`teacher` must be a functional"):
        tf_lsq.Distiller(student, teacher.predict)
    with pytest.raises(ValueError, match=r"outputs of shape \(None, 7\)"):
        tf_lsq.Distiller(student, tiny.residual(num_classes=7))
    inputs = [layers.Input((4,), name=name) for name in ("a", "b")]
    both = keras.Model(inputs, layers.Dense(2)(layers.Add()(inputs)))
    turned = keras.Model(inputs[::-1], layers.Dense(2)(layers.Add()(inputs)))
    with pytest.raises(ValueError, match=r"\['a', 'b'\], in this order"):
        tf_lsq.Distiller(tf_lsq.quantize_model(both), turned)
    for wrong in ({"temperature": 0.0}, {"distillation_weight": 1.5}):
        with pytest.raises(ValueError, match="distillation_weight"):
            tf_lsq.Distiller(student, teacher, **wrong)
    with pytest.raises(ValueError, match="loss=None"):
        tf_lsq.Distiller(student, teacher).compile("sgd")
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        tf_lsq.DistillationLoss(-1.0)


def test_a_teacher_with_its_outputs_in_another_order_is_refused():
    inputs = layers.Input((4,))
    first, second = (layers.Dense(3, name=name)(inputs) for name in "ab")
    student = tf_lsq.quantize_model(keras.Model(inputs, [first, second]))
    with pytest.raises(ValueError, match=r"\['a', 'b'\], in this order.*\['b', 'a'\]"):
        tf_lsq.Distiller(student, keras.Model(inputs, [second, first]))
    tf_lsq.Distiller(student, keras.Model(inputs, [first, second]))


def test_all_losses_unsuitable_for_distillation_are_named():
    inputs = layers.Input((4,))
    x = layers.Dense(3)(inputs)
    ends = {
        "a": layers.Activation("sigmoid")(x),
        "b": layers.Dense(2)(x),
        "c": layers.Dense(2)(x),
    }
    teacher = keras.Model(inputs, ends)
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(teacher), teacher)
    losses = {
        "a": "categorical_crossentropy",
        "b": keras.losses.BinaryCrossentropy(from_logits=True),
        "c": "mse",
    }
    with pytest.raises(
        ValueError, match=r"`a`: student ends in sigmoid.*`b`: "
    ) as error:
        distiller.compile("sgd", losses)
    assert "`c`" not in str(error.value)


# --- Outputs that are probabilities --------------------------------------------------


def ends_in_softmax(kind):
    """A model that is certain of class 0; `kind` selects how it applies the softmax."""
    inputs = layers.Input((4,))
    x = layers.Dense(3, name="logits")(inputs)
    if kind == "argument":
        outputs = layers.Activation("softmax")(x)
    elif kind == "layer":
        outputs = layers.Softmax()(x)
    else:
        outputs = tf.nn.softmax(x)
    model = keras.Model(inputs, outputs)
    model.get_layer("logits").kernel.assign(np.full((4, 1), 0.25) * [[60.0, 0, -3]])
    return model


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("kind", ["argument", "layer", "function"])
def test_a_student_that_is_certain_and_wrong_gets_a_gradient(kind, in_graph):
    model = ends_in_softmax(kind)
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    kernel = other.get_layer("logits").kernel
    kernel.assign(kernel.numpy()[:, [1, 0, 2]])  # The teacher is certain of class 1.
    x = np.random.default_rng(0).uniform(0.9, 1.1, (16, 4)).astype(np.float32)
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    distiller = tf_lsq.Distiller(student, other, distillation_weight=1.0)
    distiller.compile(keras.optimizers.SGD(1.0))
    tf_lsq.calibrate(distiller, x)
    [bias] = [v for v in student.trainable_variables if v.name.endswith("bias:0")]

    def gradient():
        with tf.GradientTape() as tape:
            outputs = distiller(x, training=True)
            loss = distiller.compute_loss(x, None, outputs, None)
        return tape.gradient(loss, bias)

    found = tf.function(gradient)() if in_graph else gradient()
    np.testing.assert_allclose(found, [1.0, -1.0, 0.0], atol=1e-5)


def test_the_label_loss_uses_the_inputs_of_a_softmax():
    logits = tf.constant([[90.0, 0.0, -9.0]])

    @tf.function
    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            outputs = tf.cast(tf.nn.softmax(logits), tf.float64)
            loss = tf_lsq.CrossEntropy(from_logits=False)([1], outputs)
        return tape.gradient(loss, logits)

    np.testing.assert_allclose(gradient(logits), [[1.0, -1.0, 0.0]], atol=1e-6)


# --- Augmentation inside models ------------------------------------------------------


def augmenting(*extra):
    inputs = layers.Input((8, 8, 3))
    x = layers.RandomTranslation(0.4, 0.4, name="shift")(inputs)
    for layer in extra:
        x = layer(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


def test_student_and_teacher_see_the_same_augmented_images(data):
    model = augmenting(layers.RandomFlip(name="flip"))
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    tf_lsq.calibrate(student, data[0])
    distiller = tf_lsq.Distiller(student, model, distillation_weight=1.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    student.range_watch = None
    clean = distiller.evaluate(*data, verbose=0, return_dict=True)
    shifted = distiller.fit(*data, verbose=0).history
    assert shifted["distillation_loss"][0] < 3 * clean["distillation_loss"] < 0.01
    # Without the replay both would differ by much more.
    alone = tf_lsq.DistillationLoss()(model(data[0]), student(data[0], training=True))
    assert alone > 10 * clean["distillation_loss"]


def test_a_teacher_that_would_see_other_images_is_refused(data):
    student = tf_lsq.quantize_model(augmenting())
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    teacher = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"\['shift'\].*`dataset.map`"):
        tf_lsq.Distiller(student, teacher)
