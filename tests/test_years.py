"""Runtimes of other years: a share of `make runtimes`, and its page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from consumers import page as consumers_page
from consumers.programs import PROGRAMS
from harness import run_files
from harness.releases import Release, python_of
from years import __main__ as years
from years import measure, page, releases

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/runtimes.md"


def test_the_page_is_made_of_the_results():
    about, measured = page.read_results(PAGE.with_suffix("") / "results.jsonl")
    consumers = consumers_page.read_results(PAGE.parent / "consumers/results.jsonl")
    assert PAGE.read_text() == page.page(about, measured, consumers)
    for program in PROGRAMS:
        assert f"\n| {program.name} | " in PAGE.read_text()


def test_the_results_have_all_releases():
    _, measured = page.read_results(PAGE.with_suffix("") / "results.jsonl")
    assert list(measured) == [release.name for release in releases.RELEASES]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (measure.Count(files=2, codes=10), "="),
        (measure.Count(files=2, refused=2, blamed=1), "refused"),
        (measure.Count(files=2, refused=2), "?"),
        (measure.Count(files=2), "?"),
        (measure.Count(files=2, refused=1, codes=10), "="),
        (measure.Count(files=2, codes=1000, differ=5, most=1), "0.5 % ±1"),
    ],
)
def test_cells(count, text):
    assert page.cell(count) == text


def test_unknown_releases_are_refused():
    with pytest.raises(ValueError, match="Releases must be among"):
        releases.find_release("ai-edge-litert==0.1")


@pytest.fixture
def two_releases(tmp_path):
    """Results of two releases, in a file."""
    key = ("xnnpack", "ADD")
    one = measure.Measured("2.0", "xnnpack", {key: measure.Count(files=3)}, {}, [], [])
    names = [release.name for release in releases.RELEASES]
    path = tmp_path / "results.jsonl"
    page.write_results(path, "3 files", {names[0]: one, names[-1]: one})
    return path, names, one


def test_results_of_a_release_are_added_to_others_of_the_same_files(two_releases):
    path, names, one = two_releases
    found = page.with_others(path, "3 files", {names[5]: one})
    assert list(found) == [names[0], names[5], names[-1]]
    newer = dataclasses.replace(one, numpy="2.1")
    assert page.with_others(path, "3 files", {names[0]: newer})[names[0]] is newer


def test_results_of_other_files_are_not_mixed(two_releases):
    path, names, one = two_releases
    fewer = dataclasses.replace(
        one, counts={("xnnpack", "ADD"): measure.Count(files=2)}
    )
    for about, new in (("4 files", one), ("3 files", fewer)):
        with pytest.raises(ValueError, match="results of the same files"):
            page.with_others(path, about, {names[5]: new})
        every = dict.fromkeys(names, new)
        assert page.with_others(path, about, every) is every


def test_a_package_that_cannot_be_had_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match=r"must be a package that `pip install`"):
        python_of(Release("ai-edge-litert", "0.1"), tmp_path)


def test_a_crash_is_named_and_the_next_file_is_run(tmp_path):
    folder, output = tmp_path / "files", tmp_path / "output"
    folder.mkdir()
    for name in ("first", "second"):
        (folder / f"{name}.tflite").touch()
        np.savez(folder / f"{name}.npz", x=np.zeros((1, 2), np.int8))
    python = tmp_path / "python"  # Ends each time, in the middle of the first file.
    python.write_text(_ENDS.format(output=output))
    python.chmod(0o755)
    measure.run_release(python, folder, output, 1)
    found = {path.name: path.read_text() for path in output.iterdir()}
    assert found == {
        "first.xnnpack.error": f"{run_files.CRASHED} with -11",
        "second.xnnpack.error": f"{run_files.CRASHED} with -11",
    }


_ENDS = """#!/bin/sh
mkdir -p {output}
for name in first second; do
    if [ ! -e {output}/$name.xnnpack.error ]; then
        printf 'the process ended' > {output}/$name.xnnpack.error
        kill -SEGV $$
    fi
done
"""


def test_a_runtime_that_cannot_start_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"must run LiteRT\. Received: exit code 1"):
        measure.run_release(Path("/bin/false"), tmp_path, tmp_path, 1)


@pytest.mark.slow
def test_a_share_of_the_files_under_some_releases():
    chosen = [
        "tflite-runtime==2.14.0",
        "ai-edge-litert==2.1.0",
        "ai-edge-litert==2.3.0",
    ]
    options = ["--share", "100", "--random", "10", "--cache", str(ROOT / ".runtimes")]
    assert years.main(["--releases", *chosen, *options]) == 0
