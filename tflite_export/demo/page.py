"""`write_demo`: one HTML page that runs a file on a phone or a computer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

import tf_lsq

from ..atomic_file import check_writable, write_atomically
from ..file import TFLiteGraph, ends_of, from_bytes, to_bytes, with_uint8_ends
from ..reports import render
from ..runtimes import Runner
from .litertjs import LiteRtJs, compressed, embedded, linked
from .outputs import Outputs, read_outputs
from .pixels import Numbers, Pixels, read_pixels

TEMPLATES = Path(__file__).parent / "templates"
_KILO = 1000


def write_demo(
    path: str | Path,
    output: str | Path,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    boxes: str | None = None,
    offline: str | Path | None = None,
) -> Path:
    """Writes one HTML page that runs a `.tflite` file in a browser.

    The file takes pictures, which one draws, chooses, drops, pastes or takes with a
    camera. It computes scores of classes, a mask, or boxes, which the page shows with
    the time that they took. Pictures stay on the device.

    Args:
        path: A `.tflite` file with one input, `[1, height, width, channels]`, gray or
            RGB.
        output: The page to write; an existing one is replaced atomically.
        labels: Names of the classes; None: their numbers.
        title: Title of the page; None: the name of the file.
        mean: The model was trained on ``(byte - mean) / std``: one number, or one per
            channel. None: the grid of the input shows that the code of a byte is the
            byte, or that the model contains its own normalization.
        std: The same.
        boxes: For a file with boxes: the order of their numbers, as fractions of the
            picture, one of "yxyx", "xyxy" and "cxcywh".
        offline: A folder in which `npm install @litertjs/core` was run, whose LiteRT.js
            is embedded: the page, about 4 MB larger, opens from disk without a server
            and without a network. None: the page links LiteRT.js on a public server.

    Returns:
        The page.

    Raises:
        ValueError: If the page cannot show the inputs and outputs of the file, an
            option is missing or unfit, or LiteRT.js would refuse the file.
        OSError: If a file cannot be read or written.
    """
    output = Path(output)
    check_writable(output)
    page = demo_page(
        path,
        labels=labels,
        title=title,
        mean=mean,
        std=std,
        boxes=boxes,
        offline=offline,
    )
    write_atomically(output, page)
    return output


def demo_page(
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    boxes: str | None = None,
    offline: str | Path | None = None,
) -> bytes:
    """Returns the page that `write_demo` writes, see there."""
    path = Path(path)
    content = path.read_bytes()
    graph, in_page = _for_the_web(content)
    inputs, outputs = (ends_of(graph, ends) for ends in (graph.inputs, graph.outputs))
    if len(inputs) != 1:
        names = [end.name for end in inputs]
        raise ValueError(f"The file must have one input. Received: {names}.")
    shown = read_outputs(graph, outputs, boxes)
    pixels = read_pixels(inputs[0], mean, std)
    names = _labels(labels, shown.num_classes)
    runtime = linked() if offline is None else embedded(Path(offline))
    return _rendered(
        path.stem if title is None else title,
        len(content),
        in_page,
        pixels,
        shown,
        names,
        runtime,
    )


def _for_the_web(content: bytes) -> tuple[TFLiteGraph, bytes]:
    """Returns a file as a page takes it: LiteRT.js refuses int8 inputs and outputs.

    Raises:
        ValueError: If the file cannot be read, or its ends cannot be changed exactly.
    """
    graph = from_bytes(content)
    ends = [*graph.inputs.values(), *graph.outputs.values()]
    if all(graph.tensors[name].dtype != "int8" for name in ends):
        return graph, content
    try:
        changed = with_uint8_ends(graph)
        in_page = to_bytes(changed)
        _check_same(graph, content, changed, in_page)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "The inputs and outputs of the file must be uint8 or float32, as LiteRT.js "
            "refuses int8, or become uint8 without another change of the file. "
            f"Received int8, and: {error} Export it with input_type='uint8', "
            "output_type='uint8'."
        ) from error
    return changed, in_page


def _check_same(
    graph: TFLiteGraph, content: bytes, changed: TFLiteGraph, in_page: bytes
) -> None:
    """Checks that a file with uint8 ends computes what the file itself does.

    Raises:
        ValueError: If it does not.
        RuntimeError: If LiteRT cannot run one of them.
    """
    rng = np.random.default_rng(0)
    given = {}
    for name, tensor in graph.inputs.items():
        shape = graph.tensors[tensor].shape
        given[name] = rng.integers(0, 256, shape).astype(np.uint8)
    found = Runner(changed, content=in_page).run_one(_taken(changed, given))
    own = Runner(graph, content=content).run_one(_taken(graph, given))
    differ = [
        name
        for name, values in own.items()
        if not np.array_equal(_unsigned(values), found[name])
    ]
    if differ:
        raise ValueError(f"these outputs change: {differ}.")


def _taken(graph: TFLiteGraph, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns uint8 codes in the type of a file's inputs."""
    taken = {}
    for name, codes in given.items():
        dtype = graph.tensors[graph.inputs[name]].dtype
        taken[name] = codes.astype(dtype)
        if dtype == "int8":
            taken[name] = (codes ^ 128).view(np.int8)
    return taken


def _unsigned(values: np.ndarray) -> np.ndarray:
    """Returns int8 codes as uint8; leaves others unchanged."""
    return values.view(np.uint8) ^ 128 if values.dtype == np.int8 else values


def _labels(labels: Sequence[str] | None, count: int) -> list[str]:
    """Returns the names of all classes.

    Raises:
        ValueError: If there are more or fewer, or an empty one.
    """
    if labels is None:
        return [str(number) for number in range(count)]
    names = [str(label) for label in labels]
    if len(names) != count or not all(name.strip() for name in names):
        raise ValueError(
            f"`labels` must have one name for each of the {count} classes. Received "
            f"{len(names)}: {names[:5]}{' ...' if len(names) > 5 else ''}."
        )
    return names


def _rendered(
    title: str,
    file_bytes: int,
    content: bytes,
    pixels: Pixels,
    outputs: Outputs,
    labels: list[str],
    runtime: LiteRtJs,
) -> bytes:
    """Returns the page."""
    drawn = pixels.channels == 1 and outputs.task == "classes"
    values: dict[str, Any] = {
        "title": title,
        "version": tf_lsq.__version__,
        "facts": [f"{pixels.width} by {pixels.height} pixels", *_facts(outputs)],
        "size": f"{file_bytes / _KILO:,.1f} kB",
        "input": pixels,
        "mode": "draw" if drawn else "picture",
        "task": outputs.task,
        "demo": {
            "input": dataclasses.asdict(pixels),
            "outputs": dataclasses.asdict(outputs),
            "labels": labels,
            "address": runtime.address,
        },
        "model": compressed(content),
        "imports": {"imports": runtime.imports},
        "litert_version": runtime.version,
        "loader": runtime.loader,
        "binary": runtime.binary,
    }
    for name in ("css", "js"):
        values[name] = Markup((TEMPLATES / f"demo.{name}").read_text())
    page = render("demo.html.j2", folder=TEMPLATES, autoescape=True, values=values)
    return page.encode()


def _facts(outputs: Outputs) -> list[str]:
    """Returns what the header says of the outputs."""
    many = "class" if outputs.num_classes == 1 else "classes"
    facts = [f"{outputs.num_classes:,} {many}"]
    if outputs.boxes is not None:
        facts.append(f"{outputs.boxes.shape[1]:,} boxes")
    return facts
