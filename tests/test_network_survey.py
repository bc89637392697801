"""The survey of other packages' networks: what it reads from errors, and its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import network_survey
from survey_check import check, printed_overrides, reasons

MESSAGE = """`model` cannot be quantized exactly. Received:
  `a` (LayerNormalization): no form
  `b/c` (tf.nn.gelu): no form
  `d` (LayerNormalization): no form
To leave them in float: overrides={'a': 'float', 'b/c': 'float', 'd': 'float'}"""
NAMES = {"family": "Small", "package": "ours", "layers": 3, "versions": "Python 3"}
EXPORTED = {
    **NAMES,
    "network": "exported",
    "outcome": "exported",
    "operators": 3,
    "weight_codes": 1200,
    "equal_codes": 1200,
    "kernel_weights": 1500,
    "worst_share": 0.0125,
    "worst_kind": "mean",
    "file_bytes": 3456,
    "difference": 1.26,
    "unrounded": 0.0002,
}
REMEDIED = {
    **EXPORTED,
    "network": "remedied",
    "outcome": "remedied",
    "float_layers": 2,
    "reasons": {"tf.nn.gelu": 2},
}
REFUSED = {
    **NAMES,
    "network": "refused",
    "outcome": "refused",
    "stage": "quantize",
    "reasons": {"LSTM": 1},
    "error": "ValueError",
    "message": "No form:\n  `a` (LSTM): no | form",
}


def test_remedies_are_read_from_an_error():
    assert printed_overrides(MESSAGE) == {"a": "float", "b/c": "float", "d": "float"}
    assert printed_overrides("Pass overrides={name: bits}.") == {}


def test_an_error_names_classes_of_layers():
    assert reasons(MESSAGE) == {"LayerNormalization": 2, "tf.nn.gelu": 1}


def test_the_page_counts_outcomes_and_layers():
    page = network_survey.report([EXPORTED, REMEDIED, REFUSED])
    assert "3 networks of 1 families" in page
    assert "1 export as they are, 1 more after" in page and "67 %" in page
    assert "| exported | Small | ours | 3 | yes |  | 3 | 1,200, 80 % |" in page
    assert "| yes | 1.25 % `mean` | 3,456 | 1.3 % | 0.000 % |" in page
    assert "In 0 of these" in page
    assert "|  | yes: 2 in float |" in page
    assert "| quantize | LSTM (1) | `a` (LSTM): no \\| form |" in page
    assert "| tf.nn.gelu | 1 | 2 |" in page


def test_the_page_marks_what_must_not_happen():
    wrong = {**EXPORTED, "equal_codes": 1199, "unrounded": 3.0}
    page = network_survey.report([wrong])
    assert "**1 differ**" in page and "**3.000 %**" in page


def test_results_keep_the_last_line_of_a_network(tmp_path):
    path = tmp_path / "results.jsonl"
    assert network_survey.read(path) == {}
    path.write_text('{"network": "a", "n": 1}\n{"network": "a", "n": 2}\n')
    assert network_survey.read(path) == {"a": {"network": "a", "n": 2}}


@pytest.mark.slow
def test_a_network_is_checked():
    found = check("RegNetX002 (tf_keras)")
    assert found["outcome"] == "exported", found
    assert found["equal_codes"] == found["weight_codes"] and found["unrounded"] < 0.1
