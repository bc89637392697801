"""Surveys every function and layer, and writes one JSON line for each.

    PYTHONPATH=tests python -m harness.fuzzing.run results.jsonl

Items that the file has already are skipped. One process surveys one item after the
other; it is replaced if it dies or takes too long, which is a fault of the item.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import json
import multiprocessing
import os
import platform
import re
import sys
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SECONDS_PER_ITEM = 300
ITEMS_PER_PROCESS = 100  # TensorFlow keeps what it has traced.


class Worker:
    """A process that surveys items by name."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self.count = 0

    def survey(self, key: str, options: dict[str, Any]) -> dict[str, Any]:
        """Returns the results of an item, or a fault if the process does not answer."""
        self.count += 1
        self._pipe.send((key, options))
        try:
            if self._pipe.poll(SECONDS_PER_ITEM):
                return self._pipe.recv()
            return _lost(key, f"takes longer than {SECONDS_PER_ITEM} s")
        except (EOFError, ConnectionError):
            self._process.join()
            return _lost(key, f"ends Python, exit code {self._process.exitcode}")

    @property
    def is_worn(self) -> bool:
        """Whether to start another process."""
        return self.count >= ITEMS_PER_PROCESS or not self._process.is_alive()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


def _lost(key: str, fault: str) -> dict[str, Any]:
    """Returns the result of an item whose process did not answer."""
    case = {"call": "", "outcome": "fault", "fault": fault, "message": ""}
    case |= {"difference": 0.0, "seconds": 0.0}
    shared = {"aliases": [], "reason": "", "seconds": 0.0}
    return {"item": key, **shared, "cases": [case], "lost": True}


def _serve(pipe: Any) -> None:
    """Surveys the items whose names arrive."""
    from .discovery import items
    from .survey import survey

    known = {item.key: item for item in items()}
    gc.freeze()
    while True:
        key, options = pipe.recv()
        with _silent():
            try:
                result = survey(known[key], **options)
            except Exception:
                result = _lost(key, "the harness fails")
                result["cases"][0]["message"] = traceback.format_exc()[-2000:]
        pipe.send(result)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discards what is printed, by C++ as well."""
    kept = [os.dup(number) for number in (1, 2)]
    with Path(os.devnull).open("w") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in zip((1, 2), kept, strict=True):
                os.dup2(original, number)
                os.close(original)


def versions() -> dict[str, str]:
    """Returns the versions that results depend on."""
    packages = {
        "TensorFlow": "tensorflow",
        "tf_keras": "tf_keras",
        "Keras": "keras",
        "ai-edge-litert": "ai-edge-litert",
    }
    found = {name: metadata.version(package) for name, package in packages.items()}
    return {"Python": platform.python_version(), **found}


def recorded_versions(path: Path) -> dict[str, str]:
    """Returns the versions that a file of results was made with."""
    with path.open() as file:
        return json.loads(file.readline())["versions"]


def surveyed(path: Path) -> list[dict[str, Any]]:
    """Returns the results in a file, whose first line holds versions."""
    if not path.exists():
        path.write_text(json.dumps({"versions": versions()}) + "\n")
    _, *lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines]


def run(path: Path, pattern: str, options: dict[str, Any]) -> None:
    """Surveys the items whose names match a pattern, and appends their results."""
    from .discovery import items

    done = {result["item"] for result in surveyed(path)}
    keys = [item.key for item in items() if re.search(pattern, item.key)]
    worker: Worker | None = None
    for number, key in enumerate(keys):
        if key in done:
            continue
        if worker is None or worker.is_worn:
            if worker is not None:
                worker.stop()
            worker = Worker()
        result = worker.survey(key, options)
        if result.pop("lost", False):
            worker.stop()
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        outcomes = collections.Counter(c["outcome"] for c in result["cases"])
        print(f"{number + 1}/{len(keys)} {key} {dict(outcomes)}", flush=True)
    if worker is not None:
        worker.stop()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--items", default="", help="regular expression of names")
    parser.add_argument("--depth", choices=("file", "analysis"), default="file")
    args = parser.parse_args()
    run(args.file, args.items, {"depth": args.depth})


if __name__ == "__main__":
    main()
