"""The page of `networks.py`."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from limited import Row

Key = tuple[str, str]  # Name and bits.

HEADER = """# Networks

The networks of `tf_lsq.models` (`vgg16_bn` at half its width) and of
`keras.applications` of either Keras, with random weights, 10 classes and small images
(most of 64x64): {passed} of {run} rows pass, {refused}
are refused by name, {failed} fail; {missing} have not been run. Made by

    python examples/networks.py --markdown docs/networks.md

with {versions}. Each row was a process of its own, with limits of CPU time and memory.

Of each family, the smallest network and one of its middle go through *all stages*: they
are quantized with `tf_lsq.quantize_model`, calibrated on 8 images, trained for one step
of Adam in which every gradient was finite and every learned step moved, saved and
loaded with equal outputs, exported, and verified with `tflite_export.verify_tflite` on
8 images. A step may stay where it is if its point rounds nothing, or if it would grow
and is at the limit of a ReLU6. Larger networks are quantized, calibrated, *exported*
and verified, without a training step.

A row passes if no layer and no tensor between input and output is in float, every
weight code is the trained one, no activation code is off by more than one, and the
integer twin computes every output code of the file.

- *layers*: Keras layers of the float model. *weight codes*: integers of kernels in the
  file. *`quantize_model`*: timed once, with other load on the machine; `python -m
  benchmarks` measures it. *operators*: of the file; *int16*: those of them that compute
  in int16. *float*: tensors between input and output in float.
- *off by one*: codes that differ by one from those of the training graph, when each
  tensor is computed from the file's own inputs; of all codes, and of the tensor with
  the largest share, with its operator. TFLite's average pooling rounds ties away from
  zero, whereas Keras and this library round them to even: one in four 2x2 means of
  integers is a tie. A hard sigmoid is linear, so all values of one input code fall on
  the same side of a near tie.
- *twin*: output codes of the file that the integer twin computes differently.
- *worst layer*: the smallest signal-to-noise ratio of a layer that receives the tensors
  of the float model, at 8/8.
- *copy*: the largest difference of the outputs of `tf_lsq.from_keras3(model)`, which
  `quantize_model` reads, from those of a network of Keras 3, both in float64, at 8/8.
- *memory*: the largest resident memory of the process, with Python and TensorFlow.
"""

TRAINED = """
## All stages

| network | bits | layers | weight codes | `quantize_model`, s | operators | int16 | \
float | file bytes | off by one, all | off by one, worst tensor | twin | worst layer, \
dB | copy | memory, MB |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""

EXPORTED = """
## Exported only

| network | bits | layers | weight codes | `quantize_model`, s | operators | int16 | \
float | file bytes | off by one, all | off by one, worst tensor | twin | memory, MB |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""

OTHERS = """
## Refused or failed

| network | bits | outcome | stage | layers named | message |
|---|---|---|---|---|---|
"""

MAX_MESSAGE = 400  # Characters of a message.


def page(keys: list[Key], rows: dict[Key, Row]) -> str:
    """Returns the page of all results.

    Args:
        keys: All rows, in their order.
        rows: The results of those that were run.
    """
    known = [rows[key] for key in keys if key in rows]
    counts = collections.Counter(row["outcome"] for row in known)
    passed = [row for row in known if row["outcome"] == "passed"]
    others = [row for row in known if row["outcome"] != "passed"]
    missing = [" ".join(key) for key in keys if key not in rows]
    versions = {row["versions"] for row in known if "versions" in row}
    header = HEADER.format(
        passed=counts["passed"],
        run=len(known),
        refused=counts["refused"],
        failed=counts["failed"],
        missing=len(missing),
        versions="; ".join(sorted(versions)),
    )
    trained = (_line(_trained_cells(row)) for row in passed if row["trained"])
    exported = (_line(_exported_cells(row)) for row in passed if not row["trained"])
    return "".join(
        [
            header,
            _table(TRAINED, trained),
            _table(EXPORTED, exported),
            _table(OTHERS, (_line(_other_cells(row)) for row in others)),
            _not_run(missing),
        ]
    )


def _trained_cells(row: Row) -> list[str]:
    """Returns the cells of a network that went through all stages."""
    *cells, memory = _exported_cells(row)
    worst = ""
    if "worst_layer" in row:
        worst = f"{row['worst_layer_db']:.1f} `{row['worst_layer']}`"
    copy = f"{row['copy_difference']:.1e}" if "copy_difference" in row else ""
    return [*cells, worst, copy, memory]


def _exported_cells(row: Row) -> list[str]:
    """Returns the cells of a network with a verified file."""
    return [
        row["network"],
        row["bits"],
        f"{row['layers']:,}",
        f"{row['weight_codes']:,}",
        f"{row['quantize_seconds']:.1f}",
        f"{row['operators']:,}",
        f"{row['int16_operators']:,}",
        str(row["float_tensors"]),
        f"{row['file_bytes']:,}",
        f"{100 * row['off_by_one']:.4f} %",
        f"{100 * row['worst_share']:.2f} % `{row['worst']}` ({row['worst_kind']})",
        str(row["twin_differences"]),
        f"{row['peak_bytes'] / 1e6:,.0f}",
    ]


def _other_cells(row: Row) -> list[str]:
    """Returns the cells of a network without a verified file."""
    outcome = row["outcome"]
    if outcome == "failed":
        outcome = f"**failed**: {row['error']} at {row.get('where', 'unknown')}"
    classes = ", ".join(f"{name} ({n})" for name, n in row["reasons"].items())
    message = " ".join(row.get("message", "").split())[:MAX_MESSAGE]
    cells = [row["network"], row["bits"], outcome, row["stage"], classes, message]
    return [cell.replace("|", "\\|") for cell in cells]


def _table(header: str, lines: Iterable[str]) -> str:
    """Returns a table, "" if it has no lines."""
    text = "\n".join(lines)
    return f"{header}{text}\n" if text else ""


def _not_run(names: list[str]) -> str:
    """Names the rows that were not run."""
    if not names:
        return ""
    return f"\n## Not run\n\n{', '.join(names)}.\n"


def _line(cells: list[str]) -> str:
    """Formats a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
