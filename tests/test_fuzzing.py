"""Every function and layer works, or is refused with a remedy that works.

The default suite takes a tenth of them through `quantize_model`, and a few to a
verified file; the slow suite takes all of them to a verified file.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from harness.fuzzing import discovery, hints_shared, models, page, run, survey
from harness.fuzzing.calls import Call
from harness.fuzzing.operands import IMAGE, VECTOR

import tf_lsq

ITEMS = {item.key: item for item in discovery.items()}
SEED = 3
DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "support" / "results.jsonl"
GROUPS = 8


def chosen(key: str) -> bool:
    """Whether an item belongs to the tenth of the default suite."""
    return zlib.crc32(key.encode()) % 10 == SEED


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_tenth_of_all_functions_and_layers_is_analysed(group):
    keys = [key for key in ITEMS if chosen(key)][group::GROUPS]
    found = [survey.survey(ITEMS[k], depth="analysis", max_calls=1) for k in keys]
    assert not [line for result in found for line in survey.faults(result)]
    assert any(result["cases"] for result in found)


PROVED = (
    "tf.math.softplus",
    "tf.nn.depth_to_space",
    "keras.ops.cumsum",
    "keras.ops.hard_tanh",
    "tf_keras.layers.CenterCrop",
    "keras.layers.GRU",
)


@pytest.mark.parametrize("key", PROVED)
def test_some_are_taken_to_a_verified_file(key):
    result = survey.survey(ITEMS[key], max_calls=1)
    assert not survey.faults(result)
    assert result["cases"]


@pytest.mark.slow
def test_all_are_taken_to_a_verified_file(tmp_path):
    path = tmp_path / "results.jsonl"
    run.run(path, "", {})
    results = run.surveyed(path)
    assert not [line for result in results for line in survey.faults(result)]
    assert sum(bool(result["cases"]) for result in results) >= 700


def test_the_page_lists_names_results_and_reasons():
    refused = {"message": "`one` (Sort): it has no exact integer form here"}
    cases = [{"call": "2-D", "outcome": survey.EXACT, "fault": "", "message": ""}]
    cases += [{"call": "4-D", "outcome": survey.RESCUED, "fault": "", **refused}]
    results = [
        {"item": "tf.abs", "aliases": ["tf.math.abs"], "reason": "", "cases": cases},
        {"item": "tf.device", "aliases": [], "reason": "no tensor", "cases": []},
    ]
    lines = [json.dumps(line) for line in [{"versions": {"Python": "3"}}, *results]]
    text = page.render(lines)
    assert "with Python 3." in text and "| `tf` | 1 | 1 | 0 | 0 | 0 | 0 |" in text
    why = "it has no exact integer form here"
    assert f"| `abs` | exact integers: 2-D; float: 4-D | {why} |" in text
    assert "Not functions of a model's tensors: `device`." in text


def test_the_page_shows_the_recorded_results():
    lines = RESULTS.read_text().splitlines()
    assert (DOCS / "support.md").read_text() == page.render(lines)


def test_the_recorded_results_are_complete_and_without_faults():
    results = run.surveyed(RESULTS)
    assert not [line for result in results for line in survey.faults(result)]
    if run.recorded_versions(RESULTS) == run.versions():
        assert {result["item"] for result in results} == set(ITEMS)


# --- The harness -------------------------------------------------------------


def test_functions_are_found_once_with_their_aliases():
    assert ITEMS["tf.abs"].aliases == ("tf.math.abs",)
    assert "tf.math.abs" not in ITEMS
    assert "tf_keras.layers.Convolution2D" in ITEMS["tf_keras.layers.Conv2D"].aliases
    assert "keras.ops.image.resize" in ITEMS


def test_every_hint_belongs_to_a_function_or_layer():
    names = {item.name for item in ITEMS.values()}
    short = {f"*.{item.short_name}" for item in ITEMS.values()}
    shared = set(hints_shared.HINTS)
    assert not shared - names - short
    layers = {key.rpartition(".")[2] for key in models.HINTS if ".layers." in key}
    found = {item.short_name for item in ITEMS.values() if item.is_layer}
    assert not layers - found


def test_what_takes_no_tensors_is_told_with_the_reason():
    found = list(models.built_models(ITEMS["tf.device"], seed=0))
    assert [str(one) for one in found] == [
        "returns no tensor that depends on its arguments"
    ]
    [reason] = models.built_models(ITEMS["tf.nn.dropout"], seed=0)
    assert str(reason) == "its results are random"


def built(name="tf.nn.relu", operand=IMAGE):
    call = Call("one", (operand,), lambda function, x: function(x))
    return models.build(ITEMS[name], call, seed=0)


def test_a_function_with_exact_integers_is_told():
    result = survey.judge(built())
    assert (result.outcome, result.fault) == (survey.EXACT, "")
    assert result.difference < 0.05


def failing(error, times=2):
    """A `quantize_model` that fails, and then works."""
    original, errors = tf_lsq.quantize_model, [error] * times

    def quantize_model(model, **options):
        if errors:
            raise errors.pop()
        return original(model, **{**options, "overrides": None})

    return quantize_model


LAYER = "tf.nn.relu"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (AttributeError("no attribute"), "a bare Python error"),
        (RuntimeError("failed"), "a bare Python error"),
        (ValueError("shapes must match"), "names no layer"),
        (ValueError(f"no:\n  `{LAYER}`: loc(callsite)"), "more than a line per layer"),
        (ValueError(f"no:\n  `{LAYER}`: it is odd"), "the remedy does not help"),
        (ValueError(f"no:\n  `{LAYER}`: TFLite has no form"), "TFLite has a form"),
    ],
)
def test_errors_that_help_nobody_are_faults(error, fault, monkeypatch):
    monkeypatch.setattr(tf_lsq, "quantize_model", failing(error))
    result = survey.judge(built(LAYER))
    assert result.outcome == survey.FAULT
    assert fault in result.fault


def test_a_remedy_that_works_is_followed(monkeypatch):
    error = ValueError(f"no:\n  `{LAYER}`: it is odd")
    monkeypatch.setattr(tf_lsq, "quantize_model", failing(error, times=1))
    assert survey.judge(built(LAYER)).outcome == survey.RESCUED


def test_a_student_that_computes_something_else_is_a_fault(monkeypatch):
    original = tf_lsq.quantize_model
    other = built("tf.nn.tanh" if "tf.nn.tanh" in ITEMS else "tf.tanh").model
    monkeypatch.setattr(
        tf_lsq, "quantize_model", lambda model, **options: original(other)
    )
    result = survey.judge(built())
    assert result.fault == "the student differs silently"


def test_jumps_are_not_taken_for_differences():
    """Near a jump, the function of a rounded input is far from that of the input."""
    one = built("tf.sign", VECTOR)
    model = one.model

    class Rounded:
        inputs = model.inputs

        def __call__(self, x, training=False):
            return model(np.round(x * 127.5) / 127.5)

    largest, outside = survey.difference(one, Rounded())
    assert outside <= survey.MAX_OUTSIDE
    assert tf.executing_eagerly() and largest >= 0


def test_a_process_that_dies_or_hangs_is_a_fault(monkeypatch):
    monkeypatch.setattr(run, "SECONDS_PER_ITEM", 0)
    worker = run.Worker()
    result = worker.survey("tf.abs", {})
    worker.stop()
    assert "takes longer" in result["cases"][0]["fault"]
