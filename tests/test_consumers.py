"""The harness of `make consumers`: what counts as an answer, and as none."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from consumers import __main__ as consumers
from consumers import measure, page, programs, runners
from consumers.cases import SPECS, graph_of

from tflite_export.file import to_bytes

ROOT = Path(__file__).resolve().parents[1]
RIGHT = {"scores": np.array([[0.25, 0.75]], np.float32)}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"0": [[0.25, 0.75]]}, measure.Outcome(numbers=2)),
        ({"0": [[0.25, 0.5]]}, measure.Outcome(numbers=2, differ=1, most=64)),
        ({"scores": [[0.5, 0.5]]}, measure.Outcome(numbers=2, differ=2, most=64)),
    ],
)
def test_scores_are_compared_in_codes(found, expected):
    found = {name: np.array(values, np.float32) for name, values in found.items()}
    assert measure.compare(found, RIGHT, graph_of("uint8_float32")) == expected


def test_codes_are_compared_as_they_are_and_with_scores():
    graph = graph_of("uint8_uint8")
    right = {"scores": np.array([[64, 192]], np.uint8)}
    codes = {"scores": np.array([[65, 192]], np.uint8)}
    assert measure.compare(codes, right, graph).most == 1
    scores = {"0": np.array([[0.25, 0.75]], np.float32)}
    assert measure.compare(scores, right, graph) == measure.Outcome(numbers=2)


def test_a_map_that_is_read_as_classes_is_no_right_answer():
    right = {"scores": np.full((1, 2, 5), 0.2, np.float32)}
    found = {"0": np.full((1, 10), 0.2, np.float32)}
    outcome = measure.compare(found, right, graph_of("map"))
    assert (outcome.differ, outcome.classes) == (0, 10)
    assert page.cell(outcome) == "10 classes"


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (measure.Outcome(numbers=5), "="),
        (measure.Outcome(numbers=5, differ=1, most=2), "±2"),
        (measure.Outcome("no"), "refused"),
    ],
)
def test_cells(outcome, text):
    assert page.cell(outcome) == text


def test_a_process_that_ends_is_named(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    found = runners.answer(python, "mediapipe", [tmp_path / "x.tflite"], tmp_path)
    assert str(found["x"]["error"]) == "the process ended with -11"


def test_a_consumer_that_refuses_gives_its_message(tmp_path):
    """This Python has no MediaPipe, so it cannot be imported."""
    files, python = [tmp_path / "x.tflite"], Path(sys.executable)
    found = runners.answer(python, "mediapipe", files, tmp_path)
    assert str(found["x"]["error"]).startswith("ModuleNotFoundError: No module named")


class Echo:
    """A page that answers with its inputs, or refuses."""

    def __init__(self, error=""):
        self.error, self.given = error, {}

    def run(self, content, inputs, size):
        if self.error:
            raise RuntimeError(self.error)
        self.given = {name: (array.shape, size) for name, array in inputs.items()}
        return {"softmax": np.zeros((2, 5), np.int8)}


@pytest.fixture
def written(tmp_path):
    """A file whose output and its tensor have different names, and its inputs."""
    graph, path = graph_of("int8_int8"), tmp_path / "x.tflite"
    path.write_bytes(to_bytes(graph))
    np.savez(path.with_suffix(".npz"), image=np.zeros((2, 8, 8, 3), np.int8))
    return path


def test_pages_that_name_tensors_answer_by_the_names_of_outputs(written):
    page = Echo()
    found = runners._in_page(page, written, by_tensor=True)
    assert page.given == {"image": ((2, 8, 8, 3), 1)}
    assert list(found) == ["scores"]
    assert list(runners._in_page(page, written, by_tensor=False)) == ["softmax"]


def test_pages_refuse_with_the_first_line_of_their_message(written):
    page = Echo("Page.evaluate: Error: INT8 is not supported.\n    at run (x.js:1)")
    found = runners._in_page(page, written, by_tensor=False)
    assert str(found["error"]) == "Error: INT8 is not supported."


def test_the_gpu_is_run_by_the_release_that_is_named(tmp_path):
    [program] = [p for p in programs.PROGRAMS if p.call == "gpu"]
    other = dataclasses.replace(program.release, version="0.1")
    with pytest.raises(RuntimeError, match=r"must have ai-edge-litert==0\.1"):
        runners.runner_of(dataclasses.replace(program, release=other), *[tmp_path] * 3)


def test_packages_that_npm_does_not_find_are_an_error(tmp_path, monkeypatch):
    [program] = [p for p in programs.PROGRAMS if p.consumer == "tfjs_tflite"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"tfjs-tflite@0.*must be packages that"):
        runners._tfjs(program, tmp_path)


def test_unknown_programs_are_refused():
    with pytest.raises(ValueError, match="Programs must be among"):
        programs.find_program("mediapipe")


def test_files_are_the_same_each_time():
    assert len(SPECS) > 40
    first, second = (graph_of("int4_dense").constants() for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.slow
def test_mediapipe_gives_the_labels_and_scores_of_the_twin():
    cache = ["--cache", str(ROOT / ".runtimes")]
    assert consumers.main(["--programs", programs.PROGRAMS[0].name, *cache]) == 0
