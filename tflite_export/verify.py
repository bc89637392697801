"""A `.tflite` file against the model it was made from.

Three questions, each with its own evidence:

    structure   is the file, tensor by tensor, what this model exports to, and does
                LiteRT load it?
    weights     is every code the trained code times sign times multiplier?
    arithmetic  does each operator, given the file's own integers, produce the
                integers that the training graph would?

and end to end: does the file classify like the Keras model?
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tqdm.auto import tqdm

from tf_lsq._compat import keras
from tf_lsq.data import batches, first_examples, inputs_as_list, num_batches
from tf_lsq.graph import input_factor
from tf_lsq.layers import QuantizationPoint

from . import expectation, flatbuffer, metadata
from .code_statistics import activation_statistics
from .freeze import FrozenModel, FrozenNode, freeze_model
from .grids import Grid, clipped_grid, integer_bounds
from .integerize import integerize
from .report import PointReport, VerificationReport
from .tflite_graph import TFLiteGraph, TFLiteOp, TFLiteTensor
from .trained_kernel import trained_codes
from .twin import build_twin, twin_operators

BATCH_SIZE = 64
_MAX_NAMED = 8
_NUM_THREADS = 2


class VerificationError(RuntimeError):
    """A file does not compute what the model was trained to.

    Attributes:
        mismatches: One sentence per difference.
    """

    def __init__(self, what: str, mismatches: list[str]) -> None:
        self.mismatches = mismatches
        named = "\n  ".join(mismatches[:_MAX_NAMED])
        more = len(mismatches) - _MAX_NAMED
        if more > 0:
            named += f"\n  ... and {more} more"
        super().__init__(f"{what} does not equal the trained model:\n  {named}")


def verify_tflite(
    path: str | Path,
    model: keras.Model,
    data: Any = None,
    *,
    point_examples: int = BATCH_SIZE,
    verbose: bool = True,
) -> VerificationReport:
    """Checks that a file equals the quantized model it was exported from.

    Args:
        path: A `.tflite` file written by `export_model`.
        model: The trained model.
        data: An ndarray, `(x, y)`, or a dataset of x or `(x, y)`. None: only
            structure and weights are checked.
        point_examples: How many of the first examples each quantization point
            is checked with; all of `data` is used end to end.
        verbose: Whether to show progress.

    Returns:
        What was compared and how close it was.

    Raises:
        VerificationError: If the file differs from the model: its structure,
            a weight code, or a code at a point by more than 1.
        ValueError: If the file cannot be read.
        OSError: If `path` cannot be opened.
    """
    content = Path(path).read_bytes()
    graph, frozen, report = verify_content(content, model, name=str(path))
    if data is not None:
        examples = first_examples(data, model.input_names, point_examples)
        codes = probe_codes(graph, frozen, examples)
        report.points = check_points(frozen, codes, str(path))
        check_end_to_end(content, frozen, model, data, report, verbose=verbose)
    return report


def verify_content(
    content: bytes, model: keras.Model, *, name: str
) -> tuple[TFLiteGraph, FrozenModel, VerificationReport]:
    """Checks structure and weights of a file's bytes.

    Args:
        content: The bytes of the file.
        model: The trained model.
        name: How messages call the file.

    Returns:
        The file's graph, the model's numbers, and a report without data.

    Raises:
        VerificationError: If the file differs from the model.
        ValueError: If the bytes are no readable file.
    """
    graph = flatbuffer.from_bytes(content)
    frozen = freeze_model(model, metadata.storage_of(graph, name))
    input_type, output_type = _io_types(graph)
    made = integerize(frozen, input_type=input_type, output_type=output_type)
    # As a file says it: every option, and every version.
    expected = flatbuffer.from_bytes(flatbuffer.to_bytes(made))
    mismatches = _float_tensors(graph, frozen, input_type, output_type)
    mismatches += _structure(graph, expected)
    equal, total, wrong = _weights(graph, frozen)
    if not mismatches and not wrong:
        mismatches = _described(graph, frozen) or _loaded(graph, content)
    if mismatches or wrong:
        raise VerificationError(f"`{name}`", mismatches + wrong)
    return graph, frozen, VerificationReport(weight_codes=total, equal_codes=equal)


def _described(graph: TFLiteGraph, frozen: FrozenModel) -> list[str]:
    """Compares what a file says of its tensors with how they were trained."""
    found, expected = metadata.read(graph), metadata.describe(frozen, graph)
    mismatches = [
        f"its metadata says that {key!r} is {found.get(key)!r}, expected {value!r}"
        for key, value in expected.items()
        if key not in ("versions", "tensors") and found.get(key) != value
    ]
    for name in sorted(found["tensors"].keys() | expected["tensors"].keys()):
        ours, theirs = (d["tensors"].get(name) for d in (expected, found))
        if ours != theirs:
            mismatches.append(f"`{name}`: its metadata is {theirs}, expected {ours}")
    return mismatches


def _loaded(graph: TFLiteGraph, content: bytes) -> list[str]:
    """Finds out whether LiteRT starts with the bytes of a file, in either kernels."""
    for kernels in _RESOLVERS:
        try:
            _interpreter(content, kernels).allocate_tensors()  # XNNPACK may refuse.
            Runner(graph, kernels, content)
        except (ValueError, RuntimeError) as error:
            return [
                f"LiteRT does not load it ({kernels} kernels): "
                f"{type(error).__name__}: {error}"
            ]
    return []


# --- Structure ---------------------------------------------------------------


def _io_types(graph: TFLiteGraph) -> tuple[str, str]:
    """Returns the types of the inputs and outputs of a file."""
    types = []
    for ends in (graph.inputs, graph.outputs):
        found = sorted({graph.tensors[name].dtype for name in ends.values()})
        types.append(found[0] if len(found) == 1 else str(found))
    for what, dtype in zip(("input", "output"), types, strict=True):
        if dtype not in ("int8", "uint8", "float32"):
            raise ValueError(
                f"All {what}s of the file must be int8, uint8 or float32, and of one "
                f"type. Received: {dtype}."
            )
    return types[0], types[1]


def _float_tensors(
    graph: TFLiteGraph, frozen: FrozenModel, input_type: str, output_type: str
) -> list[str]:
    """Finds float tensors that are neither ends nor in a layer left in float."""
    allowed = set()
    if input_type == "float32":
        allowed |= set(graph.inputs.values())
    if output_type == "float32":
        allowed |= set(graph.outputs.values())
    for node in frozen.nodes:
        if node.is_float:
            own = (name for name in graph.tensors if name.startswith(f"{node.name}/"))
            allowed |= {node.name, *own}
            allowed |= {f"{name}/dequantized" for name in node.inputs}
    return [
        f"`{name}` is a float tensor"
        for name, tensor in graph.tensors.items()
        if tensor.dtype.startswith("float") and name not in allowed
    ]


def _structure(graph: TFLiteGraph, expected: TFLiteGraph) -> list[str]:
    """Compares every tensor and operator with what the model exports to."""
    mismatches = []
    for what in ("inputs", "outputs"):
        found, wanted = (list(getattr(g, what).items()) for g in (graph, expected))
        if found != wanted:
            mismatches.append(f"its {what} are {found}, expected {wanted}")
    if [op.code for op in graph.ops] != [op.code for op in expected.ops]:
        mismatches.append(
            f"its operators are {[op.code for op in graph.ops]}, expected "
            f"{[op.code for op in expected.ops]}"
        )
    else:
        for ours, theirs in zip(expected.ops, graph.ops, strict=True):
            mismatches += _compare_ops(theirs, ours)
    missing = sorted(expected.tensors.keys() - graph.tensors.keys())
    extra = sorted(graph.tensors.keys() - expected.tensors.keys())
    mismatches += [f"`{name}` is missing" for name in missing]
    mismatches += [f"`{name}` does not belong to the model" for name in extra]
    for name in expected.tensors.keys() & graph.tensors.keys():
        mismatches += _compare_tensors(graph.tensors[name], expected.tensors[name])
    return mismatches


def _compare_ops(found: TFLiteOp, expected: TFLiteOp) -> list[str]:
    """Compares one operator, all its options included."""
    name = expected.outputs[0]
    if (found.inputs, found.outputs) != (expected.inputs, expected.outputs):
        return [
            f"`{name}`: {found.code} reads {found.inputs} and writes {found.outputs}, "
            f"expected {expected.inputs} and {expected.outputs}"
        ]
    mismatches = []
    if found.version != expected.version:
        mismatches.append(
            f"`{name}`: {found.code} has version {found.version}, expected "
            f"{expected.version}"
        )
    return mismatches + [
        f"`{name}`: {option} is {found.options.get(option)!r}, expected "
        f"{expected.options.get(option)!r}"
        for option in sorted(found.options.keys() | expected.options.keys())
        if found.options.get(option) != expected.options.get(option)
    ]


def _compare_tensors(found: TFLiteTensor, expected: TFLiteTensor) -> list[str]:
    """Compares type, shape, quantization and constants of one tensor."""
    name = expected.name
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return [
            f"`{name}` is {found.dtype} {found.shape}, expected {expected.dtype} "
            f"{expected.shape}"
        ]
    mismatches = []
    if found.dynamic_batch != expected.dynamic_batch:
        mismatches.append(f"`{name}`: open batch is {found.dynamic_batch}")
    if found.quantization != expected.quantization:
        mismatches.append(
            f"`{name}`: scale or zero point is {found.quantization}, expected "
            f"{expected.quantization}"
        )
    if (found.data is None) != (expected.data is None):
        mismatches.append(f"`{name}`: constant and computed tensor do not match")
    elif found.data is not None and not np.array_equal(found.data, expected.data):
        different = int((found.data != expected.data).sum())
        mismatches.append(
            f"`{name}`: {different} of {found.data.size} constants differ"
        )
    return mismatches


# --- Weights -----------------------------------------------------------------


def _weights(graph: TFLiteGraph, frozen: FrozenModel) -> tuple[int, int, list[str]]:
    """Compares codes with the training op: (equal, all, mismatches)."""
    equal = total = 0
    mismatches = []
    for node in frozen.nodes:
        tensor = graph.tensors.get(f"{node.name}/weight")
        if node.weight is None or node.is_float or tensor is None:
            continue
        expected = _expected_codes(node)
        if tensor.data is None or tensor.data.size != expected.size:
            mismatches.append(f"`{node.name}/weight` has no codes of its shape")
            continue
        same = _channels_last(node, tensor.data) == expected
        equal += int(same.sum())
        total += same.size
        if not same.all():
            mismatches.append(
                f"`{node.name}/weight`: {int((~same).sum())} of {same.size} codes are "
                "not the trained code times sign times multiplier"
            )
    return equal, total, mismatches


def _expected_codes(node: FrozenNode) -> np.ndarray:
    """Returns trained code times sign times multiplier, channels last."""
    codes, _, _ = trained_codes(node.node)
    return codes * node.weight.sign.astype(np.int64) * node.weight.multiplier


def _channels_last(node: FrozenNode, data: np.ndarray) -> np.ndarray:
    """Undoes the operator's order of axes."""
    if node.kind in ("conv", "transposed_conv"):
        return data.transpose(1, 2, 3, 0)
    if node.kind == "dense":
        return data.T
    if node.kind == "pointwise":
        return data.T.reshape(1, 1, *data.T.shape)
    if node.kind == "prelu":
        return data
    return data[0]


