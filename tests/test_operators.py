"""Every operator is complete: a graph row, a class, a TFLite row and a test case."""

from __future__ import annotations

import pytest
import test_conformance
import test_graph_tensor_functions

from tf_lsq.graph import KINDS, analyze
from tflite_export.file import tflite_operators
from tflite_export.file.flatbuffer import schema
from tflite_export.operators import OPERATORS, Operator

# Graph kinds that produce no operator in a file.
WITHOUT_OPERATOR = {"input", "identity", "scale", "point"}
# Operators that occur only in files.
ONLY_IN_FILES = {"pointwise", "quantize", "widen", "clip_high", "clip_low"}
# Layers left in float have their own tests.
WITHOUT_CASE = {"foreign"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT_OPERATOR))
def test_every_kind_of_the_graph_has_an_operator(kind):
    assert kind in OPERATORS, (
        f"{kind!r} is a kind of `tf_lsq.graph.KINDS`, and has no class in "
        "`tflite_export.operators.OPERATORS`"
    )


def test_every_operator_is_a_graph_kind_or_occurs_only_in_files():
    unknown = set(OPERATORS) - set(KINDS) - ONLY_IN_FILES
    assert not unknown, f"{sorted(unknown)} have no row in `tf_lsq.graph.KINDS`"


@pytest.mark.parametrize("part", ["exact", "write", "integers"])
def test_an_incomplete_operator_cannot_be_instantiated(part):
    parts = {"exact", "write", "integers"} - {part}
    incomplete = type("Incomplete", (Operator,), dict.fromkeys(parts, lambda *_: None))
    with pytest.raises(TypeError, match=f"Incomplete.*{part}"):
        incomplete()


def covered():
    """Graph kinds that occur in the conformance cases."""
    builds = [build for _, build in test_conformance.CASES.values()]
    builds += [
        lambda function=function: test_graph_tensor_functions.model_of(function)
        for function in test_graph_tensor_functions.CASES.values()
    ]
    return {node.kind for build in builds for node in analyze(build()).nodes}


def test_every_kind_of_the_graph_has_a_conformance_case():
    missing = set(KINDS) - WITHOUT_OPERATOR - WITHOUT_CASE - covered()
    assert not missing, (
        f"{sorted(missing)} are in no network of `test_conformance.CASES` or "
        "`test_graph_tensor_functions.CASES`"
    )


@pytest.mark.parametrize("code", sorted(tflite_operators.OPERATORS))
def test_tflite_rows_match_the_schema(code):
    row = tflite_operators.OPERATORS[code]
    assert hasattr(schema.BuiltinOperator, code)
    assert row.options is None or hasattr(schema.BuiltinOptions, row.options)
    assert row.releases
    assert set(row.packed.values()) <= set(row.releases)


def test_an_operator_without_a_tflite_row_is_named():
    with pytest.raises(ValueError, match=r"Operators must be among .* Received: LSTM"):
        tflite_operators.row_of("LSTM")
