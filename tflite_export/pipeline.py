"""`export_model`: reads, builds, verifies and writes, in this order."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tf_lsq._compat import keras
from tf_lsq.data import as_batch, as_data, first_examples
from tf_lsq.pixels import Pixels
from tf_lsq.training import measured_narrow_ranges, pixel_points

from .atomic_file import check_writable, write_atomically
from .build import BuiltFile, FileSettings, build_file
from .consumers import (
    COMPILED_MODEL,
    Choice,
    Consumer,
    ConsumerReport,
    check_consumer,
    check_report,
    choose,
    facts_of,
    judge_all,
    resolve_consumer,
)
from .file import (
    Additions,
    Labels,
    ModelInfo,
    Normalization,
    in_int16,
    is_image,
    read_labels,
    runtime_of,
)
from .freezing import (
    InputShapes,
    Storage,
    at_shapes,
    check_quantized,
    read_model,
)
from .layer_reports import layer_reports
from .reports import (
    ExportReport,
    Latency,
    StorageReport,
    VerificationReport,
    describe_setting,
    measure_latency,
    micro_snippet,
    snippets_of,
)
from .storages import compare_storages
from .target_tools import ToolFindings, run_tools
from .targets import (
    TFLITE_MICRO,
    Target,
    check_graph,
    check_options,
    resolve_target,
    resolver_method,
)
from .verification import (
    BATCH_SIZE,
    verify_content,
    verify_on_data,
)


def export_model(
    model: keras.Model,
    path: str | Path,
    *,
    consumer: str | None = None,
    storage: str = "int8",
    bias_grid: str = "own",
    input_type: str | None = None,
    output_type: str | None = None,
    metadata: str = "full",
    labels: Labels | Mapping[str, Labels] | None = None,
    info: ModelInfo | None = None,
    target: str | None = None,
    input_shapes: InputShapes | None = None,
    data: Any = None,
    benchmark: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Writes a trained model as a full-integer `.tflite` file.

    The bytes are verified against the model before the file appears under its
    name: every tensor and every weight code; with `data` also every operator.

    Args:
        model: A model from `tf_lsq.quantize_model`, trained or calibrated.
        path: The file to write; an existing one is replaced atomically.
        consumer: What will read the file, such as "mediapipe", "web" or "gpu"; see
            the report's table of consumers for all. It decides what is left open
            below, and how 1x1 convolutions with strides are written. A file that it
            would refuse or compute wrongly is not written; what is slow there, or not
            known, is a warning. None: it is not known.
        storage: "int8": one byte per weight code, the fastest on a CPU. "packed":
            INT4 for kernels of up to 4 bits, INT2 for those of fully connected
            layers with 2 bits, where the target supports it. "auto": packed where
            that costs no time on the target. Targets of the Ethos-U take "int8" and
            "auto".
        bias_grid: "own": biases on the finest grid that each container allows.
            "packed": on the grid of the packed container in any storage, so that
            files of all storages compute the same integers under TFLite's own
            kernels. Targets of the Ethos-U refuse it.
        input_type: Type of the file's inputs: "int8", "uint8" or "float32". None:
            "int8", or what the consumer takes. With "int8", inputs of more than 8 bits
            are int16.
        output_type: Type of its outputs; None: the same.
        metadata: What the file says about how its integers were trained: "full", the
            learned steps and a hash of every kernel, 4 to 5 KB for a small network;
            "hash", which inputs are pixels and one hash of all else; "none", for
            `verify_tflite` you then need the `storage` and `bias_grid`.
        labels: What the classes of the output are called, in the order of its last
            axis: a list, or the path of a text file with one per line; for several
            outputs a dict by name of either. Apps read them from the file's standard
            metadata.
        info: Name, description, version, author and license of the model, for the
            same.
        target: What the file will run on; None: the target that the model was
            quantized for.
        input_shapes: Shapes of the inputs without the batch, for a model that was
            built with sizes of None: the shape of its only input, such as
            `(224, 224, 3)`, or shapes in the order of its inputs or by name.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`. The
            file is run on it as by `verify_tflite`, and the report shows how quantizers
            use their integers, which tensors use few codes of a grid that they share,
            and how the other storages would differ; these use the first 64 examples.
            None: the file is not run.
        benchmark: Whether to measure the latency of the file and of each operator with
            a kernel, on this machine's CPU, compared with int8 storage and float32.
        verbose: Whether to show progress.

    Returns:
        A report of what was written; it prints as a table, and `write_html_report`
        writes it as a page.

    Raises:
        TypeError: If `model` is not a Keras model, `data` is not data, or labels are
            not texts.
        ValueError: If an option is unknown, or `model` is not quantized, was
            quantized for another target or by another scheme, or has dynamic
            shapes, if labels do not fit an output, or if the target or the consumer
            refuses the file or an option; the message names every cause.
        RuntimeError: If `model` was never trained or calibrated, or if a tool of the
            target, `edgetpu_compiler`, `vela` or `tflite-micro`, is installed and
            refuses the file.
        OSError: If `path` cannot be written.
        VerificationError: If the file would not equal the model.
    """
    path = Path(path)
    # Wrong options are refused before a model is read.
    options = FileSettings(
        Storage(storage, bias_grid),
        "int8" if input_type is None else input_type,
        "int8" if output_type is None else output_type,
        metadata,
    )
    check_writable(path)
    model = check_quantized(model)
    model = at_shapes(model, input_shapes)
    trained = read_model(model)
    resolved = resolve_target(target, trained.target)
    reader = resolve_consumer(consumer, resolved)
    choice = choose_for(model, reader, input_type, output_type)
    check_options(resolved, storage=storage, bias_grid=bias_grid)
    normalizations = _normalizations(model)
    settings = dataclasses.replace(
        options,
        input_type=choice.input_type,
        output_type=choice.output_type,
        strided_1x1=choice.strided_1x1,
        grouped=choice.grouped,
        additions=_additions(model, labels, info, normalizations),
    )
    # Reports compare the file with others; each is built once.
    build = functools.cache(functools.partial(build_file, trained))
    built = build(settings)
    on_cpu = check_graph(built.graph, resolved)
    if reader is not None:
        check_consumer(facts_of(built.graph, built.described), reader)
    found = _verify(model, build, built, data, path, verbose=verbose)
    consumers = _judge_all(built, found.verification)
    for one in consumers:
        if one.consumer == consumer:
            check_report(one)
    times = _measure(build, built, verbose=verbose) if benchmark else _Times()
    report = _report(
        path,
        built,
        resolved,
        run_tools(resolved, built),
        found,
        times,
        consumer=consumer or "",
        consumers=consumers,
        on_cpu=[str(violation) for violation in on_cpu],
        normalizations=normalizations,
        statistics=data is not None,
    )
    write_atomically(path, built.content)
    return report


