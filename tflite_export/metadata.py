"""What travels with a file: how its integers were made, as JSON in its metadata.

Whoever receives the file can read the learned steps there, and see whether the codes
are still those that were exported.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import tensorflow as tf

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.layers import LSQWrapper

from .containers import Storage
from .freeze import FrozenModel, FrozenNode
from .grids import integer_bounds
from .tflite_graph import TFLiteGraph

METADATA_NAME = "tf_lsq"
FORMAT = 1


def describe(frozen: FrozenModel, graph: TFLiteGraph) -> dict[str, Any]:
    """Returns how the integers of a file were made, as plain data.

    Args:
        frozen: The model's numbers.
        graph: The file's graph.

    Returns:
        Versions, model, target and storage; and under "tensors", by the name of the
        tensor in the file: the layer, the bits, whether integers are signed, the
        trained step in the unit of the training graph, and for kernels also the
        container, the integers that trained codes, and those of the input, were
        multiplied with, and the SHA-256 of the codes as int8 in the order of the file.
    """
    tensors = {}
    for node in frozen.nodes:
        if node.point is not None and node.grid is not None:
            tensors[node.name] = _activation(node)
        if isinstance(node.node.model_layer, LSQWrapper) and not node.is_float:
            tensors[f"{node.name}/weight"] = _kernel(node, graph)
    return {
        "format": FORMAT,
        "versions": {
            "tf_lsq": tf_lsq.__version__,
            "tensorflow": tf.__version__,
            "tf_keras": keras.__version__,
        },
        "model": frozen.name,
        "target": frozen.target,
        "storage": frozen.storage.name,
        "bias_grid": frozen.storage.bias_grid,
        "tensors": tensors,
    }


def add_description(frozen: FrozenModel, graph: TFLiteGraph) -> None:
    """Puts into a file's graph how its integers were made.

    Args:
        frozen: The model's numbers.
        graph: The file's graph.
    """
    graph.description = f"{frozen.name}, quantized with tf_lsq {tf_lsq.__version__}"
    described = json.dumps(describe(frozen, graph), sort_keys=True)
    graph.metadata[METADATA_NAME] = described.encode()


def read(graph: TFLiteGraph) -> dict[str, Any] | None:
    """Returns the description that a file carries, None if it has none.

    Args:
        graph: The file's graph.

    Raises:
        ValueError: If the description cannot be read.
    """
    content = graph.metadata.get(METADATA_NAME)
    if content is None:
        return None
    try:
        found = json.loads(content)
        if found["format"] != FORMAT or not isinstance(found["tensors"], dict):
            raise ValueError(f"its format is {found['format']}, expected {FORMAT}")
        return found
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The metadata {METADATA_NAME!r} of the file must be a JSON object that "
            f"`export_model` wrote. Received: {type(error).__name__}: {error}."
        ) from error


def storage_of(graph: TFLiteGraph, name: str) -> Storage:
    """Returns how a file says that its codes are stored.

    Args:
        graph: The file's graph.
        name: How messages call the file.

    Raises:
        ValueError: If it does not say, or says something unknown.
    """
    found = read(graph)
    if found is None:
        raise ValueError(
            f"`{name}` must carry the metadata that `export_model` writes, so that it "
            "can be compared with a model. Received a file of another tool."
        )
    try:
        return Storage(found.get("storage", ""), found.get("bias_grid", ""))
    except ValueError as error:
        raise ValueError(
            f"The metadata of `{name}` must name the storage it was exported with: "
            f"{error}"
        ) from error


def code_hash(codes: np.ndarray) -> str:
    """Returns the SHA-256 of codes, as int8 in their order.

    Args:
        codes: Integers that fit int8.
    """
    return hashlib.sha256(np.ascontiguousarray(codes, np.int8).tobytes()).hexdigest()


def _activation(node: FrozenNode) -> dict[str, Any]:
    """Returns what was trained of an activation tensor."""
    q_min, _ = integer_bounds(node.point)
    found = {
        "kind": "activation",
        "layer": node.point.name,
        "bits": node.point.num_bits,
        "signed": q_min < 0,
        "step": float(node.point.step.numpy()),
    }
    # Others begin at 0 or at -2^(b-1).
    return found | {"smallest": q_min} if node.point.quantizer.asymmetric else found


def _kernel(node: FrozenNode, graph: TFLiteGraph) -> dict[str, Any]:
    """Returns what was trained of a kernel."""
    tensor = graph.tensors[f"{node.name}/weight"]
    steps = np.ravel(node.node.model_layer.step.numpy()).astype(float).tolist()
    return {
        "kind": "kernel",
        "layer": node.layer.name,
        "bits": node.weight.num_bits,
        "signed": True,
        "step": steps[0] if len(steps) == 1 else steps,
        "container": tensor.dtype,
        "multiplier": node.weight.multiplier,
        "widening": node.weight.widening,
        "sha256": code_hash(tensor.data),
    }
