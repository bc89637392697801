"""Every operator is complete: a graph row, a class, a TFLite row and a test case."""

from __future__ import annotations

import pytest
import test_conformance
import test_graph_functions

from tf_lsq import norm_forms
from tf_lsq.graph import KINDS, analyze
from tflite_export.file import tflite_operators
from tflite_export.file.flatbuffer import schema
from tflite_export.operators import OPERATORS, Operator

# Graph kinds that produce no operator in a file.
WITHOUT_OPERATOR = {"input", "identity", "scale", "point", "normalize"}
# Operators that occur only in files.
ONLY_IN_FILES = {"pointwise", "quantize", "to_int16", "widen", "clip_high", "clip_low"}
# Layers left in float, and indices, have their own tests.
WITHOUT_CASE = {"foreign", "arg_max"}


def gaps(kinds, operators, covered):
    """Yields what an operator lacks, by name."""
    for kind in sorted(kinds - WITHOUT_OPERATOR - operators):
        yield f"{kind!r} has no class in an `OPERATORS` of `tflite_export.operators`"
    for kind in sorted(operators - kinds - ONLY_IN_FILES):
        yield f"{kind!r} has no row in `tf_lsq.graph.KINDS`"
    for kind in sorted(kinds - WITHOUT_OPERATOR - WITHOUT_CASE - covered):
        yield (
            f"{kind!r} is in no network of `test_conformance.CASES` or "
            "`test_graph_functions.CASES`"
        )


def test_every_operator_has_all_its_parts():
    assert list(gaps(set(KINDS), set(OPERATORS), covered())) == []


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ("kind case", "'erf' has no class"),
        ("class case", "'erf' has no row in `tf_lsq.graph.KINDS`"),
        ("kind class", "'erf' is in no network"),
    ],
)
def test_an_operator_without_one_of_its_parts_is_named(present, message):
    parts = {
        part: {"relu"} | ({"erf"} if part in present.split() else set())
        for part in ("kind", "class", "case")
    }
    [found] = gaps(parts["kind"], parts["class"], parts["case"])
    assert found.startswith(message)


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
        lambda functions=functions, rank=rank: test_graph_functions.model_of(
            *functions, rank=rank
        )
        for functions, rank in test_graph_functions.MODELS.values()
    ]
    return {node.kind for build in builds for node in nodes_of(build())}


def nodes_of(model):
    """Operators of a model, with those of its normalizations in either form."""
    graphs = [analyze(model) for _ in norm_forms.NAMES]
    for graph, form in zip(graphs, norm_forms.NAMES, strict=True):
        norm_forms.expand_norms(graph, "phone", form, lambda node: False)
    return [node for graph in graphs for node in graph.nodes]


@pytest.mark.parametrize("code", sorted(tflite_operators.OPERATORS))
def test_tflite_rows_match_the_schema(code):
    row = tflite_operators.OPERATORS[code]
    assert hasattr(schema.BuiltinOperator, code)
    assert row.options is None or hasattr(schema.BuiltinOptions, row.options)
    assert row.releases
    assert set(row.packed.values()) <= set(row.releases)


@pytest.mark.parametrize("code", sorted(tflite_operators.OPERATORS))
def test_releases_are_known_of_all_versions_in_their_order(code):
    """Files of other tools have versions that this library does not write."""
    releases = tflite_operators.OPERATORS[code].releases
    assert list(releases) == list(range(1, len(releases) + 1))
    numbers = [[*map(int, release.split("."))] for release in releases.values()]
    assert numbers == sorted(numbers)


def test_an_operator_without_a_tflite_row_is_named():
    with pytest.raises(ValueError, match=r"Operators must be among .* Received: LSTM"):
        tflite_operators.row_of("LSTM")