def choose_for(
    model: keras.Model,
    consumer: Consumer | None,
    input_type: str | None,
    output_type: str | None,
) -> Choice:
    """Returns the form of a model's file.

    Args:
        model: A quantized model.
        consumer: What will read the file; None: it is not known.
        input_type: As given to `export_model`.
        output_type: The same.
    """
    return choose(
        consumer,
        input_type=input_type,
        output_type=output_type,
        pixels=pixel_points(model).keys() == {*model.input_names},
    )


def _normalizations(model: keras.Model) -> dict[str, Normalization]:
    """Returns how the file's inputs that are pixels are made of bytes."""
    grids = {name: point.pixel_grid for name, point in pixel_points(model).items()}
    return {
        name: Normalization((float(grid.zero),), (grid.divisor,))
        for name, grid in grids.items()
    }


def _additions(
    model: keras.Model,
    labels: Labels | Mapping[str, Labels] | None,
    info: ModelInfo | None,
    normalizations: Mapping[str, Normalization],
) -> Additions:
    """Returns what a file says in its standard metadata."""
    inputs = zip(model.input_names, model.inputs, strict=True)
    images = [name for name, tensor in inputs if is_image(tensor.shape)]
    return Additions(
        info=ModelInfo() if info is None else info,
        labels=read_labels(labels, model.output_names),
        normalization={n: normalizations[n] for n in images if n in normalizations},
    )


@dataclasses.dataclass(frozen=True)
class _Findings:
    """What was found by comparing a file with its model.

    Attributes:
        verification: That it equals the model.
        storages: How the file in other storages would differ.
        narrow: Tensors that use few codes of a grid that they share.
    """

    verification: VerificationReport
    storages: list[StorageReport] = dataclasses.field(
        default_factory=list[StorageReport]
    )
    narrow: list[str] = dataclasses.field(default_factory=list[str])


def _verify(
    model: keras.Model,
    build: Callable[[FileSettings], BuiltFile],
    built: BuiltFile,
    data: Any,
    path: Path,
    *,
    verbose: bool,
) -> _Findings:
    """Compares a file with its model: its bytes, and what it computes of data.

    Args:
        model: The model.
        build: Builds a file of the model.
        built: The file.
        data: As given to `export_model`.
        path: What messages call the file.
        verbose: Whether to show progress.

    Raises:
        VerificationError: If the file does not equal the model.
    """
    verification = verify_content(built.content, built, str(path))
    if data is None:
        return _Findings(verification)
    data = as_data(data, len(model.inputs))
    examples = first_examples(data, model.input_names, BATCH_SIZE)
    verification = verify_on_data(
        verification,
        built,
        build(_in_int8(built)).frozen,
        model,
        data,
        examples,
        str(path),
        statistics=True,
        verbose=verbose,
    )
    storages = compare_storages(build, built, examples)
    batch = as_batch(examples, model.input_names)
    narrow = [str(tensor) for tensor in measured_narrow_ranges(model, batch)]
    return _Findings(verification, storages, narrow)


