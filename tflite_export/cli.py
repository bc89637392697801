"""The command `tf-lsq`: files from models, and what files contain, from a shell.

Exit codes: 0 yes, 1 no (the target refuses the model, no file fits the budget, the
file does not equal the model, codes were changed, metadata are damaged), 2 wrong usage,
3 something could not be read or written.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect as signatures
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer

from .atomic_file import check_writable
from .consumers import CONSUMERS
from .errors import BudgetError, VerificationError
from .file import SCORE_TYPES
from .pictures import PLOT_SUFFIXES
from .quiet import silence_libraries
from .targets import STORAGES, TARGETS

NO, UNREADABLE = 1, 3
# The limits of `tf_lsq.lsq`, which needs TensorFlow to import.
MIN_NUM_BITS, MAX_NUM_BITS = 2, 8
END_TYPES = ("int8", "uint8", "float32")
ACCELERATORS = ("cpu", "gpu")
BIAS_GRIDS = ("own", "packed")
METADATA = ("full", "hash", "none")
LANGUAGES = (
    "python",
    "javascript",
    "kotlin",
    "kotlin-compiled-model",
    "kotlin-mediapipe",
    "swift",
    "cpp",
)
BOXES = ("yxyx", "xyxy", "cxcywh")
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Exact integer .tflite files from models trained with tf_lsq.",
    epilog="Exit codes: 0 yes, 1 no, 2 wrong usage, 3 cannot be read or written.",
)


def _choice(values: Iterable[str], text: str) -> Any:
    """Returns a command-line option that takes one of several values."""
    names = list(values)

    def checked(value: str | None) -> str | None:
        """Raises an error for another value."""
        if value is not None and value not in names:
            raise typer.BadParameter(
                f"{value!r} is not one of {', '.join(map(repr, names))}."
            )
        return value

    return typer.Option(help=text, metavar="|".join(names), callback=checked)


def _print_version(wanted: bool) -> None:
    """Prints the version and exits."""
    if wanted:
        typer.echo(f"tf-lsq {importlib.metadata.version('tf-lsq')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Takes the options of the command itself."""


def _tflite(path: Path | None) -> Path | None:
    """Checks and returns the path of a file to write."""
    if path is not None and path.suffix != ".tflite":
        raise typer.BadParameter(f"It must end with .tflite. Received: {path}.")
    return path


Model = Annotated[Path, typer.Argument(help="A .keras or .h5 file.")]
File = Annotated[Path, typer.Argument(help="A .tflite file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Unsafe = Annotated[
    bool,
    typer.Option("--unsafe", help="Run code in the model file (Lambda layers)."),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Inputs as .npy, or as .npz with the arrays x and (optional) y."),
]
LabelFiles = Annotated[
    list[str] | None,
    typer.Option(
        help="A text file with one label per line; OUTPUT=FILE for one of several "
        "outputs, repeated for more."
    ),
]
Storage = Annotated[str, _choice(STORAGES, "How codes are stored.")]


def _readable_pixels(texts: list[str] | None) -> list[str] | None:
    """Checks and returns what is given for pixels."""
    try:
        _pixels(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return texts


PixelTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--pixels",
        metavar="[INPUT=]MEAN,STD[,bgr]",
        help="The model was trained on (byte - mean) / std, such as 0,255; a colon "
        "between the numbers of channels; INPUT=none for no pixels; repeat for more "
        "inputs.",
        callback=_readable_pixels,
    ),
]


def _is_interactive() -> bool:
    """Returns whether to show progress: not in logs and pipes."""
    return sys.stderr.isatty()


def _num_bits(text: str) -> Any:
    """Returns a command-line option for a number of bits."""
    return typer.Option(help=text, min=MIN_NUM_BITS, max=MAX_NUM_BITS)


def _picture(path: Path | None) -> Path | None:
    """Checks and returns the path of a plot."""
    if path is not None and path.suffix not in PLOT_SUFFIXES:
        raise typer.BadParameter(
            f"The file must end with one of {list(PLOT_SUFFIXES)}. Received: {path}."
        )
    return path


