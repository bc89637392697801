"""Surveys networks of other packages: which export, and why others do not.

    pip install -e ".[survey]"
    python examples/network_survey.py
    python examples/network_survey.py --report docs/network_survey.md

The networks are those of keras-cv-attention-models, KerasHub and `keras.applications`
in `survey_networks.py`, with random weights; nothing is downloaded. Every network runs
in its own process, with limits of CPU time and memory, and appends one line to the
results file; a run continues where another was stopped. `--again` repeats networks that
have a line. `--report` runs nothing, and writes the table.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import Any

import limited
from survey_networks import NETWORKS

RESULTS = Path(__file__).parents[1] / "docs" / "network_survey.jsonl"
CHECK = Path(__file__).with_name("survey_check.py")
EXPORTED = ("exported", "remedied")
MAX_UNROUNDED = 0.5  # Percent of the output's range.
Row = dict[str, Any]


def run(name: str, *, seconds: int, gigabytes: float) -> Row:
    """Checks one network in its own process.

    Args:
        name: A key of `NETWORKS`.
        seconds: CPU time after which the process is stopped.
        gigabytes: Memory that the process may allocate.

    Returns:
        The row of `survey_check.check`, with the outcome "failed" for a process that
        passed a limit or crashed.
    """
    network = NETWORKS[name]
    row: Row = {"network": name, "family": network.family, "package": network.package}
    return row | limited.run(CHECK, name, seconds=seconds, gigabytes=gigabytes)


def read(path: Path) -> dict[str, Row]:
    """Reads the last line of every network in the results; none without a file."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["network"]: row for row in rows}


def report(rows: list[Row]) -> str:
    """Returns the report of all results."""
    built = [row for row in rows if row["outcome"] != "not built"]
    counts = collections.Counter(row["outcome"] for row in built)
    done = [row for row in built if row["outcome"] in EXPORTED]
    others = [row for row in built if row["outcome"] not in EXPORTED]
    versions = {row["versions"] for row in rows if "versions" in row}
    text = HEADER.format(
        networks=len(built),
        families=len({row["family"] for row in built}),
        exported=counts["exported"],
        remedied=counts["remedied"],
        integers=sum(map(_is_integer, done)),
        share=100 * len(done) / max(len(built), 1),
        versions="; ".join(sorted(versions)),
        done="\n".join(map(_exported_line, done)),
        others="\n".join(map(_refused_line, others)),
        classes="\n".join(_class_lines(built)),
    )
    return text + _missing([row for row in rows if row["outcome"] == "not built"])


def _is_integer(row: Row) -> bool:
    """Returns whether at most a tenth of a network's kernels are in float."""
    return row["weight_codes"] >= 0.9 * row["kernel_weights"]


def _exported_line(row: Row) -> str:
    """Formats the line of a network with a verified file."""
    codes, wrong = row["weight_codes"], row["weight_codes"] - row["equal_codes"]
    share = f"{100 * row['worst_share']:.2f} %" if "worst_share" in row else "none"
    unrounded = f"{row['unrounded']:.3f} %"
    if row["unrounded"] > MAX_UNROUNDED:
        unrounded = f"**{unrounded}**"
    remedied = row["outcome"] == "remedied"
    cells = [
        *_names(row),
        "" if remedied else "yes",
        f"yes: {row['float_layers']} in float" if remedied else "",
        f"{row['operators']:,}",
        f"{codes:,}, {100 * codes / row['kernel_weights']:.0f} %",
        f"**{wrong:,} differ**" if wrong else "yes",
        f"{share} `{row['worst_kind']}`" if "worst_kind" in row else share,
        f"{row['file_bytes']:,}",
        f"{row['difference']:.1f} %",
        unrounded,
    ]
    return _line(cells)


def _refused_line(row: Row) -> str:
    """Formats the line of a network without a file."""
    message = (row.get("message") or " ").strip()
    problem = next(
        (line for line in message.splitlines() if line.startswith("  ")),
        message.splitlines()[0] if message else "",
    )
    classes = ", ".join(f"{name} ({n})" for name, n in row["reasons"].items())
    outcome = row["outcome"]
    if outcome == "failed":
        outcome = f"**failed**: {row['error']} at {row.get('where', 'unknown')}"
    cells = [*_names(row), outcome, row["stage"], classes, problem.strip()[:200]]
    return _line([cell.replace("|", "\\|") for cell in cells])


def _names(row: Row) -> list[str]:
    """Returns the cells that name a network."""
    layers = str(row.get("layers", ""))
    return [row["network"], row["family"], row["package"], layers]


def _class_lines(rows: list[Row]) -> list[str]:
    """Counts the classes of layers that errors named, in networks and layers."""
    networks, layers = collections.Counter[str](), collections.Counter[str]()
    for row in rows:
        for name, count in row.get("reasons", {}).items():
            networks[name] += 1
            layers[name] += count
    return [
        _line([name, str(count), str(layers[name])])
        for name, count in networks.most_common()
    ]


def _missing(rows: list[Row]) -> str:
    """Names the networks that their packages could not build."""
    if not rows:
        return ""
    lines = [f"- {row['network']}: {row['message'].splitlines()[0]}" for row in rows]
    return "\n## Not built\n\n" + "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    """Formats a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


HEADER = """# Survey of networks

{networks} networks of {families} families, from packages that know nothing of this
library, with random weights and small images: quantized with `tf_lsq.quantize_model`
(8-bit weights and activations, default options), calibrated, exported, and verified
with `tflite_export.verify_tflite`. {exported} export as they are, {remedied} more after
following the `overrides` that the error printed: {share:.0f} %. In {integers} of these
files at least 90 % of the weights of kernels are integers. Generated by

    python examples/network_survey.py
    python examples/network_survey.py --report docs/network_survey.md

with {versions}.

## Exported

*weight codes*: integers of kernels in the file, and their share of the weights of all
kernels (a factor per channel that no kernel can take in counts as well, so it can be
over 100 %); *all equal*: to those of the student. *off by one*: the largest share of
activation codes of one tensor that differ by one from the training graph, and its
operator. *difference*: the largest difference between student and float model, in
percent of the range of the output. *unrounded*: the same for the student without its
quantizers, which is the float model if it was read correctly. Random weights amplify
the error of rounding: batch norms stretch it at each layer.

| network | family | package | layers | as it is | after the remedy | operators | \
weight codes | all equal | off by one | file bytes | difference | unrounded |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{done}

## Not exported

| network | family | package | layers | outcome | stage | layers named | first reason |
|---|---|---|---|---|---|---|---|
{others}

## Layers without an exact integer form

Every class or function that an error named, whether or not the network was exported
with it in float.

| layer | networks | layers |
|---|---|---|
{classes}
"""


def main() -> None:
    """Runs the networks that have no line yet, or writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seconds", type=int, default=300, help="limit of CPU time")
    parser.add_argument("--gigabytes", type=float, default=6, help="limit of memory")
    parser.add_argument(
        "--again", action="store_true", help="run networks that have a line"
    )
    parser.add_argument("--report", type=Path, metavar="PAGE", help="write the table")
    args = parser.parse_args()
    rows = read(args.results)
    if args.report is not None:
        known = [rows[name] for name in NETWORKS if name in rows]
        args.report.write_text(report(known))
        return
    for name in args.networks:
        if name in rows and not args.again:
            continue
        row = run(name, seconds=args.seconds, gigabytes=args.gigabytes)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        with args.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: {row['outcome']}", flush=True)


if __name__ == "__main__":
    main()
