"""Takes common networks from quantization to a verified file, and writes a table.

    python examples/networks.py --markdown docs/networks.md

The networks are those of `tf_lsq.models` and of `keras.applications` of either Keras in
`networks_list.py`, with random weights; nothing is downloaded. Every network runs at
every width in its own process, with limits of CPU time and memory, and appends a line
to the results file; a run continues where another was stopped. `--again` repeats rows
that have a line; `--bits` selects widths; `--networks` selects networks, and without a
name only the page is written.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import limited
from limited import Row
from networks_list import NETWORKS, bits_name
from networks_page import page

RESULTS = Path(__file__).resolve().parents[1] / "docs/networks/results.jsonl"
CHECK = Path(__file__).with_name("networks_check.py")
Key = tuple[str, str]  # Name and bits.


def keys(names: list[str]) -> list[Key]:
    """Returns the rows of networks, in the order in which they are run.

    Args:
        names: Keys of `NETWORKS`.
    """
    return [(name, bits_name(bits)) for name in names for bits in NETWORKS[name].bits]


def read(path: Path) -> dict[Key, Row]:
    """Reads the last line of every row in the results; none without a file."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["network"], row["bits"]): row for row in rows}


def run(key: Key, *, seconds: int, gigabytes: float) -> Row:
    """Checks one network at one width in its own process.

    Args:
        key: Name of the network, and bits.
        seconds: CPU time after which the process is stopped.
        gigabytes: Memory that the process may allocate.

    Returns:
        The row of `networks_check.check`, with the outcome "failed" for a process that
        passed a limit or crashed.
    """
    name, bits = key
    network = NETWORKS[name]
    row: Row = {"network": name, "bits": bits, "package": network.package}
    row["trained"] = network.trained
    return row | limited.run(CHECK, *key, seconds=seconds, gigabytes=gigabytes)


def main() -> None:
    """Runs the rows that have no line yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--bits", nargs="+", help="such as 8/8; all if missing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seconds", type=int, default=900, help="limit of CPU time")
    parser.add_argument("--gigabytes", type=float, default=8, help="limit of memory")
    parser.add_argument(
        "--again", action="store_true", help="run rows that have a line"
    )
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="write the page")
    args = parser.parse_args()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    _write(args.markdown, read(args.results))
    for key in keys(args.networks):
        if args.bits is not None and key[1] not in args.bits:
            continue
        if not args.again and key in read(args.results):
            continue  # Another run may have added it.
        start = time.perf_counter()
        row = run(key, seconds=args.seconds, gigabytes=args.gigabytes)
        with args.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        took = time.perf_counter() - start
        print(f"{' '.join(key)}: {row['outcome']} in {took:.0f} s", flush=True)
        _write(args.markdown, read(args.results))


def _write(path: Path | None, rows: dict[Key, Row]) -> None:
    """Writes the page of all results, if there is a path."""
    if path is not None:
        path.write_text(page(keys([*NETWORKS]), rows))


if __name__ == "__main__":
    main()
