"""Checks that each operator, given the file's integers, computes those of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np
import tensorflow as tf

from ..errors import VerificationError
from ..file import TFLiteGraph
from ..freezing import FrozenModel, FrozenNode, TrainedPoint
from ..operators import exact_output
from ..reports import CodeStatistics, PointReport, activation_statistics
from ..runtimes import Runtime, runner_on, this_machine
from ..twin import centered, twin_codes, twin_operators
from .values import file_inputs, on_grid

# Share of the largest value by which float32 kernels may differ.
_FLOAT_TOLERANCE = 1e-3


def compare_points(
    frozen: FrozenModel,
    codes: dict[str, np.ndarray],
    name: str,
    *,
    statistics: bool = False,
) -> list[PointReport]:
    """Checks every integer tensor of a file that ran on this machine, CPU or GPU.

    Args:
        frozen: The operators of the file.
        codes: What the runtime computed, from `probe_codes`.
        name: Name of the file in messages.
        statistics: Whether to report how each quantization point after an operator uses
            its integers.

    Returns:
        One report per operator that rounds.

    Raises:
        VerificationError: If a code is off by more than 1, or outside the range that
            its quantization point has in training.
    """
    differences = twin_differences(frozen, codes, this_machine())
    counter = _PointCounter(frozen) if statistics else None
    return [
        dataclasses.replace(report, twin_differences=differences[report.name])
        for report in _compare(frozen, codes, name, frozen.by_name().keys(), counter)
    ]


def predict_points(
    frozen: FrozenModel,
    codes: dict[str, np.ndarray],
    measured: list[PointReport],
    runtime: Runtime,
    name: str,
) -> list[PointReport]:
    """Checks what every integer tensor of a file will be on another runtime.

    Args:
        frozen: The operators of the file.
        codes: What this machine computed, from `probe_codes`.
        measured: What was reported about that.
        runtime: The other runtime.
        name: Name of the file in messages.

    Returns:
        One report per operator that rounds.

    Raises:
        VerificationError: As for `compare_points`.
    """
    predicted = twin_codes(frozen, codes, runtime)
    moved = {
        tensor
        for tensor, values in predicted.items()
        if not np.array_equal(values, codes.get(tensor, values))
    }
    affected = {n.name for n in frozen.nodes if moved & {n.name, *n.inputs}}
    reports = _compare(frozen, predicted, f"{name} on {runtime.name}", affected)
    known = {
        report.name: dataclasses.replace(report, twin_differences=None, statistics=None)
        for report in measured
    }
    known |= {report.name: report for report in reports}
    return [known[report.name] for report in measured]


def _compare(
    frozen: FrozenModel,
    codes: dict[str, np.ndarray],
    name: str,
    wanted: Collection[str],
    counter: _PointCounter | None = None,
) -> list[PointReport]:
    """Compares the tensors of a file with the training graph.

    Args:
        frozen: The operators of the file.
        codes: What a runtime computed.
        name: Name of the file in messages.
        wanted: The tensors to compare.
        counter: Counts how quantization points use their integers.

    Raises:
        VerificationError: If a code is off by more than 1, or outside the range that
            its quantization point has in training.
    """
    nodes = frozen.by_name()
    reports, outside = [], []
    for node in frozen.nodes:
        if node.kind == "input":
            continue
        if node.name not in wanted and has_examples(node):
            continue
        values = [
            _real(nodes[source], codes) * node.trained.input_factor
            for source in node.inputs
        ]
        arrays = [tf.constant(array) for array in values]
        real = exact_output(node, arrays).numpy()
        if not has_examples(node):
            codes = codes | {node.name: real}
            continue
        if node.grid is None:
            outside += _wrong_values(node, codes[node.name], real)
            continue
        point_statistics = None
        if node.is_final:
            outside += _outside(node, codes[node.name])
        if counter is not None and not outside:
            point_statistics = counter.count(node, codes[node.name], real)
        difference = np.abs(codes[node.name].astype(np.int64) - _expected(node, real))
        reports.append(
            PointReport(
                name=node.name,
                kind=node.kind,
                num_codes=int(difference.size),
                off_by_one=int((difference == 1).sum()),
                max_difference=int(difference.max()),
                statistics=point_statistics,
            )
        )
    _refuse_wrong(reports, outside, name)
    return reports


class _PointCounter:
    """Counts how quantization points use their integers, once per point."""

    def __init__(self, frozen: FrozenModel) -> None:
        self._counted = {node.point for node in frozen.nodes if node.kind == "input"}
        # Point -> the values before it, if its integers are not final yet.
        self._values: dict[TrainedPoint, np.ndarray] = {}

    def count(
        self, node: FrozenNode, codes: np.ndarray, real: np.ndarray
    ) -> CodeStatistics | None:
        """Returns the statistics of a point at the first tensor with its integers.

        Args:
            node: An operator.
            codes: What it computed.
            real: Its exact output.
        """
        point = node.point
        if point is None or point in self._counted:
            return None
        # If two tensors clip one after the other, the first has the real values.
        values = self._values.setdefault(point, real)
        if not node.is_final:
            return None
        self._counted.add(point)
        integers = codes.astype(np.int64) - node.integer_grid.zero_point
        del self._values[point]
        return activation_statistics(point, integers, values)


def has_examples(node: FrozenNode) -> bool:
    """Returns whether a tensor holds real numbers, and its first axis is the batch.

    Sizes and shapes are one value for all examples, however many a file takes at once.

    Args:
        node: An operator.
    """
    if node.trained.integer_type.startswith("complex"):
        return False
    return node.grid is not None or node.trained.shape[:1] in ((None,), (1,))


def _outside(node: FrozenNode, codes: np.ndarray) -> list[str]:
    """Finds integers in a point's tensor that are outside its range in training."""
    integers = codes.astype(np.int64) - node.integer_grid.zero_point
    q_min, q_max = node.own_point.q_min, node.own_point.q_max
    low, high = int(integers.min()), int(integers.max())
    if q_min <= low and high <= q_max:
        return []
    return [f"`{node.name}`: its integers are {low}..{high}, expected {q_min}..{q_max}"]


