"""Releases that compute wrong codes of a file, as data; what reports say of them.

The versions of operators promise that a release runs a file, not that it computes the
same. `make runtimes` measures that: docs/runtimes.md has the table, and
docs/runtimes/results.jsonl the numbers, which a test compares with this module. A fault
is a code that is off by more than one; by one, releases only round otherwise. Some uses
have the version of an older use, and releases that know only that refuse them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .releases import LITERT, TENSORFLOW, is_newer, litert_release
from .tflite_graph import TFLiteGraph, TFLiteOp
from .tflite_operators import min_runtime

OLDEST = "0"


@dataclasses.dataclass(frozen=True)
class Span:
    """Releases of a product that follow each other.

    Attributes:
        product: "TensorFlow Lite" or "LiteRT".
        first: The first one; `OLDEST`: all before the last one, of which the oldest
            that was measured is one.
        last: The last one.
        fixed: The next one, which computes right; "" if there is none.
    """

    product: str
    first: str
    last: str
    fixed: str = ""

    def has(self, product: str, release: str) -> bool:
        """Returns whether a release is one of them.

        Args:
            product: "TensorFlow Lite" or "LiteRT".
            release: Its number.
        """
        outside = is_newer(self.first, release) or is_newer(release, self.last)
        return product == self.product and not outside

    def __str__(self) -> str:
        """Returns the releases as readable text."""
        if self.first == OLDEST:
            return f"{self.product} {self.last} and older"
        if self.first == self.last:
            return f"{self.product} {self.last}"
        return f"{self.product} {self.first} to {self.last}"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A use of an operator that some releases compute wrongly.

    Attributes:
        name: What reports call the use.
        code: Name of the operator.
        applies: Whether an operator with this name is such a use.
        spans: The releases that compute it wrongly, with their own choice of kernels.
        refused: Whether these releases refuse the file instead.
    """

    name: str
    code: str
    applies: Callable[[TFLiteOp, TFLiteGraph], bool]
    spans: tuple[Span, ...]
    refused: bool = False


def faults_of(graph: TFLiteGraph) -> list[Fault]:
    """Returns the faults that change what a file computes, or whether it runs.

    Args:
        graph: The file's graph.
    """
    return [
        fault
        for fault in FAULTS
        if any(op.code == fault.code and fault.applies(op, graph) for op in graph.ops)
    ]


def least_releases(graph: TFLiteGraph) -> dict[str, str]:
    """Returns the oldest release of each product that computes a file right.

    A product is left out if all of its releases refuse the file or compute it wrongly;
    both are if it is not known which releases run it.

    Args:
        graph: The file's graph.
    """
    release = min_runtime(graph)
    if not release:
        return {}
    least = {TENSORFLOW: release, LITERT: litert_release(release)}
    for fault in faults_of(graph):
        for span in fault.spans:
            if span.product in least and span.has(span.product, least[span.product]):
                least[span.product] = span.fixed
    return {product: number for product, number in least.items() if number}


def claimed_release(graph: TFLiteGraph) -> str:
    """Returns the TensorFlow release that a file claims to need.

    It is the oldest that computes the file right; "" if that is unknown, or none is
    known to.

    Args:
        graph: The file's graph.
    """
    return least_releases(graph).get(TENSORFLOW, "")


def runtime_of(graph: TFLiteGraph) -> str:
    """Returns the runtimes that compute a file right, as readable text, "" if unknown.

    Args:
        graph: The file's graph.
    """
    least = least_releases(graph)
    if not least:
        return ""
    text = ", ".join(f"{product} {number}" for product, number in least.items())
    text = f"{text} or newer"
    for refused, words in ((False, "wrong in"), (True, "refused by")):
        found = [
            f"{span} ({fault.name})"
            for fault in faults_of(graph)
            for span in fault.spans
            if fault.refused == refused
            and not is_newer(least.get(span.product, "0"), span.last)
        ]
        text += f"; {words} {', '.join(found)}" if found else ""
    return text


# --- The table -----------------------------------------------------------------


