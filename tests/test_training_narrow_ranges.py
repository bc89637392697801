"""Tensors that use few codes of a grid that they share with larger ones."""

from __future__ import annotations

import numpy as np
import pytest
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.training import set_first_values

layers = keras.layers


def dense(units, scale, name, x):
    """A layer whose outputs have about this size."""
    size = scale / np.sqrt(x.shape[-1])
    init = keras.initializers.RandomUniform(-size, size)
    return layers.Dense(units, kernel_initializer=init, name=name)(x)


def network(head):
    """A network with a head of its 16 features."""
    inputs = layers.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    x = layers.Dense(16, activation="relu", name="features")(layers.Flatten()(x))
    return keras.Model(inputs, head(x))


def detections(x):
    boxes = layers.Rescaling(640.0)(dense(4, 1, "boxes", x))
    scores = layers.Dense(2, activation="sigmoid", name="scores")(x)
    return layers.Concatenate(name="detections")([boxes, scores])


def joined(join, small=1):
    def head(x):
        parts = [dense(4, small, "small", x), dense(4, 50, "wide", x)]
        return dense(3, 1, "last", join([*parts]))

    return head


def of_one_encoder(x):
    """A siamese network with one of its inputs scaled down."""
    encoder = layers.Dense(4, name="encoder", use_bias=False)
    return layers.Subtract(name="gap")([encoder(x), encoder(x * 0.001)])


def one_small_channel(x):
    kernel = np.random.default_rng(1).normal(size=(16, 5)) * [9, 9, 9, 9, 0.05]
    init = keras.initializers.Constant(kernel)
    return layers.Dense(5, kernel_initializer=init, name="head")(x)


def far_from_zero(x):
    init = keras.initializers.Constant(1013)
    return layers.Dense(1, bias_initializer=init, name="pressure")(x)


def mean_of_peaks(x):
    x = layers.Reshape((16, 16, 1))(dense(256, 1, "map", x))
    x = layers.ReLU(name="peaks")(x - 0.8)
    x = layers.AveragePooling2D(16, name="mean")(x)
    return dense(2, 1, "last", layers.Flatten()(x))


NARROW = {
    "boxes_and_scores": (detections, "detections", "`scores_sigmoid`", "joined output"),
    "joined_and_reshaped": (
        lambda x: layers.Reshape((2, 3))(detections(x)),
        *("detections", "`scores_sigmoid`", "joined output"),
    ),
    "concat": (joined(layers.Concatenate(name="join")), "join", "`small`", "join"),
    "maximum": (joined(layers.Maximum(name="join")), "join", "`small`", "join"),
    "add": (joined(layers.Add(name="join")), "join", "`small`", "sum"),
    "subtract": (joined(layers.Subtract(name="join")), "join", "`small`", "sum"),
    "siamese": (of_one_encoder, "gap", "`encoder`", "sum"),
    "average_pool": (mean_of_peaks, "mean", "`mean`", "pool"),
    "channel": (one_small_channel, "head", "channel 4", "channel"),
    "output": (far_from_zero, "pressure", "it", "output"),
}


@pytest.fixture
def x(rng):
    return rng.normal(size=(64, 6, 6, 3)).astype(np.float32)


def found_in(model, x, bits=8):
    student = tf_lsq.quantize_model(model, weight_bits=bits, activation_bits=bits)
    return student, set_first_values(student, x).narrow


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("case", NARROW)
def test_narrow_tensors_are_named(case, bits, x):
    head, *expected = NARROW[case]
    _, found = found_in(network(head), x, bits)
    assert [[one.place, one.tensor, one.kind] for one in found] == [expected]
    [one] = found
    assert one.num_codes < one.grid_codes / 16
    assert f"of {one.grid_codes} codes" in str(one) and str(one).count(". ") == 1


def leaky(x):
    """A leaky ReLU, written out."""
    x = dense(16, 1, "before", x)
    return dense(3, 1, "last", layers.Maximum()([x, x * 0.01]))


WIDE = {
    "similar ranges": joined(layers.Concatenate(), small=20),
    # Constant on the data: switched off.
    "zeros": joined(layers.Concatenate(), small=0),
    "a zero term": joined(layers.Add(), small=0),
    "a residual branch": lambda x: dense(3, 1, "last", x + dense(16, 0.001, "b", x)),
    "a chain of sums": lambda x: x + dense(16, 1e-3, "b", x) + dense(16, 1e-3, "c", x),
    "a wide branch": lambda x: dense(3, 1, "last", x + dense(16, 999, "b", x)),
    "a leaky relu": leaky,
    "logits": lambda x: dense(100, 1, "last", x),
    "probabilities": lambda x: layers.Softmax()(dense(100, 9, "last", x)),
}


