"""Runs files in consumers, each in an environment of its own.

python -m consumers                                   # everything; some minutes
python -m consumers --programs "mediapipe, mediapipe==1.2.3"
python -m consumers --markdown docs/consumers.md      # also writes page and results;
                                                      # `years.page` runtimes.md, too
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

from gpu import vulkan
from harness.folders import temporary_folder
from tqdm import tqdm
from web import packages

from tflite_export.reports.latency import processor

from . import files, measure, page, trained
from .cases import SPECS
from .programs import PROGRAMS, Program, find_program
from .runners import Runner, runner_of

_CLASSIFIER = "mediapipe"


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if MediaPipe answers otherwise than the twin.

    Args:
        arguments: Of the command line; None: those that were given.
    """
    args = _arguments(arguments)
    programs = [find_program(name) for name in args.programs] or list(PROGRAMS)
    runners = {
        program: runner_of(program, args.cache, args.web, args.vulkan)
        for program in tqdm(programs, "installing", disable=None)
    }
    with temporary_folder() as folder:
        outcomes = _run_all(runners, folder)
        classified = _classify(runners, folder)
    results = page.Results(
        _about(programs, args),
        importlib.metadata.version("ai-edge-litert"),
        trained.IMAGES,
        outcomes,
        classified,
    )
    if args.markdown:
        page.write_results(args.markdown.with_suffix("") / "results.jsonl", results)
        args.markdown.write_text(page.page(results))
    print(page.page(results))
    differ = sum(one.differ + one.labels for one in classified.values())
    print(f"{differ} scores and labels differ from the twin's.")
    return int(differ > 0)


def _about(programs: list[Program], args: argparse.Namespace) -> str:
    """Returns the versions that no program's name has, and the machine."""
    parts = [f"Python {platform.python_version()}"]
    if any(program.in_browser for program in programs):
        command = [packages.find_browser(), "--version"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        parts.append(" ".join(done.stdout.split()[:2]))
    if any(program.call == "gpu" for program in programs):
        parts.append(vulkan.version(args.vulkan))
    return ", ".join([*parts, f"on {platform.machine()} {processor()}"])


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m consumers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cache", type=Path, default=Path(".runtimes"))
    parser.add_argument("--web", type=Path, default=Path(".web"))
    parser.add_argument("--vulkan", type=Path, default=Path(".vulkan"))
    parser.add_argument("--programs", nargs="+", default=[], help="names of programs")
    parser.add_argument("--markdown", type=Path, help="also write the page here")
    return parser.parse_args(arguments)


def _run_all(
    runners: dict[Program, Runner], folder: Path
) -> dict[str, dict[str, measure.Outcome]]:
    """Returns what programs do with the files."""
    source = folder / "files"
    source.mkdir()
    files.write_files(source)
    paths = [source / f"{name}.tflite" for name in SPECS]
    outcomes = {}
    for number, (program, run) in enumerate(tqdm(runners.items(), "running")):
        output = folder / f"output{number}"
        output.mkdir()
        outcomes[program.name] = measure.outcomes_of(run(paths, output), paths)
    return outcomes


def _classify(
    runners: dict[Program, Runner], folder: Path
) -> dict[str, page.Classified]:
    """Returns what MediaPipe answers for the images of trained classifiers."""
    chosen = [run for program, run in runners.items() if program.call == _CLASSIFIER]
    if not chosen:
        return {}
    source = folder / "trained"
    source.mkdir()
    found = {}
    for one in trained.write_trained(source):
        [answers] = chosen[-1]([one.path], folder).values()
        labels = json.loads(str(answers["labels"]))["0"]
        found[one.name] = page.Classified(
            one.accuracy,
            one.scores.size,
            int((answers["0"] != one.scores).sum()),
            sum(a != b for a, b in zip(labels, one.labels, strict=True)),
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
