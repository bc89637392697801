"""Which form of a normalization each target gets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from harness import micro, tiny
from test_graph_normalizing import CASES, LN, codes_of, on_sum, on_vectors, quantized

import tf_lsq
import tflite_export
from tf_lsq import norm_forms
from tf_lsq._compat import keras, tfmot
from tf_lsq.policy import TARGETS
from tflite_export import targets
from tflite_export.runtimes import find_runtime
from tflite_export.twin import twin_codes
from tflite_export.verification.values import file_inputs

layers = keras.layers
ON_PHONES = {"BATCH_MATMUL", "GATHER"}


def test_every_target_has_a_rule():
    assert set(norm_forms.NORM_FORMS) == set(TARGETS)


@pytest.mark.parametrize("target", ["phone", "symmetric"])
def test_the_default_of_phones_is_the_fast_form(target, rng):
    _, student, _ = quantized(on_vectors(LN()), rng, target=target)
    assert set(codes_of(student)) >= ON_PHONES
    graph = tiny.built(student).graph
    assert not targets.check_graph(graph, targets.TARGETS[target])


def test_patterns_choose_forms_for_single_layers(rng):
    inputs = layers.Input((16,))
    x = LN(name="first")(layers.Dense(24)(inputs))
    x = LN(name="second")(layers.Dense(24)(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    forms = {".*": "int8", "second": "int16"}
    _, student, _ = quantized(model, rng, norm_form=forms)
    bits = {
        name: student.get_layer(f"quantize_{name}_centered").num_bits
        for name in ("first", "second")
    }
    assert bits == {"first": 8, "second": 16}


@pytest.mark.parametrize("pattern", ["n", "inner", "inner/n"])
def test_patterns_match_all_names_in_a_nested_model(pattern, rng):
    start = layers.Input((24,))
    inner = keras.Model(start, LN(name="n")(start), name="inner")
    inputs = layers.Input((16,))
    x = inner(layers.Dense(24)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    _, student, _ = quantized(model, rng, norm_form={pattern: "int16"})
    [bits] = [
        layer.num_bits
        for layer in student.layers
        if layer.name.endswith("_centered") and layer.name.startswith("quantize_")
    ]
    assert bits == 16


def test_the_scheme_of_tfmot_takes_the_same_option(rng):
    quantize = tfmot.quantization.keras
    annotated = quantize.quantize_annotate_model(on_vectors(LN(name="n")))
    scheme = tf_lsq.LSQQuantizeScheme(norm_form="int16")
    student = quantize.quantize_apply(annotated, scheme)
    assert student.get_layer("quantize_n_centered").num_bits == 16


@pytest.mark.parametrize("case", ["layer", "layer_of_sum", "group", "rms", "l2"])
def test_micro_computes_what_its_twin_does(case, rng, tmp_path):
    _, student, x = quantized(
        CASES[case](), rng, weight_bits=8, activation_bits=8, target="tflm"
    )
    tflite_export.export_model(student, tmp_path / "m.tflite", data=x, verbose=False)
    built = tiny.built(student)
    tables = [
        built.graph.tensors[op.inputs[0]]
        for op in built.graph.ops
        if op.code == "GATHER"
    ]
    assert {(table.dtype, table.data.size) for table in tables} == {("int8", 4096)}
    inputs = file_inputs(built.graph, built.frozen, [x[:8]])
    found = micro.run(built.graph, inputs)
    codes = {built.graph.inputs[name]: array for name, array in inputs.items()}
    expected = twin_codes(built.frozen, codes, find_runtime("tflm"))
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[built.graph.outputs[name]])


def test_ethos_u_leaves_only_the_table_to_the_cpu(rng):
    left = {}
    for target in ("ethos-u55-128", "ethos-u85-256"):
        _, student, _ = quantized(on_vectors(LN()), rng, target=target)
        built = tiny.built(student)
        compiled = targets.compile_with_vela(built.content, target)
        left[target] = set(compiled.on_cpu.values())
        runs_on = {
            op.code: targets.runs_on(op, built.graph, targets.TARGETS[target])
            for op in built.graph.ops
        }
        assert {code for code, by in runs_on.items() if by == "CPU"} == left[target]
    assert left == {"ethos-u55-128": {"CAST", "GATHER"}, "ethos-u85-256": set()}


REFUSED = {
    "unknown": ({"norm_form": "int4"}, r"must be one of \['int8', 'int16'\].*int4"),
    "no_form": ({"target": "edgetpu"}, r"'edgetpu' has no form for `n`.*'n': 'float'"),
    "not_this": (
        {"target": "tflm", "norm_form": "int8"},
        r"'tflm' has only \['int16'\] for `n`",
    ),
    "unmatched": ({"norm_form": {"m": "int8"}}, "pattern 'm' .* matches no norm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_chosen_is_refused_by_name(case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        tf_lsq.quantize_model(on_sum(LN(name="n")), **options)


@pytest.mark.parametrize(("form", "fits"), [("int8", True), ("int16", False)])
def test_sums_that_do_not_fit_are_refused_by_name(form, fits):
    inputs = layers.Input((260, 260, 1))
    x = LN(axis=[1, 2, 3], center=False, scale=False, name="n")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 3)(x))
    if fits:
        tf_lsq.quantize_model(model, norm_form=form)
        return
    with pytest.raises(ValueError, match="`n` sums 67600 values, and 65535 fit"):
        tf_lsq.quantize_model(model, norm_form=form)


def test_sums_over_other_axes_have_the_limit_of_int16():
    inputs = layers.Input((260, 260, 2))
    norm = layers.GroupNormalization(-1, center=False, scale=False, name="n")
    model = keras.Model(inputs, layers.Conv2D(2, 3)(norm(inputs)))
    with pytest.raises(ValueError, match="`n` sums 67600 values, and 65535 fit"):
        tf_lsq.quantize_model(model, norm_form="int8")


def test_an_override_of_groups_is_the_bits_of_their_product():
    inputs = layers.Input((4, 4, 6))
    norm = layers.GroupNormalization(3, center=False, scale=False, name="n")
    x = layers.Add()([norm(inputs), inputs])
    student = tf_lsq.quantize_model(keras.Model(inputs, x), overrides={"n": 16})
    assert student.get_layer("quantize_n_normalized").num_bits == 16


def test_check_model_says_what_a_target_does_with_a_normalization():
    model = on_sum(LN(name="n"))
    assert tflite_export.check_model(model).ok
    refused = tflite_export.check_model(model, target="edgetpu")
    assert "no form for `n`" in refused.problems[0]
    left = tflite_export.check_model(model, target="edgetpu", overrides={"n": "float"})
    assert left.ok and any("float tensors" in remark for remark in left.remarks)


def test_a_frozen_norm_over_several_axes_can_be_unfrozen():
    inputs = keras.Input((4, 6))
    x = keras.layers.Dense(6)(inputs)
    x = keras.layers.LayerNormalization(axis=(1, 2), name="norm", trainable=False)(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    student = tf_lsq.quantize_model(model)
    owners = [student.get_layer("norm_gamma"), student.get_layer("norm")]
    assert not any(layer.trainable_weights for layer in owners)
    for layer in owners:
        layer.trainable = True
    names = {w.name for layer in owners for w in layer.trainable_weights}
    assert {"norm_gamma/gamma:0", "norm/beta:0"} <= names
