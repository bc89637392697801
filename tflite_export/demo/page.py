"""`write_demo`: one HTML page that runs a file on a phone or a computer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from markupsafe import Markup

import tf_lsq

from ..atomic_file import check_writable, write_atomically
from ..file import (
    End,
    Labels,
    StandardMetadata,
    TFLiteGraph,
    ends_of,
    label_faults,
    read_labels,
    standard_metadata,
)
from ..reports import render
from .conversion import for_the_web
from .litertjs import compressed, embedded, linked
from .outputs import Outputs, read_outputs
from .pixels import Numbers, Picture, read_picture
from .sound import Sound, read_sound
from .spectrogram import Spectrogram

_TEMPLATES = Path(__file__).parent / "templates"
_KILO = 1000


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """The user's choices for a page, see `write_demo`.

    Attributes:
        labels: Names of the classes; None: those in the file, else their numbers.
        title: Title of the page; None: the name in the file, else that of the file.
        mean: Subtracted from bytes; None: the file says it.
        std: Divides the difference; None: the same.
        boxes: Order of the numbers of a box, one of `BOXES`.
        spectrogram: For a file that takes features of a sound: how they are computed.
        offline: Folder of npm packages whose LiteRT.js is embedded; None: it is linked.
    """

    labels: Labels | None = None
    title: str | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    boxes: str | None = None
    spectrogram: Spectrogram | None = None
    offline: str | Path | None = None


@dataclasses.dataclass(frozen=True)
class _Source:
    """What a page makes the input of a file from.

    Attributes:
        kind: "picture" or "sound": its template, and its key in the page's data.
        input: What the file takes.
        mode: Where inputs come from at first.
        scripts: Names of the page's scripts, in order.
    """

    kind: str
    input: Picture | Sound
    mode: str
    scripts: tuple[str, ...]


def write_demo(
    path: str | Path,
    output: str | Path,
    *,
    labels: Labels | None = None,
    title: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    boxes: str | None = None,
    spectrogram: Spectrogram | None = None,
    offline: str | Path | None = None,
) -> Path:
    """Writes one HTML page that runs a `.tflite` file in a browser.

    In the page one draws, chooses, drops or pastes a picture, or takes it with a
    camera, and sees scores of classes, a mask, or boxes, and the time of the network.
    For a file that takes a spectrogram, one records a sound or chooses a file of one.
    Pictures and sounds stay on the device. int8 inputs and outputs, which LiteRT.js
    refuses, become uint8 in the page, with the same integers.

    Args:
        path: A `.tflite` file with one input, `[1, height, width, channels]`, gray or
            RGB; and the scores of classes, a mask, or boxes and their scores. Or with
            one input `[1, frames, features]` or `[1, frames, features, 1]`, and the
            scores of classes.
        output: The page to write; an existing one is replaced atomically.
        labels: Names of the classes, or a text file with one per line; None: those in
            the file's standard metadata, or else their numbers.
        title: Title of the page; None: the model's name in the standard metadata, or
            else the name of the file.
        mean: The model was trained on ``(byte - mean) / std``: one number, or one per
            channel. None: the standard metadata say it, or the grid of the input shows
            that the code of a byte is the byte.
        std: The same.
        boxes: For a file with boxes: the order of their numbers, as fractions of the
            picture, one of "yxyx", "xyxy" and "cxcywh".
        spectrogram: For a file that takes features of a sound: how they were computed
            for training. The page computes them in float64, and rounds them to float32.
        offline: A folder in which `npm install @litertjs/core` was run, whose LiteRT.js
            is embedded: the page, about 4 MB larger, opens from disk without a server
            and without a network. None: the page links LiteRT.js on a public server.

    Returns:
        The page.

    Raises:
        ValueError: If the page cannot show the inputs and outputs of the file, an
            option is missing or unfit, or the file cannot become one that LiteRT.js
            takes.
        TypeError: If an option has another type.
        OSError: If a file cannot be read or written.
    """
    output = Path(output)
    check_writable(output)
    options = DemoOptions(labels, title, mean, std, boxes, spectrogram, offline)
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
    source = _source(graph, outputs, options)
    standard = standard_metadata.read(graph) or StandardMetadata()
    labels = _labels(options.labels, outputs.scores, standard)
    offline = options.offline
    litertjs = linked() if offline is None else embedded(Path(offline))
    values: dict[str, Any] = {
        "title": options.title or standard.info.name or path.stem,
        "version": tf_lsq.__version__,
        "facts": [*source.input.facts, *_facts(outputs)],
        "size": f"{len(content) / _KILO:,.1f} kB",
        "input": source.input,
        "mode": source.mode,
        "task": outputs.task,
        "demo": {
            source.kind: dataclasses.asdict(source.input),
            "outputs": dataclasses.asdict(outputs),
            "labels": labels,
            "address": litertjs.address,
        },
        "model": compressed(in_page),
        "litertjs": litertjs,
    }
    values["css"] = _as_it_is("demo.css")
    values["scripts"] = [_as_it_is(f"{name}.js") for name in source.scripts]
    template = f"{source.kind}.html.j2"
    page = render(template, folder=_TEMPLATES, autoescape=True, values=values)
    return page.encode()


def _as_it_is(name: str) -> Markup:
    """Returns a file of the templates, not to be escaped."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _source(graph: TFLiteGraph, outputs: Outputs, options: DemoOptions) -> _Source:
    """Returns what a page makes the input of a file from.

    Raises:
        ValueError: If the file or the options do not fit.
        TypeError: If `spectrogram` is something else.
    """
    if options.spectrogram is None:
        picture = read_picture(graph, options.mean, options.std)
        drawn = picture.channels == 1 and outputs.task == "classes"
        scripts = ("page", "overlays", "picture")
        return _Source("picture", picture, "draw" if drawn else "picture", scripts)
    sound = read_sound(graph, options.spectrogram)
    if (options.mean, options.std) != (None, None):
        raise ValueError(
            "`mean` and `std` must be left out with `spectrogram`: they are of pixels, "
            "and `Spectrogram` has its own. Received: "
            f"mean={options.mean}, std={options.std}."
        )
    if outputs.task != "classes":
        raise ValueError(
            "With `spectrogram`, the output must be the scores of classes, "
            f"[1, classes]. Received {outputs.scores.name!r}: "
            f"{list(outputs.scores.shape)}."
        )
    return _Source("sound", sound, "record", ("page", "spectrogram", "sound"))


def _labels(given: Labels | None, scores: End, standard: StandardMetadata) -> list[str]:
    """Returns the names of all classes: as given, those in the file, or numbers.

    Raises:
        ValueError: If they do not fit the output.
    """
    named = read_labels(given, [scores.name]) or standard.labels
    if given is not None and scores.name not in named:
        raise ValueError(
            f"`labels` must be those of the output {scores.name!r}. Received: labels "
            f"of {[*named]}."
        )
    labels = named.get(scores.name)
    if labels is None:
        return [str(number) for number in range(scores.shape[-1])]
    faults = label_faults(scores, labels)
    if faults:
        where = "The labels in the file" if given is None else "`labels`"
        raise ValueError(
            f"{where} must be one text for each of the {scores.shape[-1]} classes. "
            f"Received {'; '.join(faults)}."
        )
    return list(labels)


def _facts(outputs: Outputs) -> list[str]:
    """Returns what the header says of the outputs."""
    many = "class" if outputs.num_classes == 1 else "classes"
    facts = [f"{outputs.num_classes:,} {many}"]
    if outputs.boxes is not None:
        facts.append(f"{outputs.boxes.shape[1]:,} boxes")
    return facts
