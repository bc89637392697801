"""`write_demo`: one HTML page that runs a file on a phone or a computer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

import tf_lsq

from ..atomic_file import check_writable, write_atomically
from ..file import ends_of
from ..reports import render
from .conversion import for_the_web
from .litertjs import compressed, embedded, linked
from .outputs import Outputs, read_outputs
from .pixels import Numbers, read_picture

_TEMPLATES = Path(__file__).parent / "templates"
_KILO = 1000
_NAMED = 5

Labels = str | Path | Sequence[str]


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """The user's choices for a page, see `write_demo`.

    Attributes:
        labels: Names of the classes; None: their numbers.
        title: Title of the page; None: the name of the file.
        mean: Subtracted from bytes; None: the file shows that codes are bytes.
        std: Divides the difference; None: the same.
        boxes: Order of the numbers of a box, one of `BOXES`.
        offline: Folder of npm packages whose LiteRT.js is embedded; None: it is linked.
    """

    labels: Labels | None = None
    title: str | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    boxes: str | None = None
    offline: str | Path | None = None


def write_demo(
    path: str | Path,
    output: str | Path,
    *,
    labels: Labels | None = None,
    title: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    boxes: str | None = None,
    offline: str | Path | None = None,
) -> Path:
    """Writes one HTML page that runs a `.tflite` file in a browser.

    In the page one draws, chooses, drops or pastes a picture, or takes it with a
    camera, and sees scores of classes, a mask, or boxes, and the time of the network.
    Pictures stay on the device. int8 inputs and outputs, which LiteRT.js refuses,
    become uint8 in the page, with the same integers.

    Args:
        path: A `.tflite` file with one input, `[1, height, width, channels]`, gray or
            RGB; and the scores of classes, a mask, or boxes and their scores.
        output: The page to write; an existing one is replaced atomically.
        labels: Names of the classes, or a text file with one per line; None: their
            numbers.
        title: Title of the page; None: the name of the file.
        mean: The model was trained on ``(byte - mean) / std``: one number, or one per
            channel. None: the file shows that the code of a byte is the byte, by the
            grid of its input or its metadata.
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
            option is missing or unfit, or the file cannot become one that LiteRT.js
            takes.
        OSError: If a file cannot be read or written.
    """
    output = Path(output)
    check_writable(output)
    options = DemoOptions(labels, title, mean, std, boxes, offline)
    write_atomically(output, demo_page(Path(path), options))
    return output


def demo_page(path: Path, options: DemoOptions) -> bytes:
    """Returns the page that `write_demo` writes.

    Args:
        path: A `.tflite` file.
        options: The user's choices.

    Raises:
        ValueError: See `write_demo`.
        OSError: If a file cannot be read.
    """
    content = path.read_bytes()
    graph, in_page = for_the_web(content)
    outputs = read_outputs(graph, ends_of(graph, graph.outputs), options.boxes)
    picture = read_picture(graph, options.mean, options.std)
    labels = _labels(options.labels, outputs.num_classes)
    offline = options.offline
    litertjs = linked() if offline is None else embedded(Path(offline))
    drawn = picture.channels == 1 and outputs.task == "classes"
    values: dict[str, Any] = {
        "title": path.stem if options.title is None else options.title,
        "version": tf_lsq.__version__,
        "facts": [f"{picture.width} by {picture.height} pixels", *_facts(outputs)],
        "size": f"{len(content) / _KILO:,.1f} kB",
        "picture": picture,
        "mode": "draw" if drawn else "picture",
        "task": outputs.task,
        "demo": {
            "picture": dataclasses.asdict(picture),
            "outputs": dataclasses.asdict(outputs),
            "labels": labels,
            "address": litertjs.address,
        },
        "model": compressed(in_page),
        "litertjs": litertjs,
    }
    for name in ("css", "js"):
        text = (_TEMPLATES / f"demo.{name}").read_text(encoding="utf-8")
        values[name] = Markup(text)
    page = render("demo.html.j2", folder=_TEMPLATES, autoescape=True, values=values)
    return page.encode()


def _labels(labels: Labels | None, count: int) -> list[str]:
    """Returns the names of all classes.

    Raises:
        ValueError: If there are more or fewer, or an empty one.
    """
    if labels is None:
        return [str(number) for number in range(count)]
    if isinstance(labels, str | Path):
        labels = _lines(Path(labels))
    if len(labels) != count or not all(label.strip() for label in labels):
        more = ", ..." if len(labels) > _NAMED else ""
        named = ", ".join(map(repr, labels[:_NAMED]))
        raise ValueError(
            f"`labels` must have one name for each of the {count} classes. Received "
            f"{len(labels)}: {named}{more}."
        )
    return list(labels)


def _lines(path: Path) -> list[str]:
    """Returns the lines of a text file, without empty ones at its end.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"`labels` must be text in UTF-8. Received {str(path)!r}: {error}."
        ) from error


def _facts(outputs: Outputs) -> list[str]:
    """Returns what the header says of the outputs."""
    many = "class" if outputs.num_classes == 1 else "classes"
    facts = [f"{outputs.num_classes:,} {many}"]
    if outputs.boxes is not None:
        facts.append(f"{outputs.boxes.shape[1]:,} boxes")
    return facts
