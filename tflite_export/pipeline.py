"""`export_model`: freeze, integerize, verify, write, in this order."""

from __future__ import annotations

import collections
import functools
from pathlib import Path
from typing import Any

import numpy as np

from tf_lsq._compat import keras
from tf_lsq.data import first_examples
from tf_lsq.layers import LSQWrapper

from . import flatbuffer, metadata
from .atomic_file import check_writable, write_atomically
from .code_statistics import kernel_statistics
from .containers import Storage
from .edgetpu_compiler import ONLY_RULES, compile_for_edgetpu
from .export_report import ExportReport, LayerReport
from .freeze import FrozenModel, FrozenNode, freeze_model
from .integerize import integerize
from .latency import describe_setting, measure_latency
from .op_versions import runtime_of
from .snippets import snippets_of
from .storages import compare_storages
from .targets import check_graph, resolve_target
from .tflite_graph import TFLiteGraph
from .verify import (
    BATCH_SIZE,
    check_end_to_end,
    check_points,
    probe_codes,
    verify_content,
)


def export_model(
    model: keras.Model,
    path: str | Path,
    *,
    storage: str = "int8",
    bias_grid: str = "own",
    input_type: str = "int8",
    output_type: str = "int8",
    target: str | None = None,
    data: Any = None,
    benchmark: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Writes a trained model as a full-integer `.tflite` file.

    The bytes are checked against the model before the file appears under its
    name: every tensor, and every weight code; with `data` also every operator.

    Args:
        model: A model made by `tf_lsq.quantize_model`, trained or calibrated.
        path: The file to write; it is replaced in one step.
        storage: "int8": one byte per weight code, the fastest on a CPU. "packed":
            INT4 for kernels of up to 4 bits, INT2 for those of fully connected
            layers with 2 bits, where the target can. "auto": packed where that costs
            no time on the target.
        bias_grid: "own": biases on the finest grid that each container can hold.
            "packed": on that of the packed container in any storage, so that files
            of all storages compute the same integers under TFLite's own kernels.
        input_type: Type of the file's inputs: "int8", "uint8" or "float32".
        output_type: Type of its outputs.
        target: What the file will run on; None: what the model was quantized
            for.
        data: An ndarray, `(x, y)`, or a dataset of x or `(x, y)`. The file is run on
            it as by `verify_tflite`, and the report says how quantizers use their
            integers and what the other storages would differ in; for these two, the
            first 64 examples count. None: the file is not run.
        benchmark: Whether to measure the latency of the file and of each operator with
            a kernel, on this machine's CPU, beside int8 storage and float32.
        verbose: Whether to show progress.

    Returns:
        What was written; prints as a table, and `write_html_report` makes a page of it.

    Raises:
        TypeError: If `model` is no tf_keras model, or `data` no data.
        ValueError: If an option is unknown, or `model` is not quantized, was
            quantized for another target or by another scheme, or has dynamic
            shapes, or if the target refuses the file; everything is named.
        RuntimeError: If `model` was never trained or calibrated, or if
            `edgetpu_compiler` is on PATH and refuses the file.
        OSError: If `path` cannot be written.
        VerificationError: If the file would not equal the model.
    """
    path = Path(path)
    stored = Storage(storage, bias_grid)
    check_writable(path)
    frozen = freeze_model(model, stored)
    resolved = resolve_target(target, frozen.target)
    to_graph = functools.partial(
        integerize, input_type=input_type, output_type=output_type
    )
    graph = to_graph(frozen)
    on_cpu = [str(violation) for violation in check_graph(graph, resolved)]
    metadata.add_description(frozen, graph)
    content = flatbuffer.to_bytes(graph)
    _, _, verification = verify_content(content, model, name=str(path))
    report = ExportReport(
        path=str(path),
        file_bytes=len(content),
        target=resolved.name,
        storage=storage,
        min_runtime=runtime_of(graph),
        operators=dict(collections.Counter(op.code for op in graph.ops)),
        float_layers=[node.name for node in frozen.nodes if node.is_float],
        layers=[_layer(node, graph) for node in frozen.nodes if node.weight],
        verification=verification,
        snippets=snippets_of(graph, path.name),
        on_cpu=on_cpu,
    )
    if data is not None:
        examples = first_examples(data, model.input_names, BATCH_SIZE)
        codes = probe_codes(graph, frozen, examples)
        verification.points = check_points(frozen, codes, report.path, statistics=True)
        report.storages = compare_storages(model, frozen, codes, examples, to_graph)
        check_end_to_end(content, frozen, model, data, verification, verbose=verbose)
        _count_codes(report, frozen)
    if benchmark:
        _measure(report, graph, to_graph(freeze_model(model)), frozen, verbose)
    if resolved.name == "edgetpu":
        mapping = compile_for_edgetpu(content)
        report.compiler = [ONLY_RULES] if mapping is None else [*map(str, mapping)]
    write_atomically(path, content)
    return report


def _layer(node: FrozenNode, graph: TFLiteGraph) -> LayerReport:
    """Returns what the file holds of one operator with a kernel."""
    weight = graph.tensors[f"{node.name}/weight"]
    bias = graph.tensors.get(f"{node.name}/bias")
    constants = [weight] if bias is None else [weight, bias]
    sign = node.weight.sign
    return LayerReport(
        name=node.name,
        kind=node.kind,
        num_bits=node.weight.num_bits,
        container=weight.dtype,
        num_codes=int(weight.data.size),
        num_channels=0 if bias is None else int(bias.data.size),
        num_bytes=sum(tensor.num_bytes for tensor in constants),
        multiplier=node.weight.multiplier,
        widening=node.weight.widening,
        constant_channels=0 if sign is None else int(np.sum(sign == 0)),
        bias_error=node.weight.bias_error,
        remark=node.weight.remark,
    )


def _count_codes(report: ExportReport, frozen: FrozenModel) -> None:
    """Says how kernels use their integers."""
    nodes = frozen.by_name()
    for layer in report.layers:
        wrapper = nodes[layer.name].node.model_layer
        if isinstance(wrapper, LSQWrapper):
            layer.statistics = kernel_statistics(wrapper)


def _measure(
    report: ExportReport,
    graph: TFLiteGraph,
    int8: TFLiteGraph,
    frozen: FrozenModel,
    verbose: bool,
) -> None:
    """Measures latencies."""
    report.latency, layers = measure_latency(graph, int8, frozen, verbose=verbose)
    report.latency_setting = describe_setting()
    for layer in report.layers:
        layer.latency = layers.get(layer.name)
