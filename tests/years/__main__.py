"""Runs files under older runtimes and compares them with the integer twin.

python -m years                                        # everything; about an hour
python -m years --share 10 --seed 3                    # a tenth of the cases
python -m years --releases ai-edge-litert==2.1.0       # under one release
python -m years --markdown docs/runtimes.md            # also writes page and results
python -m years --markdown docs/runtimes.md --releases tensorflow-cpu==2.21.0
                                                       # the same, for one more release
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import platform
import sys
from pathlib import Path

from harness import cases
from harness.folders import kept_folder
from harness.releases import Release, numpy_of, python_of
from tqdm import tqdm

from tflite_export.reports.latency import processor
from tflite_export.runtimes import this_machine

from . import hand_built, measure, page
from .releases import RELEASES, find_release


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if the newest release differs from the twin, or reports are wrong.

    Args:
        arguments: Of the command line; None: those that were given.
    """
    args = _arguments(arguments)
    releases = [find_release(name) for name in args.releases] or list(RELEASES)
    pythons = {
        release: python_of(release, args.cache)
        for release in tqdm(releases, "installing", disable=None)
    }
    with kept_folder(args.files) as folder:
        chosen = cases.drawn_cases(args.share, args.seed, args.random)
        files = _write_files(folder, chosen, args.examples)
        _run(pythons, folder, args.examples)
        measured = {
            release.name: measure.count(
                release.name, numpy_of(python), folder, folder / release.requirement
            )
            for release, python in tqdm(pythons.items(), "comparing", disable=None)
        }
    about = (
        f"{files} files, {args.examples} examples, seed {args.seed}, Python "
        f"{platform.python_version()}, on {platform.machine()} {processor()}"
    )
    for kernels in ("xnnpack", "builtin"):
        print(f"{about}, {kernels}\n{page.table(measured, kernels)}")
    if args.markdown:
        results = args.markdown.with_suffix("") / "results.jsonl"
        page.write_results(results, about, page.with_others(results, about, measured))
        page.write_page(args.markdown)
    return int(_newest_differs(measured) + _promises_broken(measured) > 0)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m years", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cache", type=Path, default=Path(".runtimes"))
    parser.add_argument("--releases", nargs="+", default=[], help="requirements")
    cases.add_arguments(parser, random=60, examples=3)
    parser.add_argument("--files", type=Path, help="keep files here, to go on later")
    parser.add_argument("--markdown", type=Path, help="also write the page here")
    return parser.parse_args(arguments)


def _write_files(folder: Path, chosen: list[cases.Case], examples: int) -> int:
    """Writes the files of all cases that are not there yet; returns how many."""
    runtime = this_machine()
    files = hand_built.write_files(folder, examples)
    for case in tqdm(chosen, "exporting", disable=None):
        files += cases.write_case_once(case, folder, runtime, examples, whole=["int8"])
    return files


def _run(pythons: dict[Release, Path], folder: Path, examples: int) -> None:
    """Runs all files under all releases."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [
            pool.submit(
                measure.run_release,
                *(python, folder, folder / release.requirement, examples),
            )
            for release, python in pythons.items()
        ]
        for run in tqdm(runs, "running", disable=None):
            run.result()


def _newest_differs(measured: dict[str, measure.Measured]) -> int:
    """Returns, and prints, in how much the newest release differs from the twin."""
    newest = RELEASES[-1].name
    counts = measured[newest].counts.values() if newest in measured else []
    differ = sum(count.differ + count.refused for count in counts)
    print(f"{newest}: {differ} codes and files differ from the twin.")
    return differ


def _promises_broken(measured: dict[str, measure.Measured]) -> int:
    """Returns how many files are refused that reports promise, and prints them."""
    broken = [
        f"{name}: {file}" for name, one in measured.items() for file in one.promised
    ]
    for file in broken:
        print(f"{file} is refused, unlike reports say.")
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
