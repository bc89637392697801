"""Runs files on LiteRT's GPU accelerator and compares them with the CPU.

python -m gpu                                     # on a Vulkan in software
python -m gpu --share 10                          # a tenth of the cases
python -m gpu --resnet8 DIR --data-dir DIR        # also the networks of an example
python -m gpu --markdown docs/gpu.md              # also writes the page
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import ai_edge_litert
from harness import cases
from harness.folders import kept_folder
from tqdm import tqdm

from tflite_export.runtimes import this_machine

from . import measure, page, shapes, trained, vulkan

_LARGEST_LOSS = 0.005  # Of accuracy on the GPU, with picked pixels.


def main() -> int:
    """Returns 1 if the GPU computes something else than the page says."""
    args = _arguments()
    environment = vulkan.environment(args.cache)
    with kept_folder(args.files) as folder:
        rows = _trained(args, folder, environment)
        measured = {
            part: _measured(part, args, folder, environment)
            for part in ("shapes", "cases")
        }
        files = len(list(folder.glob("*/*.tflite")))
        misjudged = [
            line
            for part in measured
            for line in measure.misjudged(folder / part, folder / f"{part}_output")
        ]
    about = (
        f"{files} files, {args.examples} examples, seed {args.seed}, ai-edge-litert "
        f"{ai_edge_litert.__version__}, {vulkan.version(args.cache)}, Python "
        f"{platform.python_version()}, on {platform.machine()}"
    )
    text = page.page(about, rows, measured["shapes"], measured["cases"], misjudged)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    return int(_report(rows, measured["shapes"].wrong, misjudged) > 0)


def _arguments() -> argparse.Namespace:
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cache", type=Path, default=Path(".vulkan"))
    cases.add_arguments(parser, random=30, examples=3)
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument(
        "--resnet8", type=Path, help="what examples/cifar10_resnet8.py wrote"
    )
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its files")
    parser.add_argument("--files", type=Path, help="keep files here, to go on later")
    parser.add_argument("--markdown", type=Path, help="also write the page here")
    return parser.parse_args()


def _trained(
    args: argparse.Namespace, folder: Path, environment: dict[str, str]
) -> list[trained.Row]:
    """Returns what the GPU computes of trained networks."""
    files, output = folder / "trained", folder / "trained_output"
    files.mkdir(exist_ok=True)
    networks = list(_networks(args, folder))
    for network in networks:
        trained.write_files(network, files)
    measure.run(files, output, environment, args.images)
    return [trained.compare(network, files, output) for network in networks]


def _networks(args: argparse.Namespace, folder: Path) -> Iterator[trained.Network]:
    """Yields the trained networks."""
    yield trained.quickstart(folder, args.images)
    if args.resnet8 is not None:
        yield from trained.resnet8(args.resnet8, args.data_dir, args.images)


def _measured(
    part: str, args: argparse.Namespace, folder: Path, environment: dict[str, str]
) -> measure.Measured:
    """Returns what the GPU computes of "shapes" or "cases"."""
    files, output = folder / part, folder / f"{part}_output"
    files.mkdir(exist_ok=True)
    if part == "shapes":
        shapes.write_files(files, args.examples)
    else:
        chosen = cases.drawn_cases(args.share, args.seed, args.random)
        for case in tqdm(chosen, "exporting", disable=None):
            cases.write_case_once(case, files, this_machine(), args.examples)
    measure.run(files, output, environment, args.examples)
    return measure.count(files, output)


def _report(rows: list[trained.Row], wrong: set[str], misjudged: list[str]) -> int:
    """Returns, and prints, in how much the GPU computes something new."""
    lost = [row.name for row in rows if row.cpu - row.gpu["pick"] > _LARGEST_LOSS]
    news = [f"{name} is wrong" for name in sorted(wrong - shapes.WRONG)]
    news += [f"{name} is right" for name in sorted(shapes.WRONG - wrong)]
    news += [f"{name} loses accuracy with picked pixels" for name in lost]
    news += [f"the rules of the consumer `gpu` misjudge {line}" for line in misjudged]
    for line in news:
        print(f"Unlike before: {line}.")
    return len(news)


if __name__ == "__main__":
    sys.exit(main())