def _wrong_values(node: FrozenNode, found: np.ndarray, real: np.ndarray) -> list[str]:
    """Finds values of a tensor without a scale that are not those of training."""
    if found.shape != real.shape:
        return [f"`{node.name}`: its shape is {found.shape}, expected {real.shape}"]
    difference = np.abs(found.astype(np.float64) - real.astype(np.float64)).max()
    largest = np.abs(real).max() if real.dtype.kind == "f" else 0.0
    if difference <= _FLOAT_TOLERANCE * largest:
        return []
    return [f"`{node.name}`: a value differs by {difference:.3g} of {largest:.3g}"]


def _refuse_wrong(reports: list[PointReport], outside: list[str], name: str) -> None:
    """Raises an error if a code is off by more than 1, or outside its range."""
    wrong = [
        f"`{point.name}` ({point.kind}): a code differs by {point.max_difference}"
        for point in reports
        if point.max_difference > 1
    ]
    if wrong or outside:
        raise VerificationError(f"`{name}`", wrong + outside)


def probe_codes(
    graph: TFLiteGraph,
    frozen: FrozenModel,
    examples: list[np.ndarray],
    kernels: str = "xnnpack",
    accelerator: str = "cpu",
) -> dict[str, np.ndarray]:
    """Runs a file, and returns every tensor that has a value for each example.

    Args:
        graph: The file's graph.
        frozen: The model's numbers.
        examples: Inputs of the model, one array per input.
        kernels: One of `runtimes.KERNELS`, on the CPU.
        accelerator: One of `runtimes.ACCELERATORS`.

    Raises:
        RuntimeError: If there is no such accelerator here, or it refuses the file.
    """
    probe = graph.with_outputs([n.name for n in frozen.nodes if has_examples(n)])
    inputs = file_inputs(graph, frozen, examples)
    with runner_on(accelerator, probe, kernels=kernels) as runner:
        outputs = runner.run(inputs)
    codes = {probe.outputs[name]: array for name, array in outputs.items()}
    return codes | {probe.inputs[name]: array for name, array in inputs.items()}


def twin_differences(
    frozen: FrozenModel, codes: dict[str, np.ndarray], runtime: Runtime
) -> dict[str, int]:
    """Counts the codes of each operator that the integer twin computes differently.

    Args:
        frozen: The model's numbers.
        codes: What the runtime computed, from `probe_codes`; also the inputs of each
            operator of the twin.
        runtime: What computed them.

    Returns:
        Name of the output -> number of codes, for integer tensors.
    """
    nodes, operators = frozen.by_name(), twin_operators(frozen, runtime)
    differences = {}
    for name, compute in operators.items():
        grid = nodes[name].grid
        if grid is not None:
            sources = [centered(nodes[source], codes) for source in nodes[name].inputs]
            computed = compute(sources).numpy() + grid.zero_point
            differences[name] = int((codes[name] != computed).sum())
    return differences


def _real(node: FrozenNode, codes: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the values that a tensor's integers represent, float64."""
    stored = codes[node.name]
    if np.iscomplexobj(stored):
        return stored
    if node.grid is None:
        return stored.astype(np.float64)
    return (stored.astype(np.float64) - node.integer_grid.zero_point) * node.grid.scale


def _expected(node: FrozenNode, real: np.ndarray) -> np.ndarray:
    """Returns the exact file codes of a node for its exact output."""
    grid = node.integer_grid
    if node.kind in ("clip_high", "clip_low"):
        return np.clip(on_grid(real, grid), grid.low, grid.high)
    if node.is_final:
        return _point_codes(node.own_point, real) + grid.zero_point
    return on_grid(real, grid)


def _point_codes(point: TrainedPoint, values: np.ndarray) -> np.ndarray:
    """Returns the training integers of a point for real values, exact."""
    quotients = values / np.float64(point.step)
    clipped = np.clip(quotients, float(point.q_min), float(point.q_max))
    return np.rint(clipped).astype(np.int64)
