"""Measures everything side by side and prints tables.

python -m benchmarks                 # all sections, about half an hour
python -m benchmarks --quick         # fewer rounds, smaller networks
python -m benchmarks latency memory  # some sections
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECTIONS = {
    "operator": "The operator, forward and backward",
    "precision": "Error of the step's gradient against float64, in random sums",
    "training-step": "A training step",
    "growth": "A training step over batch and depth",
    "first-step": "From a float network to the end of the first step of `fit`",
    "quantize-model": "`quantize_model` over depth",
    "export": "`export_model` over depth, beside the conversion of the float network",
    "latency": "One inference of a file, one thread, XNNPACK",
    "memory": "Peak memory of a training step, pre-activation ResNet-18, width 16",
}

_HEAD = """# Benchmarks

Made by `python -m benchmarks --onednn --markdown docs/benchmarks.md` with
{about}.

Contestants take turns in one process, in another order each round. A figure is the
median of all rounds, in brackets the least and the most of three blocks of rounds.
Images and labels are random. oneDNN's kernels are TensorFlow's default on processors
with AVX-512 VNNI or AMX; `--onednn` switches them on elsewhere.
"""


def main() -> None:
    """Runs the sections that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("sections", nargs="*", metavar="section", help=str([*SECTIONS]))
    parser.add_argument("--quick", action="store_true", help="a quick look")
    parser.add_argument(
        "--onednn",
        action=argparse.BooleanOptionalAction,
        help="TensorFlow's oneDNN kernels; without this option TensorFlow decides",
    )
    parser.add_argument("--markdown", type=Path, help="write the tables here, too")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    args = parser.parse_args()
    unknown = set(args.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown sections {sorted(unknown)}; there are {[*SECTIONS]}")
    # Both are read when TensorFlow is imported, here and in processes of our own.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if args.onednn is not None:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = str(int(args.onednn))
    measure = _measures(args.quick)
    from .timing import machine

    about = {**machine(), "settings": "quick" if args.quick else "full"}
    line = ", ".join(f"{name} {value}" for name, value in about.items())
    print(line, flush=True)
    figures: dict[str, Any] = {"about": about}
    for section in args.sections or SECTIONS:
        figures[section] = measure[section]()
        part = f"## {SECTIONS[section]}\n\n{_table(figures[section])}\n"
        print(f"\n{part}", flush=True)
        if args.json:
            args.json.write_text(
                json.dumps(figures, indent=1, default=dataclasses.asdict)
            )
        if args.markdown:
            _update(args.markdown, line, SECTIONS[section], part)


def _update(path: Path, about: str, title: str, part: str) -> None:
    """Writes one section into a file; the other sections in it are kept."""
    old = path.read_text().split("\n## ")[1:] if path.exists() else []
    parts = {text.split("\n")[0]: f"## {text.rstrip()}\n" for text in old}
    parts[title] = part
    ordered = [parts[title] for title in SECTIONS.values() if title in parts]
    path.write_text("\n".join([_HEAD.format(about=about), *ordered]))


def _measures(quick: bool) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """Returns what measures each section."""
    from . import files, lsq_operator, quantization_time, training_step

    rounds, repeats = (9, 1) if quick else (60, 3)
    depths = (18,) if quick else (18, 50, 152)
    size = 64 if quick else 224
    return {
        "operator": lambda: lsq_operator.measure(5 * rounds),
        "precision": lsq_operator.measure_precision,
        "training-step": lambda: training_step.measure(rounds),
        "growth": lambda: training_step.measure_growth(
            rounds // 4, (32, 64) if quick else (32, 64, 128, 256)
        ),
        "first-step": lambda: training_step.measure_first_step(repeats),
        "quantize-model": lambda: quantization_time.measure(depths, size, repeats),
        "export": lambda: files.measure_export(depths, size, repeats),
        "latency": lambda: files.measure_latency(10 * rounds),
        "memory": lambda: training_step.measure_memory((8, 128 if quick else 512)),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    """Returns rows as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        lines.append("| " + " | ".join(str(value) for value in row.values()) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