@app.command()
def check(
    model: Model,
    target: Annotated[str | None, _choice(TARGETS, "What runs the file.")] = None,
    storage: Storage = "int8",
    weight_bits: Annotated[int | None, _num_bits("Bits of kernels.")] = None,
    activation_bits: Annotated[
        int | None, _num_bits("Bits of the inputs of layers with kernels.")
    ] = None,
    first_last_bits: Annotated[
        int | None, _num_bits("Bits of the first and last layers.")
    ] = None,
    pixels: PixelTexts = None,
    data: Data = None,
    unsafe: Unsafe = False,
    as_json: Json = False,
) -> None:
    """Reports how a target will run a float or quantized model, before training."""
    bits = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "first_last_bits": first_last_bits,
    }
    options: dict[str, Any] = {
        name: value for name, value in bits.items() if value is not None
    }

    def work() -> tuple[Any, bool]:
        import tflite_export

        arrays = None if data is None else _read_data(data)
        if pixels is not None:
            options["inputs"] = _pixels(pixels)
        report = tflite_export.check_model(
            _load(model, unsafe), target=target, storage=storage, data=arrays, **options
        )
        problems = [_with_option_names(problem) for problem in report.problems]
        return dataclasses.replace(report, problems=problems), report.ok

    _run(work, as_json)


@app.command()
def suggest(
    model: Model,
    data: Annotated[Path, typer.Option(help="Inputs, as for export.")],
    budget_bytes: Annotated[
        int,
        typer.Option(
            help="Largest size of the file, in bytes; for an Ethos-U, as compiled.",
            min=1,
        ),
    ],
    candidate: Annotated[
        list[int] | None,
        _num_bits("Bits that a kernel may have; repeat the option for more."),
    ] = None,
    activation_bits: Annotated[
        int | None,
        _num_bits("Bits of the inputs; by default those of the kernel."),
    ] = None,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="One step per channel of a kernel.")
    ] = False,
    asymmetric_activations: Annotated[
        bool,
        typer.Option(
            "--asymmetric-activations", help="Also learn offsets of activations (LSQ+)."
        ),
    ] = False,
    pixels: PixelTexts = None,
    target: Annotated[str, _choice(TARGETS, "What runs the file.")] = "phone",
    storage: Annotated[
        str | None,
        _choice(STORAGES, "How codes are stored; by default packed if the target can."),
    ] = None,
    num_examples: Annotated[
        int, typer.Option(help="How many of the first examples to use.", min=1)
    ] = 256,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the trade-off as .png, .svg or .pdf.", callback=_picture
        ),
    ] = None,
    unsafe: Unsafe = False,
    as_json: Json = False,
) -> None:
    """Suggests bits for every layer of a float model, for a given size of the file."""
    options: dict[str, Any] = {} if candidate is None else {"candidates": candidate}

    def work() -> tuple[Any, bool]:
        import tflite_export

        if plot is not None:
            check_writable(plot)
        suggestion = tflite_export.suggest_bits(
            _load(model, unsafe),
            _read_data(data),
            budget_bytes=budget_bytes,
            activation_bits=activation_bits,
            per_channel=per_channel,
            asymmetric_activations=asymmetric_activations,
            inputs=_pixels(pixels),
            target=target,
            storage=storage,
            num_examples=num_examples,
            verbose=_is_interactive(),
            **options,
        )
        if plot is not None:
            suggestion.plot(plot)
        return suggestion, True

    _run(work, as_json)


