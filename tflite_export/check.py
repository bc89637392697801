"""`check_model`: reports how a target will run a model, before it is trained."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np

import tf_lsq
from tf_lsq._compat import deep_recursion, keras
from tf_lsq.data import as_batch, as_pair, first_batch
from tf_lsq.graph import tf_keras_model
from tf_lsq.layers import PixelPoint
from tf_lsq.pixels import LARGEST_BYTE
from tf_lsq.training import (
    NarrowRange,
    is_calibrated,
    measured_narrow_ranges,
    pixel_points,
    quantization_points,
    set_first_values,
)

from .build import BuiltFile, FileSettings, build_file
from .file import runtime_of
from .freezing import IntegerWeight, Storage, read_model
from .targets import (
    Target,
    find_violations,
    option_problems,
    resolve_target,
    runs_on,
)

_EXAMPLES = 2  # Of random numbers.
_DATA_EXAMPLES = 256
_SEED = 0


@dataclasses.dataclass(frozen=True)
class OperatorCheck:
    """One operator of the file that the model would be exported to.

    Attributes:
        name: Name of its output.
        code: Operator.
        runs_on: The processor that runs it on the target.
        num_bits: Bits of its kernel, None without a kernel.
        container: Type that stores its kernel's codes, "" without a kernel.
    """

    name: str
    code: str
    runs_on: str
    num_bits: int | None = None
    container: str = ""


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """How a target runs a model.

    Attributes:
        model: Name of the model.
        target: Name of the target.
        storage: How codes would be stored.
        operators: The operators of the file, in order.
        problems: What the target, or this library, refuses, each with its remedy.
        remarks: What runs on the CPU instead of the target's device, and why; and,
            with data, tensors that use few codes of a grid that they share, each with
            its remedy.
        min_runtime: The runtimes that compute the file right; "" if there is no file.
    """

    model: str
    target: str
    storage: str
    operators: list[OperatorCheck] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    min_runtime: str = ""

    @property
    def ok(self) -> bool:
        """Whether the model can be quantized, exported and run."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        """Returns a readable table."""
        verdict = "runs on" if self.ok else "cannot run on"
        lines = [
            f"`{self.model}` {verdict} {self.target!r} with {self.storage} storage"
        ]
        width = max([len(op.name) for op in self.operators] + [8])
        if self.operators:
            lines.append(f"{'operator':<{width}}  {'':<24} bits  stored as  runs on")
        lines += [
            f"{op.name:<{width}}  {op.code:<24} {op.num_bits or '':>4}  "
            f"{op.container:<9}  {op.runs_on}"
            for op in self.operators
        ]
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [f"remark: {remark}" for remark in self.remarks]
        if self.min_runtime:
            lines.append(f"needs {self.min_runtime}")
        return "\n".join(lines)


def check_model(
    model: Any,
    *,
    target: str | None = None,
    storage: str = "int8",
    data: Any = None,
    **options: Any,
) -> CheckReport:
    """Reports how a target will run a model, before it is trained.

    A float model is quantized as by `quantize_model`, and a copy is calibrated on
    `data`, or on random numbers. Nothing is trained or written, and `model` is not
    changed.

    Args:
        model: A float model or a path, as for `quantize_model`; or a model that is
            already quantized.
        target: What the file will run on; None: "phone", or the target that `model`
            was quantized for.
        storage: As given to `export_model`.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`, of
            which the first 256 examples show the tensors that use few codes of a grid
            that they share. None: this is not checked. Nor is it if batch norms were
            never trained.
        **options: Other options of `quantize_model`, for a float model.

    Returns:
        Where each operator runs, how its kernel is stored, and what to change; it
        prints as a table.

    Raises:
        TypeError: If `model` is not a Keras model, or an option is unknown.
        ValueError: If `target` or `storage` is unknown or is not what a quantized
            model was quantized for, if options are given for a quantized model, or if
            `data` are constant or not finite.
    """
    settings = FileSettings(Storage(storage))
    model = tf_keras_model(model)
    points = quantization_points(model) if isinstance(model, keras.Model) else []
    resolved = resolve_target(target, points[0].target if points else target or "phone")
    name = getattr(model, "name", str(model))
    if points and options:
        received = ", ".join(f"`{name}`" for name in sorted(options))
        raise ValueError(
            "A quantized model must be checked without options. Received: "
            f"{received}. Pass the float model to try other options."
        )
    refused = functools.partial(CheckReport, name, resolved.name, storage)
    problems = option_problems(resolved, storage=storage)
    if problems:
        return refused(problems=problems)
    try:
        student = model
        if not points:
            with warnings.catch_warnings():
                # A problem here.
                warnings.filterwarnings("ignore", "A file has inputs of one size")
                student = tf_keras_model(
                    tf_lsq.quantize_model(model, target=resolved.name, **options)
                )
    except ValueError as error:
        return refused(problems=[str(error), *_dynamic_sizes(model)])
    dynamic = _dynamic_sizes(student)
    if dynamic:
        return refused(problems=dynamic)
    student, narrow = _with_steps(student, data)
    try:
        built = build_file(read_model(student), settings)
    except ValueError as error:
        return refused(problems=[str(error)])
    violations = find_violations(built.graph, resolved)
    return CheckReport(
        name,
        resolved.name,
        storage,
        operators=_operators(built, resolved),
        problems=[str(v) for v in violations if v.rule.refused],
        remarks=[
            *(str(v) for v in violations if not v.rule.refused),
            *map(str, narrow),
        ],
        min_runtime=runtime_of(built.graph),
    )


def _dynamic_sizes(model: Any) -> list[str]:
    """Returns a problem for every input with an unknown size, except the batch."""
    tensors = getattr(model, "inputs", None) or []
    names = getattr(model, "input_names", [tensor.name for tensor in tensors])
    return [
        f"`{name}` {tuple(tensor.shape)}: every size except the batch must be known "
        "when the file is written; give `input_shapes` to `export_model`, or build the "
        "model with a full `keras.Input(shape=...)`"
        for name, tensor in zip(names, tensors, strict=True)
        if None in tuple(tensor.shape)[1:]
    ]


def _with_steps(
    student: keras.Model, data: Any
) -> tuple[keras.Model, list[NarrowRange]]:
    """Returns a model whose steps have values, and what `data` show about its ranges.

    Args:
        student: A quantized model; if it has no steps, a copy is calibrated.
        data: See `check_model`; None: random numbers.
    """
    if is_calibrated(student):
        if data is None:
            return student, []
        data = as_pair(data, len(student.inputs))
        x = first_batch(data, student.input_names, _DATA_EXAMPLES)
        return student, measured_narrow_ranges(student, x)
    with deep_recursion():
        copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    if data is not None:
        return copy, set_first_values(copy, data, _DATA_EXAMPLES).narrow
    rng, pixels = np.random.default_rng(_SEED), pixel_points(copy)
    arrays = [
        _random(rng, tensor, pixels.get(name))
        for name, tensor in zip(copy.input_names, copy.inputs, strict=True)
    ]
    set_first_values(copy, as_batch(arrays, copy.input_names))
    return copy, []


def _random(
    rng: np.random.Generator, tensor: Any, point: PixelPoint | None
) -> np.ndarray:
    """Returns random values for an input: from -1 to 1, or those of random bytes."""
    shape, dtype = (_EXAMPLES, *tensor.shape[1:]), tensor.dtype
    if point is not None:
        pixels = rng.integers(0, LARGEST_BYTE + 1, shape)
        return point.pixel_grid.pixels.encode(pixels).astype(dtype.name)
    low = -1 if dtype.is_floating else 0
    return rng.uniform(low, 1, shape).astype(dtype.name)


def _operators(built: BuiltFile, target: Target) -> list[OperatorCheck]:
    """Returns how the target runs each operator."""
    nodes = built.frozen.by_name()
    parts = {part: node for node in nodes.values() for part in node.parts}
    checks = []
    for op in built.graph.ops:
        name = op.outputs[0]
        weight = None if name not in parts else parts[name].weight
        node = parts.get(name, nodes.get(name))
        checks.append(
            OperatorCheck(
                name if node is None else node.layer_name,
                op.code,
                runs_on(op, built.graph, target),
                weight.num_bits if isinstance(weight, IntegerWeight) else None,
                weight.container if isinstance(weight, IntegerWeight) else "",
            )
        )
    return checks