# --- Arithmetic --------------------------------------------------------------


def check_points(
    frozen: FrozenModel,
    codes: dict[str, np.ndarray],
    name: str,
    *,
    statistics: bool = False,
) -> list[PointReport]:
    """Checks every integer tensor against the training graph.

    Args:
        frozen: The model's numbers.
        codes: What the runtime computed, from `probe_codes`.
        name: How messages call the file.
        statistics: Whether to say how each quantization point behind an operator uses
            its integers.

    Returns:
        One line per operator that rounds.

    Raises:
        VerificationError: If a code is off by more than 1, or outside of the range
            that its point has in training.
    """
    nodes = frozen.by_name()
    twin = twin_differences(frozen, codes, "xnnpack")
    reports, outside = [], []
    # Points whose integers were counted, and what stood in front of the others.
    counted = {node.point for node in frozen.nodes if node.kind == "input"}
    in_front: dict[QuantizationPoint, np.ndarray] = {}
    for node in frozen.nodes:
        if node.kind == "input" or node.grid is None:
            continue
        values = [
            _real(nodes[source], codes) * input_factor(node.node)
            for source in node.inputs
        ]
        real = expectation.operator_output(node.node, values)
        report = _compare_codes(node, codes[node.name], real, twin[node.name])
        reports.append(report)
        if _is_final(node):
            outside += _outside(node, codes[node.name])
        if outside or not statistics or node.point is None or node.point in counted:
            continue
        # Where two tensors clip one after the other, the first has the real values.
        real = in_front.setdefault(node.point, real)
        if _is_final(node):
            counted.add(node.point)
            integers = codes[node.name].astype(np.int64) - node.grid.zero_point
            real = in_front.pop(node.point)
            report.statistics = activation_statistics(node.point, integers, real)
    _refuse_wrong(reports, outside, name)
    return reports