def _judge_all(
    built: BuiltFile, verification: VerificationReport
) -> list[ConsumerReport]:
    """Returns what every consumer does with a file, also as seen on this machine."""
    refusal = verification.compiled_refusal
    seen = {COMPILED_MODEL.name: refusal} if refusal else {}
    return judge_all(facts_of(built.graph, built.described), seen)


def _in_int8(built: BuiltFile) -> FileSettings:
    """Returns the settings of the same file in int8 storage."""
    return dataclasses.replace(built.settings, storage=Storage())


@dataclasses.dataclass(frozen=True)
class _Times:
    """How long a file takes on this machine.

    Attributes:
        file: The whole file; None: it was not measured.
        layers: Operators with a kernel, by node.
        setting: On what, and how, they were measured.
    """

    file: Latency | None = None
    layers: Mapping[str, Latency] = dataclasses.field(
        default_factory=dict[str, Latency]
    )
    setting: str = ""


def _measure(
    build: Callable[[FileSettings], BuiltFile], built: BuiltFile, *, verbose: bool
) -> _Times:
    """Measures a file, compared with int8 storage and float32."""
    int8 = build(_in_int8(built)).graph
    file, layers = measure_latency(built.graph, int8, built.frozen, verbose=verbose)
    return _Times(file, layers, describe_setting())


def _report(
    path: Path,
    built: BuiltFile,
    target: Target,
    tools: ToolFindings,
    found: _Findings,
    times: _Times,
    *,
    consumer: str,
    consumers: list[ConsumerReport],
    on_cpu: list[str],
    normalizations: Mapping[str, Normalization],
    statistics: bool,
) -> ExportReport:
    """Returns the report of an export.

    Args:
        path: Where the file goes.
        built: The file.
        target: What runs it.
        tools: What the target's tools say of it.
        found: How it compares with the model.
        times: How long it takes.
        consumer: Name of what will read it; "": it is not known.
        consumers: What every consumer does with it.
        on_cpu: What the target leaves to its processor.
        normalizations: How inputs that are pixels are made of bytes.
        statistics: Whether to count the codes of kernels.
    """
    return ExportReport(
        path=str(path),
        file_bytes=len(built.content),
        target=target.name,
        storage=built.settings.storage.name,
        min_runtime=runtime_of(built.graph),
        operators=dict(collections.Counter(op.code for op in built.graph.ops)),
        float_layers=[
            node.layer_name for node in built.frozen.nodes if node.computes_floats
        ],
        int16_operators=dict(
            collections.Counter(
                op.code for op in built.graph.ops if in_int16(op, built.graph)
            )
        ),
        layers=layer_reports(built, times.layers, statistics=statistics),
        verification=found.verification,
        snippets=_snippets(built, path.name, target, tools, normalizations),
        pixels=_pixels(built),
        consumer=consumer,
        consumers=consumers,
        on_cpu=on_cpu,
        narrow=found.narrow,
        compiler=tools.lines,
        compiled=tools.compiled,
        arena_bytes=tools.arena_bytes,
        storages=found.storages,
        latency=times.file,
        latency_setting=times.setting,
    )


def _pixels(built: BuiltFile) -> list[str]:
    """Returns what file and model take, for inputs that are pixels."""
    lines, nodes = [], built.frozen.by_name()
    codes = {"int8": "byte - 128", "uint8": "byte"}
    for name, tensor in built.frozen.inputs.items():
        grid = nodes[tensor].pixel_grid
        if grid is not None:
            takes = str(Pixels(grid.zero, grid.divisor))
            takes = codes.get(built.settings.input_type, takes)
            lines.append(f"{name}: {takes}, where the model takes {grid.pixels}")
    return lines


def _snippets(
    built: BuiltFile,
    name: str,
    target: Target,
    tools: ToolFindings,
    normalizations: Mapping[str, Normalization],
) -> dict[str, str]:
    """Returns code that runs a file, by language."""
    graph = built.graph
    snippets = snippets_of(graph, name, normalizations)
    if target.device == TFLITE_MICRO:
        methods = sorted({resolver_method(op.code) for op in graph.ops})
        snippets["cpp"] = micro_snippet(
            graph, name, methods, tools.arena_bytes, normalizations
        )
    return snippets
