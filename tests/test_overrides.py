"""Bits that a user chooses for single layers, and points of more than 8 bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq import plan, policy
from tf_lsq._compat import keras
from tf_lsq.graph import KINDS, analyze
from tf_lsq.training import quantization_points

layers = keras.layers


def residual():
    """A sum of a convolution and its input, which other layers read."""
    inputs = layers.Input((8, 8, 4), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.MaxPooling2D(name="pool")(x)
    y = layers.ELU(name="elu")(x)
    x = layers.Conv2D(4, 1, name="low")(x)
    x = layers.Flatten()(layers.Concatenate(name="both")([x, layers.Softmax()(y)]))
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def bits_of(student):
    """Point -> its bits."""
    return {point.name: point.num_bits for point in quantization_points(student)}


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
def test_a_number_is_the_bits_of_the_output_of_a_layer_without_a_kernel(bits):
    found = bits_of(tf_lsq.quantize_model(residual(), overrides={"sum": bits}))
    assert found["quantize_sum"] == bits
    # The layers below need fewer.
    assert ("quantize_pool_to_4_bits" in found) == (bits > 4)
    assert ("quantize_pool_to_8_bits" in found) == (bits > 8)


@pytest.mark.parametrize("bits", [4, 16])
def test_a_layer_before_a_concatenation_has_the_bits_that_are_chosen(bits):
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, name="one")(inputs)
    both = [layers.Add(name="sum")([x, layers.Conv2D(4, 1)(inputs)]), x]
    x = layers.Concatenate(name="both")(both)
    model = keras.Model(inputs, layers.Conv2D(3, 1)(x))
    found = bits_of(tf_lsq.quantize_model(model, overrides={"sum": bits}))
    assert (found["quantize_sum"], found["quantize_both"]) == (bits, 8)


def test_probabilities_that_are_an_output_have_8_bits():
    inputs = layers.Input((4,))
    x = layers.Dense(3)(inputs)
    model = keras.Model(inputs, layers.Softmax(name="probabilities")(x))
    message = r"`probabilities` \(softmax\) is an output, which has 8 bits"
    with pytest.raises(ValueError, match=message):
        tf_lsq.quantize_model(model, overrides={"probabilities": 16})


def test_a_pattern_with_kernels_leaves_other_layers_as_they_are():
    student = tf_lsq.quantize_model(residual(), overrides={"sum": 16, ".*": 8})
    assert bits_of(student)["quantize_sum"] == 16
    found = bits_of(tf_lsq.quantize_model(residual(), overrides={".*": 3}))
    assert found["quantize_sum"] == 8


def test_a_pair_needs_more_bits_of_the_layers_before():
    found = bits_of(tf_lsq.quantize_model(residual(), overrides={"low": (4, 16)}))
    assert found["quantize_sum"] == 16
    assert "quantize_pool_to_8_bits" in found  # ELU is computed in int8.
    assert student_of_config(16)["quantize_a"] == 16


def student_of_config(bits):
    """The bits of a chain whose second layer is annotated with a config."""
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    config = tf_lsq.LSQQuantizeConfig(8, bits)
    model = keras.Sequential(
        [
            annotate(layers.Dense(6, input_shape=(4,), name="a")),
            annotate(layers.Dense(3, name="b"), config),
        ]
    )
    with tfmot.quantization.keras.quantize_scope():
        student = tfmot.quantization.keras.quantize_apply(
            model, tf_lsq.LSQQuantizeScheme()
        )
    return bits_of(student)


def test_all_wrong_overrides_are_named_at_once():
    wrong = {
        "first": 16,
        "pool": 4,
        "softmax": 12,
        "elu": 16,
        "none": 4,
        "sum": (8, 16),
    }
    with pytest.raises(ValueError, match="Every pattern of `overrides`") as error:
        tf_lsq.quantize_model(residual(), overrides=wrong)
    for words in (
        "'first': 16 matches ['first'], whose kernels have at most 8 bits: give a pair",
        "'pool' matches no layer with a kernel, and `pool` has the grid of its input",
        "`softmax` (softmax) has 8 or 16 bits",
        "`elu` (elu) is not computed in int16",
        "'none' matches no layer",
        "'sum' matches no layer with a kernel",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("value", [1, 17, (9, 8), (8, 17), 2.0])
def test_bits_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="must be an integer from 2 to"):
        tf_lsq.quantize_model(residual(), overrides={"sum": value})


def test_a_target_without_int16_refuses_by_name():
    with pytest.raises(ValueError, match=r"'edgetpu'.*`low` \(conv\)|`sum` \(add\)"):
        tf_lsq.quantize_model(
            residual(), overrides={"sum": 16, "low": (8, 16)}, target="edgetpu"
        )


def test_inputs_that_cannot_have_16_bits_are_named():
    inputs = layers.Input((4,))
    x = layers.Dense(6, activation="elu", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="last")(x))
    with pytest.raises(ValueError, match="`last` needs 16 bits, and `quantize_"):
        tf_lsq.quantize_model(model, overrides={"last": (8, 16)})


def test_kernels_that_lack_int16_read_8_bits():
    model = residual()
    graph = analyze(model)
    for target, most in (("phone", 16), ("tflm", 16), ("edgetpu", 8)):
        options = policy.Options(target=target)
        bits = policy.assign_bits(graph, options)
        assert {n.kind: bits[n].most for n in graph.nodes}["conv"] == most
        assert {n.kind: bits[n].most for n in graph.nodes}["elu"] == 8


def test_16_bit_students_are_saved_and_loaded(rng, tmp_path):
    student, x = tiny.student_of(
        residual(), rng, (64, 8, 8, 4), overrides={"sum": 16, "low": (4, 16)}
    )
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert bits_of(loaded) == bits_of(student)
    np.testing.assert_array_equal(loaded(x), student(x))
    assert tiny.built(loaded).content == tiny.built(student).content


def test_all_gradients_of_a_16_bit_student_are_finite_and_all_steps_move(rng):
    student, x = tiny.student_of(
        residual(), rng, (64, 8, 8, 4), overrides={"sum": 16, "low": (4, 16)}
    )
    tiny.compiled(student)
    before = tf_lsq.steps(student)
    student.fit(x, rng.integers(0, 3, 64), epochs=2, verbose=0)
    after = tf_lsq.steps(student)
    assert all(np.isfinite(step).all() for step in after.values())
    moved = {n for n in before if not np.array_equal(before[n], after[n])}
    assert moved >= {"quantize_sum", "quantize_pool_to_8_bits", "low"}


def test_a_16_bit_point_covers_the_whole_first_batch(rng):
    student, x = tiny.student_of(
        residual(),
        rng,
        (64, 8, 8, 4),
        overrides={"sum": 16},
        asymmetric_activations=True,
    )
    point = student.get_layer("quantize_sum")
    assert point.quantizer.step_init == "max" and not point.quantizer.asymmetric
    values = keras.Model(student.input, point.input)(x).numpy()
    wanted = max(values.max() / 32767, -values.min() / 32768)
    assert float(point.step) == pytest.approx(wanted, rel=1e-6)


# --- Zero points of 0 ----------------------------------------------------------------


@pytest.fixture
def symmetric_sums(monkeypatch):
    """Sums whose second term needs a zero point of 0."""
    row = dataclasses.replace(KINDS["add"], symmetric_inputs=(1,))
    monkeypatch.setitem(KINDS, "add", row)


def planned(build):
    """Node -> its point, and (reader, node) -> the point between."""
    graph = analyze(build())
    made = plan.plan_points(graph, policy.assign_bits(graph, policy.Options()))
    after = {node.name: point for node, point in made.after.items()}
    return after, {(a.name, b.name): p for (a, b), p in made.between.items()}


@pytest.mark.usefixtures("symmetric_sums")
@pytest.mark.parametrize(
    ("activation", "readers", "extra"),
    [("relu", 1, False), ("relu", 2, True), (None, 1, False), (None, 2, False)],
)
def test_a_reader_gets_a_zero_point_of_0(activation, readers, extra):
    def build():
        inputs = layers.Input((4,), name="x")
        first = layers.Dense(4, name="first")(inputs)
        second = layers.Dense(4, activation=activation, name="second")(inputs)
        outputs = [layers.Add(name="sum")([first, second])]
        outputs += [layers.Multiply()([second, second])] if readers > 1 else []
        return keras.Model(inputs, outputs)

    after, between = planned(build)
    assert not after["first"].symmetric
    assert after["second"].symmetric == (not extra)
    assert (("sum", "second") in between) == extra
    if extra:
        assert between["sum", "second"].symmetric
        assert between["sum", "second"].name == "quantize_second_to_8_bits_symmetric"


@pytest.mark.usefixtures("symmetric_sums")
def test_a_symmetric_point_has_the_zero_point_0_in_the_file(rng, tmp_path):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(inputs)
    y = layers.Conv2D(4, 3, activation="relu", name="second")(inputs)
    model = keras.Model(inputs, layers.Add(name="sum")([x, y]))
    student, x = tiny.student_of(model, rng)
    grid = tiny.built(student).frozen.by_name()["second"].grid
    assert (grid.zero_point, grid.low, grid.high) == (0, 0, 127)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(student, path)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.twin_differences == 0