def _compare_codes(
    node: FrozenNode, codes: np.ndarray, real: np.ndarray, twin_differences: int
) -> PointReport:
    """Compares the codes of one tensor with its exact values."""
    difference = np.abs(codes.astype(np.int64) - _expected(node, real))
    return PointReport(
        name=node.name,
        kind=node.kind,
        num_codes=int(difference.size),
        off_by_one=int((difference == 1).sum()),
        max_difference=int(difference.max()),
        twin_differences=twin_differences,
    )


def _outside(node: FrozenNode, codes: np.ndarray) -> list[str]:
    """Finds integers in a point's tensor that it does not have in training."""
    integers = codes.astype(np.int64) - node.grid.zero_point
    q_min, q_max = integer_bounds(node.point)
    low, high = int(integers.min()), int(integers.max())
    if q_min <= low and high <= q_max:
        return []
    return [f"`{node.name}`: its integers are {low}..{high}, expected {q_min}..{q_max}"]


def _refuse_wrong(reports: list[PointReport], outside: list[str], name: str) -> None:
    """Raises if a code is off by more than 1, or outside of its range."""
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
) -> dict[str, np.ndarray]:
    """Returns every tensor between the operators of a file, as the runtime has them.

    Args:
        graph: The file's graph.
        frozen: The model's numbers.
        examples: Inputs of the model, one array per input.
        kernels: See `Runner`.
    """
    probe = graph.with_outputs([node.name for node in frozen.nodes])
    inputs = _file_inputs(graph, frozen, examples)
    outputs = Runner(probe, kernels).run(inputs)
    codes = {probe.outputs[name]: array for name, array in outputs.items()}
    return codes | {probe.inputs[name]: array for name, array in inputs.items()}


