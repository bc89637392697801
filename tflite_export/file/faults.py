"""Releases that run a file but compute wrong codes, as data; what reports say of them.

The versions of operators promise that a release runs a file, not that it computes the
same. `make runtimes` measures that: docs/runtimes.md has the table, and
docs/runtimes/results.jsonl the numbers, which a test compares with this module. A fault
is a code that is off by more than one; by one, releases only round otherwise.
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
    """

    name: str
    code: str
    applies: Callable[[TFLiteOp, TFLiteGraph], bool]
    spans: tuple[Span, ...]


def faults_of(graph: TFLiteGraph) -> list[Fault]:
    """Returns the faults that change what a file computes in some releases.

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

    A product is left out if all of its releases that run the file compute it wrongly;
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
    wrong = [
        f"{span} ({fault.name})"
        for fault in faults_of(graph)
        for span in fault.spans
        if not is_newer(least.get(span.product, "0"), span.last)
    ]
    return f"{text}; wrong in {', '.join(wrong)}" if wrong else text


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


def _in_int8(op: TFLiteOp, graph: TFLiteGraph) -> bool:
    """Returns whether an operator computes in int8."""
    return graph.tensors[op.inputs[0]].dtype == "int8"


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
)