@app.command()
def export(
    model: Model,
    file: Annotated[Path, typer.Argument(help="A .tflite file.", callback=_tflite)],
    consumer: Annotated[
        str | None, _choice(CONSUMERS, "What will read the file; decides its form.")
    ] = None,
    storage: Storage = "int8",
    bias_grid: Annotated[
        str, _choice(BIAS_GRIDS, "packed: the same biases in files of all storages.")
    ] = "own",
    input_type: Annotated[
        str | None,
        _choice(END_TYPES, "Type of the inputs; by default int8, or the consumer's."),
    ] = None,
    output_type: Annotated[
        str | None, _choice(END_TYPES, "Type of the outputs; the same.")
    ] = None,
    metadata: Annotated[
        str, _choice(METADATA, "What the file says about its training.")
    ] = "full",
    labels: LabelFiles = None,
    data: Data = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure latencies on this machine.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write the report as an HTML page.")
    ] = None,
    snippet: Annotated[
        str | None, _choice(LANGUAGES, "Also print code that runs the file.")
    ] = None,
    unsafe: Unsafe = False,
    as_json: Json = False,
) -> None:
    """Writes a trained quantized model as a .tflite file and verifies the file."""

    def work() -> tuple[Any, bool]:
        import tflite_export

        from .snippet_check import check_snippet

        if html is not None:
            check_writable(html)
        arrays = None if data is None else _read_data(data)
        student = _load(model, unsafe)
        if snippet is not None:
            check_snippet(
                snippet,
                student,
                consumer=consumer,
                input_type=input_type,
                output_type=output_type,
            )
        report = tflite_export.export_model(
            student,
            file,
            consumer=consumer,
            storage=storage,
            bias_grid=bias_grid,
            input_type=input_type,
            output_type=output_type,
            metadata=metadata,
            labels=_labels(labels),
            data=arrays,
            benchmark=benchmark,
            verbose=_is_interactive(),
        )
        if html is not None:
            tflite_export.write_html_report(report, html)
        if snippet is not None and not as_json:
            typer.echo(report.snippets[snippet])
        return report, True

    _run(work, as_json)


@app.command()
def verify(
    file: File,
    model: Model,
    data: Data = None,
    storage: Annotated[
        str | None, _choice(STORAGES, "Storage of a file without metadata.")
    ] = None,
    bias_grid: Annotated[
        str | None, _choice(BIAS_GRIDS, "Bias grid of a file without metadata.")
    ] = None,
    accelerator: Annotated[
        str, _choice(ACCELERATORS, "What runs the file on the data.")
    ] = "cpu",
    unsafe: Unsafe = False,
    as_json: Json = False,
) -> None:
    """Checks that a .tflite file equals the trained model, on data if given."""

    def work() -> tuple[Any, bool]:
        import tflite_export

        arrays = None if data is None else _read_data(data)
        student = _load(model, unsafe)
        report = tflite_export.verify_tflite(
            file,
            student,
            arrays,
            storage=storage,
            bias_grid=bias_grid,
            accelerator=accelerator,
            verbose=_is_interactive(),
        )
        return report, True

    _run(work, as_json)


@app.command("c-source")
def c_source(
    file: File,
    source: Annotated[Path, typer.Argument(help="A .cc or .cpp file to write.")],
    name: Annotated[str, typer.Option(help="Name of the array.")] = "g_model",
    as_json: Json = False,
) -> None:
    """Writes a .tflite file as a C++ array with its header, for microcontrollers."""

    def work() -> tuple[Any, bool]:
        import tflite_export

        return Written(tflite_export.write_c_source(file, source, name=name)), True

    _run(work, as_json)


