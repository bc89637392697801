"""Verifies a `.tflite` file against the model it was exported from.

There are three checks, each with its own evidence:

    structure   the file is, tensor by tensor, what this model exports to, and LiteRT
                loads it
    weights     every code is the trained code times sign times multiplier
    points      each operator, given the file's own integers, computes the integers
                that the training graph would

and end to end: the file classifies like the Keras model, and `CompiledModel`, which new
apps run it by, computes the same as the interpreter.

The file runs on this machine. What the target's runtime will compute is predicted by
its integer twin, and compared in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_lsq._compat import keras
from tf_lsq.data import as_data, first_examples

from ..build import BuiltFile, build_file, settings_of
from ..errors import VerificationError
from ..file import Additions, Labels, from_bytes, read_labels
from ..freezing import (
    FrozenModel,
    InputShapes,
    Storage,
    TrainedModel,
    at_shapes,
    check_quantized,
    freeze_model,
    read_model,
)
from ..reports import Prediction, VerificationReport
from ..runtimes import check_accelerator, this_machine
from ..targets import TARGETS
from ..twin import target_runtime
from .compiled import compare_compiled
from .end_to_end import BATCH_SIZE, compare_end_to_end
from .points import compare_points, predict_points, probe_codes
from .structure import (
    compare_description,
    compare_standard_metadata,
    compare_structure,
    find_load_errors,
)
from .weights import compare_weights


def verify_tflite(
    path: str | Path,
    model: keras.Model,
    data: Any = None,
    *,
    storage: str | None = None,
    bias_grid: str | None = None,
    labels: Labels | Mapping[str, Labels] | None = None,
    point_examples: int = BATCH_SIZE,
    accelerator: str = "cpu",
    verbose: bool = True,
) -> VerificationReport:
    """Verifies that a file equals the quantized model it was exported from.

    Args:
        path: A `.tflite` file written by `export_model`.
        model: The trained model.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`. None: only
            structure and weights are checked.
        storage: As given to `export_model`; needed for a file without metadata.
        bias_grid: The same; None: "own", or what the metadata say.
        labels: The labels that the file must have, as for `export_model`; None: any, if
            its standard metadata are whole.
        point_examples: How many of the first examples to check each quantization point
            with; the end-to-end check uses all of `data`.
        accelerator: What runs the file on `data`: "cpu", or "gpu" by LiteRT's
            `CompiledModel`, which needs a driver of Vulkan, Metal or Direct3D. A GPU
            computes in floating point, so its codes may differ by one from those of
            the CPU, and nothing is predicted for the target.
        verbose: Whether to show progress.

    Returns:
        What was compared and how close it was.

    Raises:
        VerificationError: If the file differs from the model: in its structure or a
            weight code, in its labels or normalizations, or by more than 1 in a code at
            a quantization point.
        ValueError: If the file cannot be read, `labels` do not fit its outputs, or
            `accelerator` is unknown, or "gpu" without data.
        OSError: If `path` cannot be opened.
        RuntimeError: If this machine has no GPU that LiteRT can use, or the file has
            operators that LiteRT's GPU accelerator does not run, such as INT4
            convolutions.
    """
    check_accelerator(accelerator)
    if accelerator != "cpu" and data is None:
        raise ValueError(
            f"`data` must be given to run a file with accelerator={accelerator!r}. "
            "Received: None."
        )
    content, name = Path(path).read_bytes(), str(path)
    model = check_quantized(model)
    model = at_shapes(model, _shapes_of(content, model))
    trained = read_model(model)
    graph = from_bytes(content)
    asked = Additions(labels=read_labels(labels, [*graph.outputs]))
    settings = settings_of(graph, name, storage, bias_grid)
    built = build_file(trained, dataclasses.replace(settings, additions=asked))
    report = verify_content(content, built, name)
    if data is None:
        return report
    data = as_data(data, len(model.inputs))
    examples = first_examples(data, model.input_names, point_examples)
    int8 = built.frozen
    if built.settings.storage != Storage():
        int8 = freeze_model(trained, Storage(), built.settings.grouped)
    built = dataclasses.replace(built, graph=graph, content=content)
    return verify_on_data(
        report,
        built,
        int8,
        model,
        data,
        examples,
        name,
        accelerator=accelerator,
        verbose=verbose,
    )


def verify_on_data(
    report: VerificationReport,
    built: BuiltFile,
    int8: FrozenModel,
    model: keras.Model,
    data: Any,
    examples: list[np.ndarray],
    name: str,
    *,
    accelerator: str = "cpu",
    statistics: bool = False,
    verbose: bool,
) -> VerificationReport:
    """Runs a file on data, and predicts what the target's runtime will compute.

    Args:
        report: What is known without data.
        built: The file.
        int8: The numbers of the model's file with int8 storage.
        model: The trained model.
        data: For the comparison end to end.
        examples: For the comparison of every tensor, one array per input.
        name: Name of the file in messages.
        accelerator: As for `verify_tflite`.
        statistics: See `compare_points`.
        verbose: Whether to show progress.

    Raises:
        VerificationError: If a code is off by more than 1 at a quantization point, or
            will be, or if `CompiledModel` computes otherwise.
        RuntimeError: As for `verify_tflite`.
    """
    frozen, target = built.frozen, TARGETS[built.frozen.target]
    on_cpu = accelerator == "cpu"
    predictable = target.predictable and on_cpu
    runtime = target_runtime(target.name) if predictable else None
    codes = probe_codes(built.graph, frozen, examples, accelerator=accelerator)
    where = name if on_cpu else f"{name} on the {accelerator.upper()}"
    points = compare_points(frozen, codes, where, statistics=statistics)
    compiled = compare_compiled(built, codes, examples, name, accelerator)
    prediction = None
    if runtime is not None:
        prediction = Prediction(
            runtime=runtime.name,
            points=predict_points(frozen, codes, points, runtime, name),
        )
    found = compare_end_to_end(
        built, int8, model, data, runtime, accelerator=accelerator, verbose=verbose
    )
    if prediction is not None:
        prediction = dataclasses.replace(prediction, outputs=found.predicted)
    return dataclasses.replace(
        report,
        runtime=this_machine().name if on_cpu else f"{accelerator}, {found.device}",
        compiled_codes=compiled.num_codes if on_cpu else None,
        compiled_refusal=compiled.refusal,
        points=points,
        outputs=found.measured,
        prediction=prediction,
    )


def _shapes_of(content: bytes, model: keras.Model) -> InputShapes | None:
    """Returns the shapes of a file's inputs for a model with sizes of None."""
    if not any(None in tensor.shape[1:] for tensor in model.inputs):
        return None
    graph = from_bytes(content)
    return {
        name: graph.tensors[tensor].shape[1:]
        for name, tensor in graph.inputs.items()
        if name in model.input_names
    }


def rebuild(content: bytes, trained: TrainedModel, name: str) -> BuiltFile:
    """Builds the file of a model with the settings of another file.

    Args:
        content: The bytes of that file.
        trained: The numbers of the model.
        name: Name of the file in messages.

    Raises:
        ValueError: If the bytes are not a readable file from this library.
    """
    return build_file(trained, settings_of(from_bytes(content), name))


def verify_content(content: bytes, built: BuiltFile, name: str) -> VerificationReport:
    """Verifies structure and weights of a file's bytes.

    Args:
        content: The bytes of the file.
        built: The file that the model exports to with the same settings.
        name: Name of the file in messages.

    Returns:
        A report without data.

    Raises:
        VerificationError: If the file differs from the model.
        ValueError: If the bytes are not a readable file.
    """
    graph = from_bytes(content)
    mismatches = compare_structure(graph, built)
    equal, total, wrong = compare_weights(graph, built.frozen)
    if not mismatches and not wrong:
        mismatches = compare_description(graph, built)
        mismatches += compare_standard_metadata(graph, built)
        mismatches = mismatches or find_load_errors(graph, content)
    if mismatches or wrong:
        raise VerificationError(f"`{name}`", mismatches + wrong)
    return VerificationReport(weight_codes=total, equal_codes=equal)