@pytest.mark.parametrize("case", WIDE)
def test_ordinary_networks_are_not_named(case, x):
    _, found = found_in(network(WIDE[case]), x)
    assert not found


def test_few_examples_say_nothing_about_the_range_of_an_output(x):
    _, found = found_in(network(WIDE["logits"]), x[:2])
    assert not found


@pytest.mark.parametrize("way", ["fit", "train_on_batch", "calibrate"])
def test_a_warning_lists_all_of_them_with_their_remedies(way, x):
    def heads(x):
        return [detections(x), joined(layers.Concatenate(name="join"))(x)]

    student = tf_lsq.quantize_model(network(heads))
    student.compile("sgd", "mse")
    y = [np.zeros((len(x), 6), np.float32), np.zeros((len(x), 3), np.float32)]
    call = {
        "fit": lambda: student.fit(x, y, verbose=0),
        "train_on_batch": lambda: student.train_on_batch(x, y),
        "calibrate": lambda: tf_lsq.calibrate(student, x),
    }[way]
    with pytest.warns(UserWarning, match="These tensors use") as caught:
        call()
    [warning] = [w for w in caught if "These tensors" in str(w.message)]
    lines = sorted(str(warning.message).splitlines()[1:])
    expected = [
        ("`detections`", "`scores_sigmoid`", "outputs of their own"),
        ("`join`", "`small`", "Scale it to the range"),
    ]
    for line, parts in zip(lines, expected, strict=True):
        assert all(part in line for part in parts)


def test_a_training_may_begin_with_outputs_anywhere(x):
    student = tf_lsq.quantize_model(network(far_from_zero))
    student.compile(keras.optimizers.SGD(1e-9), "mse")
    student.fit(x, np.zeros((len(x), 1), np.float32), verbose=0)  # No warning.
    with pytest.warns(UserWarning, match="`pressure`: it spans"):
        tf_lsq.calibrate(student, x)


def test_untrained_batch_norms_are_judged_in_training_only(x, recwarn):
    """In inference their branches have ranges that the trained model will not have."""

    def head(x):
        normed = layers.BatchNormalization()(dense(4, 1, "small", x))
        return dense(
            3, 1, "last", layers.Concatenate()([normed, dense(4, 50, "wide", x)])
        )

    student, found = found_in(network(head), x)
    assert not found
    other = tf_lsq.quantize_model(network(detections_after_norm))
    tf_lsq.calibrate(other, x)
    assert not [w for w in recwarn if "These tensors" in str(w.message)]
    student = tf_lsq.quantize_model(network(detections_after_norm))
    student.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="`scores_sigmoid`"):
        student.fit(x, np.zeros((len(x), 6), np.float32), verbose=0)


def detections_after_norm(x):
    return detections(layers.BatchNormalization()(x))


def test_checks_and_reports_have_remarks(x, tmp_path):
    model = network(detections)
    before = [weight.copy() for weight in model.get_weights()]
    assert not tflite_export.check_model(model).remarks
    [remark] = tflite_export.check_model(model, data=x).remarks
    assert "`scores_sigmoid`" in remark and "outputs of their own" in remark
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    student, [found] = found_in(model, x)
    steps = tf_lsq.steps(student)
    # Trained models are measured as they are.
    assert tflite_export.check_model(student, data=x).remarks == [str(found)]
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", data=x, verbose=False
    )
    assert "`scores_sigmoid`" in report.narrow[0] and report.narrow[0] in str(report)
    assert tf_lsq.steps(student) == steps
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert not report.narrow


def test_the_remedy_of_joined_outputs_works(x):
    """The scores of the separate outputs are those of the float model."""

    def apart(x):
        boxes = layers.Rescaling(640.0)(dense(4, 1, "boxes", x))
        return [boxes, layers.Dense(2, activation="sigmoid", name="scores")(x)]

    together, separate = network(detections), network(apart)
    separate.set_weights(together.get_weights())
    expected = together.predict_on_batch(x)[:, 4:]
    student, found = found_in(together, x)
    assert found
    lost = tiny.largest_difference(student.predict_on_batch(x)[:, 4:], expected)
    student, found = found_in(separate, x)
    assert not found
    kept = tiny.largest_difference(student.predict_on_batch(x)[1], expected)
    assert kept < 0.05 < 0.3 < lost
