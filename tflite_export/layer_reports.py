"""Reports of the layers of a file, from its kernels and its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from .build import BuiltFile
from .freezing import FrozenNode, IntegerWeight, QuantizedKernel
from .reports import Latency, LayerReport, kernel_statistics


def layer_reports(
    built: BuiltFile, latencies: Mapping[str, Latency], *, statistics: bool
) -> list[LayerReport]:
    """Returns reports of the operators with a kernel.

    Args:
        built: The file.
        latencies: Of such operators, by node; empty: they were not measured.
        statistics: Whether to count how often each code of a kernel is used.
    """
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
    weights = [graph.tensors[f"{part}/weight"] for part in node.parts]
    names = [f"{part}/bias" for part in node.parts]
    biases = [graph.tensors[name] for name in names if name in graph.tensors]
    report = LayerReport(
        name=node.layer_name,
        kind=node.kind,
        num_bits=None,
        container=weights[0].dtype,
        num_codes=sum(weight.constant.size for weight in weights),
        num_channels=sum(bias.constant.size for bias in biases),
        num_bytes=sum(tensor.num_bytes for tensor in [*weights, *biases]),
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
