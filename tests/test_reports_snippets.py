"""Code snippets that run a file: they compute the same and are well formed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.reports import snippets_of

layers = keras.layers


def odd_names():
    """Two inputs and outputs with names that are not identifiers."""
    inputs = [layers.Input((4,), name=name) for name in ("class", "x$1")]
    x = layers.Dense(6, activation="relu")(layers.Concatenate()(inputs))
    outputs = [layers.Dense(3, name="1st")(x), layers.Dense(2, name="found")(x)]
    return keras.Model(inputs, outputs, name="odd")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_the_python_snippet_computes_what_the_file_does(
    dtype, rng, tmp_path, monkeypatch
):
    student = tf_lsq.quantize_model(odd_names())
    data = [rng.normal(size=(32, 4)).astype(np.float32) for _ in range(2)]
    tf_lsq.calibrate(student, data)
    tf_lsq.round_biases(student)
    path = tmp_path / "odd.tflite"
    report = tflite_export.export_model(
        student, path, input_type=dtype, output_type=dtype
    )
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(report.snippets["python"], scope)
    found = scope["predict"](*data)
    expected = tflite_export.integer_twin(student).predict(data, verbose=0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


GRAMMARS = {"kotlin": tree_sitter_kotlin, "swift": tree_sitter_swift}


@pytest.mark.parametrize("language", GRAMMARS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_snippets_for_phones_are_well_formed(language, dtype, rng):
    student = tf_lsq.quantize_model(odd_names())
    tf_lsq.calibrate(student, [rng.normal(size=(32, 4)) for _ in range(2)])
    graph = tiny.built(student, input_type=dtype, output_type=dtype).graph
    code = snippets_of(graph, 'a "file".tflite')[language]
    parser = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language].language()))
    assert not parser.parse(code.encode()).root_node.has_error, code
    assert parser.parse(f"{code} }}{{".encode()).root_node.has_error
    for tensor in (*graph.inputs.values(), *graph.outputs.values()):
        grid = graph.tensors[tensor].quantization
        if grid is not None:
            assert str(grid.scale[0]) in code


def test_a_snippet_of_one_input_and_output_is_short(exported_report):
    for language, code in exported_report[0].snippets.items():
        lines = [line for line in code.splitlines() if line.strip()]
        imports = [line for line in lines if re.match("import|from", line)]
        assert len(lines) - len(imports) <= 16, language