@app.command("metadata")
def describe(
    file: File,
    labels: LabelFiles = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    description: Annotated[str | None, typer.Option(help="What it does.")] = None,
    model_version: Annotated[str | None, typer.Option(help="Its version.")] = None,
    author: Annotated[str | None, typer.Option(help="Who made it.")] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Its license.")
    ] = None,
    mean: Annotated[
        list[float] | None,
        typer.Option(help="The input is (byte - mean) / std; repeat for 3 channels."),
    ] = None,
    std: Annotated[list[float] | None, typer.Option(help="See --mean.")] = None,
    score_type: Annotated[
        str | None, _choice(SCORE_TYPES, "What the output with labels holds.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", callback=_tflite),
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes labels and other standard metadata into a .tflite file, or prints them."""

    def work() -> tuple[Any, bool]:
        import tflite_export

        info = tflite_export.ModelInfo(
            name, description, model_version, author, license_
        )
        given = (labels, mean, std, score_type, output)
        if not info.said() and all(option is None for option in given):
            report = tflite_export.read_metadata(file)
            return report, report.standard is None or not report.standard.problems
        report = tflite_export.write_metadata(
            file,
            output,
            labels=_labels(labels),
            info=info,
            normalization=_normalization(mean, std),
            score_type=score_type,
        )
        return report, True

    _run(work, as_json)


@app.command()
def demo(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The page; by default FILE with the suffix .html."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Names of the classes, one per line.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    mean: Annotated[
        list[float] | None,
        typer.Option(
            help="The model was trained on (byte - mean) / std; once, or per channel."
        ),
    ] = None,
    std: Annotated[list[float] | None, typer.Option(help="See --mean.")] = None,
    boxes: Annotated[
        str | None, _choice(BOXES, "Order of the numbers of a box, as fractions.")
    ] = None,
    spectrogram: Annotated[
        Path | None,
        typer.Option(
            help="For sounds: JSON with the attributes of tflite_export.Spectrogram."
        ),
    ] = None,
    offline: Annotated[
        Path | None,
        typer.Option(
            help="Embed LiteRT.js from this folder of npm; by default it is linked."
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Serve the page on the local network; written only if -o is given.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(help="Where to serve; 0: any free port.", min=0, max=65535)
    ] = 8000,
    as_json: Json = False,
) -> None:
    """Writes or serves a page that runs a .tflite file in a browser, on a phone too."""
    if serve and as_json:
        raise typer.BadParameter("--json cannot be used with --serve.")

    def work() -> tuple[Any, bool]:
        from . import demo as demos
        from .atomic_file import write_atomically

        path = output or (None if serve else file.with_suffix(".html"))
        if path is not None:
            check_writable(path)
        options = demos.DemoOptions(
            labels=labels,
            title=title,
            mean=mean or None,
            std=std or None,
            boxes=boxes,
            spectrogram=demos.read_spectrogram(spectrogram) if spectrogram else None,
            offline=offline,
        )
        page = demos.demo_page(file, options)
        if path is not None:
            write_atomically(path, page)
        if serve:
            demos.serve_page(page, port, typer.echo)
        return Written([] if path is None else [path]), True

    _run(work, as_json)


def _labels(files: list[str] | None) -> Any:
    """Returns files of labels: one path, or paths by the name of the output."""
    if files is None:
        return None
    if len(files) == 1 and ("=" not in files[0] or Path(files[0]).exists()):
        return files[0]
    named = [file.partition("=") for file in files]
    if not all(path for _, _, path in named):
        raise ValueError(
            "`labels` must be OUTPUT=FILE for each of several outputs. Received: "
            f"{files}."
        )
    return {output: path for output, _, path in named}


def _pixels(texts: list[str] | None) -> Any:
    """Returns how inputs encode bytes: `Pixels`, or a mapping by name.

    Args:
        texts: Of the form ``[INPUT=]MEAN,STD[,bgr]``, or ``INPUT=none``. One number
            for all channels, or one for each with ":" between them.

    Raises:
        ValueError: If a text is of no such form, or an input is given twice.
    """
    if texts is None:
        return None
    # A name may contain "=", numbers do not.
    parts = [text.rpartition("=") for text in texts]
    names = [name for name, _, _ in parts]
    if len(texts) > 1 and ("" in names or len({*names}) < len(names)):
        raise ValueError(
            "Each of several inputs must be given once, as INPUT=MEAN,STD. Received: "
            f"{', '.join(texts)}."
        )
    if not names[0]:
        return _pixels_of_one(texts[0], is_named=False)
    return {name: _pixels_of_one(text, is_named=True) for name, _, text in parts}


def _pixels_of_one(text: str, *, is_named: bool) -> Any:
    """Returns the `Pixels` of a text without a name, None for "none"."""
    from tf_lsq import Pixels

    if is_named and text == "none":
        return None
    first, _, rest = text.partition(",")
    second, *order = rest.split(",", 1)
    try:
        mean, std = (tuple(map(float, part.split(":"))) for part in (first, second))
        return Pixels(_plain(mean), _plain(std), *order)
    except ValueError as error:
        raise ValueError(
            "It must be MEAN,STD or MEAN,STD,bgr, such as 0,255 or 127.5,127.5; or "
            'one number per channel, such as 124:116:104,58:57:57,bgr; "none" only '
            f"after INPUT=. Received: {text!r}. {error}"
        ) from None


def _plain(numbers: tuple[float, ...]) -> float | tuple[float, ...]:
    """Returns a single number as such."""
    return numbers[0] if len(numbers) == 1 else numbers


def _normalization(mean: list[float] | None, std: list[float] | None) -> Any:
    """Returns how inputs are made of bytes, None if it is not given."""
    import tflite_export

    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ValueError(
            f"`mean` and `std` must be given together. Received: {mean} and {std}."
        )
    return tflite_export.Normalization(tuple(mean), tuple(std))


@dataclasses.dataclass(frozen=True)
class Written:
    """Files that a command wrote.

    Attributes:
        paths: Their paths.
    """

    paths: Sequence[Path]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {"written": [str(path) for path in self.paths]}

    def __str__(self) -> str:
        """Returns one path per line."""
        return "\n".join(map(str, self.paths))


@app.command()
def inspect(file: File, as_json: Json = False) -> None:
    """Prints the contents of a .tflite file, and how its integers were trained."""

    def work() -> tuple[Any, bool]:
        import tflite_export

        report = tflite_export.inspect_tflite(file)
        return report, not report.damaged

    _run(work, as_json)


def main() -> None:
    """Runs the command; keeps TensorFlow's own log quiet."""
    silence_libraries()
    app(prog_name="tf-lsq")


def _run(work: Any, as_json: bool) -> NoReturn:
    """Prints the result of a command, and exits with its code."""
    try:
        result, ok = work()
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        message = _with_option_names(str(error))
        if as_json:
            typer.echo(json.dumps({"error": message}))
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(code) from None
    text = json.dumps(result.to_dict()) if as_json else str(result)
    if text:
        typer.echo(text)
    raise typer.Exit(0 if ok else NO)


def _with_option_names(message: str) -> str:
    """Returns the message of a Python function with the names of this command."""
    for command in app.registered_commands:
        for name in signatures.signature(command.callback or _options).parameters:
            option = f"--{name.replace('_', '-')}"
            if name not in ("model", "file", "as_json"):
                message = re.sub(rf"`{name}`", f"`{option}`", message)
                message = re.sub(rf"(?<![^\s(]){name}=(?=\S)", f"{option} ", message)
    message = message.replace("`candidates`", "`--candidate`")
    message = message.replace("`inputs`", "`--pixels`")
    message = re.sub(r"(?<![^\s(])inputs=(?=\S)", "--pixels ", message)
    return re.sub(r"`?safe_mode=False`?", "`--unsafe`", message)


def _exit_code(error: Exception) -> int | None:
    """Returns the exit code of an expected error, None for other errors."""
    if isinstance(error, VerificationError | BudgetError):
        return NO
    if isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        return UNREADABLE
    return None


def _load(path: Path, unsafe: bool) -> Any:
    """Loads the model from a file."""
    from .loading import load_model

    return load_model(path, unsafe=unsafe)


def _read_data(path: Path) -> Any:
    """Reads x, or (x, y), from a file; executes nothing in it.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file contains no arrays, or other ones than these.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = loaded if isinstance(loaded, np.ndarray) else {**loaded}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{str(path)!r} has no readable arrays: {error} Write it with `np.save` "
            "or `np.savez(path, x=..., y=...)`."
        ) from error
    if isinstance(arrays, np.ndarray):
        return arrays
    if not {"x"} <= arrays.keys() <= {"x", "y"}:
        raise ValueError(
            f"{str(path)!r} must contain the array x, and y if there are labels. "
            f"Received: {sorted(arrays)}. Write it with `np.savez(path, x=..., y=...)`."
        )
    return (arrays["x"], arrays["y"]) if "y" in arrays else arrays["x"]


if __name__ == "__main__":
    main()
