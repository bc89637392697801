"""`export_model`: reads, builds, verifies and writes, in this order."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_lsq._compat import keras
from tf_lsq.data import as_batch, as_data, first_examples
from tf_lsq.pixels import Pixels
from tf_lsq.training import measured_narrow_ranges, pixel_points

from .atomic_file import check_writable, write_atomically
from .build import BuiltFile, FileSettings, build_file
from .consumers import (
    Choice,
    Consumer,
    check_consumer,
    choose,
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
    FrozenNode,
    InputShapes,
    IntegerWeight,
    QuantizedKernel,
    Storage,
    at_shapes,
    check_quantized,
    read_model,
)
from .reports import (
    ExportReport,
    Latency,
    LayerReport,
    StorageReport,
    describe_setting,
    kernel_statistics,
    measure_latency,
    micro_snippet,
    snippets_of,
)
from .storages import compare_storages
from .targets import (
    NOT_MEASURED,
    ONLY_RULES,
    TFLITE_MICRO,
    VELA_MISSING,
    CompiledFile,
    Target,
    check_graph,
    check_options,
    compile_for_edgetpu,
    compile_with_vela,
    measure_arena,
    resolve_target,
    resolver_method,
    runs_on,
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
    storage: str | None = None,
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
            "auto". None: "int8".
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
            "hash", one hash of all that; "none", for `verify_tflite` you then need the
            `storage` and `bias_grid`.
        labels: What the classes of the output are called, in the order of its last
            axis: a list, or the path of a text file with one per line; for several
            outputs a dict by name of either. Apps read them from the file's standard
            metadata.
        info: Name, description, version, author and licence of the model, for the
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
    settings = FileSettings(
        Storage("int8" if storage is None else storage, bias_grid),
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
    choice = choose_for(model, reader, storage, input_type, output_type)
    check_options(resolved, storage=choice.storage, bias_grid=bias_grid)
    normalizations = _normalizations(model)
    settings = dataclasses.replace(
        settings,
        input_type=choice.input_type,
        output_type=choice.output_type,
        strided_1x1=choice.strided_1x1,
        additions=Additions(
            info=ModelInfo() if info is None else info,
            labels=read_labels(labels, model.output_names),
            normalization={
                name: normalizations[name]
                for name, tensor in zip(model.input_names, model.inputs, strict=True)
                if name in normalizations and is_image(tensor.shape)
            },
        ),
    )
    # Reports compare the file with others; each is built once.
    build = functools.cache(functools.partial(build_file, trained))
    built = build(settings)
    int8_settings = dataclasses.replace(settings, storage=Storage())
    on_cpu = check_graph(built.graph, resolved)
    if reader is not None:
        check_consumer(built.graph, reader)
    verification = verify_content(built.content, built, str(path))
    storages: list[StorageReport] = []
    narrow: list[str] = []
    if data is not None:
        data = as_data(data, len(model.inputs))
        examples = first_examples(data, model.input_names, BATCH_SIZE)
        verification = verify_on_data(
            verification,
            built,
            build(int8_settings).frozen,
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
    latency, latencies = None, {}
    if benchmark:
        int8 = build(int8_settings).graph
        latency, latencies = measure_latency(
            built.graph, int8, built.frozen, verbose=verbose
        )
    tools = _run_tools(resolved, built)
    report = ExportReport(
        path=str(path),
        file_bytes=len(built.content),
        target=resolved.name,
        storage=choice.storage,
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
        layers=_layers(built, latencies, statistics=data is not None),
        verification=verification,
        snippets=_snippets(built, path.name, resolved, tools, normalizations),
        pixels=_pixels(built),
        consumer=consumer or "",
        consumers=judge_all(built.graph),
        on_cpu=[str(violation) for violation in on_cpu],
        narrow=narrow,
        compiler=tools.lines,
        compiled=tools.compiled,
        arena_bytes=tools.arena_bytes,
        storages=storages,
        latency=latency,
        latency_setting=describe_setting() if benchmark else "",
    )
    write_atomically(path, built.content)
    return report


def choose_for(
    model: keras.Model,
    consumer: Consumer | None,
    storage: str | None,
    input_type: str | None,
    output_type: str | None,
) -> Choice:
    """Returns the form of a model's file.

    Args:
        model: A quantized model.
        consumer: What will read the file; None: it is not known.
        storage: As given to `export_model`.
        input_type: The same.
        output_type: The same.
    """
    return choose(
        consumer,
        storage=storage,
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
    tools: _Tools,
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


@dataclasses.dataclass(frozen=True)
class _Tools:
    """What the tools of a target found about a file.

    Attributes:
        lines: Readable lines.
        compiled: What Vela made of the file.
        arena_bytes: Memory that TFLite Micro needs.
    """

    lines: list[str] = dataclasses.field(default_factory=list[str])
    compiled: CompiledFile | None = None
    arena_bytes: int | None = None


def _run_tools(target: Target, built: BuiltFile) -> _Tools:
    """Runs the target's compiler, or its runtime, if it has one."""
    if target.compiler == "edgetpu_compiler":
        mapping = compile_for_edgetpu(built.content)
        return _Tools([ONLY_RULES] if mapping is None else [*map(str, mapping)])
    if target.compiler == "vela":
        compiled = compile_with_vela(built.content, target.name)
        if compiled is None:
            return _Tools([VELA_MISSING])
        graph = built.graph
        on_cpu = [
            op.outputs[0] for op in graph.ops if runs_on(op, graph, target) == "CPU"
        ]
        return _Tools(compiled.lines(on_cpu), compiled)
    if target.device == TFLITE_MICRO:
        arena_bytes = measure_arena(built.content)
        lines = [NOT_MEASURED] if arena_bytes is None else []
        return _Tools(lines, arena_bytes=arena_bytes)
    return _Tools()


def _layers(
    built: BuiltFile, latencies: Mapping[str, Latency], *, statistics: bool
) -> list[LayerReport]:
    """Returns reports of the operators with a kernel."""
    return [
        _layer(node, built, latencies.get(node.name), statistics=statistics)
        for node in built.frozen.nodes
        if node.weight is not None
    ]


def _layer(
    node: FrozenNode, built: BuiltFile, latency: Latency | None, *, statistics: bool
) -> LayerReport:
    """Returns the report of one operator with a kernel."""
    graph = built.graph
    weight = graph.tensors[f"{node.name}/weight"]
    bias = graph.tensors.get(f"{node.name}/bias")
    constants = [weight] if bias is None else [weight, bias]
    report = LayerReport(
        name=node.layer_name,
        kind=node.kind,
        num_bits=None,
        container=weight.dtype,
        num_codes=int(weight.constant.size),
        num_channels=0 if bias is None else int(bias.constant.size),
        num_bytes=sum(tensor.num_bytes for tensor in constants),
        latency=latency,
    )
    kernel = node.trained.kernel
    if statistics and isinstance(kernel, QuantizedKernel):
        report = dataclasses.replace(report, statistics=kernel_statistics(kernel))
    if not isinstance(node.weight, IntegerWeight):
        return report
    source = built.frozen.by_name()[node.inputs[0]].integer_grid
    return dataclasses.replace(
        report,
        input_container=source.container,
        num_bits=node.weight.num_bits,
        multiplier=node.weight.multiplier,
        widening=node.weight.widening,
        constant_channels=int(np.sum(node.weight.sign == 0)),
        bias_error=node.weight.bias_error,
        remark=node.weight.remark,
    )