def twin_differences(
    frozen: FrozenModel, codes: dict[str, np.ndarray], kernels: str
) -> dict[str, int]:
    """Returns how many codes of each operator the integer twin computes otherwise.

    Args:
        frozen: The model's numbers.
        codes: What the runtime computed, from `probe_codes`; each operator of the twin
            is fed with these.
        kernels: The kernels that computed them.

    Returns:
        Name of the output -> number of codes, for integer tensors.
    """
    nodes, operators = frozen.by_name(), twin_operators(frozen, kernels)
    found = {}
    for name, compute in operators.items():
        grid = nodes[name].grid
        if grid is not None:
            sources = [_centered(nodes[source], codes) for source in nodes[name].inputs]
            computed = compute(sources).numpy() + grid.zero_point
            found[name] = int((codes[name] != computed).sum())
    return found


def _centered(node: FrozenNode, codes: dict[str, np.ndarray]) -> tf.Tensor:
    """Returns what flows between the operators of the integer twin."""
    zero_point = 0 if node.grid is None else node.grid.zero_point
    return tf.constant(codes[node.name].astype(np.float32) - zero_point)


def _real(node: FrozenNode, codes: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the values that a tensor's integers stand for, float64."""
    found = codes[node.name]
    if node.grid is None:
        return found.astype(np.float64)
    return (found.astype(np.float64) - node.grid.zero_point) * node.grid.scale


def _is_final(node: FrozenNode) -> bool:
    """Returns whether a tensor holds the integers of its point, clipped at both ends.

    A grid without a point (softmax) does not, nor does the first of the two tensors of
    signed low-bit codes, which is clipped above only.
    """
    return node.point is not None and clipped_grid(node.point) in (None, node.grid)


def _expected(node: FrozenNode, real: np.ndarray) -> np.ndarray:
    """Returns the exact file codes of a node for its exact output."""
    if node.kind in ("clip_high", "clip_low"):
        return np.clip(_on_grid(real, node.grid), node.grid.low, node.grid.high)
    if _is_final(node):
        return expectation.point_codes(node.point, real) + node.grid.zero_point
    return _on_grid(real, node.grid)


def _on_grid(real: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns real values as file codes."""
    codes = np.rint(real / grid.scale) + grid.zero_point
    return np.clip(codes, -128, 127).astype(np.int64)


_RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


def _interpreter(content: bytes, kernels: str) -> Interpreter:
    """Returns LiteRT's interpreter of a file."""
    return Interpreter(
        model_content=content,
        experimental_op_resolver_type=_RESOLVERS[kernels],
        num_threads=_NUM_THREADS,
    )


class Runner:
    """Runs a file's bytes under LiteRT.

    Args:
        graph: The file's graph.
        kernels: "xnnpack": as a phone does; "builtin": without XNNPACK.
        content: The file's own bytes; None: `graph` as this library writes it.
    """

    def __init__(
        self, graph: TFLiteGraph, kernels: str = "xnnpack", content: bytes | None = None
    ) -> None:
        content = flatbuffer.to_bytes(graph) if content is None else content
        interpreter = _interpreter(content, kernels)
        self._runner = interpreter.get_signature_runner(flatbuffer.SIGNATURE_KEY)
        ends = [graph.tensors[name] for name in graph.inputs.values()]
        self._any_batch = all(tensor.dynamic_batch for tensor in ends)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns all outputs by their signature names.

        Args:
            inputs: Arrays by signature name, of one batch size.
        """
        if self._any_batch:
            return {k: np.array(v) for k, v in self._runner(**inputs).items()}
        count = len(next(iter(inputs.values())))
        rows = [
            self.run_one({k: v[i : i + 1] for k, v in inputs.items()})
            for i in range(count)
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def run_one(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns all outputs for inputs of the file's own batch size."""
        return {k: np.array(v) for k, v in self._runner(**inputs).items()}


def _file_inputs(
    graph: TFLiteGraph, frozen: FrozenModel, arrays: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns model inputs in the type and grid that the file takes."""
    nodes = frozen.by_name()
    made = {}
    for (name, tensor), array in zip(frozen.inputs.items(), arrays, strict=True):
        dtype = graph.tensors[graph.inputs[name]].dtype
        grid = nodes[tensor].grid
        if dtype == "float32":
            made[name] = array.astype(np.float32)
            continue
        quotient = array.astype(np.float32) / np.float32(grid.scale)
        codes = np.clip(np.rint(quotient) + grid.zero_point, -128, 127)
        made[name] = (codes + (128 if dtype == "uint8" else 0)).astype(dtype)
    return made


# --- End to end --------------------------------------------------------------


def check_end_to_end(
    content: bytes,
    frozen: FrozenModel,
    model: keras.Model,
    data: Any,
    report: VerificationReport,
    *,
    verbose: bool,
) -> None:
    """Runs file and model on all of `data` and compares their outputs.

    Args:
        content: The bytes of the file.
        frozen: The model's numbers.
        model: The trained model.
        data: As `verify_tflite` takes it.
        report: Gets what is found.
        verbose: Whether to show progress.
    """
    graph, twin = flatbuffer.from_bytes(content), build_twin(frozen, model)
    runner = Runner(graph, content=content)
    total = num_batches(data, BATCH_SIZE)
    for x, y in tqdm(
        batches(data, BATCH_SIZE), "Verifying", total, disable=not verbose, leave=False
    ):
        arrays = inputs_as_list(x, model.input_names)
        found = runner.run(_file_inputs(graph, frozen, arrays))
        outputs = tf.nest.flatten(model.predict_on_batch(x))
        twins = tf.nest.flatten(twin.predict_on_batch(x))
        labels = tf.nest.flatten(y)
        labels = labels if len(labels) == len(outputs) else [y] * len(outputs)
        for (output, tensor), keras_output, twin_output, label in zip(
            frozen.outputs.items(), outputs, twins, labels, strict=True
        ):
            grid = frozen.by_name()[tensor].grid
            report.add_batch(
                output,
                _file_codes(found[output], grid),
                _on_grid(keras_output.astype(np.float64), grid),
                keras_output,
                _on_grid(twin_output.astype(np.float64), grid),
                None if label is None else np.asarray(label),
            )


def _file_codes(found: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns an output of the file as int8 codes, whatever its type."""
    if found.dtype == np.uint8:
        return found.astype(np.int64) - 128
    if found.dtype == np.float32:
        return _on_grid(found.astype(np.float64), grid)
    return found.astype(np.int64)