def _moved_factor(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether the second factor of a product has a zero point.

    In uint8, where XNNPACK has no kernels, all releases compute it right.
    """
    factors = [graph.tensors[name] for name in op.inputs[1:2] if name]
    return any(
        factor.dtype != "uint8"
        and factor.quantization is not None
        and factor.quantization.zero_point != 0
        for factor in factors
    )


def _types(op: TFLiteOp, graph: TFLiteGraph) -> list[str]:
    """Returns the types of two inputs, "" for one that is left out, and the output."""
    names = [*op.inputs, "", ""][:2] + op.outputs[:1]
    return [graph.tensors[name].dtype if name else "" for name in names]


def _in_int8(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether an operator computes in int8."""
    return _types(op, graph)[0] == "int8"


def _scales_in_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether a kernel with one scale per channel multiplies int16 inputs."""
    first, second, *_ = _types(op, graph)
    several = second != "" and graph.tensors[op.inputs[1]].num_scales > 1
    return first == "int16" and several


def _int4_in_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether an INT4 kernel multiplies int16 inputs."""
    return _types(op, graph)[:2] == ["int16", "int4"]


def _from_int8_to_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether an operator takes int8 codes to int16."""
    return _types(op, graph)[::2] == ["int8", "int16"]


def _sums_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether an operator computes in int16."""
    return _types(op, graph)[0] == "int16"


def _int8_in_int16(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether matrices in int16 are multiplied by others in int8."""
    types = [graph.tensors[name].dtype for name in op.inputs[:2]]
    return types == ["int16", "int8"]


FAULTS = (
    Fault(
        "BATCH_MATMUL with a zero point in its second factor",
        "BATCH_MATMUL",
        _moved_factor,
        (
            Span(TENSORFLOW, "2.21.0", "2.21.0"),
            Span(LITERT, "2.0.2", "2.1.2", "2.1.3"),
        ),
    ),
    Fault(
        "FULLY_CONNECTED with a zero point in its kernel",
        "FULLY_CONNECTED",
        _moved_factor,
        (
            Span(TENSORFLOW, OLDEST, "2.21.0"),
            Span(LITERT, OLDEST, "2.1.4", "2.1.5"),
        ),
    ),
    Fault(
        "SUM",
        "SUM",
        _in_int8,
        (Span(TENSORFLOW, OLDEST, "2.12.1", "2.13.1"),),  # Codes wrap around.
    ),
    Fault(
        "FULLY_CONNECTED in int16 with one scale per channel",
        "FULLY_CONNECTED",
        _scales_in_int16,
        (
            Span(TENSORFLOW, OLDEST, "2.18.1", "2.19.1"),
            Span(LITERT, OLDEST, "1.0.1", "1.1.2"),
        ),
    ),
    Fault(
        "CONV_2D in int16 with an INT4 kernel",
        "CONV_2D",
        _int4_in_int16,
        (
            Span(TENSORFLOW, OLDEST, "2.18.1", "2.19.1"),
            Span(LITERT, OLDEST, "1.0.1", "1.1.2"),
        ),
    ),
    Fault(
        "SUM in int16",
        "SUM",
        _sums_int16,
        (
            Span(TENSORFLOW, OLDEST, "2.19.1", "2.20.0"),
            Span(LITERT, OLDEST, "1.2.0", "1.3.0"),
        ),
        refused=True,
    ),
    Fault(
        "BATCH_MATMUL of int16 and int8",
        "BATCH_MATMUL",
        _int8_in_int16,
        (Span(TENSORFLOW, OLDEST, "2.21.0"), Span(LITERT, OLDEST, "2.1.3", "2.1.4")),
        refused=True,
    ),
    Fault(
        "QUANTIZE from int8 to int16",
        "QUANTIZE",
        _from_int8_to_int16,
        (Span(TENSORFLOW, OLDEST, "2.21.0"), Span(LITERT, OLDEST, "2.1.2", "2.1.3")),
        refused=True,
    ),
)
