"""`export_model`: freeze, integerize, write, verify, in this order."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np

import tf_lsq
from tf_lsq._compat import keras

from . import flatbuffer, metadata
from .edgetpu_compiler import ONLY_RULES, compile_for_edgetpu
from .freeze import FrozenModel, Storage, freeze_model
from .integerize import integerize
from .op_versions import runtime_of
from .report import ExportReport, LayerReport, VerificationReport
from .targets import check_graph, resolve_target
from .tflite_graph import TFLiteGraph
from .verify import verify_content


def export_model(
    model: keras.Model,
    path: str | Path,
    *,
    storage: str = "int8",
    bias_grid: str = "own",
    input_type: str = "int8",
    output_type: str = "int8",
    target: str | None = None,
) -> ExportReport:
    """Writes a trained model as a full-integer `.tflite` file.

    The bytes are checked against the model before the file appears under its
    name: every tensor, and every weight code. `verify_tflite` runs it on data.

    Args:
        model: A model made by `tf_lsq.quantize_model`, trained or calibrated.
        path: The file to write; it is replaced in one step.
        storage: "int8": one byte per weight code, the fastest on a CPU. "packed":
            INT4 for kernels of up to 4 bits, INT2 for those of fully connected
            layers with 2 bits, where the target can. "auto": packed where that costs
            no time on the target.
        bias_grid: "own": biases on the finest grid that each container can hold.
            "packed": on that of the packed container in any storage, so that files
            of all storages compute the same integers.
        input_type: Type of the file's inputs: "int8", "uint8" or "float32".
        output_type: Type of its outputs.
        target: What the file will run on; None: what the model was quantized
            for.

    Returns:
        What was written; prints as a table.

    Raises:
        TypeError: If `model` is no tf_keras model.
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
    _check_writable(path)
    frozen = freeze_model(model, stored)
    resolved = resolve_target(target, frozen.target)
    graph = integerize(frozen, input_type=input_type, output_type=output_type)
    on_cpu = [str(violation) for violation in check_graph(graph, resolved)]
    graph.description = f"{model.name}, quantized with tf_lsq {tf_lsq.__version__}"
    described = metadata.to_bytes(metadata.describe(frozen, graph))
    graph.metadata[metadata.METADATA_NAME] = described
    content = flatbuffer.to_bytes(graph)
    _, _, verification = verify_content(content, model, name=str(path))
    mapping = None
    if resolved.name == "edgetpu":
        mapping = compile_for_edgetpu(content)
        mapping = [ONLY_RULES] if mapping is None else [*map(str, mapping)]
    _write_atomically(path, content)
    report = _report(path, content, resolved.name, storage, frozen, graph, verification)
    return dataclasses.replace(report, on_cpu=on_cpu, compiler=mapping or [])


def _check_writable(path: Path) -> None:
    """Refuses paths that cannot be written, before any work is done."""
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must be a file. Received the directory {str(path)!r}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The directory of `path` must exist. Received: {str(path)!r}."
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"The directory of `path` must be writable. Received: {str(path)!r}."
        )


def _write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is either complete or not there."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_default_mode())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _default_mode() -> int:
    """Returns the mode that `open` would give a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _report(
    path: Path,
    content: bytes,
    target: str,
    storage: str,
    frozen: FrozenModel,
    graph: TFLiteGraph,
    verification: VerificationReport,
) -> ExportReport:
    """Returns what was written."""
    layers = []
    for node in frozen.nodes:
        if node.weight is None:
            continue
        weight = graph.tensors[f"{node.name}/weight"]
        bias = graph.tensors.get(f"{node.name}/bias")
        constants = [weight] if bias is None else [weight, bias]
        sign = node.weight.sign
        layers.append(
            LayerReport(
                name=node.name,
                kind=node.kind,
                num_bits=node.weight.num_bits,
                container=weight.dtype,
                num_codes=int(weight.data.size),
                num_channels=0 if bias is None else int(bias.data.size),
                num_bytes=sum(tensor.num_bytes for tensor in constants),
                multiplier=node.weight.multiplier,
                constant_channels=0 if sign is None else int(np.sum(sign == 0)),
                remark=node.weight.remark,
            )
        )
    return ExportReport(
        path=str(path),
        file_bytes=len(content),
        target=target,
        storage=storage,
        min_runtime=runtime_of(graph),
        operators=dict(collections.Counter(op.code for op in graph.ops)),
        float_layers=[node.name for node in frozen.nodes if node.is_float],
        layers=layers,
        verification=verification,
    )
